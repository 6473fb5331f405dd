"""``experiment=auto``: what a data set is like, and the training recipe that rules choose for it."""

from collections.abc import Sequence

from segnet.data.segmentation_data import SegmentationData
from segnet.recipe import fingerprint, rules
from segnet.recipe.budget import Budget
from segnet.recipe.plan import Case
from segnet.recipe.record import Recipe

__all__ = ["Recipe", "propose"]


def propose(data: SegmentationData, given: Sequence[str] = (), gpu: bool = False) -> Recipe:
    """What ``train.py experiment=auto`` would choose without ``minutes``; nothing is trained.

    Args:
        data: after its ``setup``, with training images.
        given: overrides that describe the data, which `Recipe.command` repeats.
        gpu: whether a GPU is to train.
    """
    seen = fingerprint.measure(data)
    choices, plan = rules.choose(Case(seen, Budget(gpu), gpu=gpu))
    return Recipe(seen, choices, plan, {}, given=given)
