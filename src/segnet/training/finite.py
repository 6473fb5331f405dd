"""Whether the losses of an epoch are finite: known at once on a CPU, some steps later on a GPU, without a wait."""

from typing import Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from segnet.data.datamodule import SegmentationDataModule


class FiniteLosses:
    """Whether all losses since `begin` were finite."""

    def __init__(self) -> None:
        self.begin(torch.device("cpu"))

    def begin(self, device: torch.device) -> None:
        """Forget what was, for losses on this device."""
        on_gpu = device.type == "cuda"
        self._so_far = torch.ones((), dtype=torch.bool, device=device)
        self._copy = torch.ones((), dtype=torch.bool, pin_memory=on_gpu)
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def after(self, loss: Tensor, batch_idx: int, trainer: Trainer) -> bool:
        """Whether all losses were finite, this one included, as far as is looked after this step."""
        self._so_far = loss.detach().isfinite() & self._so_far
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        look = when_to_look(loss.device, batch_idx, every, last=trainer.is_last_batch)
        return look is None or (self.now() if look == "now" else self.lately())

    def now(self) -> bool:
        """Whether all were; a GPU is waited for."""
        return bool(self._so_far)

    def lately(self) -> bool:
        """Whether all were at the last call of this, whose answer has come by now; asks for the next."""
        if self._copied is not None:
            self._copied.synchronize()
        known = bool(self._copy)
        self._copy.copy_(self._so_far, non_blocking=self._copied is not None)
        if self._copied is not None:
            self._copied.record()
        return known


def when_to_look(device: torch.device, batch_idx: int, every: int, last: bool) -> Literal["now", "lately"] | None:
    """How to look after this step; on a GPU twice in ``every`` steps, so that a loss is noticed within so many."""
    if device.type == "cpu" or last:
        return "now"
    return "lately" if (batch_idx + 1) % max(1, every // 2) == 0 else None


def loss_without_value(batch: dict[str, Tensor], data: SegmentationDataModule | None) -> str:
    """What to say of a batch on which the loss is NaN though the network's output is finite."""
    files = [str(data.pairs[data.indices["train"][i]].image) for i in batch["index"].tolist()] if data else []
    return (
        f"the network's output is finite, so the loss itself has no value for this batch; choose another one, such as "
        f"loss=cross_entropy, or look at the masks of {', '.join(files)}"
    )
