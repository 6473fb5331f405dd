"""``experiment=auto``: what is chosen stands in the run as if it had been typed, and what is typed holds."""

import json
import shlex
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from helpers import SMALL, call_main

QUICK = [word for word in SMALL if not word.startswith(("trainer.max_epochs", "data.image_size"))]


def overrides_of(run):
    return yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())


def weights_of(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def auto(shared, cable, cache):
    """A run of ``experiment=auto`` with some settings named."""

    def train(out):
        given = [
            *SMALL, "~callbacks.panels", "experiment=auto", "loss=focal", "model.optimizer.lr=0.01", "data=folder",
            f"data.root={cable}", f"data.cache_dir={cache}",
        ]  # fmt: skip
        assert call_main("train", *given, f"output_dir={out}") == 0

    return shared("auto", train)


def test_what_is_named_holds_and_the_rest_is_chosen(auto):
    config = yaml.safe_load((auto / ".hydra" / "config.yaml").read_text())
    assert config["data"]["image_size"] == 32
    assert config["trainer"]["max_epochs"] == 1
    assert config["model"]["loss"]["_target_"].endswith(".focal")
    assert config["model"]["optimizer"]["_target_"].endswith("Muon")
    assert config["model"]["optimizer"]["lr"] == 0.01
    assert config["model"]["scheduler"] is None  # of a few steps
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert not config["auto"]
    overrides = overrides_of(auto)
    assert not any(word.startswith(("experiment=", "minutes=")) for word in overrides)
    assert {"optimizer=muon", "loss=focal", "data.batch_size=8", "data.image_size=32"} <= set(overrides)
    assert not {"loss=bce_dice", "data.image_size=64"} & set(overrides)


def test_every_choice_is_in_the_card_with_its_reason(auto):
    recipe = json.loads((auto / "recipe.json").read_text())
    card, page = (auto / "README.md").read_text(), (auto / "recipe.md").read_text()
    assert json.loads((auto / "results.json").read_text())["recipe"] == recipe["choices"]
    assert recipe["data"]["images"] == json.loads((auto / "results.json").read_text())["images"]
    for choice in recipe["choices"]:
        assert choice["reason"] in card
        assert choice["reason"] in page
        assert choice["override"] in card
        if choice["override"]:
            assert choice["override"] in overrides_of(auto)


def test_the_recorded_overrides_train_the_same_bits(auto, tmp_path):
    out = tmp_path / "again"
    words = [word for word in overrides_of(auto) if not word.startswith("output_dir=")]
    assert call_main("train", *words, f"output_dir={out}") == 0
    assert not (out / "recipe.json").exists()
    first, again = weights_of(auto), weights_of(out)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_resumed_run_keeps_its_recipe(auto, capfd):
    before = (auto / "recipe.json").read_text(), (auto / ".hydra" / "config.yaml").read_text()
    assert call_main("train", f"resume={auto}") == 0
    assert "recipe:" not in capfd.readouterr().err
    assert before == ((auto / "recipe.json").read_text(), (auto / ".hydra" / "config.yaml").read_text())


def test_minutes_end_in_time_with_a_report(cable, cache, tmp_path, capfd):
    words = ["experiment=auto", "minutes=0.4", "data=folder", f"data.root={cable}", f"data.cache_dir={cache}"]
    start = time.monotonic()
    assert call_main("train", *QUICK, *words, f"output_dir={tmp_path}") == 0
    assert time.monotonic() - start < 24 * 1.5  # other processes of the tests run at the same time
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"]["val/iou"] is not None
    assert results["metrics"]["test/iou"] is not None
    assert any(word.startswith("trainer.max_time=00:00:00:") for word in overrides_of(tmp_path))
    assert "images/s" in capfd.readouterr().err


def test_what_minutes_chose_trains_the_same_bits_again_unless_time_ends_it(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for i in range(80):  # smaller than a crop
        image, mask = rng.integers(0, 80, (24, 24, 3), np.uint8), np.zeros((24, 24), np.uint8)
        mask[6:12, 6:18] = 255
        Image.fromarray(image + mask[..., None] // 2).save(tmp_path / "set" / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{i}.png")
    words = ["experiment=auto", "minutes=0.1", "trainer.max_time=null", "data.crop=32", "data=folder"]
    first, again = tmp_path / "first", tmp_path / "again"
    quick = [*QUICK, "~callbacks.panels", "data.cache_dir=null", f"data.root={tmp_path / 'set'}"]
    assert call_main("train", *quick, *words, f"output_dir={first}") == 0
    recorded = [word for word in overrides_of(first) if not word.startswith("output_dir=")]
    assert {"trainer.limit_val_batches=1", "trainer.limit_test_batches=1"} <= set(recorded)
    assert call_main("train", *recorded, f"output_dir={again}") == 0
    one, two = weights_of(first), weights_of(again)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_stop_in_the_midst_of_an_epoch_leaves_a_validated_best(cable, cache, tmp_path):
    words = [
        "data=folder",
        f"data.root={cable}",
        f"data.cache_dir={cache}",
        "trainer.max_epochs=5000",
        "data.batch_size=2",
    ]
    words += ["trainer.max_time=00:00:00:03", "trainer.check_val_every_n_epoch=5000", "data.image_size=32"]
    assert call_main("train", *QUICK, "~callbacks.panels", *words, f"output_dir={tmp_path}") == 0
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]["val/iou"] is not None


def test_check_data_proposes_a_recipe_that_runs(cable, cache, tmp_path, capfd):
    assert call_main("check_data", "data=folder", f"data.root={cable}", f"output_dir={tmp_path / 'check'}") == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("python src/train.py ")]
    words = shlex.split(line)[2:]
    assert {"optimizer=muon", "data.image_size=64", "data=folder", f"data.root={cable}"} <= set(words)
    small = ["trainer.fast_dev_run=true", f"data.cache_dir={cache}", f"output_dir={tmp_path / 'run'}"]
    assert call_main("train", *QUICK, "~callbacks.panels", *words, *small) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["minutes=5"], "minutes=5: needs experiment=auto"),
        (["minutes=0", "experiment=auto"], "minutes=0: must be a number above 0 or null"),
        (["minutes=5", "experiment=auto", "trainer.devices=2"], "minutes=5 with trainer.devices=2"),
        (["minutes=5", "experiment=auto", "callbacks=int8"], "minutes=5 with callbacks=int8: the speed"),
    ],
)
def test_what_minutes_cannot_do_is_one_line(words, told, cable, tmp_path, run_main):
    code, err = run_main("train", tmp_path / "out", *words, "data=folder", f"data.root={cable}")
    assert code == 1
    assert told in err


