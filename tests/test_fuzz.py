# ruff: noqa: E501 (tables)
"""Wrong overrides, by the hundreds: each ends in one line with its key and a remedy. A sample of them runs with the
other tests; ``make fuzz`` runs all.
"""

import os
import random
import re
import time

import pytest

from helpers import SMALL, call_main

FULL = os.environ.get("FUZZ") == "full"
SAMPLE = 6  # overrides of a command that run with the other tests, of train.py three times as many

# Wrong values by what a setting is, written by hand and not from the types that the program declares.
NO_NUMBER = ("abc", "[1,2]", "{a:1}", "null", "''", "nan", "true")
NO_COUNT = (*NO_NUMBER, "1.5", "-1", "inf")
WRONG = {
    "count": NO_COUNT,
    "positive": (*NO_COUNT, "0"),
    "epochs": ("abc", "[1,2]", "{a:1}", "''", "nan", "true", "1.5", "-2"),
    "optional count": tuple(value for value in NO_COUNT if value != "null"),
    "batches": ("abc", "[1]", "{a:1}", "''", "nan", "-1", "1.5", "-0.5", "inf"),
    "not negative": (*NO_NUMBER, "-0.1", "inf"),
    "above 0": (*NO_NUMBER, "-0.1", "0", "inf"),
    "share": (*NO_NUMBER, "-0.1", "1.1", "inf"),
    "bool": ("abc", "1", "0.5", "[true]", "{a:1}", "null", "''"),
    "text": ("[a]", "{a:1}", "null", "''", "true"),
    "choice": ("abc", "5", "[a]", "{a:1}", "''"),
    "path": ("[a]", "{a:1}", "''", "/no/such/file"),
    "number list": ("abc", "[a]", "{a:1}", "[nan]", "''", "[null]", "true"),
    "object": ("abc", "5", "[a]", "''", "true", "{_target_:no.such.thing}", "{_target_:os.getcwd,a:1}"),
}
TRAIN = {
    "seed": "count", "mode": "choice", "monitor": "text", "find": "choice", "resume": "path", "weights": "path",
    "folds": ("abc", "0", "1", "27", "2.5", "[2]", "true"), "teacher": "path", "distill": ("abc", "5", "[a]", "null"),
    "distill.weight": "share", "distill.temperature": "above 0",
    "data.root": "path", "data.missing_mask": "choice",
    "data.images": ("[a]", "{a:1}", "''", "true"), "data.masks": ("{a:1}", "''", "true"),  # null is found by data=folder
    "data.defect_free": ("[a]", "{a:1}", "true"), "data.mask": "object", "data.mask.above": ("abc", "[1]", "true", "nan"),
    "data.kinds": ("[a]", "{a:1}", "true", "''", "'('"), "data.parts": ("[a]", "{a:1}", "5", "''", "'(?P<a>'"), "data.split.group": ("'['",),
    "data.classes": ("5", "{a:1}", "''", "[a,b]"), "data.num_classes": "positive", "data.colors": ("5", "abc", "[[1,2]]", "[[a,b,c]]"),
    "data.split": "object", "data.split.train": "share", "data.split.val": "share", "data.split.test": "share",
    "data.image_size": (*NO_NUMBER, "16", "-1", "31.5", "[32]", "[32,a]"), "data.batch_size": "positive",
    "data.num_workers": NO_COUNT, "data.cache_dir": ("[a]", "{a:1}", "''"), "data.cache_gb": "not negative",
    "data.crop": ("abc", "16", "-1", "[64]", "[64,a]", "true", "''"), "data.scale": (*NO_NUMBER, "0", "-1", "5", "inf"),
    "data.crop_share": "share", "data.crops_per_epoch": ("abc", "0", "-1", "1.5", "[1]", "true", "''"),
    "data.device_cache": ("abc", "1", "[a]", "null"), "data.augment": ("abc", "5", "{a:1}", "[5]", "true"),
    "data.augment.0.p": "share", "data.positive_share": ("abc", "0", "1", "1.5", "[1]", "nan", "true"),
    "data.prepare": ("abc", "5", "[a]", "true"), "data.prepare.images": "positive", "data.prepare.size": (*NO_COUNT, "0"),
    "data.seed": "count", "minutes": ("abc", "0", "-1", "[1]", "nan", "true", "5"), "auto": "bool",
    "budget_ms": ("abc", "0", "-1", "[1]", "nan", "true", "5"), "runtime": ("abc", "5", "[a]", "onnx"),
    "model.net": "object", "model.net.num_classes": "positive", "model.net.dropout": "share",
    "model.net.widths": ("abc", "5", "[16]", "[a]", "null", "[16,32,80,152,0]", "[16,32,80,152,-1]"), "model.loss": "object",
    "model.loss.num_classes": "positive", "model.optimizer": "object", "model.optimizer.lr": "not negative",
    "model.optimizer.momentum": "share", "model.optimizer.nesterov": ("abc", "5", "null", "true"),
    "model.optimizer.weight_decay": "not negative", "model.scheduler": "object", "model.classes": ("5", "abc", "[a,b]", "null"),
    "model.mean": "number list", "model.std": ("abc", "[a]", "{a:1}", "[nan]", "''", "[null]", "true", "[0,0,0]", "[1,1]"),
    "model.class_weights": ("abc", "5", "[a]", "[-1]", "[1,2]", "true"), "model.channels_last": "bool",
    "model.cuda_graph": ("abc", "5", "[a]", "null"), "model.compile": ("abc", "5", "[a]", "true"),
    "trainer.accelerator": "choice", "trainer.devices": ("abc", "0", "-2", "1.5", "[a]", "{a:1}", "null", "''"),
    "trainer.precision": "choice", "trainer.strategy": "choice", "trainer.num_nodes": "positive",
    "trainer.sync_batchnorm": "bool", "trainer.max_epochs": "epochs", "trainer.max_time": ("abc", "5", "[a]", "true", "''"),
    "trainer.gradient_clip_val": ("abc", "[1]", "-1", "nan", "true", "''"), "trainer.accumulate_grad_batches": "positive",
    "trainer.check_val_every_n_epoch": ("abc", "0", "-1", "1.5", "[1]", "nan", "true", "''"),
    "trainer.limit_train_batches": "batches", "trainer.limit_val_batches": "batches", "trainer.limit_test_batches": "batches",
    "trainer.fast_dev_run": ("abc", "[1]", "-1", "1.5", "''"), "trainer.overfit_batches": ("abc", "[1]", "-1", "1.5", "nan", "''"),
    "trainer.deterministic": ("abc", "5", "[a]", "''"), "trainer.log_every_n_steps": "optional count",
    "trainer.num_sanity_val_steps": ("abc", "-2", "1.5", "[1]", "nan", "''"), "trainer.enable_progress_bar": ("abc", "5", "[a]", "''"),
    "trainer.enable_model_summary": ("abc", "5", "[a]", "''"), "trainer.profiler": ("abc", "5", "[a]", "''"),
    "trainer.use_distributed_sampler": ("abc", "5", "[a]", "''"), "trainer.plugins": ("abc", "5", "{a:1}"),
    "callbacks.checkpoint": ("abc", "5", "[a]"), "callbacks.checkpoint.monitor": ("5", "[a]", "val/nothing", "''"),
    "callbacks.checkpoint.mode": "choice", "callbacks.panels.images": "positive", "callbacks.panels.every_n_epochs": "positive",
    "callbacks.progress.refresh_rate": "count", "callbacks.forecast.steps": "positive", "callbacks.forecast.minutes": "not negative",
    "callbacks.epoch_table.path": ("5.5.5/[", "{a:1}", "[a]", "null"), "logger.tensorboard": ("abc", "5", "[a]"),
    "logger.tensorboard.save_dir": ("[a]", "{a:1}", "null"), "logger.tensorboard.default_hp_metric": "bool",
}  # fmt: skip
GROUPS = ("data", "model", "loss", "optimizer", "scheduler", "trainer", "callbacks", "logger", "augment", "experiment")
for group in GROUPS:
    TRAIN[group] = ("no_such_option", "5", "{a:1}", "null", "''")
