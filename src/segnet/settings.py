"""Declared types of settings that no constructor of this package takes: of commands and of libraries.

Everything else is declared where it is taken, in the constructor's annotations; `segnet.rules` checks them all alike.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Interval, Len, MinLen
from pydantic import Field

Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Workers = Annotated[int, Interval(ge=0, le=1024)]  # processes
Share = Annotated[float, Interval(ge=0, le=1)]
NotNegative = Annotated[float, Ge(0)]
Above0 = Annotated[float, Gt(0)]
Text = Annotated[str, MinLen(1)]
# Hydra reads the name of a folder such as 2024 as a number.
PathText = Annotated[Text | int | float, "a path"]
Point = Annotated[PathText | None, "a path, none or null"]
Label = Text | int  # Hydra reads 3 as a number
Url = Annotated[
    Annotated[str, Field(pattern=r"^[a-z0-9+]+://")] | None,
    "the URL of a database, such as sqlite:///study.db, or null",
]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]
Level = Annotated[int, Interval(ge=0, le=255)]
Mode = Literal["min", "max"]
Find = Annotated[Literal["lr", "batch_size"] | None, "batch_size or null"]
Device = Literal["auto", "cpu", "cuda"]
Flips = bool | Literal["horizontal"]  # over which mirror images a prediction is averaged
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
# A number of batches, or a share of them.
Batches = Annotated[
    Count | Share | None, "a number of batches (an integer of at least 0), a share in [0.0, 1.0] or null"
]
Parts = Literal[
    "ceiling", "training", "loop", "index", "memory", "data", "inference", "program", "runtimes", "networks"
]
Side = Annotated[int, Ge(32)]  # pixels; four or five poolings leave less of a smaller image
Tile = Side | None
LoopData = Annotated[
    Annotated[dict[Literal["images", "image_size", "crop", "epochs"], Positive], MinLen(4)],
    "a mapping such as {images: 32, image_size: 128, crop: 96, epochs: 4}",
]
Folds = Annotated[int, Interval(ge=2, le=26)]
Reach = Annotated[float, Interval(ge=0, le=100)]  # pixels
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
Scale = Annotated[float, Interval(gt=0, le=10)]  # of the training size; memory grows with its square
CropScale = Annotated[float, Interval(ge=0.01, le=4)]  # of the images that crops are cut from
# Of the five stages of VGG16.
Widths = Annotated[
    Annotated[Sequence[Positive], Len(5, 5)], "5 positive channel counts, one per stage, such as [16,32,80,152,184]"
]
NumClasses = Annotated[int, Interval(ge=1, le=254)]  # 255 marks ignored pixels
Value = Annotated[int, Interval(ge=0, le=65535)]  # stored in a mask
Bits = Annotated[int, Interval(ge=8, le=16)]
BetweenZeroAndOne = Annotated[float, Interval(gt=0, lt=1)]
ImageSize = Annotated[Side | tuple[Side, Side], "one side or [height,width], at least 32 pixels each"]
Color = tuple[Level, Level, Level]
Colors = Sequence[Color]
Images = Text | Sequence[Text]
Classes = Annotated[Annotated[list[Text], MinLen(1)] | None, "a list of names, such as [defect], or null"]
Masks = Text | Annotated[list[Text], MinLen(1)] | dict[Text, str]
HeightWidth = Annotated[
    Annotated[str, Field(pattern=r"^\d+x\d+$")] | None, "<height>x<width>, such as 480x480, or null"
]
Rgb = tuple[float, float, float]

Epochs = Annotated[int, Ge(-1)]
_TRAIN: dict[str, Any] = {
    "monitor": Text, "mode": Mode, "weights": PathText | list[PathText] | None, "own_size": bool,
    "minutes": Above0 | None, "auto": bool,
    "budget_ms": Above0 | None, "runtime": Literal["pytorch", "onnx", "openvino", "executorch", "litert"] | None,
    "teacher": PathText | None, "distill.weight": Share, "distill.temperature": Above0,
    "trainer.max_epochs": Epochs, "trainer.limit_train_batches": Batches, "trainer.limit_val_batches": Batches,
    "trainer.check_val_every_n_epoch": Positive | None,
}  # fmt: skip
TOLERANCES = ("tolerance", "tolerance_float16", "tolerance_int8")
_TOLERANCE = {"difference": NotNegative, "decisions": Share, "iou": NotNegative, "verdicts": Share, "objects": Share}

_BENCHMARK: dict[str, Any] = {
    "": dict[str, Any], ".parts": Annotated[list[Parts], MinLen(1)],
    ".batch_sizes": Annotated[list[Positive], MinLen(1)], ".repeats": Positive,
    ".workers": Annotated[list[Count], MinLen(1)], ".loop": LoopData, ".matrix": Positive, ".copy_mb": Positive,
}  # fmt: skip
_EXPORT: dict[str, Any] = {
    "ckpt_path": PathText, "format": Literal["onnx", "openvino", "executorch", "litert", "pt2"],
    "quantize": Literal["int8"] | None,
    "calibration": Positive, "max_drop": BelowOne, "images": Count,
    "samples": Annotated[int, Interval(ge=0, le=64)], "verify": PathText | None,
    "operating_point": Point, "size": HeightWidth, "batch": Positive | None,
    "opset": Annotated[int, Interval(ge=17, le=23)], "preprocessing": Literal["inside", "outside"],
    "layout": Literal["nchw", "nhwc"], "input": Literal["uint8", "float32"] | None,
    **{f"{group}.{key}": kind for group in TOLERANCES for key, kind in _TOLERANCE.items()},
}  # fmt: skip
SETS = ("camvid", "magnetic_tile", "neu_seg", "crack_forest", "drive")  # folders of data that reproduce.py is given
# Of each command beside `SHARED`, which all share; groups that make objects are not among them.
COMMANDS: dict[str, dict[str, Any]] = {
    "train": {**_TRAIN, "resume": PathText | None, "find": Find, "folds": Folds | None, "resume_changed_data": bool},
    "tune": {
        **_TRAIN, "resume": PathText | None, "find": None, "folds": None, "trials": Positive, "storage": Url,
        "study": Text, "prune.startup_trials": Count, "prune.warmup_epochs": Count,
    },
    "eval": {
        "ckpt_path": PathText, "split": Text, "mc_samples": Count, "own_size": bool, "worst": Count, "grid": Count,
        "operating_point": Point,
        "boundary.width": Annotated[float, Interval(gt=0, le=1)], "boundary.tolerance": Reach,
    },
    "predict": {
        "ckpt_path": PathText, "input": PathText, "overlay": bool, "probabilities": bool, "batch_size": Positive,
        "tile": Tile, "overlap": BelowOne, "flips": Flips, "scales": Annotated[list[Scale], MinLen(1)],
        "mc_samples": Count, "precision": Precision, "device": Device, "operating_point": Point,
        "exit_code": Literal["errors", "verdict"], "segmentation": Literal["rle", "polygon"], "watch": bool,
        "live.seconds": Above0 | None, "live.keep": Count, "live.rows": Positive, "live.tries": Count,
    },
    "export": _EXPORT,
    "publish": {
        **_EXPORT, "run": PathText, "output": PathText, "ckpt_path": PathText | None,
        "format": Literal["auto", "none", "onnx", "openvino", "executorch", "litert", "pt2"],
        "images": Positive, "photos": bool, "push": Text | None, "private": bool, "verify": None,
    },
    "calibrate": {
        "ckpt_path": PathText, "target": Text, "split": Text, "confirm": Text | None, "temperature": bool,
        "worst": Count, "device": Device,
    },
    "demo": {
        "ckpt_path": PathText, "host": Text, "port": Annotated[int, Interval(ge=1, le=65535)],
        "max_upload_mb": Above0, "max_total_mb": Above0, "max_files": Positive, "keep_minutes": Above0,
        "max_queue": Positive, "max_seconds": Above0, "max_pixels": Positive, "tile": Tile, "overlap": BelowOne,
        "mc_samples": Count, "operating_point": Point,
        "batch_size": Positive, "precision": Precision, "device": Device,
    },
    "compare": {
        "runs": PathText | Annotated[list[PathText], MinLen(1)], "baseline": PathText | None,
        "resamples": Annotated[int, Ge(100)],
    },
    "import_labels": {
        "input": PathText, "output": PathText, "images": PathText | None, "masks": PathText | None,
        "format": Literal["auto", "coco", "labelme", "cvat", "yolo", "voc", "masks"],
        "classes": Annotated[list[Label], MinLen(1)] | dict[Label, Label | list[Label]] | None, "ignore": list[Label],
        "unlabelled": Literal["error", "empty", "skip"], "missing": Literal["error", "skip"],
        "boxes": Literal["error", "fill", "skip"], "line_width": NotNegative | None,
        "crowd": Literal["ignore", "object"] | None, "drawn": Literal["upright", "stored"] | None,
    },
    "check_data": {
        "strict": bool, "near": Annotated[int, Interval(ge=0, le=64)], "contact": Count, "labels": PathText | None,
        "worst": Count, "write": bool, "overwrite": bool,
    },
    "reproduce": {
        **dict.fromkeys(SETS, PathText), "only": Text, "seeds": Annotated[list[Seed], MinLen(1)],
        "minutes": Above0 | None, "extra": str, "jobs": Positive, "keep": Literal["all", "weights"],
    },
    "benchmark": {
        "device": Device, "image_size": Side, "images": Positive, "turn": Above0,
        "compile": list[Literal["default", "reduce-overhead", "max-autotune"]],
        "parts": Annotated[list[Parts], MinLen(1)] | None, "batch_sizes": Annotated[list[Positive], MinLen(1)] | None,
        "repeats": Positive | None, "workers": Annotated[list[Count], MinLen(1)] | None, "loop": LoopData | None,
        **{f"{device}{key}": kind for device in ("cpu", "cuda") for key, kind in _BENCHMARK.items()},
        "networks": Annotated[list[Text], MinLen(1)], "ckpt_path": PathText | None,
        "threads": Annotated[list[Positive], MinLen(1)], "runtimes.batch": Positive,
        "runtimes.images": Positive, "runtimes.calibration": Positive, "runtimes.max_drop": BelowOne,
        "runtimes.seconds": Above0,
    },
}  # fmt: skip
SHARED: dict[str, Any] = {"output_dir": PathText, "seed": Seed, "trust": bool, "verbose": bool}
_CALLBACKS: dict[str, Any] = {
    "monitor": Text | None, "mode": Mode, "patience": Count, "min_delta": float, "refresh_rate": Count,
    "filename": Text | None, "dirpath": PathText, "save_top_k": Annotated[int, Ge(-1)],
    "every_n_epochs": Count | None, "decay": Share, "update_every_n_steps": Positive,
    "update_starting_at_step": Count | None, "swa_lrs": Above0 | list[Above0], "annealing_epochs": Count,
    "swa_epoch_start": Positive | BelowOne,
    "window_size": Annotated[int, Ge(2)], "logging_interval": Literal["step", "epoch"] | None,
    "save_on_train_epoch_end": bool | None, "max_depth": Annotated[int, Ge(-1)],
}  # fmt: skip
# Of constructors of libraries, by the beginning of their names: ranges that their annotations do not tell.
LIBRARIES: dict[str, dict[str, Any]] = {
    "lightning.pytorch.Trainer": {
        "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
        "devices": Annotated[
            Literal["auto", -1] | Positive | Annotated[list[Count], MinLen(1)],
            "auto, a number of devices or a list of them",
        ],
        # Images become float32, which a network of another type cannot take. The short names are Lightning's.
        "precision": Annotated[
            Precision | Literal["32", "16", "bf16", 32, 16], "auto, 32-true, bf16-mixed or 16-mixed"
        ],
        "strategy": Annotated[
            # Not ddp_spawn, ddp_fork and ddp_notebook: their processes end with the fit, before test and report.
            Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "single_device", "deepspeed"],
            "auto, ddp, ddp_find_unused_parameters_true or fsdp",
        ],
        "num_nodes": Positive,
        "max_epochs": Epochs,
        "max_steps": Annotated[int, Ge(-1)],
        "min_epochs": Count | None,
        "min_steps": Count | None,
        "max_time": Annotated[
            Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")] | None,
            "days:hours:minutes:seconds, such as 00:01:30:00, or null",
        ],
        "gradient_clip_val": NotNegative | None,
        "accumulate_grad_batches": Positive,
        "check_val_every_n_epoch": Positive | None,
        "limit_train_batches": Batches,
        "limit_val_batches": Batches,
        "limit_test_batches": Batches,
        "overfit_batches": Batches,
        "fast_dev_run": bool | Count,
        "num_sanity_val_steps": Annotated[int, Ge(-1)],
        "log_every_n_steps": Count,
        "deterministic": bool | Literal["warn"],
        "profiler": Literal["simple", "advanced", "pytorch", "xla"] | None,
    },
    "lightning.pytorch.callbacks.": _CALLBACKS,
    "segnet.training.selection.": _CALLBACKS,  # subclasses of those
    "lightning.pytorch.loggers.": {"save_dir": PathText, "name": str | None, "version": int | str | None},
    "torch.optim.lr_scheduler.": {
        "step_size": Positive, "gamma": Above0, "power": Above0, "pct_start": Share, "max_lr": Above0 | list[Above0],
        "T_max": Positive, "total_steps": Positive, "total_iters": Positive, "factor": Above0, "patience": Count,
        "eta_min": NotNegative, "div_factor": Above0, "final_div_factor": Above0, "mode": Mode,
        "anneal_strategy": Literal["cos", "linear"], "milestones": list[Count], "threshold": NotNegative,
        "min_lr": NotNegative | list[NotNegative], "T_0": Positive, "T_mult": Positive,
    },
    "torch.optim.": {
        "lr": NotNegative, "momentum": Annotated[float, Interval(ge=0, lt=1)], "weight_decay": NotNegative,
        "dampening": Share, "eps": NotNegative, "betas": tuple[BelowOne, BelowOne], "alpha": Share,
    },
    "albumentations.": {"blur_limit": Count | tuple[Count, Count], "size": tuple[Positive, Positive]},
    "segmentation_models_pytorch.": {
        "encoder_name": Text, "encoder_depth": Annotated[int, Interval(ge=3, le=5)], "classes": Positive,
        "in_channels": Annotated[Literal[3], "3, as images are RGB"], "encoder_weights": Text | None,
    },
}  # fmt: skip


def is_path(annotation: Any) -> bool:
    """Whether a declared type is that of a path, of a list of paths, or of either one among others."""
    return annotation == PathText or any(map(is_path, get_args(annotation)))


def declared(target: str) -> dict[str, Any]:
    """The types that `LIBRARIES` declares for the arguments of a class or function."""
    for beginning, types in LIBRARIES.items():
        if target.startswith(beginning):
            return types
    return {}
