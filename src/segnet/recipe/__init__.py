"""``experiment=auto``: what a data set is like, and the training recipe that rules choose for it."""

from collections.abc import Sequence

from segnet.recipe import rules
from segnet.recipe.budget import Budget
from segnet.recipe.fingerprint import Fingerprint
from segnet.recipe.plan import Case
from segnet.recipe.record import Recipe
from segnet.recipe.survey import Survey

__all__ = ["Recipe", "Survey", "propose"]


def propose(seen: Fingerprint, given: Sequence[str] = (), gpu: bool = False) -> Recipe:
    """What ``train.py experiment=auto`` would choose without ``minutes``; nothing is trained.

    Args:
        seen: what the data are like, see `Survey`.
        given: overrides that describe the data, which `Recipe.command` repeats.
        gpu: whether a GPU is to train.
    """
    choices, plan = rules.choose(Case(seen, Budget(gpu), gpu=gpu))
    return Recipe(seen, choices, plan, {}, given=given)