COMMANDS = {
    "train": TRAIN,
    "eval": {
        "ckpt_path": "path", "split": "choice", "seed": "count", "mc_samples": "count", "worst": "count", "grid": "count",
        "operating_point": "path",
        "boundary.width": ("abc", "0", "-1", "1.5", "[1]", "nan", "true"), "boundary.tolerance": "not negative",
        "data.image_size": ("abc", "16", "-1", "1.5", "[32]", "true"), "data.batch_size": ("abc", "0", "-1", "1.5", "[1]", "true"),
        "data.num_workers": ("abc", "-1", "1.5", "[1]"), "data.root": ("[a]", "/no/such/folder", "''"),
        "trainer.accelerator": "choice", "trainer.precision": "choice", "data": ("no_such_option", "5"),
    },
    "predict": {
        "ckpt_path": "path", "input": "path", "overlay": "bool", "probabilities": "bool", "batch_size": "positive",
        "tile": ("abc", "0", "-1", "16", "1.5", "[1]", "nan", "true"), "overlap": (*NO_NUMBER, "-0.1", "1", "2"),
        "flips": ("abc", "1", "0.5", "[true]", "null", "vertical"),
        "scales": ("abc", "1.0", "[]", "[0]", "[-1]", "[a]", "null", "[nan]"), "mc_samples": "count", "precision": "choice",
        "device": "choice", "seed": "count", "operating_point": "path", "exit_code": "choice", "segmentation": "choice",
        "watch": "bool", "live.seconds": ("abc", "0", "-1", "[1]", "nan", "true"), "live.keep": "count", "live.rows": "positive",
        "live.tries": "count",
    },
    "calibrate": {
        "ckpt_path": "path", "target": (*NO_NUMBER, "escape", "escape<=0", "escape<=1", "overkill<=-1", "cost=1", "cost=0:1", "f2"),
        "split": "choice", "confirm": tuple(value for value in NO_NUMBER if value != "null"), "temperature": "bool",
        "worst": "count", "device": "choice", "seed": "count", "data.image_size": ("abc", "16", "-1"),
    },
    "export": {
        "ckpt_path": "path", "format": "choice", "quantize": "choice", "calibration": "positive", "images": "count", "verify": "path",
        "tolerance.difference": "not negative", "tolerance.decisions": "share", "tolerance.iou": "not negative",
        "tolerance_int8.decisions": "share", "operating_point": "path", "tolerance.verdicts": "share", "data.root": ("[a]", "{a:1}", "/no/such/folder"), "seed": "count",
    },
    "publish": {
        "run": "path", "output": ("[a]", "{a:1}", "''"), "format": "choice", "quantize": "choice", "images": "positive", "photos": "bool",
        "push": ("[a]", "{a:1}", "''", "true", "name", "a/b/c"), "private": "bool", "verify": ("a.onnx", "[a]"), "operating_point": "path",
        "ckpt_path": "path", "calibration": "positive", "tolerance_int8.iou": "not negative",
    },
    "demo": {
        "ckpt_path": "path", "host": "text", "port": (*NO_COUNT, "0", "70000"), "max_upload_mb": "above 0",
        "operating_point": "path", "max_pixels": "positive", "mc_samples": "count", "batch_size": "positive", "precision": "choice", "device": "choice",
    },
    "compare": {"runs": "path", "resamples": (*NO_COUNT, "0", "99"), "seed": "count", "baseline": ("abc", "[a]", "{a:1}")},
    "import_labels": {
        "input": "path", "output": ("[a]", "{a:1}", "''"), "images": "path", "masks": ("[a]", "{a:1}", "''", "no/such/folder"),
        "format": "choice", "unlabelled": "choice", "missing": "choice", "boxes": "choice", "crowd": "choice", "drawn": "choice",
        "classes": ("5", "abc", "[]", "[[a]]", "{a:{b:1}}", "[a,b]", "{a:no_such_label}", "''"),
        "ignore": ("5", "abc", "null", "[[a]]", "[no_such_label]"), "line_width": ("abc", "-1", "[1]", "nan", "true"),
    },
    "check_data": {
        "strict": "bool", "write": "bool", "overwrite": "bool", "labels": ("[a]", "{a:1}", "no/such/run"), "worst": "count",
        "near": (*NO_COUNT, "65"), "contact": "count", "seed": "count", "data.root": "path",
        "data.image_size": ("abc", "16", "-1"), "data.masks": "text", "data.split.train": "share",
    },
    "tune": {
        "trials": "positive", "study": "text", "prune.startup_trials": "count", "prune.warmup_epochs": "count",
        "storage": ("5", "[a]", "abc"), "search": ("5", "abc", "[a]"), "search.optimizer": ("5", "[a]", "{choices:[]}", "{low:1}"),
        "trainer.max_epochs": "epochs",
    },
    "reproduce": {
        "only": ("5", "[a]", "{a:1}", "null", "no/such/run"), "seeds": ("5", "abc", "[]", "[a]", "[-1]", "null"),
        "minutes": ("abc", "0", "-1", "[1]", "nan", "true"), "extra": ("[a]", "{a:1}", "5"), "list": ("no_such_option", "5"),
        "jobs": "positive", "keep": "choice", "drive": ("[a]", "{a:1}"),
    },
    "benchmark": {
        "device": "choice", "image_size": ("abc", "16", "-1", "1.5", "[32]"), "images": "positive", "turn": "above 0",
        "compile": ("abc", "[abc]", "5", "true"), "parts": ("abc", "[abc]", "[]", "5"), "batch_sizes": ("abc", "[0]", "[]", "[1.5]"),
        "repeats": ("abc", "0", "-1", "1.5", "[1]"), "workers": ("abc", "[-1]", "[]", "[1.5]"),
    },
}  # fmt: skip
REMEDY = re.compile(
    r"must|needs?|write|choose|use|give|set|correct|default is|known are|lists all keys|did you mean|takes"
)


