"""Which files a run trains on, written down when it begins and compared when it is resumed."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from segnet.data.datamodule import SegmentationDataModule
from segnet.errors import UserError
from segnet.files import atomic_write

NAME = "data.csv"  # in the run folder: one row an image
COLUMNS = ("split", "image", "mask", "image_bytes", "image_modified", "mask_bytes", "mask_modified")
Row = dict[str, str]


class DataRecord(Callback):
    """Keeps ``data.csv``, and refuses to resume on files that are not those which the run began with.

    The command adds it, so that runs of earlier versions have it when resumed.

    Args:
        folder: of the run.
        changed: whether to continue, with a warning, on data that has changed.
    """

    def __init__(self, folder: str, changed: bool = False) -> None:
        self.path, self.changed = Path(folder) / NAME, changed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare or write.

        Raises:
            UserError: files or splits have changed since the run began.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SegmentationDataModule)
        now = rows(data)
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                found = changes(list(csv.DictReader(file)), now)
            if not found:
                return
            told = f"the data in {data.root} has changed since the run began: {found}"
            if not self.changed:
                raise UserError(
                    f"{told}; put it back, start a new run, or resume with the changed data: resume={self.path.parent} "
                    f"resume_changed_data=true"
                )
            rank_zero_warn(f"{told}; the run continues with it, and not to the weights that it would have reached")
        if trainer.is_global_zero:
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS)
            writer.writeheader()
            writer.writerows(now)
            with atomic_write(self.path) as part:
                part.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")


def rows(data: SegmentationDataModule) -> list[Row]:
    """A row for every image of a split, in the order of training: names, sizes in bytes, times of change in ns."""
    return [
        {"split": split}
        | _files("image", [data.pairs[i].image], data.root)
        | _files("mask", data.pairs[i].masks, data.root)
        for split, indices in data.indices.items()
        for i in indices
    ]


def _files(kind: str, paths: Sequence[Path], root: Path) -> Row:
    """Name, bytes and time of change; those of several files one after the other."""
    stats = [path.stat() for path in paths]
    names = [str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in paths]
    return {
        kind: " ".join(names),
        f"{kind}_bytes": " ".join(str(stat.st_size) for stat in stats),
        f"{kind}_modified": " ".join(str(stat.st_mtime_ns) for stat in stats),
    }


def changes(before: list[Row], now: list[Row]) -> str:
    """What is not as it was, in words; empty if nothing."""
    old, new = ({row["image"]: row for row in given} for given in (before, now))
    both = [name for name in new if name in old]
    moved = [name for name in both if old[name]["split"] != new[name]["split"]]
    kinds = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "in another split": moved,
        "with another image or mask file": [
            name for name in both if old[name] | {"split": ""} != new[name] | {"split": ""}
        ],
    }
    parts = [f"{len(names)} {kind} ({names[0]}{', …' if names[1:] else ''})" for kind, names in kinds.items() if names]
    return ", ".join(parts) or ("" if list(old) == list(new) else "the order of the images")
