"""What runs beside a training: the table of epochs, panels, batch norms re-estimated."""

import csv
import errno
from functools import partial

import albumentations as A
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import Threshold
from segnet.data.splits import ByHash
from segnet.files import write_csv
from segnet.training.callbacks import Panels, ReestimateBatchNorm
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule
from segnet.training.panels import draw_panels
from segnet.visualization.overlays import DEFECT


def data(root, **options):
    return SegmentationDataModule(
        str(root), "images/*", "masks/{stem}.png", Threshold(), classes=["defect"], num_classes=1, image_size=32,
        split=ByHash(0.5, 0.25, 0.25), **options,
    )  # fmt: skip


def module(net, **options):
    torch.manual_seed(0)
    sgd = partial(torch.optim.SGD, lr=0.0)
    return SegmentationModule(net, CrossEntropy(1), sgd, classes=["defect"], image_size=32, **options)


def trainer(folder, *callbacks, **options):
    given = {"logger": False, "enable_checkpointing": False} | options
    return Trainer(
        accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **given,
    )  # fmt: skip


def test_batch_norms_are_re_estimated_on_the_images_as_they_are(cable, tmp_path):
    """Training inverts every image; the mean and variance that stay are those of the files."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    model, given = module(net), data(cable, augment=[A.InvertImg(p=1)], batch_size=1)
    keep = ModelCheckpoint(tmp_path / "kept")
    run = trainer(tmp_path, keep, ReestimateBatchNorm(), enable_checkpointing=True, max_epochs=1)
    run.fit(model, given)
    images = np.stack([given.load(i)[0] for i in given.indices["train"]]).reshape(len(given.indices["train"]), -1, 3)
    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    mean, variance = x.mean((0, 1)), x.var(1, ddof=1).mean(0)  # each image is a batch, and all weigh the same
    assert np.abs(net[0].running_mean.numpy() - mean).min() > 0.1
    run.test(model, given, verbose=False)
    np.testing.assert_allclose(net[0].running_mean.numpy(), mean, rtol=1e-4)
    np.testing.assert_allclose(net[0].running_var.numpy(), variance, rtol=1e-4)
    state = torch.load(tmp_path / "kept" / "reestimated.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["net.0.running_mean"], net[0].running_mean)


@pytest.mark.parametrize(
    ("validated", "epochs", "shown"),
    [
        (1, 7, [4, 6]),
        (4, 10, [7]),  # the first validation after the fifth epoch is the last
        (2, 11, [5, 9]),
        (3, 2, None),
    ],
)
def test_panels_come_every_few_epochs_and_in_the_last(cable, tmp_path, validated, epochs, shown):
    """What is due in an epoch without a validation comes with the next one."""
    model, given = module(nn.Conv2d(3, 1, 1)), data(cable, batch_size=12)
    board = TensorBoardLogger(tmp_path, name="", version="")
    run = trainer(
        tmp_path, Panels(every_n_epochs=5, images=2), logger=board, max_epochs=epochs, log_every_n_steps=1,
        check_val_every_n_epoch=validated,
    )  # fmt: skip
    run.fit(model, given)
    board.finalize("success")
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == ([] if shown is None else ["val/0", "val/1", "val/confusion"])
    found = None if shown is None else [event.step for event in events.Images("val/0")]
    assert found == shown  # a step an epoch, the first is 0


def test_a_panel_shows_an_image_its_truth_and_what_the_network_decides(cable, tmp_path):
    """Those with a defect first; the network here finds one everywhere."""
    model, given = module(nn.Conv2d(3, 1, 1)), data(cable)
    nn.init.zeros_(model.net.weight)
    nn.init.ones_(model.net.bias)
    given.setup("fit")
    model.trainer = trainer(tmp_path)
    shown = draw_panels(model.train(), given, "train", 2)
    assert model.training
    found = [i for i in given.indices["train"] if (given.load(i)[1] == 1).any()]
    assert 2 < len(found) < len(given.indices["train"])
    for drawn, index in zip(shown, (found[0], found[-1]), strict=True):
        image, mask = given.load(index)
        blended = (image.astype(int) + DEFECT) // 2
        assert np.array_equal(drawn[:, :32], image)
        assert np.array_equal(drawn[:, 40:72], np.where(mask[..., None] == 1, blended, image))
        assert np.array_equal(drawn[:, 80:112], blended)


class Unprintable:
    def __str__(self):
        raise OSError(errno.ENOSPC, "disk full")


def test_a_table_that_cannot_be_written_whole_leaves_the_old_one(tmp_path):
    rows = [{"epoch": "0", "val/iou": "0.5"}]
    write_csv(tmp_path / "metrics.csv", rows)
    rows += [{"epoch": "1", "train/loss": "2"}, {"epoch": Unprintable()}]
    with pytest.raises(OSError, match="disk full"):
        write_csv(tmp_path / "metrics.csv", rows)
    with (tmp_path / "metrics.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"epoch": "0", "val/iou": "0.5"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    rows.pop()
    write_csv(tmp_path / "metrics.csv", rows)
    with (tmp_path / "metrics.csv").open() as file:
        assert [list(row.values()) for row in csv.DictReader(file)] == [["0", "0.5", ""], ["1", "", "2"]]
