"""What the rules choose for data sets described by hand, and what they leave to the user."""

import math
from dataclasses import replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from segnet.errors import UserError
from segnet.recipe import rules
from segnet.recipe.budget import MOST, Budget, Speed, Task
from segnet.recipe.fingerprint import Fingerprint
from segnet.recipe.plan import Case

TEXTURE = Fingerprint(
    images={"train": 700, "val": 150, "test": 150}, looked=160, height=300, width=300, one_size=True, largest=90_000,
    classes=["defect"], shares=[0.97, 0.03], shown=[1.0, 1.0], empty=0.0, thickness=[200.0, 20.0], objects=1.0,
    object_side=[10.0, 30.0, 90.0], grey=0.0, neighbours=1.0, vertical=0.0, horizontal=0.0, lying=0.0, decode=0.002,
)  # fmt: skip
HAIRLINES = replace(TEXTURE, height=3000, width=4000, thickness=[900.0, 3.0])
STREETS = replace(
    TEXTURE, height=360, width=480, classes=["sky", "pole", "road"], shares=[0.4, 0.1, 0.5], shown=[1.0, 1.0, 1.0],
    thickness=[30.0, 2.0, 90.0], vertical=14.0, horizontal=0.4, lying=0.5, neighbours=0.3,
)  # fmt: skip
TEN = replace(TEXTURE, images={"train": 7, "val": 1, "test": 2})
SLOW = Speed(0.75e-6, 0.1, 0.25e-6)  # two cores


def chosen(data, budget=None, named=None):
    """Overrides by key, and the plan."""
    choices, plan = rules.choose(Case(data, budget or Budget(), named or {}))
    assert all(choice.reason for choice in choices)
    overrides = [choice.override for choice in choices if choice.override]
    OverridesParser.create().parse_overrides(overrides)
    return dict(override.split("=", 1) for override in overrides), plan


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TEXTURE, {"data.image_size": "224", "data.crop": None, "data.batch_size": "8", "data.positive_share": None}),
        (replace(TEXTURE, height=200, width=260), {"data.image_size": "[200,260]"}),
        (replace(TEXTURE, shown=[1.0, 0.3], empty=0.7), {"data.positive_share": "0.8"}),
        (replace(STREETS, empty=0.8), {"data.positive_share": "0.8"}),
        (STREETS, {"data.positive_share": None}),
        (HAIRLINES, {"data.crop": "224", "data.image_size": None, "data.scale": None, "data.positive_share": None}),
        (replace(HAIRLINES, thickness=[900.0, 25.0]), {"data.crop": "224", "data.scale": "0.1"}),
        (replace(HAIRLINES, thickness=[900.0, 250.0]), {"data.image_size": "[192,272]", "data.crop": None}),
        (STREETS, {"data.image_size": "[192,272]", "data.crop": None}),  # one class of three is lost
        (replace(TEXTURE, height=20, width=90), {"data.image_size": "[32,90]"}),
        (TEN, {"data.batch_size": "4", "data.image_size": "300"}),
    ],
)
def test_the_size_of_inputs_and_what_is_drawn(data, expected):
    found, _ = chosen(data)
    assert {key: found.get(key) for key in expected} == expected
    assert {"loss": "bce_dice", "optimizer": "muon", "scheduler": "onecycle"}.items() <= found.items()


@pytest.mark.parametrize(
    ("data", "named", "told"),
    [
        (replace(TEXTURE, shown=[1.0, 0.3]), {}, True),
        (replace(TEXTURE, shown=[1.0, 0.3]), {"model.loss": {}}, False),
        (TEXTURE, {}, False),
        (STREETS, {}, False),
    ],
)
def test_a_loss_for_small_defects_is_named_where_images_are_inspected(data, named, told):
    choices, _ = rules.choose(Case(data, Budget(), named))
    assert any("loss=small_defects" in choice.reason for choice in choices) == told
    assert not any("small_defects" in choice.override for choice in choices)


@pytest.mark.parametrize(("epochs", "schedule"), [(1, "constant"), (3, "constant"), (4, "onecycle")])
def test_a_schedule_needs_some_steps(epochs, schedule):
    found, plan = chosen(TEN, named={"trainer.max_epochs": epochs})  # two steps an epoch
    assert (plan.steps, found["scheduler"]) == (2 * epochs, schedule)


@pytest.mark.parametrize(
    ("data", "there", "missing"),
    [
        (TEXTURE, ["SquareSymmetry", "ColorJitter"], ["HorizontalFlip", "VerticalFlip"]),
        (replace(TEXTURE, grey=1.0), ["RandomBrightnessContrast"], ["ColorJitter"]),
        (STREETS, ["HorizontalFlip"], ["VerticalFlip", "SquareSymmetry"]),
        (replace(TEXTURE, lying=0.6), ["HorizontalFlip", "VerticalFlip"], ["SquareSymmetry"]),
        (replace(TEXTURE, width=400), ["HorizontalFlip", "VerticalFlip"], ["SquareSymmetry"]),
        (replace(STREETS, horizontal=3.0), ["ColorJitter"], ["HorizontalFlip", "VerticalFlip", "SquareSymmetry"]),
        (
            replace(TEXTURE, vertical=math.nan, horizontal=math.nan, lying=math.nan),  # too few images
            ["HorizontalFlip"],
            ["VerticalFlip", "SquareSymmetry"],
        ),
    ],
)
def test_labels_stay_true(data, there, missing):
    augment = chosen(data)[0]["data.augment"]
    assert [name for name in there if name not in augment] == []
    assert [name for name in missing if name in augment] == []


