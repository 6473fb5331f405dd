"""Losses on logits (N, C, H, W) float and masks (N, H, W) int64; C = 1 is a binary task.

Pixels of `IGNORE_INDEX` count nowhere. Cross-entropy is here because torch has it in two functions and returns NaN
on a batch without a counted pixel; Dice, focal and Lovász come from segmentation-models-pytorch.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError
from segnet.settings import Above0, BelowOne, NotNegative, Positive, Share


class CrossEntropy(nn.Module):
    """Binary cross-entropy with logits for one class, softmax cross-entropy for several; mean over pixels.

    Args:
        num_classes: channels of the logits.
        weight: one factor per class, for a binary task the factor of the positive class (``pos_weight``).
            The weighted mean divides by the counted weights with several classes and by the counted pixels
            with one, as torch's two losses do. It is a buffer, so that a checkpoint remembers counted weights.
        label_smoothing: of each pixel's target, the share that is spread evenly over all classes (of one class: over
            defect and background; Szegedy et al., CVPR 2016, section 7).
    """

    weight: Tensor

    def __init__(
        self, num_classes: Positive, weight: Sequence[NotNegative] | None = None, label_smoothing: BelowOne = 0.0
    ) -> None:
        super().__init__()
        values = [1.0] * num_classes if weight is None else list(weight)
        if len(values) != num_classes or min(values) < 0:
            raise UserError(
                f"weight={values}: needs {num_classes} non-negative factor(s), one per class; see data.classes"
            )
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.register_buffer("weight", torch.tensor(values))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss; zero where every pixel is ignored."""
        if logits.shape[1] != self.num_classes:
            raise UserError(
                f"loss for num_classes={self.num_classes} got logits with {logits.shape[1]} channel(s); "
                f"loss=bce serves binary data only, use loss=cross_entropy"
            )
        lost, counted = self.pixels(logits, target)
        # Summed outside: on a GPU torch's own sum over pixels of several classes has no deterministic kernel.
        return lost.sum() / counted.sum().clamp(min=torch.finfo(lost.dtype).tiny)

    def pixels(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What each pixel loses, and what it counts in the mean: (N, H, W) both, zero where ignored."""
        if self.num_classes == 1:
            counted = (target != IGNORE_INDEX).to(logits.dtype)
            lost = F.binary_cross_entropy_with_logits(
                logits[:, 0],
                (target == 1).to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2,
                weight=counted,
                pos_weight=self.weight,
                reduction="none",
            )
            return lost, counted
        lost = F.cross_entropy(
            logits,
            target,
            self.weight,
            ignore_index=IGNORE_INDEX,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return lost, self.weight[target.clamp(max=self.num_classes - 1)] * (target != IGNORE_INDEX)


class DicePerImage(nn.Module):
    """Dice loss of each image by itself, mean over images and classes.

    In `dice`, which sums over the batch, an image with a large defect decides and a small one beside it changes
    nothing. Here a small defect that is missed costs as much as a large one, and an image without a class is lost as
    far as any of it is predicted there. Images whose pixels are all ignored do not count.

    Args:
        num_classes: channels of the logits; 1 is a binary task.
        smooth: pixels added above and below, as a share of the image's; more forgives small errors.
    """

    def __init__(self, num_classes: Positive, smooth: Above0 = 0.001) -> None:
        super().__init__()
        self.num_classes, self.smooth = num_classes, smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss in 0..1."""
        known = (target != IGNORE_INDEX)[:, None]
        classes = torch.arange(self.num_classes, device=target.device) + (self.num_classes == 1)
        truth = (target[:, None] == classes.view(1, -1, 1, 1)).to(logits.dtype)
        found = (logits.sigmoid() if self.num_classes == 1 else logits.softmax(1)) * known
        smooth = self.smooth * target[0].numel()
        lost = 1 - (2 * (found * truth).sum((2, 3)) + smooth) / ((found + truth).sum((2, 3)) + smooth)
        counted = known.flatten(1).any(1)
        return (lost.mean(1) * counted).sum() / counted.sum().clamp(min=1)


class WeightedSum(nn.Module):
    """Several losses on the same logits, each times its weight."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[NotNegative]) -> None:
        super().__init__()
        if len(losses) != len(weights):
            raise UserError(f"weights={list(weights)}: needs {len(losses)}, one per loss")
        self.losses = nn.ModuleList(losses)
        self.weights = list(weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss."""
        parts = [w * loss(logits, target) for w, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(parts).sum()


class ZeroWithoutPixels(nn.Module):
    """A loss that is undefined where every pixel is ignored: there it becomes zero, with a gradient of zero.

    It looks at the mask, for which a GPU is waited for; so do the losses that need it.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss."""
        if (target == IGNORE_INDEX).all():
            return logits.sum() * 0
        loss: Tensor = self.loss(logits, target)
        return loss


def dice(num_classes: Positive) -> nn.Module:
    """Dice loss (Milletari et al., V-Net, 3DV 2016), mean over classes; one that the batch lacks counts as 0."""
    from segmentation_models_pytorch.losses import DiceLoss

    loss: nn.Module = DiceLoss(_mode(num_classes), ignore_index=IGNORE_INDEX)
    return loss


def focal(num_classes: Positive, alpha: Share | None = None, gamma: NotNegative = 2.0) -> nn.Module:
    """Focal loss (Lin et al., ICCV 2017, equation 5); ``alpha`` weighs the positive class."""
    from segmentation_models_pytorch.losses import FocalLoss

    return ZeroWithoutPixels(FocalLoss(_mode(num_classes), alpha=alpha, gamma=gamma, ignore_index=IGNORE_INDEX))


def lovasz(num_classes: Positive) -> nn.Module:
    """Lovász hinge or softmax (Berman et al., CVPR 2018), a surrogate of the IoU itself."""
    from segmentation_models_pytorch.losses import LovaszLoss

    return ZeroWithoutPixels(LovaszLoss(_mode(num_classes), per_image=False, ignore_index=IGNORE_INDEX))


def _mode(num_classes: int) -> str:
    return "binary" if num_classes == 1 else "multiclass"


def set_class_weights(
    loss: nn.Module,
    weights: Sequence[float] | Literal["median_frequency"],
    frequencies: Callable[[], NDArray[np.int64]],
) -> None:
    """Give every `CrossEntropy` in a loss its factors.

    Args:
        loss: the loss, changed in place.
        weights: one factor per class (binary: of the positive class), or to count them.
        frequencies: called to count them, see `median_frequency`.

    Raises:
        UserError: no part of the loss takes weights, or these do not fit.
    """
    targets = [part for part in loss.modules() if isinstance(part, CrossEntropy)]
    if not targets:
        parts = ", ".join(type(part).__name__ for part in loss.modules() if not list(part.children()))
        raise UserError(
            f"model.class_weights={weights}: loss {parts} takes no weights; use loss=cross_entropy or "
            f"loss=bce_dice, or model.class_weights=null"
        )
    if isinstance(weights, str) and weights == "median_frequency":
        values = median_frequency(torch.from_numpy(frequencies()))
    elif isinstance(weights, Sequence) and not isinstance(weights, str):
        values = torch.tensor(list(weights), dtype=torch.float32)
    else:
        raise UserError(f"model.class_weights={weights}: must be median_frequency, a list or null")
    for target in targets:
        if values.shape != target.weight.shape or not (values >= 0).all():
            raise UserError(f"model.class_weights={values.tolist()}: needs {len(target.weight)} non-negative factor(s)")
        target.weight.copy_(values)


def median_frequency(frequencies: Tensor) -> Tensor:
    """Weights by median frequency balancing (SegNet, section 4; Eigen and Fergus, ICCV 2015).

    The frequency of a class is its pixels over the pixels of the images it occurs in; its weight is the
    median frequency over its own.

    Args:
        frequencies: (K, 2) pixels of the class, and of the images with the class.

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
