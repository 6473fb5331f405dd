"""``train.py find=batch_size``: the largest batch that fits, and what limits it."""

import logging
import resource

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from omegaconf import DictConfig, open_dict

from segnet import environment
from segnet.commands.build import build
from segnet.data.datamodule import SegmentationDataModule
from segnet.errors import UserError
from segnet.training.graph import WARM_UP

LARGEST = 512  # that is tried


def find(cfg: DictConfig, trainer: Trainer, data: SegmentationDataModule) -> None:
    """Double the batch until memory, the training images or `LARGEST` end it; print the size and what ended it.

    Every size trains a few steps from the start and validates a batch. The machine's own memory is not filled, since
    Linux would kill the process: what the next size takes is computed from the peaks of the last two.

    Raises:
        UserError: there are several processes, or two images do not fit.
    """
    if trainer.world_size > 1:
        raise UserError(f"find=batch_size with {trainer.world_size} processes: look for it with trainer=auto, in one")
    data.prepare_data()
    data.setup()
    images, what = data.epoch_length, "crops of an epoch" if data.plan else "training images"
    size, peaks = 0, [0]
    while size < min(images, LARGEST):
        larger = min(2 * size or 2, images)
        need = peaks[-1] + (peaks[-1] - peaks[-2]) * (larger - size) / (size / 2) if len(peaks) > 2 else 0
        if need > environment.memory():
            break
        try:
            _train_briefly(cfg, larger)
        except RuntimeError as error:
            if not is_oom_error(error):
                raise
            break
        finally:
            garbage_collection_cuda()
        size = larger
        peaks.append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if size == 0:
        key = "crop" if data.plan else "image_size"
        raise UserError(f"find=batch_size: not even {larger} images fit into memory; lower data.{key}")
    limit = f"limited by memory, {larger} do not fit"
    if size == images:
        limit = f"limited by the {images} {what}, not by memory"
    elif size >= LARGEST:
        limit = "the largest that is tried, not limited by memory"
    print(f"data.batch_size={size}   ({limit}; check the learning rate with it)")


def _train_briefly(cfg: DictConfig, batch_size: int) -> None:
    """Steps until one is a CUDA graph (on a GPU), and a validation step while that holds its memory, without files."""
    trial = cfg.copy()
    with open_dict(trial):
        trial.callbacks, trial.logger, trial.model.scheduler = {}, {}, None
        trial.data.batch_size = batch_size
        trial.trainer.update(max_epochs=WARM_UP + 1, check_val_every_n_epoch=WARM_UP + 1, enable_checkpointing=False)
        trial.trainer.update(limit_train_batches=1, limit_val_batches=1)  # an epoch a step: the batches are full
        trial.trainer.update(enable_progress_bar=False, enable_model_summary=False)
    logging.disable(logging.INFO)  # or each would tell the hardware once more
    try:
        trainer, module, data = build(trial)
        trainer.fit(module, data)
    finally:
        logging.disable(logging.NOTSET)
