"""``experiment=camvid`` on generated images: its step alone, its loaders, its training by ``train.py``."""

import csv
from collections.abc import Callable
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from hydra import compose
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig

from segnet import environment
from segnet.benchmark.programs import execute
from segnet.benchmark.steps import SOURCE, Step
from segnet.configuration import instantiate
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.dataset import Batch
from segnet.synthetic import cables
from segnet.training.graph import Results
from segnet.training.module import SegmentationModule

STAGES = 12  # eleven classes and void
DISTINCT = 24  # images that are drawn; the others are copies of them, which are decoded and transformed like any


def write(root: Path, train: int, val: int, size: int) -> None:
    """Write ``train`` and ``val`` with their masks in CamVid's folders: cables, classed by brightness."""
    pairs = [cables.render(kind, seed, size) for seed, kind in list(product(range(DISTINCT), cables.KINDS))[:DISTINCT]]
    encoded = [(_png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)), _png(_mask(image))) for image, _ in pairs]
    for split, count in (("train", train), ("val", val)):
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        for i in range(count):
            image, mask = encoded[i % DISTINCT]
            (root / split / f"{i:04d}.png").write_bytes(image)
            (root / f"{split}annot" / f"{i:04d}.png").write_bytes(mask)


def _mask(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = image.mean(2)
    bounds = np.quantile(grey, np.arange(1, STAGES) / STAGES)
    mask: NDArray[np.uint8] = np.digitize(grey, bounds).astype(np.uint8)
    return mask


def _png(image: cv2.typing.MatLike) -> bytes:
    encoded: bytes = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return encoded


class Recipe:
    """The recipe on images below a folder, which are written there at first.

    Args:
        folder: for images, cache and runs.
        size: ``images`` (of the training split), ``image_size`` and ``crop``; CamVid's are 367, 480 and 384.
        device: where it runs.
    """

    def __init__(self, folder: Path, size: DictConfig, device: torch.device) -> None:
        self.folder, self.device, self.crop = folder, device, size.crop
        self.accelerator = "gpu" if device.type == "cuda" else "cpu"
        root = folder / "camvid"
        if not root.exists():
            write(root, size.images, 16, size.image_size)
        self.overrides = [
            "experiment=camvid", f"data.root={root}", f"data.cache_dir={folder / 'cache'}",
            f"data.image_size={size.image_size}", f"data.augment.1.size=[{size.crop},{size.crop}]",
        ]  # fmt: skip

    def config(self) -> DictConfig:
        """What ``train.py`` composes; to be asked for inside a command, whose Hydra knows ``conf/``."""
        cfg: DictConfig = compose("train", self.overrides)
        return cfg

    def train(self, epochs: int) -> list[float]:
        """Run ``train.py``; images a second in each epoch after the first, as its table of epochs has them."""
        run = self.folder / "run"
        execute(
            [
                str(SOURCE / "train.py"), *self.overrides, f"trainer.accelerator={self.accelerator}",
                f"trainer.max_epochs={epochs}", f"output_dir={run}",
            ]
        )  # fmt: skip
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [float(row["images_per_second"]) for row in csv.DictReader(file)][1:]

    def step(self) -> Step:
        """The step alone, on a fixed batch: network, loss, counting, clipping and optimizer of the recipe."""
        cfg = self.config()
        torch.manual_seed(0)
        module: SegmentationModule = instantiate(cfg.model, "model").to(self.device)
        precision = environment.fastest_precision(self.device.type)

        def results(batch: Batch) -> Results:
            with environment.autocast(self.device.type, precision):
                return module.graph.step(batch)

        shape = (cfg.data.batch_size, self.crop, self.crop)
        images = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, device=self.device).permute(0, 3, 1, 2)
        masks = torch.randint(0, STAGES - 1, shape, dtype=torch.uint8, device=self.device)
        return Step(
            results, module.optimizer(module.parameters()), {"image": images, "mask": masks},
            captured=self.device.type == "cuda", deterministic=True, clip=cfg.trainer.gradient_clip_val,
        )  # fmt: skip

    def data(self, device_cache: bool, workers: int) -> Callable[[], int]:
        """Read an epoch of the training split to the device, by the loader or from the device's own memory.

        The call returns the number of images.
        """
        cfg = self.config()
        cfg.data.device_cache, cfg.data.num_workers = device_cache, workers
        data: SegmentationDataModule = instantiate(cfg.data, "data")
        data.trainer = Trainer(
            accelerator=self.accelerator, devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        data.prepare_data()
        data.setup("fit")
        loader = data.train_dataloader()

        def epoch() -> int:
            images = 0
            for batch in loader:
                on = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
                images += len(data.on_after_batch_transfer(on, 0)["image"])
            return images

        return epoch
