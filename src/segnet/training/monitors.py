"""What may choose a checkpoint, stop early and prune: the names of metrics, and when one of them says nothing."""

from collections.abc import Mapping, Sequence

from lightning.pytorch import Callback
from torch import Tensor

from segnet.errors import UserError
from segnet.training import objects
from segnet.training.metrics import names, unseen
from segnet.training.objects import ObjectMetrics


def check_metric(key: str, name: str, classes: Sequence[str]) -> None:
    """Refuse the name of a metric that no training logs; ``key`` is what the user calls it."""
    known = [f"{stage}/{metric}" for stage in ("train", "val") for metric in names(classes)]
    if name not in known and not objects.is_known(name):
        raise UserError(f"{key}={name}: no such metric; known are {', '.join(known)}, {objects.KNOWN}")


def counts_objects(callbacks: Sequence[Callback], monitor: str) -> list[ObjectMetrics]:
    """What counts the objects that a monitor asks for, its own or a callback's; none where none asks, or one is there.

    That also counts what is asked for then.
    """
    monitors = [monitor, *(str(getattr(callback, "monitor", "")) for callback in callbacks)]
    wanted = [name for name in monitors if objects.is_known(name)]
    present = [callback for callback in callbacks if isinstance(callback, ObjectMetrics)]
    for callback in present:
        callback.metrics = list(dict.fromkeys([*callback.metrics, *wanted]))
    return [ObjectMetrics(wanted)] if wanted and not present else []


def lacking(
    monitor: str,
    counts: Mapping[str, tuple[Tensor, Tensor]],
    callbacks: Sequence[Callback],
    classes: Sequence[str],
) -> str | None:
    """What the last epoch lacks that a metric needs, as a sentence; None where it is defined, or before it.

    Args:
        monitor: name of the metric.
        counts: of each stage, see `segnet.training.metrics.Counts`.
        callbacks: of the trainer, of which one may count objects.
        classes: class names.
    """
    if objects.is_known(monitor):
        found = (callback.missing(monitor, classes) for callback in callbacks if isinstance(callback, ObjectMetrics))
        return next(found, None)
    stage, _, name = monitor.partition("/")
    missing = unseen(counts[stage][0], name, classes) if stage in counts else None
    return missing and f"no pixel of the {stage} split shows {missing}"
