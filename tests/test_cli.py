"""Bad input: one clear line, exit code 1, nothing half-written. The real commands, run as a user does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from helpers import ROOT
from segnet import environment
from segnet.cli import check_settings
from segnet.errors import UserError, explain


@pytest.fixture
def fails(run_main, tmp_path, cable):
    """Run the training command on good data with the given overrides; it must fail and leave no run folder."""

    def check(*overrides):
        out = tmp_path / "run"
        code, err = run_main("train", out, f"data.root={cable}", *overrides)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 1, err
        assert len(lines) == 1, err
        assert "Traceback" not in err
        assert not out.exists()
        return lines[0]

    return check


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=folder", "data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (["data.image_size=16"], "data.image_size=16: must be one side or .* at least 32"),
        (["data.batch_size=0"], "data.batch_size=0: must be an integer of at least 1"),
        (["data.num_workers=-1"], r"data.num_workers=-1: must be an integer in \[0, 1024\] or auto"),
        (["data.num_workers=10000"], r"data.num_workers=10000: must be an integer in \[0, 1024\] or auto"),
        (["data.image_size=100000"], "data.image_size=100000: 100000×100000 are more than the limit of .* pixels"),
        (["data.image_size=[32,1000000000]"], r"data.image_size=\[32, 1000000000\]: .*set a smaller size"),
        (["data.crop=100000"], "data.crop=100000: .*more than the limit of .* pixels; set a smaller size"),
        ([f"data.batch_size={10**20}"], f"data.batch_size={10**20}: must be .* numbers are at most 4294967295"),
        ([f"trainer.max_epochs={10**20}"], "trainer.max_epochs=10+: must be .*; whole numbers are at most 4294967295"),
        (["data=folder", "data.classes=[]"], r"data.classes=\[\]: must be a list of names, .*, or null"),
        (["data=folder", "data.num_classes=300"], r"data.num_classes=300: must be an integer in \[1, 254\]"),
        (["model.net.widths=[1,3000000,1,1,1]"], "the memory does not suffice; lower data.batch_size"),
        (["trainer.devices=[9]"], "trainer: `devices` selected with `CPUAccelerator` should be an int > 0"),
        (["trainer.devices=999"], "trainer.devices=999 on a CPU: .* write trainer.devices=1, which uses all cores"),
        (["data.cache_dir=/dev/null/x"], "data.cache_dir=/dev/null/x: nothing can be written there .*cache_dir=null"),
        (["data.num_classes=2"], r"data.num_classes=2, but data.classes names 1: \['defect'\]"),
        (["lrr=0.1"], "lrr: no such key; --cfg job lists all keys"),
        (["lrr"], "lrr: must be key=value"),
        (["data.root=???"], "data.root is missing; give data.root=<value>"),
        (["seed=${nope}"], "seed: Interpolation key 'nope' not found"),
        (["+lrr=0.1"], "unknown key.* lrr; known are .*seed"),
        (["+data.foo=1"], "data.foo=1: SegmentationDataModule takes no such argument; it takes root, .*batch_size"),
        (["+model.optimizer.foo=1"], "model.optimizer.foo=1: SGD takes no such argument; it takes .*momentum"),
        (["+callbacks.panels.foo=1"], "callbacks.panels.foo=1: Panels takes no such argument; it takes every_n_epochs"),
        (["~model.net.num_classes"], "model.net: SegNet needs num_classes, which is not given"),
        (["model.net._target_=no.Net"], "model.net._target_=no.Net: no such class or function"),
        (
            ["trainer.accelerator=foo"],
            "trainer.accelerator=foo: must be auto, .*; the default is trainer.accelerator=cpu",
        ),
        (["data=camvd"], "data=camvd: no such option; choose from .*camvid"),
        (["experiment=nope"], "experiment=nope: no such option; choose from .*quickstart"),
        (["+callbacks.foo=1"], "callbacks.foo=1: has no _target_; to leave it out write ~callbacks.foo"),
        (["monitor=val/foo"], "monitor=val/foo: no such metric; known are .*val/iou"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs=abc: must be an integer"),
        (["seed=abc"], "seed=abc: must be an integer"),
        (["trainer.sync_batchnorm=true"], "trainer.sync_batchnorm=true on a CPU: .*add trainer.sync_batchnorm=false"),
        (["output_dir=/proc/no/folder"], "/proc/no.*: "),
        (
            ["model.optimizer.lr=abc"],
            "model.optimizer.lr=abc: must be a number .*; the default is model.optimizer.lr=0.01",
        ),
        (
            ["scheduler=onecycle", "model.scheduler.pct_start=5"],
            "model.scheduler.pct_start=5: must be a number in .*; the default is model.scheduler.pct_start=0.25",
        ),
        (["model.class_weights=[1,2]"], "model.class_weights=.*needs 1 non-negative factor"),
        (["loss=dice", "model.class_weights=median_frequency"], "takes no weights; use loss=cross_entropy"),
        (["scheduler=onecycle", "trainer.max_epochs=-1"], "set trainer.max_epochs"),
        (["scheduler=onecycle", "trainer.limit_train_batches=4"], r"a run of 4 step\(s\) is too short for it"),
        (["model.optimizer.lr=1e30"], "train/loss is not finite in epoch 0, step .* training diverged; lower"),
    ],
)
def test_one_line_names_value_and_remedy(fails, overrides, message):
    import re

    assert re.search(message, fails(*overrides))


def test_nan_keeps_the_last_good_checkpoint(run_main, tmp_path, cable):
    import torch

    out = tmp_path / "run"
    explode = "{_target_: torch.optim.lr_scheduler.MultiStepLR, _partial_: true, milestones: [1], gamma: 1e30}"
    code, err = run_main("train", out, f"data.root={cable}", f"model.scheduler={explode}", "trainer.max_epochs=5")
    assert code == 1
    assert "training diverged" in err
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 0
    assert all(value.isfinite().all() for value in state["state_dict"].values())
    assert (out / "checkpoints" / "best.ckpt").is_file()


def test_an_older_file_in_the_run_folder_survives_a_failure(run_main, tmp_path, cable):
    import os

    kept = tmp_path / "run" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    os.utime(kept, (0, 0))
    code, _ = run_main("train", kept.parent, f"data.root={cable}", "data.batch_size=0")
    assert code == 1
    assert kept.read_text() == "mine"


def test_what_is_not_told_in_one_line_is_a_fault_of_the_code():
    from segnet.errors import UserError, explain

    for fault in (RuntimeError("a bug"), TypeError("a bug"), ValueError("a bug"), KeyError("a bug"), OSError("a bug")):
        assert explain(fault) is None
    assert explain(UserError("two\nlines")) == "two lines"
    assert explain(UserError("a\x1b[2J\x07.png \u202e é \udce9")) == "a\\x1b[2J\\x07.png \\u202e é \\udce9"
    assert explain(FileNotFoundError(2, "No such file or directory", "a.png")) == "a.png: No such file or directory"
    assert explain(OSError(28, "No space left on device")).startswith("No space left on device; free some space, or ")
    assert explain(ModuleNotFoundError("No module named 'optuna'", name="optuna")).endswith("segnet-lightning[sweep]'")
    assert explain(ModuleNotFoundError("No module named 'torch'", name="torch")) is None


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        from segnet.errors import UserError

        raise UserError("a.png: cannot be read")


def test_an_error_of_a_loader_process_is_told_as_if_it_were_raised_here():
    from segnet.errors import explain

    with pytest.raises(ValueError, match="Caught") as found:
        next(iter(torch.utils.data.DataLoader(Unreadable(), num_workers=1)))
    assert explain(found.value) == "a.png: cannot be read"


@pytest.mark.parametrize("value", ["5", "[a]"])
def test_a_type_error_within_the_package_is_a_traceback_and_leaves_no_run_folder(run_main, tmp_path, cable, value):
    """Raised by the constructor itself, and by what it calls."""
    with pytest.raises(TypeError):
        run_main(
            "train",
            tmp_path / "run",
            f"data.root={cable}",
            "~model.loss.num_classes",
            f"+model.loss._args_=[1,{value}]",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["lrr=1"], ["data=camvd"]])
def test_help_and_composition_errors_answer_without_torch(arguments, tmp_path):
    code = (
        "import sys, atexit; sys.path.insert(0, sys.argv.pop(1)); "
        "atexit.register(lambda: print('TORCH' if 'torch' in sys.modules else 'LIGHT')); "
        "from segnet.commands.train import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "src"), *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == (0 if arguments == ["--help"] else 1)
    assert done.stdout.endswith("LIGHT\n")
    assert not list(tmp_path.iterdir())


def test_scripts_and_configs_and_commands_share_a_name():
    for script in (ROOT / "src").glob("*.py"):
        assert f"from segnet.commands.{script.stem} import main" in script.read_text()
        assert (ROOT / "conf" / f"{script.stem}.yaml").is_file()
        assert (
            f'segnet-{script.stem.replace("_", "-")} = "segnet.commands.{script.stem}:main"'
            in Path(ROOT / "pyproject.toml").read_text()
        )


def test_commands_and_what_reads_runs_import_without_torch():
    commands = [f"segnet.commands.{script.stem}" for script in (ROOT / "src").glob("*.py")]
    runs = [f"segnet.runs.{module.stem}" for module in (ROOT / "src" / "segnet" / "runs").glob("[a-z]*.py")]
    names = [*commands, *runs, "segnet.visualization.figures"]
    start = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); "
    code = f"{start}import {', '.join(names)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_faces_hold_what_they_name():
    import segnet
    from segnet import data, deployment, networks, training, visualization

    assert segnet.SegNet is networks.SegNet
    assert segnet.load_module is training.load_module
    assert segnet.Predictor is deployment.Predictor
    for package in (data, deployment, networks, training):
        assert all(hasattr(package, name) for name in package.__all__)
    assert visualization.palette(1).shape == (256, 3)
    for package in (segnet, visualization):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = package.nothing


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("train", "teacher"),
        ("predict", "input"),
        ("export", "verify"),
        ("check_data", "labels"),
        ("import_labels", "masks"),
        ("compare", "runs"),
        *(("reproduce", key) for key in ("camvid", "magnetic_tile", "neu_seg", "crack_forest", "drive")),
    ],
)
def test_a_tilde_is_the_users_folder_wherever_a_path_is_taken(command, key):
    cfg = OmegaConf.create({key: "~/x"})
    check_settings(cfg, command)
    assert cfg[key] == str(Path.home() / "x")


@pytest.mark.parametrize(
    "ask", [lambda: np.empty(2**60, np.uint8), lambda: torch.empty(2**60, dtype=torch.uint8), lambda: bytearray(2**60)]
)
def test_what_finds_no_memory_is_one_line_with_what_to_lower(ask):
    with pytest.raises((MemoryError, RuntimeError)) as error:
        ask()
    assert "lower data.batch_size (batch_size), data.image_size or data.crop" in explain(error.value)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_a_device_that_is_not_there_is_told_with_what_to_write(accelerator, monkeypatch):
    for backend in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"trainer\.accelerator={accelerator}: .* here; write trainer=cpu or trainer="):
        environment.precision_of("32-true", accelerator)
    assert environment.precision_of("32-true", "cpu") == environment.precision_of("32-true", "auto") == "32-true"