def test_named_settings_hold_and_others_follow_them():
    free, _ = chosen(TEXTURE)
    found, plan = chosen(TEXTURE, named={"data.image_size": 112, "model.loss": {}, "data.batch_size": 16})
    assert not {"data.image_size", "loss", "data.batch_size"} & set(found)
    assert (plan.size, plan.batch) == ((112, 112), 16)
    assert int(found["trainer.max_epochs"]) == pytest.approx(4 * int(free["trainer.max_epochs"]), rel=0.1)
    found, plan = chosen(STREETS, named={"data.crop": [96, 128], "data.crops_per_epoch": 40})
    assert (plan.size, plan.crop) == ((360, 480), (96, 128))
    assert not {"data.image_size", "data.crop", "data.crops_per_epoch"} & set(found)
    found, plan = chosen(TEXTURE, named={"trainer.max_epochs": 12})
    assert "trainer.max_epochs" not in found
    assert plan.length.epochs == 12


@pytest.mark.parametrize(
    "named",
    [
        {"data.positive_share": 0.5},
        {"data.device_cache": True},
        {"data.augment": [{"_target_": "albumentations.RandomCrop", "height": 256, "width": 256}]},
        {"data.augment": [{"transforms": [{"_target_": "albumentations.RandomResizedCrop", "size": [64, 64]}]}]},
    ],
)
def test_what_crops_are_refused_beside_keeps_images_whole_and_says_what_is_lost(named):
    choices, plan = rules.choose(Case(HAIRLINES, Budget(), named))
    assert plan.crop is None
    assert any(choice.reason == "1 of 1 classes become thinner than 2 pixels" for choice in choices)
    streets = rules.choose(Case(STREETS, Budget()))[0]
    assert any("thinner than 2 pixels; data.crop=256 keeps them" in choice.reason for choice in streets)
    assert chosen(HAIRLINES, named={"data.positive_share": None, "data.device_cache": "auto"})[1].crop is not None


def test_what_is_named_null_is_the_default_and_an_endless_run_is_refused():
    found, plan = chosen(HAIRLINES, named={"data.crop": None})
    assert (found["data.image_size"], plan.crop, "data.crop" in found) == ("[192,272]", None, False)
    found, plan = chosen(TEXTURE, named={"data.image_size": None})
    assert (plan.size, "data.image_size" in found) == ((480, 480), False)
    with pytest.raises(UserError, match=r"trainer\.max_epochs=-1: .* name the number of epochs"):
        chosen(TEXTURE, named={"trainer.max_epochs": -1})


@pytest.mark.parametrize(
    "data", [TEXTURE, HAIRLINES, STREETS, replace(TEXTURE, images={"train": 7, "val": 1, "test": 2})]
)
@pytest.mark.parametrize("minutes", [2, 5, 20, 120])
def test_what_is_planned_takes_the_time_and_ends_with_a_validation(data, minutes):
    data = replace(data, images={"train": 70, "val": 10, "test": 10} if data is HAIRLINES else data.images)
    found, plan = chosen(data, Budget(seconds=60 * minutes, speed=SLOW, cores=2))
    epochs, every, batch = (
        int(found["trainer.max_epochs"]),
        int(found.get("trainer.check_val_every_n_epoch", 1)),
        plan.batch,
    )
    assert epochs % every == 0
    views = int(found.get("data.crops_per_epoch", data.images["train"]))
    steps = int(found.get("trainer.limit_train_batches", -(-views // batch)))
    height, width = plan.input
    training = epochs * steps * (batch * height * width * SLOW.pixel + SLOW.step)
    assert training < 60 * minutes
    few = data.images["train"] == 7 and minutes > 5
    assert few or training > 0.4 * 60 * minutes
    assert plan.length.stop < 60 * minutes
    assert epochs <= MOST or plan.crop
    assert 1 <= epochs // every <= 10


def test_a_set_that_is_too_large_is_shown_in_parts():
    large = replace(TEXTURE, images={"train": 70_000, "val": 15_000, "test": 15_000}, decode=0.0001)
    found, plan = chosen(large, Budget(seconds=600, speed=SLOW, cores=2))
    assert int(found["trainer.limit_train_batches"]) * 8 * int(found["trainer.max_epochs"]) < 70_000
    assert {"trainer.limit_val_batches", "trainer.limit_test_batches"} <= set(found)
    assert found["own_size"] == "false"
    assert plan.length.seconds < 600


def test_frames_are_told():
    told = [choice.reason for choice in rules.choose(Case(STREETS, Budget()))[0]]
    assert any("data.split.group" in reason for reason in told)
    for other in (Case(TEXTURE, Budget()), Case(STREETS, Budget(), by_hash=False)):
        assert not any("data.split.group" in choice.reason for choice in rules.choose(other)[0])


@pytest.mark.parametrize(("epochs", "validations"), [(40, 10), (23, 23), (143, 11), (26, 2), (1, 1), (7, 7)])
def test_a_named_number_of_epochs_has_several_validations_the_last_at_its_end(epochs, validations):
    task = Task((128, 128), (128, 128), False, 8, 100, 400)
    length = Budget().length(TEXTURE, task, epochs)
    assert (length.epochs, length.validations, length.every * length.validations) == (epochs, validations, epochs)