def cases(command):
    """Every wrong override of a command, or a sample that has as many keys as it can."""
    found = [(k, v) for k, kind in COMMANDS[command].items() for v in (WRONG[kind] if isinstance(kind, str) else kind)]
    if FULL:
        return found
    draw = random.Random(command)
    draw.shuffle(found)
    once = dict(found)
    return list(once.items())[: SAMPLE * (3 if command == "train" else 1)]


@pytest.fixture(scope="session")
def required(trained, sweep, cable, cache, tmp_path_factory):
    """What each command needs beside the override under test."""
    checkpoint = f"ckpt_path={trained}/checkpoints/best.ckpt"
    data = (*SMALL, f"data.root={cable}", f"data.cache_dir={cache}")
    return {
        "train": (*data, "data=folder"),
        "tune": (*data, "trials=1"),
        "eval": (checkpoint, "trainer=cpu", "trainer.enable_progress_bar=false"),
        "predict": (checkpoint, f"input={cable}/images"),
        "export": (checkpoint,),
        "calibrate": (checkpoint, "target=cost=10:1"),
        "publish": (f"run={trained}", f"output={tmp_path_factory.mktemp('published')}/a", "format=none"),
        "demo": (checkpoint,),
        "compare": (f"runs={sweep}",),
        "check_data": (f"data.root={cable}", "data=folder"),
        "import_labels": (f"input={cable}", f"output={tmp_path_factory.mktemp('imported')}"),
        "reproduce": ("camvid=/none", "magnetic_tile=/none", "minutes=0.001"),
        "benchmark": ("images=2", "image_size=32", "parts=[index]", "repeats=1", "turn=0.01"),
    }


