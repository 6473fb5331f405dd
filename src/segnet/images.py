"""Reading and resizing pictures and masks: the only place where files become arrays."""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

MAX_PIXELS = 100_000_000  # 10,000 × 10,000; a larger header is refused before anything is decoded
EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def read_rgb(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture as uint8 (H, W, 3) RGB.

    8 and 16 bit, grey and colour; an alpha channel is dropped, an EXIF rotation is applied.

    Raises:
        ValueError: unreadable, truncated or larger than ``max_pixels``; the message names the file.
    """
    image = _open(path, max_pixels)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(f"{path}: floating-point pictures have no fixed range; save it with 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def read_raw_mask(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.integer]:
    """Read a mask as it is stored: (H, W) values or palette indices, or (H, W, 3) uint8 RGB colours.

    A colour file whose three channels agree counts as grey.
    """
    image = _open(path, max_pixels)
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    if image.mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
        rgb = np.asarray(image.convert("RGB"))
        grey = bool((rgb == rgb[..., :1]).all())
        return rgb[..., 0] if grey else rgb
    return np.asarray(image)


def _open(path: Path | str, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is ours
            image = Image.open(path)
            if image.width * image.height > max_pixels:
                raise ValueError(
                    f"{path}: {image.width}×{image.height} pixels, more than the limit of {max_pixels:,}; "
                    f"cut it into smaller pictures"
                )
            image.load()
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image ({error}); replace or remove it") from error
    return image


def resize(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, 3, H, W) uint8 or float pictures in 0..255, bilinear with antialiasing, same dtype.

    Training, prediction and export all call this one function, so they cannot disagree.
    """
    if tuple(pictures.shape[-2:]) == size:
        return pictures
    out = F.interpolate(pictures.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255)
    return out.to(pictures.dtype)


def resize_pair(
    picture: NDArray[np.uint8], mask: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resize a uint8 (H, W, 3) picture (bilinear) and its uint8 (H, W) mask (nearest) to ``size``."""
    if picture.shape[:2] == size:
        return picture, mask
    tensor = torch.tensor(picture).permute(2, 0, 1)[None]
    nearest = F.interpolate(torch.tensor(mask)[None, None], size, mode="nearest-exact")
    return resize(tensor, size)[0].permute(1, 2, 0).numpy(), nearest[0, 0].numpy()
