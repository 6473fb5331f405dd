"""Images and masks as arrays, and their resizing: the only place where files become arrays."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segnet.data.decoding import MAX_PIXELS, bits_of, deep_colour, opened, turned, unreadable
from segnet.errors import UserError

MaskKind = Literal["grey", "index", "number", "rgb"]
STRIP = 2**22  # pixels converted at a time
STEEPEST = 46  # times that a GPU makes a side smaller: torch's kernel has no room for more weights in float64


def read_rgb(path: Path | str, max_pixels: int = MAX_PIXELS, bits: int | None = None) -> NDArray[np.uint8]:
    """Read an image as uint8 (H, W, 3) RGB.

    8 and 16 bit, grey and colour; an alpha channel is dropped, an EXIF rotation is applied. Of 16-bit files the upper
    8 of the ``bits`` in use are taken (None: see `segnet.data.decoding.bits_of`); floating-point values go from 0 to 1.

    Raises:
        UserError: unreadable, truncated, of several pages, of no known range, or larger than ``max_pixels``; the
            message names the file.
    """
    return read_image(path, max_pixels, bits)[0]


def read_image(
    path: Path | str, max_pixels: int = MAX_PIXELS, bits: int | None = None
) -> tuple[NDArray[np.uint8], int]:
    """As `read_rgb`, and how many bits a channel were in use: 8 to 16, or 32 of floating-point values."""
    with opened(path, max_pixels) as (file, orientation, deep):
        pixels, used = _bytes(file, path, deep, bits)
        return np.ascontiguousarray(turned(pixels, orientation)), used  # type: ignore[arg-type]


def read_raw_mask(path: Path | str, kind: MaskKind, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read a mask for an encoding that wants its ``grey`` values, class ``index`` values or ``rgb`` colours.

    They differ for two kinds of files: a palette file stores indices that stand for colours, and a 1-bit file
    0 and 1 that stand for black and white. A ``number`` is the index of a palette in colour, else the grey value. Of a
    GIF in grey the grey values are the indices: the format has no grey, and programs number its palette as they like.
    An alpha channel decides where the colour is the same everywhere.

    Returns:
        (H, W) grey values or indices, floating-point where the file holds such, or uint8 (H, W, 3) RGB. A colour file
        whose three channels agree is grey.

    Raises:
        UserError: unreadable, too large, of several pages, in colour where a value is wanted, not finite, or with an
            alpha channel that says something else, or a palette of one colour; the message names the file.
    """
    with opened(path, max_pixels) as (file, orientation, deep):
        return np.ascontiguousarray(turned(_mask(file, path, kind, deep), orientation))


