"""What version 0.1.0 wrote is loaded, evaluated, resumed and compared by the names of today."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from helpers import SMALL, call_main
from segnet.configuration import instantiate
from segnet.old_names import RENAMED, current, update_targets
from segnet.runs.finished import Run
from segnet.training.checkpoint import load_module, read, start_from

STORED = Path(__file__).parent / "stored" / "config.yaml"


def stored(run, data, cache):
    """The configuration of an old run, moved to these folders."""
    text = STORED.read_text()
    for name, folder in (("RUN", run), ("DATA", data), ("CACHE", cache)):
        text = text.replace(f" {name}", f" {folder}")
    return OmegaConf.create(text)


def targets(config):
    if isinstance(config, dict):
        own = [config["_target_"]] if "_target_" in config else []
        return own + [name for value in config.values() for name in targets(value)]
    return [name for value in config for name in targets(value)] if isinstance(config, list) else []


@pytest.fixture
def old(trained, cable, cache, tmp_path):
    """A checkpoint of today with the configuration as version 0.1.0 put it into its checkpoints."""
    content = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    config = stored(tmp_path, cable, cache)
    keep = OmegaConf.create({key: config[key] for key in ("data", "model", "seed", "monitor", "mode")})
    content["config"] = OmegaConf.to_container(keep, resolve=True)
    torch.save(content, tmp_path / "old.ckpt")
    return tmp_path / "old.ckpt"


def test_every_name_of_a_stored_run_is_found_today():
    config = OmegaConf.to_container(OmegaConf.load(STORED))
    before = [name for name in targets(config) if name.startswith("segnet.")]
    assert len(before) == 16
    update_targets(config)
    after = [name for name in targets(config) if name.startswith("segnet.")]
    for name_before, name_after in zip(before, after, strict=True):
        assert name_after != name_before
        found = get_object(name_after)
        assert f"{found.__module__}.{found.__qualname__}" == name_after
        assert name_after.rpartition(".")[2].lower() == name_before.rpartition(".")[2].lower()


def test_renamed_arguments_of_a_stored_run_have_their_values():
    loaded = OmegaConf.load(STORED)
    OmegaConf.set_struct(loaded, True)
    for config in (loaded, OmegaConf.to_container(OmegaConf.load(STORED))):
        config["callbacks"]["panels"]["pictures"] = 7
        update_targets(config)
        panels = config["callbacks"]["panels"]
        assert panels == {"_target_": "segnet.training.callbacks.Panels", "every_n_epochs": 5, "images": 7}
        instantiate(panels, "panels")
        update_targets(config)  # nothing is left to rename
        assert panels["images"] == 7


@pytest.mark.parametrize("value", ["${seed}", "???"])
def test_renamed_arguments_are_not_resolved(value):
    config = OmegaConf.create({"seed": 3, "panels": {"_target_": "segnet.callbacks.Panels", "pictures": value}})
    update_targets(config)
    assert OmegaConf.to_container(config)["panels"] == {
        "_target_": "segnet.training.callbacks.Panels",
        "images": value,
    }


def test_new_names_and_foreign_ones_stay():
    for new in RENAMED.values():
        assert current(f"{new}.x") == f"{new}.x"
    for name in ("torch.optim.SGD", "segnet.data.ByHash", "mine.segnet.model.Net"):
        assert current(name) == name


def test_interpolations_and_gaps_stay_as_they_are():
    one = {"_target_": "segnet.model.SegNet", "n": "${b}", "m": "???", "z": None}
    config = OmegaConf.create({"a": one, "b": 3, "c": ["${a}", {"_target_": "segnet.losses.dice"}]})
    OmegaConf.set_struct(config, True)
    update_targets(config)
    assert OmegaConf.to_container(config) == {
        "a": one | {"_target_": "segnet.networks.segnet.SegNet"},
        "b": 3,
        "c": ["${a}", {"_target_": "segnet.training.losses.dice"}],
    }


def test_an_old_checkpoint_is_the_same_network(old, trained):
    today, before = load_module(trained / "checkpoints" / "best.ckpt"), load_module(old)
    assert type(before.net) is type(today.net)
    state = today.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    assert not [name for name in targets(read(old)["config"]) if name in RENAMED or name.rpartition(".")[0] in RENAMED]
    start_from(today, old)


def test_an_old_checkpoint_is_evaluated_predicted_and_exported(old, trained, cable, cache, run_main, tmp_path):
    found = []
    for file in (old, trained / "checkpoints" / "best.ckpt"):
        out = tmp_path / file.stem
        code, err = run_main("eval", out, f"ckpt_path={file}", f"data.root={cable}", f"data.cache_dir={cache}")
        assert code == 0, err
        found.append(json.loads((out / "results.json").read_text())["metrics"])
    assert found[0] == found[1]
    code, err = run_main("predict", tmp_path / "p", f"ckpt_path={old}", f"input={cable}/images/good_000.png")
    assert code == 0, err
    code, err = run_main("export", tmp_path / "e", f"ckpt_path={old}", "format=pt2", "images=2")
    assert code == 0, err


def test_an_old_run_is_resumed_and_compared(cable, cache, tmp_path, capfd):
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    config = stored(run, cable, cache)
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    (run / ".hydra" / "overrides.yaml").write_text("- experiment=quickstart\n")
    # Killed before its first checkpoint: it begins anew, with everything that the old configuration names.
    assert call_main("train", f"resume={run}") == 0, capfd.readouterr().err
    assert json.loads((run / "results.json").read_text())["epochs"] == 1
    # Finished, it resumes from its last checkpoint and ends at once.
    more = tmp_path / "more"
    shutil.copytree(run, more)
    assert call_main("train", f"resume={more}") == 0, capfd.readouterr().err
    # The table of the test images had another name.
    images = Run(more, "new").images
    (run / "images.csv").rename(run / "pictures.csv")
    before = Run(run, "old").images
    assert before.keys() == images.keys()
    assert all((matrix == images[file]).all() for file, matrix in before.items())
    assert len(images) > 0
    assert Run(run, "old").config["model.net._target_"] == "segnet.networks.segnet.SegNet"


def test_an_experiment_that_is_older_than_this_version_runs(cable, cache, tmp_path):
    experiments = tmp_path / "conf" / "experiment"
    experiments.mkdir(parents=True)
    text = "model: {net: {_target_: segnet.model.SegNet}, loss: {_target_: segnet.losses.dice}}"
    (experiments / "best.yaml").write_text(f"# @package _global_\n{text}\n")
    code = call_main(
        "train", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "experiment=best",
        "trainer.fast_dev_run=true", f"hydra.searchpath=[file://{tmp_path}/conf]", f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 0