def test_jobs_of_a_sweep_choose_the_same(cable, cache, tmp_path):
    words = [*SMALL, "~callbacks.panels", "-m", "experiment=auto", "model.optimizer.lr=0.01,0.02", "data=folder"]
    words += [f"data.root={cable}", f"data.cache_dir={cache}", "trainer.fast_dev_run=true"]
    assert call_main("train", *words, f"output_dir={tmp_path}") == 0
    first, second = (set(overrides_of(tmp_path / job)) for job in "01")
    assert first ^ second == {"model.optimizer.lr=0.01", "model.optimizer.lr=0.02"}
    assert "optimizer=muon" in first


def test_trials_of_a_search_have_the_recipe(cable, cache, tmp_path):
    words = [*SMALL, "~callbacks.panels", "experiment=auto", "trials=1", "data=folder", f"data.root={cable}"]
    words += [f"data.cache_dir={cache}"]
    assert call_main("tune", *words, f"output_dir={tmp_path}") == 0
    found = overrides_of(tmp_path / "0")
    assert {"loss=bce_dice", "scheduler=constant", "trainer.gradient_clip_val=1.0"} <= set(found)
    assert "experiment=auto" not in found
    for key in ("optimizer=", "model.optimizer.lr=", "data.batch_size="):  # what the search varies
        assert sum(word.startswith(key) for word in found) == 1
