"""The rules of ``experiment=auto``: what they look at, what they choose, and the measurement that made each of them.

Every rule takes the `Case` and the `Plan` so far, puts what later rules need into the plan, and yields its choices. A
setting that the user names holds: the plan takes its value, and the rule's own choice is dropped. docs/recipe.md has
the measurements with their commands.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from segnet.errors import UserError
from segnet.recipe.budget import MOST, Task
from segnet.recipe.input_size import input_size
from segnet.recipe.plan import Case, Choice, Plan, multiple

GROUPS = {"loss": "model.loss", "optimizer": "model.optimizer", "scheduler": "model.scheduler"}  # as they are named
ROUNDS = 20  # epochs of crops
FEW = 8  # steps of a run
Rule = Callable[[Case, Plan], Iterator[Choice]]


def batch_size(case: Case, plan: Plan) -> Iterator[Choice]:
    """Eight, as in every recipe that won (CamVid, tiles); fewer where a step would be most of a small split."""
    if "data.batch_size" in case.named:
        plan.batch = int(case.named["data.batch_size"])
        return
    train = case.data.images["train"]
    plan.batch = 8 if plan.crop else max(1, min(8, math.ceil(train / 2)))
    yield Choice(
        f"data.batch_size={plan.batch}", "as in the recipes that won" if plan.batch == 8 else f"half of {train} images"
    )


def rare_images(case: Case, plan: Plan) -> Iterator[Choice]:
    """Images with the defect, or with any class but the background, come in eight of ten draws where fewer than seven
    of ten show it.

    Tiles, 31 % of which show a defect, 12 epochs: null 0.00, share 0.5 0.25, share 0.8 0.46 (docs/experiments.md).
    """
    share = case.data.shown[1] if case.binary else 1 - case.data.empty
    if plan.crop:
        yield Choice("", "data.crop_share says how many crops lie around a rare class")
    elif 0 < share < 0.7:
        what = case.data.classes[0] if case.binary else f"more than {case.data.classes[0]}"
        yield Choice("data.positive_share=0.8", f"{share:.0%} of the images show {what}")


def loss(case: Case, plan: Plan) -> Iterator[Choice]:
    """Cross-entropy and Dice: CamVid 0.377, against 0.349 without Dice, 0.350 focal, 0.305 Lovász.

    Where images are inspected for a defect that most do not show, ``small_defects`` is named, not taken: in 27 epochs
    of the tiles escapes fall from 60 to 4 %, in 10 the AUROC over images rises by 0.1 and the IoU falls by 0.04.
    """
    yield Choice("loss=bce_dice", "cross-entropy and Dice: pixels and overlap")
    if case.binary and 0 < case.data.shown[1] < 0.7 and "model.loss" not in case.named:
        yield Choice("", "if small defects must not escape: loss=small_defects finds more of them, given time")


def class_weights(case: Case, plan: Plan) -> Iterator[Choice]:
    """None: median-frequency weights cost CamVid 0.05 of mean IoU, their square roots 0.01; tiles 0.16 at share 0.8."""
    yield Choice("", "no class weights (model.class_weights): they cost mean IoU wherever they were measured")


def augmentation(case: Case, plan: Plan) -> Iterator[Choice]:
    """Crops, and mirror images and quarter turns where orientation carries nothing.

    It carries something where classes lie steadily above or below the middle (CamVid: 14 deviations; DRIVE, NEU-seg,
    tiles, CrackForest: none); a side must be much steadier to count, because streets have one too. Quarter turns need a
    square input and borders in no steady direction. Crops of half to whole images cost CamVid 0.12 in 16 epochs and
    bring most in 109. Jitter of colour and brightness brings 0.004 and costs nothing.
    """
    data, size = case.data, plan.input
    steps, why = [], []
    rounds = case.budget.pixels / (size[0] * size[1]) / data.images["train"]
    upside, sides = data.vertical < 0.7, not data.horizontal >= 1.5  # NaN, too few images to tell: as most images are
    turns = data.lying < 0.35 and size[0] == size[1]
    if upside and sides and turns:
        steps.append("{_target_:albumentations.SquareSymmetry,p:1.0}")
        why.append("flips and quarter turns, because classes lie anywhere and run in every direction")
    else:
        for name, text, keep in (("Horizontal", "from left to right", sides), ("Vertical", "upside down", upside)):
            steps += [f"{{_target_:albumentations.{name}Flip,p:0.5}}"] if keep else []
            why.append(f"{'' if keep else 'not '}{text}")
        why += ["too few images to tell more"] if math.isnan(data.vertical) else []
    if not plan.crop and rounds >= 80 and min(size) >= 256:
        height, width = plan.part = (multiple(0.8 * size[0]), multiple(0.8 * size[1]))
        steps.append(f"{{_target_:albumentations.RandomResizedCrop,size:[{height},{width}],scale:[0.3,1.0]}}")
        why.append(f"parts of three tenths to the whole, as every image comes {rounds:.0f} times")
    if data.grey == 1:
        steps.append(
            "{_target_:albumentations.RandomBrightnessContrast,brightness_limit:0.15,contrast_limit:0.15,p:0.5}"
        )
        why.append("brightness and contrast of grey images")
    else:
        light = "brightness:[0.7,1.3],contrast:[0.7,1.3],saturation:[0.7,1.3],hue:[-0.05,0.05]"
        steps.append(f"{{_target_:albumentations.ColorJitter,{light},p:0.5}}")
        why.append("colours")
    yield Choice(f"data.augment=[{','.join(steps)}]", "; ".join(why))


def optimizer(case: Case, plan: Plan) -> Iterator[Choice]:
    """Muon: CamVid 0.487 and 0.509 against 0.430 with SGD, tiles 0.808 against 0.730; the largest gain of all."""
    yield Choice("optimizer=muon", "learns most from each image")


def schedule(case: Case, plan: Plan) -> Iterator[Choice]:
    """OneCycle over the whole run, gradients clipped: what every recipe that won has; its end makes the figure.

    On DRIVE the vessels have 0.09 after a fifth of the steps, 0.46 after half, 0.61 at the end.
    """
    if plan.steps < FEW:
        yield Choice("scheduler=constant", f"{plan.steps} steps are too few for a warm-up and a descent")
    else:
        yield Choice("scheduler=onecycle", "one warm-up and one descent over exactly this run")
    yield Choice("trainer.gradient_clip_val=1.0", "goes with it")


def epochs(case: Case, plan: Plan) -> Iterator[Choice]:
    """As many as the time allows, or as show the pixels of the default budget; at most 400, whatever the time.

    DRIVE: 120 epochs of 14 crops reach 0.615. An epoch of a large set is cut into parts, so that there are validations.
    """
    named, train, (height, width) = case.named, case.data.images["train"], plan.input
    given, views, most = named.get("trainer.max_epochs"), train, MOST
    if given is not None and given < 0:
        raise UserError(
            f"trainer.max_epochs={given}: experiment=auto trains by a schedule that comes to an end; name the number "
            f"of epochs, or leave it out"
        )
    if plan.crop:
        most = max(1, MOST * plan.size[0] * plan.size[1] // (height * width))  # a crop is a part of an image
        total = min(case.budget.pixels / (height * width), most * train)
        views = int(named.get("data.crops_per_epoch") or max(1, round(total / ROUNDS / plan.batch)) * plan.batch)
        most = max(1, most * train // views)
        yield Choice(f"data.crops_per_epoch={views}", f"crops of {train} images; some {ROUNDS} epochs")
    plan.views = views
    task = Task(plan.size, plan.input, plan.crop is not None, plan.batch, views, most)
    length = plan.length = case.budget.length(case.data, task, given)
    if given is None:
        yield Choice(f"trainer.max_epochs={length.epochs}", length.reason)
    if length.steps is not None:
        yield Choice(
            f"trainer.limit_train_batches={length.steps}",
            f"an epoch is {length.steps} steps, other images in each: all {train} take too long",
        )


def validation(case: Case, plan: Plan) -> Iterator[Choice]:
    """Ten times a run, rarer where that takes more than an eighth of the time: OneCycle is best at its end anyway."""
    assert plan.length is not None
    every, count = plan.length.every, plan.length.validations
    if every > 1:
        yield Choice(f"trainer.check_val_every_n_epoch={every}", f"{count} validation{'s' if count > 1 else ''} in all")
    if plan.length.validated is not None:
        batches = plan.length.validated
        reason = f"the first {batches * (1 if plan.crop else plan.batch)} validation images; all take too long"
        yield Choice(f"trainer.limit_val_batches={batches}", reason)
    if plan.length.tested is not None:
        batches = plan.length.tested
        yield Choice(f"trainer.limit_test_batches={batches}", "so many batches of the test images, likewise")
    if not plan.length.own_size:
        yield Choice("own_size=false", "a second pass over validation and test images takes too long")


def end(case: Case, plan: Plan) -> Iterator[Choice]:
    """No early end: OneCycle's best epochs are its last. With ``minutes`` a stop that only a misjudged time needs."""
    assert plan.length is not None
    if plan.length.stop is None:
        yield Choice("", "no early end: the schedule is best at its end (callbacks=early_stopping would cut that off)")
        return
    minutes, seconds = divmod(plan.length.stop, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    yield Choice(
        f"trainer.max_time={days:02d}:{hours:02d}:{minutes:02d}:{seconds:02d}",
        "a stop in case that the machine becomes slower; the schedule should end before",
    )


def neighbours(case: Case, plan: Plan) -> Iterator[Choice]:
    """Images that follow each other look alike (CamVid 0.30, tiles 0.45, DRIVE and cables 1.0): said, not settled.

    Where folders or lists say which image is in which split, that is settled.
    """
    if case.data.neighbours < 0.5 and case.by_hash and "data.split.group" not in case.named:
        yield Choice(
            "",
            f"images that follow each other by name differ {case.data.neighbours:.2g} times as much as others: if they "
            f"show one object or scene, 'data.split.group=\"<regular expression>\"' keeps them in one split",
        )


RULES: Sequence[Rule] = (
    input_size, batch_size, rare_images, loss, class_weights, augmentation, optimizer, epochs, schedule, validation,
    end, neighbours,
)  # fmt: skip


def choose(case: Case) -> tuple[list[Choice], Plan]:
    """What all rules choose, without what the user has named."""
    plan = Plan()
    choices = [choice for rule in RULES for choice in rule(case, plan)]
    return [choice for choice in choices if not _is_named(choice.override.partition("=")[0], case.named)], plan


def _is_named(key: str, named: Mapping[str, Any]) -> bool:
    return GROUPS.get(key, key) in named
