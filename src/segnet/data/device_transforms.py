"""Random transforms on the device: albumentations draws, tensor operators apply.

`DeviceTransforms.draw` asks the transforms for what albumentations itself would draw, by the methods that it documents
for transforms of one's own, and condenses that into one row of floats: a map from output pixels back to input pixels,
and the factors of each step of colour. Calling it applies the rows of a batch at once, without waiting for the device
and with deterministic operators only. The pixels are albumentations' up to rounding: flips and crops are equal, scaled
images differ by less than one level on average.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from segnet.data.device_colour import COLOUR, NOTHING, Factors, steps_of
from segnet.data.device_geometry import CROPS, GEOMETRY, RESAMPLING, Params, Size
from segnet.data.transforms import share_generators, step_seed
from segnet.errors import UserError

_INTERPOLATION = {"interpolation": (cv2.INTER_LINEAR,), "mask_interpolation": (cv2.INTER_NEAREST,)}
_BORDERS = {"border_mode": (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)}
ARGUMENTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "RandomCrop": {"pad_if_needed": (False,)},
    "RandomResizedCrop": {"area_for_downscale": (None,), **_INTERPOLATION},
    "Affine": {"fit_output": (False,), **_INTERPOLATION, **_BORDERS},
    "Rotate": {"crop_border": (False,), **_INTERPOLATION, **_BORDERS},
}


def supported(transforms: Sequence[Any], size: Size) -> str | None:
    """None where the device can do all transforms on images of (height, width); else why not, in one line."""
    resampling = colour = None
    for transform, whole in [(part, group) for group in transforms for part in parts(group)]:
        name = type(transform).__name__
        if not type(transform).__module__.startswith("albumentations.") or name not in GEOMETRY | COLOUR:
            return f"{name} is not among albumentations' {', '.join((*GEOMETRY, *COLOUR))}"
        for argument, allowed in ARGUMENTS.get(name, {}).items():
            if getattr(transform, argument) not in allowed:
                return f"{name} has {argument}={getattr(transform, argument)}, which only a CPU can do"
        if name in ("Transpose", "RandomRotate90") and size[0] != size[1]:
            return f"{name} turns images that are not square"
        if name in CROPS and CROPS[name](transform) != size:
            if (p := min(transform.p, whole.p)) < 1:
                return f"{name} with p={p} changes the size of some images only"
            size = CROPS[name](transform)
        if name in COLOUR:
            if name == "RandomBrightnessContrast" and transform.ensure_safe_range and not transform.brightness_by_max:
                return f"{name} has ensure_safe_range without brightness_by_max, which only a CPU can do"
            colour = name
        elif colour is not None and (name in RESAMPLING or name in CROPS):
            return f"{name} follows {colour}; colour must come last"
        if name in RESAMPLING:
            if resampling is not None:
                return f"{name} follows {resampling}, and images are interpolated only once"
            resampling = name
    return None


def parts(transform: Any) -> list[Any]:
    """The transforms of albumentations' ``Sequential``, which happen together or not at all; else the one itself."""
    return list(transform.transforms) if type(transform).__name__ == "Sequential" else [transform]


