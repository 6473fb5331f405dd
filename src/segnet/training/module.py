"""The LightningModule: trains and evaluates a network by a loss, an optimizer factory and a scheduler factory."""

import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from segnet.configuration import call
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.dataset import Batch
from segnet.errors import UserError
from segnet.settings import Above0, NotNegative, Rgb
from segnet.training.batches import settle_last_batch
from segnet.training.finite import FiniteLosses, loss_without_value
from segnet.training.graph import StepGraph
from segnet.training.image_counts import ImageCounts
from segnet.training.losses import set_class_weights
from segnet.training.metrics import Counts, MeanLoss, scores
from segnet.training.monitors import check_metric, counts_objects, lacking
from segnet.training.schedules import attach
from segnet.training.segmenter import Segmenter
from segnet.training.whole_images import evaluate

STAGES = ("train", "val", "test")


class SegmentationModule(Segmenter):
    """Trains and evaluates any network that maps (N, 3, H, W) to logits (N, num_classes, H, W).

    Args:
        net: the network.
        loss: maps logits (N, C, H, W) float32 and masks (N, H, W) int64 to a scalar.
        optimizer: called with the parameters.
        scheduler: called with the optimizer; a length it wants (``total_steps``, ``T_max`` or ``total_iters``) and was
            not given is the run's number of steps, and it then steps per batch, otherwise per epoch.
        classes: class names; one name is a binary task.
        image_size: (height, width) that images have in training (or crops of them), and get in `forward`.
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

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        *,
        classes: Sequence[str],
        image_size: int | Sequence[int],
        mean: Rgb = (0.485, 0.456, 0.406),
        std: tuple[Above0, Above0, Above0] = (0.229, 0.224, 0.225),
        class_weights: Sequence[NotNegative] | Literal["median_frequency"] | None = None,
        monitor: str = "val/iou",
        channels_last: bool = True,
        cuda_graph: bool | Literal["auto"] = "auto",
        compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None,
    ) -> None:
        super().__init__(net, classes, image_size, mean, std, channels_last)
        self.loss = loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.class_weights, self.monitor = class_weights, monitor
        for stage in STAGES:  # attributes, so that Lightning moves them to the device
            setattr(self, f"{stage}_counts", Counts(len(self.classes), calibration=stage == "test"))
            setattr(self, f"{stage}_loss", MeanLoss())
        if compile not in (None, "default", "reduce-overhead", "max-autotune"):
            raise UserError(f"model.compile={compile}: must be null, default, reduce-overhead or max-autotune")
        self.compile_mode = compile
        self.graph = StepGraph(cuda_graph, self._results)
        self.finite = FiniteLosses()
        self.counts: dict[str, tuple[Tensor, Tensor]] = {}  # of the last epoch, by stage, for the reports
        self.image_counts = ImageCounts(len(self.classes))
        self.mc_samples = 0  # of dropout, averaged in a test
        self.teacher: Callable[[Tensor, Tensor, Batch], Tensor] | None = None  # see `segnet.training.distillation`
        self.auxiliary: Callable[[Tensor], Tensor] | None = None  # see `segnet.training.auxiliary`
        check_metric("monitor", monitor, self.classes)

    def configure_callbacks(self) -> list[Callback]:
        """Lightning's hook: a test counts every image by itself, a validation its objects if a monitor asks for it."""
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        images = [] if self.image_counts in present else [self.image_counts]
        return [*images, *counts_objects(present, self.monitor)]

    def setup(self, stage: str) -> None:
        """Check that data and module agree; set or count the class weights."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is not None and list(data.classes) != self.classes:
            raise UserError(
                f"data.classes={data.classes}, but the model knows {self.classes}; choose data with its classes"
            )
        if stage == "fit" and self.class_weights is not None:
            set_class_weights(self.loss, self.class_weights, lambda: data.class_frequencies())
        if stage == "fit" and isinstance(data, SegmentationDataModule):
            settle_last_batch(self.net, data)
        if stage == "fit" and self.compile_mode is not None:
            self.net.compile(mode=self.compile_mode)  # in place: the names of the weights stay

    def _counts(self, stage: str) -> Counts:
        return getattr(self, f"{stage}_counts")  # type: ignore[no-any-return]

    def _results(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, confusion matrix and histogram of a training batch; nothing here waits for a GPU."""
        loss, logits = self._loss(batch)
        loss = loss if self.teacher is None else self.teacher(loss, logits, batch)
        loss = loss if self.auxiliary is None else loss + self.auxiliary(batch["mask"])
        return loss, *self._counts("train").count(logits.detach(), batch["mask"])

    def _loss(self, batch: Batch, samples: int = 0) -> tuple[Tensor, Tensor]:
        logits = self.mean_of_samples(batch["image"], samples) if samples else self.logits(batch["image"])
        with torch.autocast(logits.device.type, enabled=False):
            loss: Tensor = self.loss(logits, batch["mask"].long())
        return loss, logits

    def _step(self, batch: Batch, stage: str, samples: int = 0) -> Batch:
        """Loss and logits of a batch; trained on crops, what `evaluate` finds in a whole image."""
        if self.on_crops:
            given = self._counts(stage), batch["image"], batch["mask"], samples
            loss, probabilities, *counted = evaluate(self, self.loss, *given)
            kept = {"confusion": counted[0], "probabilities": probabilities[None]}
            return {"loss": self._keep(stage, loss, counted, batch), **kept}
        loss, logits = self._loss(batch, samples)
        found = self._counts(stage).count(logits, batch["mask"])
        return {"loss": self._keep(stage, loss, found, batch), "logits": logits}

    def _keep(self, stage: str, loss: Tensor, counted: Sequence[Tensor], batch: Batch) -> Tensor:
        self._counts(stage).update(*counted)
        getattr(self, f"{stage}_loss").update(loss.detach(), len(batch["image"]))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss; on a GPU replayed from a CUDA graph, with its gradients (see `segnet.training.graph`)."""
        results = self.graph(batch, self.trainer.accumulate_grad_batches)
        if results is None:
            with self.graph.watched():
                results = self._results(batch)
        loss, *counted = results
        finite = self.finite.after(loss, batch_idx, self.trainer)
        self._check_finite(finite, batch if loss.device.type == "cpu" else None)
        return self._keep("train", loss, counted, batch)

    def _check_finite(self, finite: bool, batch: Batch | None = None) -> None:
        """Stop where a loss was not finite, that of this batch if one is given."""
        if finite:
            return
        where = f"train/loss is not finite in epoch {self.current_epoch}, step {self.trainer.fit_loop.batch_idx}"
        kept = "(the last good checkpoint is kept)"
        diverged = "training diverged; lower model.optimizer.lr or set trainer.gradient_clip_val=1"
        if batch is None:  # on a GPU, which was not waited for: the weights are not finite either by now
            raise FloatingPointError(f"{where} or a few before: {diverged}, if it is not the loss itself {kept}")
        with torch.no_grad():
            finite = bool(self.logits(batch["image"]).isfinite().all())
        cause = loss_without_value(batch, self.trainer.datamodule) if finite else diverged  # type: ignore[attr-defined]
        raise FloatingPointError(f"{where}: {cause} {kept}")

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of the loss: those that the graph has computed, or by autograd."""
        if self.graph.replayed:
            self.graph.hand_over(self.trainer.accumulate_grad_batches)
            return
        with self.graph.watched():
            torch.autograd.backward(loss, *args, **kwargs)

    def on_train_start(self) -> None:
        """Decide whether steps become a CUDA graph."""
        self.graph.begin(self.trainer, self)

    def on_train_end(self) -> None:
        """Give the graph's memory back, and the event, which no copy of the module can take along."""
        self.graph.forget()
        self.finite.begin(torch.device("cpu"))

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """One loss, and what `ObjectMetrics` reads."""
        return self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Batch:
        """One loss, and what `ImageCounts` reads."""
        return self._step(batch, "test", self.mc_samples)

    def on_train_epoch_start(self) -> None:
        """Draw dropout by seed, epoch and process, so that a resumed run draws what the whole one would have."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        torch.manual_seed(zlib.crc32(f"{seed} {self.current_epoch} {self.global_rank}".encode()))
        self.finite.begin(self.device)
        self.graph.check(self.trainer, self)

    def on_train_epoch_end(self) -> None:
        """Before the epoch's checkpoint; it may have ended early."""
        self._check_finite(self.finite.now())

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the epoch's metrics before validation begins, so that one table row holds both; time may end an epoch."""
        if self.trainer.fit_loop.epoch_loop.done:
            self._epoch_end("train")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics."""
        self._epoch_end("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._epoch_end("test")

    def _epoch_end(self, stage: str) -> None:
        metric = self._counts(stage)
        self.counts[stage] = metric.compute()
        metric.reset()
        mean = getattr(self, f"{stage}_loss")
        values = {"loss": mean.compute()} | scores(*self.counts[stage], self.classes)
        mean.reset()
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)  # equal in every process

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a schedule; a plateau schedule only where its metric is defined."""
        if metric is None or not (torch.as_tensor(metric).isnan() or self.unseen(self.monitor)):
            super().lr_scheduler_step(scheduler, metric)

    def unseen(self, monitor: str) -> str | None:
        """What the last epoch lacks that the metric needs, as a sentence; None where it is defined, or before it."""
        return lacking(monitor, self.counts, self.trainer.callbacks, self.classes)  # type: ignore[attr-defined]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and scheduler from their factories."""
        optimizer: torch.optim.Optimizer = call(self.optimizer, "model.optimizer", self.parameters())
        if self.scheduler is None:
            return optimizer
        every = self.trainer.check_val_every_n_epoch or 1
        return attach(self.scheduler, optimizer, self.trainer.estimated_stepping_batches, self.monitor, every)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint describe itself.

        Raises:
            FloatingPointError: a loss before it was not finite, so that the file before stays.
        """
        self._check_finite(self.finite.now())
        checkpoint["config"] = self.config
