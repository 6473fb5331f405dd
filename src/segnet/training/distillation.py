"""Learning from a trained network beside the masks: what an ensemble knows, in one small network.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segnet import terminal
from segnet.configuration import instantiate
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.dataset import Batch
from segnet.data.images import resize_exact
from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError
from segnet.networks.segnet import SMALLEST
from segnet.training.checkpoint import load_module
from segnet.training.module import SegmentationModule
from segnet.training.published import is_published

BEST = Path("checkpoints") / "best.ckpt"


class Teacher:
    """Adds to the loss of a training batch how far the student's probabilities are from the teacher's.

    ``(1 - weight) · loss + weight · temperature² · KL(teacher ‖ student)``, see `divergence`. The teacher sees the
    student's own augmented images, at its own scale, in the precision of the run; it stays in evaluation mode, gets no
    gradient and is no part of any checkpoint.

    Args:
        path: of its checkpoint.
        module: the trained network, in evaluation mode.
        weight: of its part, in 0..1.
        temperature: that both logits are divided by; more than 1 shows the teacher's doubts more clearly.
        scale: of the images it wants, vertically and horizontally, as factors of the student's.

    Attributes:
        seen: of each split of the student, how many images the teacher was trained on or chosen by; empty if unknown.
    """

    def __init__(
        self, path: Path, module: SegmentationModule, weight: float, temperature: float, scale: Sequence[float]
    ) -> None:
        self.path, self.module = path, module.requires_grad_(False)
        self.weight, self.temperature, self.scale = weight, temperature, tuple(scale)
        self.seen: dict[str, int] = {}

    def __call__(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """The scalar loss with the teacher's part.

        Args:
            loss: by the masks.
            logits: of the student, float32 (N, C, H, W).
            batch: ``image`` (N, 3, H, W) in 0..255 and ``mask`` (N, H, W).
        """
        given = self.logits(batch["image"])
        with torch.autocast(logits.device.type, enabled=False):
            soft = divergence(logits, given, batch["mask"], self.temperature)
            return (1 - self.weight) * loss + self.weight * soft

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 (N, C, H, W) of RGB images (N, 3, H, W) in 0..255."""
        if self.module.device != images.device:
            self.module.to(images.device)
        height, width = images.shape[-2:]
        size = tuple(max(SMALLEST, round(side * s)) for side, s in zip((height, width), self.scale, strict=True))
        found = self.module.logits(resize_exact(images, (size[0], size[1])))
        return found if size == (height, width) else F.interpolate(found, (height, width), mode="bilinear")

    def described(self) -> dict[str, Any]:
        """For a report: where it is, how it counts, and what it has seen of the student's splits."""
        described = {"path": str(self.path), "weight": self.weight, "temperature": self.temperature}
        return described | {"seen": {split: count for split, count in self.seen.items() if count}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: what averages the student's weights copies the student, and the teacher never changes."""
        return self


def divergence(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """``temperature² · KL(teacher ‖ student)`` of the probabilities of logits over the temperature, a scalar.

    The mean over the pixels that the mask does not ignore; the factor keeps the gradient's size (section 2). One logit
    is that of the defect, against 0 for the background.

    Args:
        student: logits float32 (N, C, H, W).
        teacher: the same.
        mask: (N, H, W) class indices.
        temperature: above 0.
    """
    both = [F.pad(z, (0, 0, 0, 0, 1, 0)) if z.shape[1] == 1 else z for z in (student, teacher)]
    own, target = (F.log_softmax(z / temperature, 1) for z in both)
    apart = F.kl_div(own, target, reduction="none", log_target=True).sum(1)
    counted = (mask != IGNORE_INDEX).to(apart.dtype)
    return temperature**2 * (apart * counted).sum() / counted.sum().clamp(min=1)


def teacher(given: Any, settings: Any, student: SegmentationModule, trusted: bool = False) -> Teacher:
    """The teacher that ``teacher=<run folder or checkpoint>`` names, for this student.

    Args:
        given: the folder of a run, or of a cross-validation for its ensemble, or a checkpoint, or a published folder.
        settings: ``weight`` and ``temperature``.
        student: the module to train.
        trusted: the user made the checkpoint.

    Raises:
        UserError: it is not there, or knows other classes.
    """
    path = Path(str(given))
    path = path / BEST if path.is_dir() and not is_published(path) else path
    module = load_module(path, trusted, "teacher")
    if module.classes != student.classes:
        raise UserError(
            f"teacher={given}: it knows the classes [{','.join(module.classes)}], and this run has "
            f"[{','.join(student.classes)}]: number, names and order must agree; choose another teacher or data"
        )
    return Teacher(path, module, settings.weight, settings.temperature, _scale(given, module, student))


def _scale(given: Any, module: SegmentationModule, student: SegmentationModule) -> Sequence[float]:
    """How much larger the teacher wants images than the student, vertically and horizontally.

    Raises:
        UserError: one of them is trained on crops, and the other on whole images.
    """
    if module.on_crops != student.on_crops:
        raise UserError(
            f"teacher={given}: it was trained {'on crops' if module.on_crops else 'on whole images'}, and this run is "
            f"not: they would see the same objects at different sizes; choose another teacher, or data.crop as it had"
        )
    if module.on_crops:
        return [module.scale / student.scale] * 2
    return [its / own for its, own in zip(module.image_size, student.image_size, strict=True)]


class TellSeen(Callback):
    """Says which images that will judge the student its teacher knows already."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count them, for `Teacher.seen`."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SegmentationDataModule)
        assert isinstance(pl_module, SegmentationModule)
        own = pl_module.teacher
        assert isinstance(own, Teacher)
        if (known := _known(own.module, data)) is None:
            told = f"it was trained on other data than data.root={data.root}"
            if is_published(own.path):
                told = "a published folder does not say where its data are: it may have seen images of any split"
            terminal.info(f"teacher={own.path}: {told}")
            return
        names = [pair.image.relative_to(data.root).as_posix() for pair in data.pairs]
        own.seen = {s: sum(names[i] in known for i in data.indices[s]) for s in ("val", "test")}
        if any(own.seen.values()):
            told = ", ".join(f"{n} of {len(data.indices[s])} {s} images" for s, n in own.seen.items() if n)
            terminal.info(
                f"teacher={own.path}: it was trained on, or chosen by, {told}, so figures on them are optimistic; a "
                f"test split that both leave out, such as data.split.test=0.15 with folds=5, is honest"
            )


def _known(module: SegmentationModule, data: SegmentationDataModule) -> set[str] | None:
    """Paths relative to the data's root of the images that a network has seen; None where that cannot be told."""
    trained = module.config["data"]
    if Path(str(trained["root"])).resolve() != data.root.resolve():
        return None
    try:
        found = instantiate(trained["split"], "teacher: data.split")(data.root, data.layout.list_images())
    except UserError:  # other images than it was divided for
        return None
    return {image for name in ("train", "val") for image in found.get(name, [])}
