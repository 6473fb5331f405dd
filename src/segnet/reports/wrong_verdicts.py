"""Contact sheets for the person who decides: images that escaped, and good ones that were rejected."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data.datamodule import SegmentationDataModule
from segnet.data.images import resize_mask, resize_pair
from segnet.data.pairs import Pair
from segnet.data.segmentation_data import SegmentationData
from segnet.decisions.figures import Tally
from segnet.reports.tested import predicted
from segnet.training.module import SegmentationModule
from segnet.visualization.overlays import drawn_at, palette, panel, save
from segnet.visualization.sheets import sheet


def write_sheet(
    path: Path, worst: Iterable[tuple[str, Pair, NDArray[np.uint8]]], data: SegmentationData, classes: Sequence[str]
) -> None:
    """A row an image: image, truth, prediction, errors, below a line of text; without an image no file.

    Args:
        path: of the PNG.
        worst: the line of text, the files, and the predicted mask (H, W) of class indices, the worst first.
        data: its mask encoding and colours.
        classes: of the network.
    """
    table, rows = palette(len(classes), data.colors), []
    for text, pair, guess in worst:
        size = drawn_at(guess.shape)
        image, mask = resize_pair(*pair.load(data.mask, None), size)
        rows.append((text, panel(image, mask, resize_mask(guess, size), table, binary=len(classes) == 1)))
    path.unlink(missing_ok=True)  # of another evaluation
    if rows:
        save(path, sheet(rows))


def write_worst(
    folder: Path,
    tally: Tally,
    module: SegmentationModule,
    device: torch.device,
    data: SegmentationDataModule,
    pairs: Sequence[Pair],
    count: int,
) -> None:
    """``escapes.png``, defective images, the lowest score first, and ``overkills.png``, good ones, the highest first.

    Args:
        folder: to write to.
        tally: of the images.
        module: that has decided; it predicts the images drawn once more.
        device: that predicts.
        data: that the images belong to.
        pairs: the files of the tally's images.
        count: images of each at most.
    """
    for name, defective in (("escapes", True), ("overkills", False)):
        wrong = [i for i, one in enumerate(tally.judged) if one.defective is defective and one.called is not defective]
        score = [tally.judged[i].score for i in wrong]
        worst = [wrong[i] for i in np.argsort([s if defective else -s for s in score], kind="stable")][:count]
        again = predicted(module, device, [pairs[i] for i in worst], data.mask)
        rows = (
            (f"{tally.files[i]}  score {tally.judged[i].score:.4f}", pairs[i], prediction.mask())
            for i, (_, prediction) in zip(worst, again, strict=True)
        )
        write_sheet(folder / f"{name}.png", rows, data, module.classes)
