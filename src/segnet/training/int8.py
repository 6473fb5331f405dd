"""Training for int8: convolutions see their inputs and weights rounded as an 8-bit file will round them.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 3.
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from segnet.settings import BelowOne
from segnet.training.in_step import InStep

TINY = 1e-12  # a scale, where all values are zero


class Rounding(nn.Conv2d):
    """A convolution that rounds while it trains, and is like any other in validation, test and exports.

    Inputs have 256 levels between the moving averages of their least and greatest values, weights 255 for each output
    channel, symmetric about zero. Gradients pass through the rounding; those of clipped inputs are zero. A batch norm
    that is merged into it later scales an output channel, and so its levels too.
    """

    # Plain attributes, set by `Int8`: no checkpoint of the network has them.
    bounds: Tensor  # (2,) float32, least and greatest input; NaN before the first batch
    decay: float

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W'), in the dtype that a convolution has there."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            x, weight = self._levels_of_input(x), self._levels_of_weight(self.weight.float())
        convolved: Tensor = self._conv_forward(x, weight, self.bias)
        return convolved

    def _levels_of_input(self, x: Tensor) -> Tensor:
        seen = torch.stack(
            [x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)]
        )  # padding's zero is a level
        self.bounds.copy_(torch.where(self.bounds.isnan(), seen, self.bounds.lerp(seen.float(), 1 - self.decay)))
        rounded: Tensor = _Levels.apply(x, self.bounds)  # type: ignore[no-untyped-call]
        return rounded

    def _levels_of_weight(self, weight: Tensor) -> Tensor:
        scale = (weight.detach().abs().amax((1, 2, 3)) / 127).clamp(min=TINY)
        return torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale).int(), 0, -127, 127)


class _Levels(torch.autograd.Function):
    """Of ``x`` the nearest of 256 levels, in its dtype; the gradient of what lies between the bounds.

    torch's fake_quantize_per_tensor_affine takes four times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bounds: Tensor) -> Tensor:
        low, high = bounds.unbind()
        scale = ((high - low) / 255).clamp(min=TINY)
        least = (low / scale).round()
        level = (x / scale).round_().sub_(least)
        clipped = level.clamp(0, 255)
        ctx.save_for_backward(level == clipped)
        return clipped.add_(least).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (inside,) = ctx.saved_tensors
        return gradient * inside, None


class Int8(InStep):
    """Trains a network whose int8 files are to lose less: made for a few epochs from the ``weights`` of a trained one.

    Every convolution becomes `Rounding` for the training. Nothing else knows of it: validation, checkpoints, figures
    and exports are those of the network in float32. A checkpoint has the bounds with this callback, for ``resume``.

    Args:
        decay: of the moving averages of the bounds, for a batch.
    """

    name = "int8"

    def __init__(self, decay: BelowOne = 0.99) -> None:
        self.decay = decay
        self.layers: dict[str, Rounding] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the convolutions round.

        Raises:
            UserError: the run is of a kind that was not tried.
        """
        if stage != "fit":
            return
        self.check_run(trainer, pl_module)
        for name, layer in pl_module.named_modules():
            if type(layer) is nn.Conv2d:
                layer.__class__ = Rounding
                assert isinstance(layer, Rounding)
                layer.bounds = torch.full((2,), torch.nan, device=trainer.strategy.root_device)
                layer.decay = self.decay
                self.layers[name] = layer

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the network as it would be without it."""
        if stage == "fit":
            for layer in self.layers.values():
                del layer.bounds, layer.decay
                layer.__class__ = nn.Conv2d  # type: ignore[assignment]
            self.layers = {}

    def state_dict(self) -> dict[str, Any]:
        """For a run that resumes."""
        return {name: layer.bounds for name, layer in self.layers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume."""
        for name, layer in self.layers.items():
            layer.bounds.copy_(state_dict[name])
