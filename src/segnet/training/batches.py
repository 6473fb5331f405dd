"""Batches of a single image, on which some networks cannot be trained."""

import copy

import torch
from torch import nn

from segnet import terminal
from segnet.data.datamodule import SegmentationDataModule
from segnet.errors import UserError


def settle_last_batch(net: nn.Module, data: SegmentationDataModule) -> None:
    """Leave a last batch of one image out of every training epoch, where the network cannot be trained on it.

    Global pooling leaves one pixel a channel; a batch norm after it needs two images. Networks that can do with one
    image, such as every SegNet, keep it.

    Raises:
        UserError: every batch would be one image.
    """
    data.drop_single = False
    world = data.trainer.world_size if data.trainer else 1
    images = data.epoch_length // world
    if (data.batch_size > 1 and images % data.batch_size != 1) or _can_train_on_one(net, data):
        return
    name = type(net).__name__
    if data.batch_size == 1:
        raise UserError(
            f"data.batch_size=1: {name} has batch norms over single pixels (global pooling), which need two images; "
            f"set data.batch_size=2 or more"
        )
    if images == 1:
        raise UserError(
            f"data.split gives 1 image to train: {name} has batch norms over single pixels (global pooling), which "
            f"need two images; add images, or choose model=segnet"
        )
    data.drop_single = True
    terminal.info(
        f"data: an epoch uses {images - 1} of {images} training images, each time others: the last batch would be one "
        f"image, on which {name} cannot be trained (batch norm after global pooling)"
    )


def _can_train_on_one(net: nn.Module, data: SegmentationDataModule) -> bool:
    height, width, _ = data.samples("train")[0]["image"].shape
    trial = copy.deepcopy(net).cpu().train()  # its statistics move
    image = torch.zeros(1, 3, height, width)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # and dropout draws
            trial(image)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return False
    return True
