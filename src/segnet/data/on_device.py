"""The decoded data set and the random transforms on the device: albumentations draws, tensor operators apply.

`DeviceTransforms.draw` asks the transforms for what albumentations itself would draw, by the methods that it documents
for transforms of one's own, and condenses that into one row of floats: a map from output pixels back to input pixels,
and the factors of each step of colour. Calling it applies the rows of a batch at once, without waiting for the device
and with deterministic operators only. The pixels are albumentations' up to rounding: flips and crops are equal, scaled
images differ by less than one level on average.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from segnet.data.cache import Pair
from segnet.data.dataset import Batch, seed_of
from segnet.errors import UserError
from segnet.networks.replay import Replay

Size = tuple[int, int]
Params = dict[str, Any]
Matrix = NDArray[np.float64]
Factors = tuple[float, float, float, float]

# -- geometry: 3×3 maps from output pixels (x, y, 1) to input pixels, for an input of (height, width) --------------


def _horizontal_flip(transform: Any, params: Params, size: Size) -> Matrix:
    return np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]])


def _vertical_flip(transform: Any, params: Params, size: Size) -> Matrix:
    return np.array([[1.0, 0, 0], [0, -1, size[0] - 1], [0, 0, 1]])


def _transpose(transform: Any, params: Params, size: Size) -> Matrix:
    return np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])


def _rotate90(transform: Any, params: Params, size: Size) -> Matrix:
    quarter = np.array([[0.0, -1, size[0] - 1], [1, 0, 0], [0, 0, 1]])
    return np.linalg.matrix_power(quarter, params["factor"])


def _crop(transform: Any, params: Params, size: Size) -> Matrix:
    left, top = params["crop_coords"][:2]
    return np.array([[1.0, 0, left], [0, 1, top], [0, 0, 1]])


def _resized_crop(transform: Any, params: Params, size: Size) -> Matrix:
    left, top, right, bottom = params["crop_coords"]
    x, y = (right - left) / transform.size[1], (bottom - top) / transform.size[0]
    return np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5], [0, 0, 1]])  # centres lie at .5


def _affine(transform: Any, params: Params, size: Size) -> Matrix:
    return np.linalg.inv(params["matrix"])


EXACT = {  # each output pixel is one input pixel
    "HorizontalFlip": _horizontal_flip,
    "VerticalFlip": _vertical_flip,
    "Transpose": _transpose,
    "RandomRotate90": _rotate90,
    "RandomCrop": _crop,
}
RESAMPLING = {"RandomResizedCrop": _resized_crop, "Affine": _affine, "Rotate": _affine}
GEOMETRY = EXACT | RESAMPLING
CROPS: dict[str, Callable[[Any], Size]] = {  # output sizes
    "RandomCrop": lambda transform: (transform.height, transform.width),
    "RandomResizedCrop": lambda transform: tuple(transform.size),
}

# -- colour: steps on whole numbers 0..255, float32 (N, 3, H, W), with four factors (N, 1, 1, 1) each --------------


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


def _steps(transform: Any) -> list[Callable[..., Tensor]]:
    """What the factors of a colour transform are for."""
    if type(transform).__name__ == "ColorJitter":
        return [*[_blend] * 3, _hue, *[_blend] * 3]
    return [_scale if transform.brightness_by_max else _scale_by_mean]


# -- what is supported ---------------------------------------------------------------------------------------------

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
    for transform in transforms:
        name = type(transform).__name__
        if not type(transform).__module__.startswith("albumentations.") or name not in GEOMETRY | COLOUR:
            return f"{name} is not among {', '.join((*GEOMETRY, *COLOUR))}"
        for argument, allowed in ARGUMENTS.get(name, {}).items():
            if getattr(transform, argument) not in allowed:
                return f"{name} has {argument}={getattr(transform, argument)}, which only a CPU can do"
        if name in ("Transpose", "RandomRotate90") and size[0] != size[1]:
            return f"{name} turns images that are not square"
        if name in CROPS and CROPS[name](transform) != size:
            if transform.p < 1:
                return f"{name} with p={transform.p} changes the size of some images only"
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
        for transform in transforms:
            name = type(transform).__name__
            self.moving |= name in GEOMETRY
            if name in CROPS:
                self.size = CROPS[name](transform)
            if name in COLOUR:
                self.steps += _steps(transform)
            if hasattr(transform, "border_mode") and name in RESAMPLING:
                self.border = transform.border_mode
                self.fill = [*np.broadcast_to(transform.fill, 3), np.ravel(transform.fill_mask)[0]]

    def draw(self, seed: int) -> Tensor:
        """Draw one sample, as ``Compose`` would after ``set_random_seed(seed)``.

        Returns:
            float32 (16 + 4·steps of colour,): rows of the map from output to input pixels (6), what a mask's
            coordinates are shifted by before they are rounded down (2), first and last column and row that may be
            read (4), fill of images and mask (4), factors of colour.
        """
        self.compose.set_random_seed(seed)
        size = self.input_size
        to_input, shift = np.eye(3), np.array([0.5, 0.5])
        readable = np.array([[0, 0], [size[1] - 1, size[0] - 1]])
        factors: list[Factors] = []
        for transform in self.compose:
            name = type(transform).__name__
            params = _drawn(transform, size)
            if name in COLOUR:
                factors += [NOTHING] * len(_steps(transform)) if params is None else COLOUR[name](transform, params)
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


class Draws(Dataset[Batch]):
    """What `Resident` makes a batch of: rows of its tensors and what was drawn, by ``(epoch, index, draw)``."""

    def __init__(self, first: int, length: int, transforms: DeviceTransforms | None, seed: int) -> None:
        self.first, self.length, self.transforms, self.seed = first, length, transforms, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int, int] | int) -> Batch:
        epoch, i, draw = key if isinstance(key, tuple) else (0, key, 0)
        item = {"index": torch.tensor(i), "row": torch.tensor(self.first + i)}
        if self.transforms is not None:
            item["parameters"] = self.transforms.draw(seed_of(self.seed, epoch, i, draw))
        return item


class Resident:
    """Decoded images and masks of some splits, kept on a device.

    Args:
        cached: images (count, H, W, 3) and masks (count, H, W), uint8.
        indices: of each split to keep, into ``cached``.
        transforms: of the training split, each `supported`.
        seed: of the random transforms.
        device: where.
    """

    def __init__(
        self,
        cached: Pair,
        indices: dict[str, list[int]],
        transforms: Sequence[Any],
        seed: int,
        device: torch.device,
    ) -> None:
        size = (cached[0].shape[1], cached[0].shape[2])
        self.transforms = DeviceTransforms(transforms, size) if transforms else None
        self.indices, self.seed = indices, seed
        rows = [row for part in indices.values() for row in part]
        self.images, self.masks = (_upload(array, rows, device) for array in cached)
        self._transformed = Replay(self._gather_and_transform)

    def draws(self, split: str, augment: bool) -> Draws:
        """The data set of a split, for a loader; its batches become whole by calling this."""
        names = list(self.indices)
        first = sum(len(self.indices[name]) for name in names[: names.index(split)])
        return Draws(first, len(self.indices[split]), self.transforms if augment else None, self.seed)

    def __call__(self, batch: Batch) -> Batch:
        """{image, mask, index} as the other loader's, of {index, row} and perhaps {parameters} on the device."""
        given = [batch[name] for name in ("row", "parameters") if name in batch]
        images, masks = self._transformed(*given)
        return {"image": images, "mask": masks, "index": batch["index"]}

    def _gather_and_transform(self, row: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images, masks = self.images.index_select(0, row).permute(0, 3, 1, 2), self.masks.index_select(0, row)
        if parameters is None:
            return images, masks
        assert self.transforms is not None
        return self.transforms(images, masks, parameters)


def _upload(array: NDArray[np.uint8], rows: list[int], device: torch.device) -> Tensor:
    """Rows of a memory map as one tensor, in parts, so that the main memory need not hold them all."""
    out = torch.empty((len(rows), *array.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), 64):
        part = torch.from_numpy(array[rows[start : start + 64]])
        part = part.pin_memory() if device.type == "cuda" else part
        out[start : start + 64].copy_(part, non_blocking=True)
    return out
