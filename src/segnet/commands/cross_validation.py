"""``train.py folds=k``: a network a fold, predictions for every image by the one that has not seen it, the ensemble."""

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict

from segnet.commands import choices
from segnet.errors import UserError
from segnet.runs import folders, record, resume
from segnet.terminal import named

if TYPE_CHECKING:
    from segnet.data.datamodule import SegmentationDataModule

BY_FOLD = "segnet.data.folds.ByFold"


def run(cfg: DictConfig, changed_data: bool = False) -> float | None:
    """Train the folds one after the other, each in a run folder of its own, and report on all of them.

    What a stopped run has finished is kept: a fold with ``results.json`` is not trained again.

    Args:
        cfg: the whole configuration, with ``folds``.
        changed_data: continue folds although their data have changed.

    Returns:
        Mean over the folds of the best value of ``monitor``; None in debug runs, or where it was never defined.

    Raises:
        Stopped: by a signal; the run can be resumed.
    """
    from segnet.commands.fit import fit
    from segnet.commands.sizes import settle_size
    from segnet.training.preemption import stopping

    _check(cfg)
    settle_size(cfg.data)
    with stopping():
        _divide(cfg)
        for number in range(cfg.folds):
            fold, folder = _fold(cfg, number), _folder(cfg, number)
            if _finished(fold, folder):
                print(f"fold {number}: was finished before, in {folder}")
                continue
            print(f"fold {number} of {cfg.folds}: {folder}")
            began = record.has_record(folder)
            if not cfg.trainer.fast_dev_run:
                folders.lock(folder)
                record.write(fold, record.recorded(Path(cfg.output_dir)), folder)
            with named(f"fold {number}"):
                fit(fold, began, changed_data)
            gc.collect()  # a module and its trainer hold each other
        if cfg.trainer.fast_dev_run:
            print(f"trainer.fast_dev_run={cfg.trainer.fast_dev_run}: all folds run; there is no report and no ensemble")
            return None
        return _report(cfg)


def _check(cfg: DictConfig) -> None:
    """Refuse what would fail after hours.

    Raises:
        UserError: several processes, or no checkpoints.
    """
    trainer = cfg.trainer
    if trainer.devices not in (1, "1") and not (OmegaConf.is_list(trainer.devices) and len(trainer.devices) == 1):
        raise UserError(
            f"folds={cfg.folds} with trainer.devices={trainer.devices}: folds are trained one after the other in one "
            f"process; set trainer.devices=1"
        )
    if trainer.strategy not in ("auto", "single_device") or trainer.num_nodes != 1:
        raise UserError(
            f"folds={cfg.folds} with trainer.strategy={trainer.strategy} trainer.num_nodes={trainer.num_nodes}: folds "
            f"are trained one after the other in one process; set trainer.strategy=auto trainer.num_nodes=1"
        )
    kept = [str(callback._target_).rpartition(".")[2] for callback in cfg.callbacks.values()]
    if not {"BestCheckpoint", "ModelCheckpoint"} & set(kept) and not trainer.fast_dev_run:
        raise UserError(
            f"folds={cfg.folds} without checkpoints: the ensemble is made of them; leave trainer.enable_checkpointing "
            f"and callbacks.checkpoint as they are"
        )


def _divide(cfg: DictConfig) -> None:
    """Put the folds in place of the split, in the run's record too; a resumed run has them there."""
    from segnet.configuration import instantiate, plain
    from segnet.data import folds
    from segnet.data.splits import ByHash
    from segnet.reports import out_of_fold

    if cfg.data.split._target_ == BY_FOLD:
        return
    data: SegmentationDataModule = instantiate(plain(cfg.data) | {"cache_dir": None}, "data")
    data.prepare_data()
    data.setup()
    keys = [override.lstrip("+").partition("=")[0] for override in record.recorded(Path(cfg.output_dir))]
    # The default shares are no statement that images are to be kept apart.
    named = not isinstance(data.split, ByHash) or any(key in ("data.split", "data.split.test") for key in keys)
    found = folds.divide(data, cfg.folds, keep_test=named)
    out_of_fold.check_names(pair.image.relative_to(data.root).as_posix() for pair in data.pairs)
    with open_dict(cfg):
        cfg.data.split = {"_target_": BY_FOLD, **vars(found)}
    if not cfg.trainer.fast_dev_run:
        choices.write_record(cfg, "data")


def _folder(cfg: DictConfig, number: int) -> Path:
    return Path(cfg.output_dir) / f"fold{number}"


def _fold(cfg: DictConfig, number: int) -> DictConfig:
    """The configuration of a fold's training."""
    fold = cfg.copy()
    with open_dict(fold):
        fold.output_dir, fold.folds, fold.resume = str(_folder(cfg, number)), None, None
        fold.data.split.fold = number
    return fold


def _finished(fold: DictConfig, folder: Path) -> bool:
    """Whether a fold has its results, for as many epochs as are wanted now: a resumed run may get more."""
    if not (folder / "results.json").is_file() or not record.has_record(folder):
        return False
    return bool(record.configuration(folder).trainer.max_epochs == fold.trainer.max_epochs)


def _report(cfg: DictConfig) -> float | None:
    """Predict every image by the network that has not seen it, make and test the ensemble, write what was found."""
    from dataclasses import replace

    from segnet import environment
    from segnet.configuration import instantiate, plain
    from segnet.data.folds import ByFold
    from segnet.reports import cross_validation, out_of_fold
    from segnet.training.checkpoint import ensemble, load_module
    from segnet.training.preemption import AtomicCheckpoints

    home = Path(cfg.output_dir)
    results = [json.loads((_folder(cfg, i) / "results.json").read_text(encoding="utf-8")) for i in range(cfg.folds)]
    paths = [_folder(cfg, i) / "checkpoints" / Path(str(found["checkpoint"])).name for i, found in enumerate(results)]
    module = ensemble(paths, cfg.trust)
    best = home / resume.LAST.with_name("best.ckpt")
    best.parent.mkdir(exist_ok=True)
    AtomicCheckpoints().save_checkpoint({"config": module.config, "state_dict": module.state_dict()}, best)
    data: SegmentationDataModule = instantiate(plain(cfg.data) | {"cache_dir": None}, "data")
    data.setup()
    settings = plain(cfg.trainer) | {"callbacks": [], "logger": False, "enable_checkpointing": False}
    settings["precision"] = environment.precision_of(settings["precision"], settings["accelerator"])
    trainer = instantiate(settings, "trainer")
    pairs = {pair.image.relative_to(data.root).as_posix(): pair for pair in data.pairs}
    judged: list[out_of_fold.Judged] = []
    assert isinstance(data.split, ByFold)
    for number, path in enumerate(paths):
        own = {
            name: pairs[name] for name in replace(data.split, fold=number)(data.root, data.layout.list_images())["val"]
        }
        print(f"fold {number}: predicting the {len(own)} images that it has not seen")
        member = load_module(path, cfg.trust)
        judged += out_of_fold.predict(home, number, member, trainer.strategy.root_device, own, data.mask)
    return cross_validation.write(cfg, results, judged, trainer, module, data)