def meets(key, word):
    """Whether a word of the command line sets this key as well, or removes it."""
    name = word.lstrip("~").partition("=")[0]
    return name == key or (word.startswith("~") and key.startswith(f"{name}."))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_wrong_override_ends_in_one_line_with_key_and_remedy(command, required, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracebacks, accepted, unclear, slow = [], [], [], []
    for i, (key, value) in enumerate(todo := cases(command)):
        needed = [word for word in required[command] if not meets(key, word)]
        start = time.monotonic()
        try:
            code = call_main(command, *needed, f"output_dir={tmp_path / str(i)}", f"{key}={value}")
        except Exception as error:
            tracebacks.append(f"{key}={value}: {type(error).__name__}: {error}")
            continue
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        if code == 0:
            accepted.append(f"{key}={value}")
        elif len(lines) != 1 or key not in lines[0] or not REMEDY.search(lines[0]):
            unclear.append(f"{key}={value}: {lines}")
        if time.monotonic() - start > 60:
            slow.append(f"{key}={value}")
    told = "\n".join([f"{len(todo)} overrides", *tracebacks, "ACCEPTED", *accepted, "UNCLEAR", *unclear, "SLOW", *slow])
    print(told)
    assert not tracebacks + slow, told
    assert len(accepted) <= 0.02 * len(todo), told
    assert len(unclear) <= 0.02 * len(todo), told