class DeviceTransforms:
    """Draws albumentations' transforms sample by sample, and applies what was drawn batch by batch.

    Args:
        transforms: of albumentations, each `supported`.
        size: (height, width) of the images that go in.

    Attributes:
        size: (height, width) of those that come out.

    Raises:
        UserError: a transform is not supported.
    """

    def __init__(self, transforms: Sequence[Any], size: Size) -> None:
        if reason := supported(transforms, size):
            raise UserError(reason)
        import albumentations

        self.compose = albumentations.Compose(list(transforms), strict=True)
        self.input_size = self.size = size
        self.border, self.fill = cv2.BORDER_REPLICATE, [0.0] * 4
        self.moving = False
        self.steps: list[Callable[..., Tensor]] = []
        for transform in (part for group in transforms for part in parts(group)):
            name = type(transform).__name__
            self.moving |= name in GEOMETRY
            if name in CROPS:
                self.size = CROPS[name](transform)
            if name in COLOUR:
                self.steps += steps_of(transform)
            if hasattr(transform, "border_mode") and name in RESAMPLING:
                self.border = transform.border_mode
                self.fill = [*np.broadcast_to(transform.fill, 3), np.ravel(transform.fill_mask)[0]]

    def draw(self, seed: int) -> Tensor:
        """Draw one sample, as `Transforms` does with this seed.

        Returns:
            float32 (16 + 4·steps of colour,): rows of the map from output to input pixels (6), what a mask's
            coordinates are shifted by before they are rounded down (2), first and last column and row that may be
            read (4), fill of images and mask (4), factors of colour.
        """
        share_generators(self.compose, step_seed(seed, 0))
        self.compose.py_random.random()  # its own probability of 1
        size = self.input_size
        to_input, shift = np.eye(3), np.array([0.5, 0.5])
        readable = np.array([[0, 0], [size[1] - 1, size[0] - 1]])
        factors: list[Factors] = []
        for transform, happens in self._chosen():
            name = type(transform).__name__
            params = _drawn(transform, size) if happens else None
            if name in COLOUR:
                factors += [NOTHING] * len(steps_of(transform)) if params is None else COLOUR[name](transform, params)
            elif params is not None:
                move = GEOMETRY[name](transform, params, size)
                if name in RESAMPLING:
                    left, top, right, bottom = params.get("crop_coords", (0, 0, size[1], size[0]))
                    corners = np.array([[left, top, 1], [right - 1, bottom - 1, 1]]) @ to_input[:2].T
                    readable = np.sort(corners, axis=0)
                    if name == "RandomResizedCrop":
                        # cv2.resize takes the mask's pixel at the corner of an output pixel, not at its centre. The
                        # small number keeps whole coordinates whole in float32.
                        shift = 0.5 + to_input[:2, :2] @ (0.001 - move[:2, :2].diagonal() / 2)
                to_input = to_input @ move
                size = CROPS[name](transform) if name in CROPS else size
        row = (to_input[:2].ravel(), shift, readable.ravel(), self.fill, np.array(factors).ravel())
        return torch.from_numpy(np.concatenate(row, dtype=np.float32, casting="same_kind"))

    def _chosen(self) -> Iterator[tuple[Any, bool]]:
        """Each transform, and whether its ``Sequential``, if it has one, happens in this draw."""
        for group in self.compose:
            inside = parts(group)
            happens = inside == [group] or group.py_random.random() < group.p
            yield from ((transform, happens) for transform in inside)

    def __call__(self, images: Tensor, masks: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Transform uint8 images (N, 3, H, W) and masks (N, H, W) by the rows of `draw` (N, P), all on one device.

        Returns:
            uint8 images in channels-last memory and masks, of the output's ``size``.
        """
        if not self.moving and not self.steps:
            return images, masks
        x = images.float()
        if self.moving:
            x, masks = self._move(x, masks, parameters[:, :16, None, None].unbind(1))
        factors = parameters[:, 16:].view(len(parameters), -1, 4, 1, 1, 1)
        for i, step in enumerate(self.steps):
            x = step(x, *factors[:, i].unbind(1))
        return x.to(torch.uint8, memory_format=torch.channels_last), masks

    def _move(self, x: Tensor, masks: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        xx, xy, x0, yx, yy, y0, shift_x, shift_y, left, top, right, bottom, *fill = parameters
        height, width = x.shape[-2:]
        column = torch.arange(self.size[1], device=x.device, dtype=torch.float32)
        row = torch.arange(self.size[0], device=x.device, dtype=torch.float32)[:, None]
        columns, rows = xx * column + (xy * row + x0), yx * column + (yy * row + y0)  # (N, H, W) of the output
        inside_x, inside_y = self._inside(columns, left, right), self._inside(rows, top, bottom)
        grid = torch.stack([inside_x * (2 / (width - 1)) - 1, inside_y * (2 / (height - 1)) - 1], -1)
        moved = F.grid_sample(x, grid, "bilinear", "border", align_corners=True)
        mask_x, mask_y = (columns + shift_x).floor_(), (rows + shift_y).floor_()
        inside_x, inside_y = self._inside(mask_x, left, right), self._inside(mask_y, top, bottom)
        at = inside_y.long().mul_(width).add_(inside_x.long())
        moved_masks = masks.flatten(1).gather(1, at.flatten(1)).view_as(at)
        if self.border == cv2.BORDER_CONSTANT:
            cover = _cover(columns, left, right) * _cover(rows, top, bottom)
            moved = torch.lerp(torch.stack(fill[:3], 1), moved, cover[:, None])
            out = (mask_x != inside_x) | (mask_y != inside_y)
            moved_masks = torch.where(out, fill[3].to(torch.uint8), moved_masks)
        return moved.round_(), moved_masks

    def _inside(self, at: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Coordinates that may be read, in place of those beyond the border."""
        if self.border != cv2.BORDER_REFLECT_101:
            return at.clamp(first, last)
        span = last - first
        return (at - first).abs_().remainder_(2 * span).sub_(span).abs_().neg_().add_(last)


def _drawn(transform: Any, size: Size) -> Params | None:
    """What a transform draws for an image of (height, width), in the order of its ``__call__``; None: not applied."""
    if not transform.should_apply():
        return None
    params: Params = transform.update_transform_params(transform.get_params(), {"image": _shaped(size)})
    params |= transform.get_params_dependent_on_data(params, {"image": _ONE})
    return params


_ONE = np.ones((1, 1, 3), np.uint8)  # what is relative to the image's mean is drawn relative to 1


@cache
def _shaped(size: Size) -> NDArray[np.uint8]:
    """An image of (height, width) that takes no memory."""
    return np.broadcast_to(np.uint8(0), (*size, 3))


def _cover(at: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Share of an interpolated pixel that lies inside the border, 0..1."""
    return torch.minimum(at - first, last - at).add_(1).clamp_(0, 1)
