"""Reading and resizing images and masks: the only place where files become arrays."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from segnet.errors import UserError

MAX_PIXELS = 100_000_000  # 10,000 × 10,000; a larger header is refused before anything is decoded
MaskKind = Literal["grey", "index", "rgb"]
EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def read_rgb(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image as uint8 (H, W, 3) RGB.

    8 and 16 bit, grey and colour; an alpha channel is dropped, an EXIF rotation is applied.

    Raises:
        UserError: unreadable, truncated or larger than ``max_pixels``; the message names the file.
    """
    with _opened(path, max_pixels) as image:
        if image.mode.startswith("I;16"):
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode in ("F", "I"):
            raise UserError(f"{path}: 32-bit images have no fixed range; save it with 8 or 16 bits")
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))


def read_raw_mask(path: Path | str, kind: MaskKind, max_pixels: int = MAX_PIXELS) -> NDArray[np.integer]:
    """Read a mask for an encoding that wants its ``grey`` values, class ``index`` values or ``rgb`` colours.

    They differ for two kinds of files: a palette file stores indices that stand for colours, and a 1-bit file
    0 and 1 that stand for black and white.

    Returns:
        (H, W) grey values or indices, or uint8 (H, W, 3) RGB. A colour file whose three channels agree is grey.

    Raises:
        UserError: unreadable, too large, or in colour where a value is wanted; the message names the file.
    """
    with _opened(path, max_pixels) as image:
        if kind == "rgb":
            return np.asarray(image.convert("RGB"))
        if image.mode == "P" and kind == "index":
            return np.asarray(image)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8) * (1 if kind == "index" else 255)
        if image.mode in ("P", "RGB", "RGBA", "CMYK", "YCbCr"):
            rgb = np.asarray(image.convert("RGB"))
            if (rgb != rgb[..., :1]).any():
                raise UserError(
                    f"{path}: the mask is in colour, but data.mask expects grey values; use data/mask=palette "
                    f"with data.mask.colors"
                )
            return rgb[..., 0]
        values = np.asarray(image.convert("L") if image.mode == "LA" else image)
        if not np.issubdtype(values.dtype, np.integer):
            raise UserError(f"{path}: the mask holds floating-point values; save it with integers")
        return values


@contextmanager
def _opened(path: Path | str, max_pixels: int) -> Iterator[Image.Image]:
    """Decode a bounded image, upright, and close its file whatever happens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is ours
        try:
            file = Image.open(path)
        except FileNotFoundError:
            raise
        except (OSError, Image.DecompressionBombError) as error:
            raise _unreadable(path, error) from error
    with file:
        if file.width * file.height > max_pixels:
            raise UserError(
                f"{path}: {file.width}×{file.height} pixels, more than the limit of {max_pixels:,}; "
                f"cut it into smaller images"
            )
        try:
            file.load()
            upright = ImageOps.exif_transpose(file)
        except Exception as error:  # Pillow's decoders raise many kinds for damaged files
            raise _unreadable(path, error) from error
        yield upright


def _unreadable(path: Path | str, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read as an image ({error}); replace or remove it")


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (N, 3, H, W) images to uint8, bilinear with antialiasing: the data path, on the CPU."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def resize_exact(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, 3, H, W) images in 0..255 to float32, the same way and without rounding: prediction, on any device.

    torch computes the weights in the images' precision. In float32 they are off by up to 0.01 of 255, enough to move
    a maximum of the pooling and so a decision; in float64 (where the device has it) an exported model agrees.
    """
    if not torch.compiler.is_exporting() and tuple(images.shape[-2:]) == size:  # an exported model has no branch
        return images.float()
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    return F.interpolate(images.to(exact), size, mode="bilinear", antialias=True).float()


def resize_pair(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resize a uint8 (H, W, 3) image (bilinear) and its uint8 (H, W) mask (nearest) to ``size``."""
    if image.shape[:2] == size:
        return image, mask
    tensor = torch.tensor(image).permute(2, 0, 1)[None]
    nearest = F.interpolate(torch.tensor(mask)[None, None], size, mode="nearest-exact")
    return resize(tensor, size)[0].permute(1, 2, 0).numpy(), nearest[0, 0].numpy()
