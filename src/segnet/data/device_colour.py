"""Colour transforms of albumentations as steps of tensors, and the factors that say how far each step goes.

A step maps whole numbers 0..255 in float32 (N, 3, H, W) to such numbers, with four factors (N, 1, 1, 1).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segnet.data.device_geometry import Params

Factors = tuple[float, float, float, float]


def _blend(x: Tensor, own: Tensor, grey: Tensor, mean: Tensor, shift: Tensor) -> Tensor:
    """``own``·pixel + ``grey``·its grey value + ``mean``·the image's mean grey value + ``shift``, rounded down."""
    luma = (x[:, :1] * 0.299).add_(x[:, 1:2], alpha=0.587).add_(x[:, 2:], alpha=0.114).round_()
    rest = torch.addcmul(shift, mean, luma.mean((1, 2, 3), keepdim=True))
    return torch.addcmul(torch.addcmul(rest, grey, luma), own, x).floor_().clamp_(0, 255)


def _scale(x: Tensor, own: Tensor, grey: Tensor, mean: Tensor, shift: Tensor) -> Tensor:
    """The same without grey values."""
    return torch.addcmul(shift, own, x).floor_().clamp_(0, 255)


def _scale_by_mean(x: Tensor, own: Tensor, grey: Tensor, mean: Tensor, shift: Tensor) -> Tensor:
    """The same with the mean over all channels."""
    return _scale(x, own, grey, mean, torch.addcmul(shift, mean, x.mean((1, 2, 3), keepdim=True)))


def _hue(x: Tensor, own: Tensor, turn: Tensor, mean: Tensor, shift: Tensor) -> Tensor:
    """Hue turned by so many of 180 steps; rounded as in OpenCV's HSV of bytes. A turn by 0 changes nothing."""
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    hue = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    hue = torch.where(value == red, green - blue, hue).mul_(30).div_(chroma.clamp(min=1)).round_()
    hue = hue.remainder_(180).add_(turn).remainder_(180).floor_().div_(30)
    chroma = chroma.mul_(255).div_(value.clamp(min=1)).round_().mul_(value).div_(255)
    angle = torch.arange(5, 0, -2, device=x.device).view(1, 3, 1, 1).add(hue).remainder_(6)
    turned = torch.minimum(angle, 4 - angle).clamp_(0, 1).mul_(-chroma).add_(value).round_()
    return torch.where(turn == 0, x, turned)


NOTHING: Factors = (1, 0, 0, 0)  # changes no pixel in any step


def _jitter(transform: Any, params: Params) -> list[Factors]:
    """Three steps before the hue, the hue, three after it; each of the drawn order stands where it belongs."""
    contrast, saturation = params["contrast"], params["saturation"]
    steps: list[Factors] = [(params["brightness"], 0, 0, 0), (contrast, 0, 1 - contrast, 0)]
    steps += [(saturation, 1 - saturation, 0, 0.5), (1, 180 * params["hue"], 0, 0)]
    drawn = [steps[i] for i in params["order"]]
    at = params["order"].index(3)
    return [*drawn[:at], *[NOTHING] * (3 - at), *drawn[at:], *[NOTHING] * at]


def _brightness_contrast(transform: Any, params: Params) -> list[Factors]:
    beta = params["beta"]
    return [(params["alpha"], 0, 0, beta) if transform.brightness_by_max else (params["alpha"], 0, beta, 0)]


COLOUR = {"ColorJitter": _jitter, "RandomBrightnessContrast": _brightness_contrast}


def steps_of(transform: Any) -> list[Callable[..., Tensor]]:
    """What the factors of a colour transform are for."""
    if type(transform).__name__ == "ColorJitter":
        return [*[_blend] * 3, _hue, *[_blend] * 3]
    return [_scale if transform.brightness_by_max else _scale_by_mean]
