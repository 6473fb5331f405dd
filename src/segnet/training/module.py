"""The LightningModule: a network, a loss, an optimizer factory and a scheduler factory, and nothing else."""

import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from segnet.configuration import call
from segnet.data.images import resize_exact
from segnet.errors import UserError
from segnet.networks.segnet import enable_mc_dropout
from segnet.training.graph import StepGraph
from segnet.training.losses import CrossEntropy
from segnet.training.metrics import Counts, MeanLoss, names, scores
from segnet.training.schedules import run_length

Batch = dict[str, Tensor]
STAGES = ("train", "val", "test")


class SegmentationModule(LightningModule):
    """Trains and evaluates any network that maps (N, 3, H, W) to logits (N, num_classes, H, W).

    Args:
        net: the network.
        loss: maps logits (N, C, H, W) float32 and masks (N, H, W) int64 to a scalar.
        optimizer: called with the parameters.
        scheduler: called with the optimizer; a length it wants (``total_steps``, ``T_max`` or
            ``total_iters``) and was not given is the run's number of steps, and it then steps per batch,
            otherwise per epoch.
        classes: class names; one name is a binary task.
        image_size: (height, width) that pictures have in training, and get in `forward`.
        mean: of the RGB channels in 0..1, for normalisation on the device.
        std: their standard deviations.
        class_weights: factors of the loss per class (binary: of the positive class), or
            ``median_frequency`` to count them in the training split (SegNet, section 4), null for none.
        monitor: the metric that chooses the best checkpoint; plateau schedulers follow it.
        channels_last: keep weights and activations in the layout that fast convolutions want.
        cuda_graph: on a GPU, replay training steps from a CUDA graph: ``auto`` where it can be (a run says why not),
            True (an error where it cannot), False.
        compile: mode of ``torch.compile`` for training; null for none. A checkpoint has no trace of it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        *,
        classes: Sequence[str],
        image_size: int | Sequence[int],
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        class_weights: Sequence[float] | Literal["median_frequency"] | None = None,
        monitor: str = "val/iou",
        channels_last: bool = True,
        cuda_graph: bool | Literal["auto"] = "auto",
        compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None,
    ) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]
        self.loss = loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.classes = list(classes)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
        self.class_weights, self.monitor = class_weights, monitor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        for stage in STAGES:  # attributes, so that Lightning moves them to the device
            setattr(self, f"{stage}_counts", Counts(len(self.classes), calibration=stage == "test"))
            setattr(self, f"{stage}_loss", MeanLoss())
        if compile not in (None, "default", "reduce-overhead", "max-autotune"):
            raise UserError(f"model.compile={compile}: must be null, default, reduce-overhead or max-autotune")
        self.compile_mode = compile
        self.graph = StepGraph(cuda_graph, self._results)
        self._finite = torch.ones((), dtype=torch.bool)
        self.counts: dict[str, tuple[Tensor, Tensor]] = {}  # of the last epoch, by stage, for the reports
        self.pictures: list[tuple[int, Tensor]] = []  # index and confusion matrix of each tested picture
        self.mc_samples = 0  # of dropout, averaged in a test
        self.config: dict[str, Any] | None = None  # what rebuilds this module; goes into the checkpoint
        known = [f"{stage}/{name}" for stage in ("train", "val") for name in names(self.classes)]
        if monitor not in known:
            raise UserError(f"monitor={monitor}: no such metric; known are {', '.join(known)}")

    # -- prediction ------------------------------------------------------------------------------

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits float32 (N, C, H, W) of uint8 RGB pictures (N, 3, H, W) of any size.

        Pictures are resized to ``image_size`` as in training, the logits back to the pictures' own size.
        """
        height, width = pictures.shape[-2:]
        logits = self.logits(resize_exact(pictures, self.image_size))
        if (height, width) != self.image_size:
            logits = F.interpolate(logits, (height, width), mode="bilinear")
        return logits

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits float32 (N, C, H, W) of RGB pictures (N, 3, H, W) in 0..255, uint8 or float, H and W unchanged."""
        out: Tensor = self.net(self.normalise(pictures))
        return out.float()

    def normalise(self, pictures: Tensor) -> Tensor:
        """What the network gets, float32 (N, 3, H, W), of RGB pictures in 0..255."""
        return pictures.to(torch.float32, copy=True).div_(255).sub_(self.mean).div_(self.std)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (N, C, H, W) in 0..1: sigmoid of one logit, softmax of several."""
        return logits.sigmoid() if len(self.classes) == 1 else logits.softmax(1)

    @property
    def colors(self) -> list[list[int]] | None:
        """RGB of each class in overlays, as the data it was trained on says; None for the standard palette."""
        found: list[list[int]] | None = (self.config or {}).get("data", {}).get("colors")
        return found

    def decide(self, logits: Tensor) -> Tensor:
        """Class indices (N, H, W) int64; 0 and 1 for a binary task."""
        return (logits[:, 0] > 0).long() if len(self.classes) == 1 else logits.argmax(1)

    # -- training --------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check that data and module agree; set or count the class weights."""
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and list(data.classes) != self.classes:
            raise UserError(
                f"data.classes={data.classes}, but the model knows {self.classes}; choose data with its classes"
            )
        if stage == "fit" and self.class_weights is not None:
            self._set_weights()
        if stage == "fit" and self.compile_mode is not None:
            self.net.compile(mode=self.compile_mode)  # in place: the names of the weights stay

    def _set_weights(self) -> None:
        targets = [part for part in self.loss.modules() if isinstance(part, CrossEntropy)]
        if not targets:
            raise UserError(
                f"model.class_weights={self.class_weights}: loss {type(self.loss).__name__} takes no weights; "
                f"use loss=cross_entropy or loss=bce_dice, or model.class_weights=null"
            )
        if isinstance(self.class_weights, str):
            if self.class_weights != "median_frequency":
                raise UserError(f"model.class_weights={self.class_weights}: must be median_frequency, a list or null")
            weights = median_frequency(torch.from_numpy(self.trainer.datamodule.class_frequencies()))  # type: ignore[attr-defined]
        else:
            weights = torch.tensor(list(self.class_weights or ()), dtype=torch.float32)
        for target in targets:
            if weights.shape != target.weight.shape or not (weights >= 0).all():
                raise UserError(
                    f"model.class_weights={weights.tolist()}: needs {len(target.weight)} non-negative factor(s)"
                )
            target.weight.copy_(weights)

    def _counts(self, stage: str) -> Counts:
        counts: Counts = getattr(self, f"{stage}_counts")
        return counts

    def _results(self, batch: Batch, stage: str = "train") -> tuple[Tensor, Tensor, Tensor]:
        """Loss, confusion matrix and histogram of a batch; nothing here waits for a GPU."""
        loss, logits = self._loss(batch, sampled=False)
        return loss, *self._counts(stage).count(logits, batch["mask"])

    def _loss(self, batch: Batch, sampled: bool) -> tuple[Tensor, Tensor]:
        logits = self._mean_of_samples(batch["image"]) if sampled else self.logits(batch["image"])
        with torch.autocast(logits.device.type, enabled=False):
            loss: Tensor = self.loss(logits, batch["mask"].long())
        return loss, logits.detach()

    def _step(self, batch: Batch, stage: str) -> Tensor:
        loss, logits = self._loss(batch, sampled=stage == "test" and self.mc_samples > 0)
        counted = self._counts(stage).count(logits, batch["mask"])
        if stage == "test":
            self._count_pictures(logits, batch)
        return self._keep(stage, loss, counted, batch)

    def _keep(self, stage: str, loss: Tensor, counted: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
        self._counts(stage).update(*counted)
        getattr(self, f"{stage}_loss").update(loss.detach(), len(batch["image"]))
        return loss

    def _mean_of_samples(self, pictures: Tensor) -> Tensor:
        """Logits of the mean probabilities over Monte-Carlo samples of the dropout (Bayesian SegNet, section 3)."""
        enable_mc_dropout(self.net)
        samples = (self.probabilities(self.logits(pictures)) for _ in range(self.mc_samples))
        mean = torch.stack(list(samples)).mean(0).clamp(1e-7, 1 - 1e-7)
        return mean.logit() if len(self.classes) == 1 else mean.log()

    def _count_pictures(self, logits: Tensor, batch: Batch) -> None:
        counts = self._counts("test")
        for i, index in enumerate(batch["index"].tolist()):
            confusion, _ = counts.count(logits[i : i + 1], batch["mask"][i : i + 1])
            self.pictures.append((index, confusion.cpu()))

    def on_test_epoch_start(self) -> None:
        """Forget the pictures of an earlier test."""
        self.pictures = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss; on a GPU replayed from a CUDA graph, with its gradients (see `segnet.training.graph`)."""
        results = self.graph(batch, self.trainer.accumulate_grad_batches)
        if results is None:
            with self.graph.watched():
                results = self._results(batch)
        loss, *counted = results
        self._finite = loss.detach().isfinite() & self._finite
        every = self.trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        if check_is_due(loss.device, batch_idx, every, last=self.trainer.is_last_batch):
            self._check_finite()
        return self._keep("train", loss, (counted[0], counted[1]), batch)

    def _check_finite(self) -> None:
        if not self._finite:
            raise FloatingPointError(
                f"train/loss is not finite in epoch {self.current_epoch}, step {self.trainer.fit_loop.batch_idx} or a "
                f"few before: training diverged; lower model.optimizer.lr or set trainer.gradient_clip_val=1 (the last "
                f"good checkpoint is kept)"
            )

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of the loss: those that the graph has computed, or by autograd."""
        if self.graph.replayed:
            self.graph.hand_over(self.trainer.accumulate_grad_batches)
        else:
            torch.autograd.backward(loss, *args, **kwargs)

    def on_train_start(self) -> None:
        """Decide whether steps become a CUDA graph."""
        self.graph.begin(self.trainer, self)

    def on_train_end(self) -> None:
        """Give the graph's memory back."""
        self.graph.forget()

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss."""
        return self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss; counts of every single picture go to `pictures`, to rank and to compare them."""
        return self._step(batch, "test")

    def on_train_epoch_start(self) -> None:
        """Draw dropout by seed, epoch and process, so that a resumed run draws what the whole one would have."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        torch.manual_seed(zlib.crc32(f"{seed} {self.current_epoch} {self.global_rank}".encode()))
        self._finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.graph.check(self.trainer, self)

    def on_train_epoch_end(self) -> None:
        """Before the epoch's checkpoint; it may have ended early."""
        self._check_finite()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the epoch's metrics before validation begins, so that one table row holds both."""
        if self.trainer.is_last_batch:
            self._epoch_end("train")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics."""
        self._epoch_end("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics, and bring the pictures of all processes together."""
        self._epoch_end("test")
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.pictures)
            self.pictures = sorted(chain(*parts), key=lambda picture: picture[0])

    def _epoch_end(self, stage: str) -> None:
        metric = self._counts(stage)
        self.counts[stage] = metric.compute()
        metric.reset()
        mean = getattr(self, f"{stage}_loss")
        values = {"loss": mean.compute()} | scores(*self.counts[stage], self.classes)
        mean.reset()
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)  # equal in every process

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and scheduler from their factories."""
        optimizer: torch.optim.Optimizer = call(self.optimizer, "model.optimizer", self.parameters())
        if self.scheduler is None:
            return optimizer
        length = run_length(self.scheduler)
        steps = self.trainer.estimated_stepping_batches
        if length and math.isinf(steps):
            raise UserError("model.scheduler lasts the whole run, which has no end; set trainer.max_epochs")
        extra = {length: int(steps)} if length else {}
        try:
            scheduler = call(self.scheduler, "model.scheduler", optimizer, **extra)
        except ZeroDivisionError as error:
            raise UserError(f"model.scheduler: a run of {steps} step(s) is too short for it; train longer") from error
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": "step" if length else "epoch",
                "monitor": self.monitor,
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint describe itself: plain containers only, so it loads with ``weights_only``.

        Raises:
            FloatingPointError: a loss before it was not finite, so that the file before stays.
        """
        self._check_finite()
        checkpoint["config"] = self.config


def check_is_due(device: torch.device, batch_idx: int, every: int, last: bool) -> bool:
    """Whether to look after this step if the loss is finite: always on a CPU; a GPU would have to be waited for."""
    return device.type == "cpu" or last or (batch_idx + 1) % every == 0


def median_frequency(frequencies: Tensor) -> Tensor:
    """Weights by median frequency balancing (SegNet, section 4; Eigen and Fergus, ICCV 2015).

    The frequency of a class is its pixels over the pixels of the pictures it occurs in; its weight is the
    median frequency over its own.

    Args:
        frequencies: (K, 2) pixels of the class, and of the pictures with the class.

    Returns:
        (K,) float32; (1,) for K = 2, the positive class's weight relative to the background's.

    Raises:
        UserError: a class does not occur.
    """
    if (frequencies == 0).any():
        missing = (frequencies[:, 0] == 0).nonzero().flatten().tolist()
        raise UserError(
            f"model.class_weights=median_frequency: class(es) {missing} do not occur in the training split; "
            f"give model.class_weights as a list"
        )
    share = frequencies[:, 0].double() / frequencies[:, 1]
    weights = share.quantile(0.5) / share
    return (weights[1:] / weights[0] if len(weights) == 2 else weights).float()
