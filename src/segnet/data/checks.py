"""Settings of the data that contradict each other, or that no type excludes where a program makes the data module."""

from collections.abc import Sequence
from typing import Any

from segnet.data import grouping
from segnet.data.masks import check_classes
from segnet.errors import UserError


def check(
    batch_size: Any,
    num_workers: Any,
    device_cache: Any,
    positive_share: float | None,
    classes: Sequence[str],
    num_classes: int,
    colors: Sequence[Sequence[int]] | None,
    kinds: str | None = None,
    parts: str | None = None,
) -> None:
    """Refuse them; the arguments are those of `SegmentationDataModule`.

    Raises:
        UserError: with the key, the value and the rule.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise UserError(f"data.batch_size={batch_size}: must be an integer of at least 1")
    if num_workers != "auto" and (type(num_workers) is not int or num_workers < 0):
        raise UserError(f"data.num_workers={num_workers}: must be 'auto' or at least 0")
    if device_cache != "auto" and type(device_cache) is not bool:
        raise UserError(f"data.device_cache={device_cache}: must be 'auto', true or false")
    for key, pattern in {"data.kinds": kinds, "data.parts": parts}.items():
        grouping.check(key, pattern)
    check_classes(classes, num_classes, colors)
    if positive_share is not None and not 0 < positive_share < 1:
        raise UserError(f"data.positive_share={positive_share}: must lie between 0 and 1, or be null")
