"""The out-of-fold predictions that a training with ``folds=k`` leaves behind, by networks that never saw the image.

``<run>/out_of_fold/masks/<image, suffix .png>`` holds class indices at the image's own size and ``confidence/`` beside
it, in 0..255, the probability of the class decided for; of a binary task, that of the defect.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from segnet.command_line import command_line, override
from segnet.data.images import read_raw_mask
from segnet.errors import UserError
from segnet.reports.out_of_fold import FOLDER
from segnet.runs.record import configuration


@dataclass(frozen=True)
class OutOfFold:
    """The predictions of a run; they come from `find`."""

    folder: Path

    def has(self, image: str) -> bool:
        """Whether there is a prediction of an image, by its path relative to the root."""
        return all(path.is_file() for path in self._files(image))

    def load(self, image: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Class indices (H, W), and in 0..1 the confidence (H, W) in them; of a binary task, in the defect.

        Raises:
            UserError: unreadable.
        """
        mask, confidence = (read_raw_mask(path, "index") for path in self._files(image))
        return mask.astype(np.uint8), (confidence / 255).astype(np.float32)

    def _files(self, image: str) -> tuple[Path, Path]:
        name = PurePosixPath(image).with_suffix(".png")
        return self.folder / "masks" / name, self.folder / "confidence" / name


def find(run: Path, root: Path, num_classes: int) -> OutOfFold:
    """The predictions in a run's folder.

    Args:
        run: its folder.
        root: of the data set that is audited.
        num_classes: of the data set.

    Raises:
        UserError: it is no run, has no out-of-fold predictions, or other classes.
    """
    folder = run / FOLDER
    if not (folder / "masks").is_dir():
        again = command_line("train", ["experiment=auto", "data=folder", override("data.root", str(root)), "folds=5"])
        what = "holds no out-of-fold predictions" if run.is_dir() else "no such folder"
        raise UserError(f"labels={run}: {what}; a training with folds makes them: {again}")
    trained = OmegaConf.select(configuration(run), "data.num_classes")
    if trained is not None and trained != num_classes:
        raise UserError(
            f"labels={run}: was trained with data.num_classes={trained}, but the data have data.num_classes="
            f"{num_classes}; name the same classes and data.mask as in the training"
        )
    return OutOfFold(folder)