def _bytes(file: Image.Image, path: Path | str, deep: bool, given: int | None = None) -> tuple[NDArray[np.uint8], int]:
    """Pixels as stored, uint8 (H, W, 3), and the bits in use."""
    if deep:
        colour = deep_colour(path, file.size)[..., :3]
        bits = bits_of(colour, file, path, given)
        return (colour >> (bits - 8)).astype(np.uint8), bits
    if file.mode.startswith("I") or file.mode == "F":
        grey, bits = _narrow(np.asarray(file), file, path, given)
        return np.repeat(grey[..., None], 3, axis=2), bits
    out = np.empty((file.height, file.width, 3), np.uint8)
    rows = max(1, STRIP // file.width)
    for top in range(0, file.height, rows):  # Pillow's own copies are as large as what is converted
        part = file if rows >= file.height else file.crop((0, top, file.width, min(top + rows, file.height)))
        if "transparency" in part.info:
            part = part.convert("RGBA")
        try:
            out[top : top + rows] = np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
        except ValueError as error:  # such as LAB
            raise unreadable(path, error) from error
    return out, 8


def _narrow(
    values: NDArray[Any], file: Image.Image, path: Path | str, given: int | None
) -> tuple[NDArray[np.uint8], int]:
    """16-bit, 32-bit or floating-point (H, W) grey values as uint8, and the bits in use."""
    least, greatest = values.min(initial=0), values.max(initial=0)
    most = 1 if values.dtype.kind == "f" else 65535
    if not (least >= 0 and greatest <= most):
        raise UserError(
            f"{path}: 32-bit images have no fixed range, and its values {least}..{greatest} are not in 0..{most}; "
            f"save it with 8 or 16 bits"
        )
    if values.dtype.kind == "f":
        return (values * 255).round().astype(np.uint8), 32
    bits = bits_of(values, file, path, given)
    return (values >> (bits - 8)).astype(np.uint8), bits


def _mask(file: Image.Image, path: Path | str, kind: MaskKind, deep: bool) -> NDArray[Any]:
    """Values (H, W) or uint8 colours (H, W, 3) as stored."""
    if file.mode == "P" and kind == "index" and file.format != "GIF":
        return np.asarray(file)
    if file.mode == "P" and kind in ("index", "number"):
        indices = np.asarray(file)
        colours = np.asarray(file.convert("RGBA" if "transparency" in file.info else "RGB"))[..., :3]
        alike = (colours == colours[:1, :1]).all() and (indices != indices[:1, :1]).any()
        if np.ptp(colours, axis=2).any() or (kind == "index" and alike):
            return indices
    if kind != "rgb":
        if file.mode == "1":
            return np.asarray(file).astype(np.uint8) * (1 if kind == "index" else 255)
        if file.mode in ("L", "F") or file.mode.startswith("I"):
            values = np.asarray(file)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UserError(f"{path}: the mask holds values that are not finite numbers; save it with integers")
            return values
    if deep and kind != "rgb":
        values = deep_colour(path, file.size)
        colour, alpha = values[..., :3], values[..., 3] if values.shape[2] == 4 else None
    else:
        seen = "transparency" in file.info and file.mode == "P"
        alpha = np.asarray(file.convert("RGBA"))[..., 3] if seen or file.mode in ("RGBA", "LA", "PA") else None
        colour = _bytes(file, path, deep)[0]  # type: ignore[assignment]
    if alpha is not None and (hidden := _by_alpha(colour, alpha, kind, path)) is not None:
        return hidden
    if file.mode == "P" and (colour == colour[:1, :1]).all() and len(used := np.unique(np.asarray(file))) > 1:
        raise UserError(
            f"{path}: its palette shows the indices {used[:8].tolist()} in one colour, and they are the mask; "
            f"use data/mask=values, which reads the indices"
        )
    if kind == "rgb":
        return colour
    if file.format == "WEBP" and np.ptp(colour, axis=2).max(initial=0) <= 1:
        return colour[..., 1]  # WebP keeps brightness apart from colour, and what was grey is off by one
    if (colour != colour[..., :1]).any():
        found = np.unique(colour.reshape(-1, 3), axis=0)
        shown = f"{found[:8].tolist()}".replace(" ", "") + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        raise UserError(
            f"{path}: the mask is in colour, but data.mask expects grey values; use data/mask=palette "
            f"with data.mask.colors, one for each class; it holds {shown}"
        )
    return colour[..., 0]


def _by_alpha(colour: NDArray[Any], alpha: NDArray[Any], kind: MaskKind, path: Path | str) -> NDArray[Any] | None:
    """The alpha channel where it alone says what the mask is; None where the colour does."""
    if (alpha == alpha.flat[0]).all():
        return None
    if (colour == colour[:1, :1]).all():
        if kind == "rgb":
            raise UserError(
                f"{path}: one colour everywhere, and the mask in the alpha channel; use data/mask=threshold, or save "
                f"it without alpha"
            )
        return alpha
    hidden, shown = colour[alpha < alpha.max()], colour[alpha == alpha.max()]
    agree = ((hidden == hidden[:1]).all() and hidden.max() <= shown.max()) or (colour == alpha[..., None]).all()
    if kind != "rgb" and not agree:
        raise UserError(
            f"{path}: its colours and its alpha channel say different things, and one of them is the mask; save it "
            f"without alpha"
        )
    return None


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
    height, width = images.shape[-2:]
    if images.is_cuda and max(height / size[0], width / size[1]) > STEEPEST:
        return resize_exact(images.cpu(), size).to(images.device)
    if not torch.compiler.is_exporting() and images.device.type == "cpu" and height * width > STRIP:
        # The same two passes in strips of rows: of 100 megapixels, float64 copies would take 2.4 GB.
        rows = max(1, STRIP // width)
        strips = (images[..., top : top + rows, :].to(exact) for top in range(0, height, rows))
        narrow = [F.interpolate(s, (s.shape[-2], size[1]), mode="bilinear", antialias=True) for s in strips]
        return F.interpolate(torch.cat(narrow, -2), size, mode="bilinear", antialias=True).float()
    return F.interpolate(images.to(exact), size, mode="bilinear", antialias=True).float()


def resize_pair(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resize a uint8 (H, W, 3) image (bilinear) and its uint8 (H, W) mask (nearest) to ``size``."""
    if image.shape[:2] == size:
        return image, mask
    tensor = torch.tensor(image).permute(2, 0, 1)[None]
    return resize(tensor, size)[0].permute(1, 2, 0).numpy(), resize_mask(mask, size)


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a uint8 (H, W) mask to ``size``: each pixel is the nearest of the mask's."""
    if mask.shape == size:
        return mask
    return F.interpolate(torch.tensor(mask)[None, None], size, mode="nearest-exact")[0, 0].numpy()
