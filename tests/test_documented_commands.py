"""Every command that README, docs, notebooks and configuration headers print, run on tiny data as it is printed.

bash splits it into words, with an error where a pattern such as ``[0]`` matches no file (as zsh does); the words go to
the command's ``main``, with overrides behind them that make it small. The folders that the pages name exist below the
one in which it runs.
"""

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from annotations.writers import labelme
from helpers import ROOT, SMALL, call_main
from segnet.cli import CONF_DIR, check_keys
from segnet.command_line import flags_last
from segnet.hydra_versions import BASE

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```.*?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
TRAIN = "python src/train.py"
BUDGET = f"{TRAIN} experiment=quickstart budget_ms=15 runtime=openvino"
RUN = "ckpt_path=logs/train/<run>/checkpoints/best.ckpt"

# What is only composed, and why. Everything else runs.
ONLY_COMPOSED = {
    "python src/check_data.py data=folder data.root=/my/images write=true": (
        "would describe it for other commands; tests/commands/test_check_data_write.py writes"
    ),
    "python src/check_data.py data=folder data.root=/my/images labels=logs/train/<run>": (
        "needs a run with folds; tests/reports/test_label_errors.py makes one"
    ),
    f"python src/predict.py {RUN} input=/my/images/images exit_code=verdict": (
        "ends with 10 where one is defective; tests/commands/test_travel.py runs it"
    ),
    f"python src/predict.py {RUN} input=camera:0": "needs a camera; tests/commands/test_live.py has streams",
    f"python src/predict.py {RUN} input=/my/images/images watch=true": (
        "goes on until it is stopped; tests/commands/test_watch.py stops it"
    ),
    f"python src/export.py {RUN} verify=logs/export/<run>/model.onnx": (
        "verifies what was exported; tests/commands/test_export.py does"
    ),
    f"python src/export.py {RUN} images=0": "ten seconds; the same",
    "python src/publish.py run=logs/train/<run> output=release/<run>": "ten seconds; tests/commands/test_publish.py",
    f"{TRAIN} experiment=quickstart data=folder data.root=/my/images weights=release/<run>": "the same",
    "python src/predict.py ckpt_path=release/<run> input=/my/images/images": "the same",
    "python src/eval.py ckpt_path=release/<run> data.root=/my/images split=all": "the same",
    f"python src/demo.py {RUN}": "serves until it is stopped; tests/commands/test_demo.py opens the page",
    f"python src/export.py {RUN} format=executorch": "an extra; tests/deployment/test_runtimes.py writes and runs it",
    f"python src/export.py {RUN} format=openvino": "the same",
    f"python src/export.py {RUN} format=openvino quantize=int8 size=480x480": "the same",
    "python src/predict.py ckpt_path=logs/export/<run>/model.xml trust=true input=/my/images/images": "the same",
    f"python src/export.py {RUN} size=480x480 batch=1 input=float32": "ten seconds; tests/deployment/test_form.py",
    f"python src/export.py {RUN} format=onnx": "ten seconds; quantize=int8, which runs, exports and quantises it",
    f"{TRAIN} -m experiment=quickstart seed=0,1 hydra/launcher=submitit_slurm": "needs Slurm",
    f"{TRAIN} experiment=quickstart data=oxford_pet data.root=data/oxford_pet": "downloads 800 MB",
    f"{BUDGET} data=folder data.root=/my/images": "an extra; tests/commands/test_widths.py has budgets",
    f"{BUDGET} data=folder data.root=/my/images {RUN.replace('ckpt_path', 'weights')} teacher=logs/train/<run>": (
        "the same; tests/training/test_checkpoint.py has such weights"
    ),
    f"{TRAIN} resume=logs/train/<run> trainer.max_epochs=300": "many epochs; tests/runs/test_resume.py adds few",
    f"{TRAIN} experiment=quickstart data.root=s3://bucket/folder": "needs a store; tests/test_s3.py has one",
    "python src/tune.py experiment=quickstart trials=50 storage=postgresql://<user>@<host>/<database>": (
        "needs a database; tests/commands/test_tune_postgresql.py has one"
    ),
    f"{TRAIN} trainer=ddp trainer.devices=4": "needs four GPUs",
    f"{TRAIN} trainer=ddp trainer.devices=4 trainer.num_nodes=2 output_dir=logs/train/big": "needs eight GPUs",
}
LISTS = "hours, in processes of their own; tests/commands/test_reproduce.py trains small lists"
SMALLER = (*(s for s in SMALL if s != "trainer=cpu"), "trainer.accelerator=cpu", "~callbacks.panels")
BEHIND = {
    "train": (*SMALLER, "trainer.fast_dev_run=true"),
    "tune": (*SMALLER, "trainer.limit_train_batches=2", "trials=1"),
    "eval": ("trainer=cpu",),
    "calibrate": ("target=cost=10:1", "worst=1"),  # few images support no rate; what is printed is read before it
    "export": ("images=2", "calibration=2", "tolerance_int8.decisions=0.5", "tolerance_int8.iou=1", "max_drop=0.9"),
}
WHOLE = f"{TRAIN} experiment=quickstart"  # this one trains, tests and reports


def commands(text: str) -> list[str]:
    """Those in a page's blocks and `backticks`, without what torchrun or srun say before them."""
    lines = "\n".join(FENCE.findall(text)).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    found = (re.search(r"\bsrc/\w+\.py\b[^#]*", line) for line in lines)
    return [f"python {match[0].strip()}" for match in found if match and "…" not in match[0]]


@cache
def printed() -> tuple[str, ...]:
    """Every command of the pages, notebooks and configuration headers, as it is printed."""
    found: list[str] = []
    for page in PAGES:
        found += commands(page.read_text(encoding="utf-8"))
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):  # where a command alone is a name
        found += [command for command in commands(notebook.read_text(encoding="utf-8")) if "=" in command]
    for config in CONF_DIR.rglob("*.yaml"):  # of a header; a remark stands some spaces behind
        lines = re.findall(r"^# (python src/.*?)(?:  .*)?$", config.read_text(encoding="utf-8"), re.MULTILINE)
        found += [re.sub(r" \[(group=option|key=value)\]", "", line) for line in lines]
    for page in PAGES:  # a table of what to add to the command above it
        for section in page.read_text(encoding="utf-8").split("\n## "):
            for table in re.findall(r"^\|[^|]+\| add \|\n\|.*\n((?:\|.*\n)+)", section, re.MULTILINE):
                rows = re.findall(r"`([^`\n]+)`", table)
                found += [f"{command} {row}" for command in commands(section) for row in rows]
    return tuple(sorted(set(found)))


def reason(command: str) -> str | None:
    """Why it is only composed; None for one that runs."""
    if "src/benchmark.py" in command:
        return "minutes; tests/commands/test_benchmark.py measures small parts"
    return LISTS if "src/reproduce.py" in command else ONLY_COMPOSED.get(command)


def words(command: str, folder: Path) -> list[str]:
    """What bash makes of it in this folder, where the folders that it names are."""
    given = command.replace("<image | folder | glob | video>", "input").replace("baseline=<run>", "baseline=0")
    given = re.sub(r"(?<==)/(?!my/)", f"{folder}/", given).replace("/my/images", f"{folder}/{dataset(command)}")
    if "import_labels" in command:  # each into a new folder
        given = re.sub(r"input=\S+", f"input={folder}/my/labels", given)
        given = re.sub(r"output=\S+", f"output={folder}/my/new-{crc32(command.encode())}", given)
    given = given.replace("/my/set", f"{folder}/my/set")
    given = re.sub(r"<(\w+)>", "bayesian" if "mc_samples" in command else r"\1", given)
    split = ["bash", "-O", "failglob", "-c", f"printf '%s\\0' {given}"]
    done = subprocess.run(split, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


def dataset(command: str) -> str:
    """The folder that holds images, masks and splits as the command says they are."""
    for said, name in (
        ("split.train=a/", "parts"),
        ("train.txt", "lists"),
        ("mask=palette", "palette"),
        ("by_path", "kinds"),
    ):
        if said in command:
            return f"my/{name}"
    several = "[background,crack,stain]" in command or "num_classes=3" in command
    return "my/values" if several else "my/images"


@pytest.fixture(scope="module")
def place(shared, cable, cache, trained, sweep, study):
    """A folder in which everything is that the pages name."""

    def put(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)

    def make(place: Path) -> None:
        for source, name in ((trained, "logs/train/run"), (sweep, "logs/train/sweep"), (study, "logs/tune/time")):
            shutil.copytree(source, place / name)
        put(study / "best.yaml", place / "conf" / "experiment" / "best.yaml")
        (place / "data").mkdir()
        for name in ("other", "data/cable-240x480-seed0"):
            (place / name).symlink_to(cable)
        (place / "good").mkdir()
        (place / "good" / "images").symlink_to(cable / "images")
        for i, image in enumerate(sorted((cable / "images").iterdir())):
            mask = cable / "masks" / image.name
            positive = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 127
            classes = np.where(positive, 1 + i % 2, 0).astype(np.uint8)
            colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[classes]
            for name in ("images", "values", "palette"):
                put(image, place / "my" / name / "images" / f"part_{i % 12}_{i}.png")
            put(mask, place / "my" / "images" / "masks" / f"part_{i % 12}_{i}.png")
            for name, stored in (("values", classes), ("palette", colours[..., ::-1])):
                file = place / "my" / name / "masks" / f"part_{i % 12}_{i}.png"
                file.parent.mkdir(exist_ok=True)
                cv2.imwrite(str(file), stored)
            kind = ("crack", "stain")[i % 2]
            put(image, place / "my" / "kinds" / "images" / kind / f"{i}.png")
            put(mask, place / "my" / "kinds" / "masks" / kind / f"{i}.png")
            part = place / "my" / "parts" / "abc"[i % 3]
            put(image, part / "images" / f"{i}.png")
            put(mask, part / "masks" / f"{i}.png")
            split, drive = ("train", "val", "test")[i % 3], ("0001TP", "0006R0", "0016E5")[i // 3 % 3]
            put(image, place / "path/to/CamVid" / split / f"{drive}_{i}.png")
            (place / "path/to/CamVid" / f"{split}annot").mkdir(exist_ok=True)
            stripes = np.tile(np.arange(classes.shape[1]) // 5 % 11, (len(classes), 1)).astype(np.uint8)
            cv2.imwrite(str(place / "path/to/CamVid" / f"{split}annot" / f"{drive}_{i}.png"), stripes)
            put(image, place / f"path/to/magnetic_tile/MT_Crack/Imgs/exp1_num_{i}0000.jpg")
            put(mask, place / f"path/to/magnetic_tile/MT_Crack/Imgs/exp1_num_{i}0000.png")
            put(image, place / f"path/to/neu_seg/images/{i}.jpg")
            (place / "path/to/neu_seg/annotations").mkdir(exist_ok=True)
            cv2.imwrite(str(place / f"path/to/neu_seg/annotations/{i}.png"), classes)
            put(image, place / f"path/to/crack_forest/Images/{i}.jpg")
            put(mask, place / f"path/to/crack_forest/Masks/{i}_label.PNG")
            put(image, place / f"path/to/drive/images/{i}_training.png")
            put(mask, place / f"path/to/drive/1st_manual/{i}_manual1.gif")
            put(image, place / f"path/to/cable/data/{'good' if i % 3 == 0 else 'bent'}/{i}.png")
            put(image, place / f"path/to/mvtec/cable/{'train/good' if i % 3 == 0 else 'test/bent'}/{i}.png")
            if i % 3:
                put(mask, place / f"path/to/cable/label/bent/{i}_mask.png")
                put(mask, place / f"path/to/mvtec/cable/ground_truth/bent/{i}_mask.png")
        shutil.copytree(place / "my" / "images" / "images", place / "input")
        shutil.copytree(place / "my" / "images", place / "my" / "lists")
        names = sorted(file.name for file in (place / "input").iterdir())
        for file, listed in (("train.txt", names[2:]), ("val.txt", names[:2])):
            (place / "my" / "lists" / file).write_text("\n".join(listed), encoding="utf-8")
        labelme(cable, place / "my" / "labels", "mask")
        imported = (f"input={place}/my/labels", f"output={place}/my/set", f"output_dir={place}/logs/import_labels")
        assert call_main("import_labels", *imported) == 0
        given = (*SMALL, "model=bayesian_segnet", f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels")
        assert call_main("train", *given, f"output_dir={place}/logs/train/bayesian") == 0

    return shared("place", make)


def test_what_runs_and_what_only_composes(capsys):
    with capsys.disabled():
        for command in printed():
            print(f"\n{'runs' if reason(command) is None else f'composes ({reason(command)})'}: {command}", end="")
    assert set(ONLY_COMPOSED) <= set(printed())
    assert sum(reason(command) is None for command in printed()) > 40


@pytest.mark.filterwarnings("ignore::UserWarning")  # of two batches
@pytest.mark.parametrize("command", [command for command in printed() if reason(command) is None])
def test_a_printed_command_runs(command, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    python, script, *given = words(command, place)
    name = Path(script).stem
    assert (python, (ROOT / script).is_file()) == ("python", True)
    behind = list(BEHIND.get(name, ()))
    if any(word.startswith("data.crop=") for word in given):  # crops are not resized
        behind[behind.index("data.image_size=32")] = "data.crop=32"
    if {"experiment=crack_forest", "experiment=drive"} & set(given):  # whose patches are 256×256
        behind[behind.index("data.image_size=32")] = "data.image_size=256"
    if any(word.startswith("resume=") for word in given):  # with its own configuration
        behind = []
    elif command == WHOLE or "find=batch_size" in given:
        behind.remove("trainer.fast_dev_run=true")
    elif name == "train" and "-m" not in given:
        behind.append("data.batch_size=2")
    if "experiment=best" in given:
        behind.append(f"hydra.searchpath=[file://{place}/conf]")
        behind = [word for word in behind if not word.startswith("~")]  # that study left these out too
    if "hydra/launcher=joblib" in given:
        behind.append("hydra.launcher.n_jobs=1")  # in this process
    code = call_main(name, *given, *behind)
    assert code == 0, capfd.readouterr().err


@pytest.mark.parametrize("command", [command for command in printed() if reason(command) is not None])
def test_what_does_not_run_composes(command, tmp_path):
    _, script, *given = flags_last(words(command, tmp_path))
    name = Path(script).stem
    swept = "-m" in given
    parsed = OverridesParser.create().parse_overrides([word for word in given if word != "-m"])
    assert swept == any(override.is_sweep_override() for override in parsed)
    single = [
        f"{o.get_key_element()}={next(iter(o.sweep_string_iterator()))}" if o.is_sweep_override() else o.input_line
        for o in parsed
    ]
    with initialize_config_dir(str(CONF_DIR), **BASE):
        check_keys(compose(name, single), name)


def test_a_real_shell_runs_one(place):
    """In a process of its own, with a flag between the overrides."""
    script = f"{sys.executable} {ROOT}/src/check_data.py data=folder --cfg job data.root={place}/my/images"
    done = subprocess.run(["bash", "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"root: {place}/my/images" in done.stdout
