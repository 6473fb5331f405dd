"""Small data and trained networks for every test: generated, made once a session, no network."""

import fcntl
import gc
import os
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A core for each worker; before torch comes, which reads it once. With more threads than cores they wait for each
    # other by spinning, and the suite takes ten times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Until the tests begin, see `unburdened`: it would go through all that is imported and collected again and again.
    gc.disable()

import torch

# Triton's first import decides by this variable whether kernels are compiled or interpreted. It is unset below: a CPU
# takes its own path except in the tests that ask for the interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import lightning.pytorch  # noqa: F401 - its log handler keeps the stderr of its first import: not that of one test

from helpers import SMALL, call_main, write_run
from segnet.synthetic import cables

INTERPRETED = "TRITON_INTERPRET" in os.environ and find_spec("triton") is not None
if INTERPRETED:
    import_module("segnet.networks.kernels")
os.environ.pop("TRITON_INTERPRET", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: one more than there are cores, as tests wait for programs that they start; 2.5 GB each, so few."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``cuda`` where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="module", autouse=True)
def unburdened() -> None:
    """The garbage collector passes over what is there before a file's tests: libraries, and the tests themselves."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def seeded_module() -> None:
    """Networks that a file's tests share have the same weights whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seeded(seeded_module: None) -> None:
    """And so has what a test draws itself."""
    torch.manual_seed(0)


@pytest.fixture(params=["interpreted", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where the Triton kernels run: on the CPU by Triton's interpreter, or on a GPU."""
    if request.param == "interpreted":
        if not INTERPRETED:
            pytest.skip("Triton compiles its kernels in this process, or is not installed")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return torch.device("cpu" if request.param == "interpreted" else "cuda")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``shared(name, make)``: a folder that ``make`` fills once a session, for all processes that run its tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it: wait
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a failure left
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def cable(shared) -> Path:
    """24 rendered cables of 64×64 with masks: images/, masks/."""
    return shared("cable", lambda root: cables.write(root, images=24, size=64, seed=0))


@pytest.fixture(scope="session")
def cache(shared) -> Path:
    """One cache of decoded images for the whole session."""
    return shared("cache", Path.mkdir)


@pytest.fixture
def run_main(capfd: pytest.CaptureFixture[str], cache: Path) -> Callable[..., tuple[int, str]]:
    """``run_main(name, output_dir, *overrides)``: exit code and everything printed on stderr."""

    def run(name: str, output_dir: Path, *overrides: str) -> tuple[int, str]:
        small = (*SMALL, f"data.cache_dir={cache}") if name == "train" else ()
        code = call_main(name, *small, f"output_dir={output_dir}", *overrides)
        return code, capfd.readouterr().err

    return run


@pytest.fixture(scope="session")
def trained(shared, cache: Path) -> Path:
    """The run folder of one true training on embedded data, shared by all that need a trained network."""

    def train(out: Path) -> None:
        code = call_main(
            "train", *SMALL, "experiment=quickstart", "trainer.max_epochs=20", "data.image_size=64",
            "data.prepare.images=96", "data.prepare.size=64", f"data.root={out.parent / 'embedded'}",
            f"data.cache_dir={cache}", f"output_dir={out}",
        )  # fmt: skip
        assert code == 0

    return shared("trained", train)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small sweep, written by hand: two learning rates with two seeds each, all different.

    By ``val/iou`` the order is 1, 0, 2, 3. Each run's four test images have one confusion matrix (true background,
    false alarm, missed, hit), so that its IoU is hit / (100 - true background) whatever images are drawn.
    """
    folder = tmp_path_factory.mktemp("made") / "sweep"
    for name, lr, seed, val, iou, loss, matrix in (
        ("0", 0.1, 0, 0.5, 0.5, 1.0, (60, 10, 10, 20)),
        ("1", 0.1, 1, 0.7, 0.75, 3.0, (60, 4, 6, 30)),
        ("2", 0.0001, 0, 0.2, 0.25, 0.5, (60, 20, 10, 10)),
        ("3", 0.0001, 1, None, 0.125, 0.25, (60, 0, 35, 5)),
    ):
        metrics = {"val/iou": val, "val/loss": 0.5, "test/iou": iou, "test/loss": loss}
        images = {f"images/{i}.png": matrix for i in range(4)}
        write_run(folder / name, metrics, images, final=float(name), lr=lr, seed=seed)
    return folder


@pytest.fixture(scope="session")
def study(shared, cable: Path, cache: Path) -> Path:
    """The folder of a small search."""

    def tune(out: Path) -> None:
        code = call_main(
            "tune", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels",
            "trainer.max_epochs=2", "prune.startup_trials=2", "prune.warmup_epochs=0", "trials=5",
            "experiment=quickstart", f"output_dir={out}",
        )  # fmt: skip
        assert code == 0

    return shared("study", tune)
