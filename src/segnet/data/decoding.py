"""Opening image files: regular ones only, of the listed formats only, of one page, within a bound of pixels.

Pillow reads more formats, and some of them run other programs (an EPS file runs Ghostscript, whatever its name says).
"""

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from segnet.errors import UserError

MAX_PIXELS = 100_000_000  # 10,000 × 10,000; a larger header is refused before anything is decoded
# What Pillow may open. A JPEG of several images (MPO: a depth map, a second lens) counts as its first one.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "PPM")
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".j2k"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")  # never exact values
PAGES = 1000  # counted at most
REDUCED, SUBFILE, BITS, GREATEST = 1, 254, 258, 281  # of TIFF's tags


def check_regular(path: Path | str) -> None:
    """Refuse what is no file with content, such as a FIFO, whose opening would wait for ever.

    Raises:
        UserError: it is missing, a link to nothing, a folder, a FIFO, a socket or a device.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        link = Path(path).is_symlink()
        reason = "a link to a file that does not exist" if link else f"cannot be read ({error.strerror})"
        raise UserError(f"{path}: {reason}; replace or remove it") from error
    except ValueError as error:
        raise UserError(f"{path!r}: no name of a file ({error})") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise UserError(f"{path}: {kinds.get(stat.S_IFMT(mode), 'a device')} and no image file; rename or remove it")


def is_lossy(path: Path) -> bool:
    """Whether a file is of a kind that changes values: JPEG; WebP, JPEG 2000 and TIFF where they are so compressed.

    Raises:
        UserError: as `opened`, as far as the header shows it.
    """
    suffix = path.suffix.lower()
    if suffix in LOSSY or suffix not in EXTENSIONS or not path.exists():  # an array's file, or values of none
        return suffix in LOSSY
    with _header(path) as file:  # whatever its name says
        form, compression = file.format, file.info.get("compression")
    if form not in ("WEBP", "JPEG2000"):
        return form in ("JPEG", "MPO") or compression in ("jpeg", "tiff_jpeg")
    content = path.read_bytes()
    if form == "WEBP":  # chunks of a name, a size and padding to an even one, behind a header of 12 bytes
        at = 12
        while content[at : at + 4] not in (b"VP8 ", b"VP8L", b""):
            size = int.from_bytes(content[at + 4 : at + 8], "little")
            at += 8 + size + size % 2
        return content[at : at + 4] == b"VP8 "
    coding = content.find(b"\xff\x52", content.find(b"\xff\x4f\xff\x51"))  # behind the size: ISO/IEC 15444-1, A.6.1
    return content[coding + 13 : coding + 14] == b"\x00"  # the wavelet that rounds


@contextmanager
def opened(path: Path | str, max_pixels: int) -> Iterator[tuple[Image.Image, int, bool]]:
    """The decoded image; the EXIF orientation (1..8) that its pixels still need; whether Pillow kept 8 of its 16 bits.

    The file is closed at the end.

    Raises:
        UserError: no regular file, unreadable, larger than ``max_pixels`` or of several pages.
    """
    with _header(path) as file:
        if file.width * file.height > max_pixels:
            raise UserError(
                f"{path}: {file.width}×{file.height} pixels, more than the limit of {max_pixels:,}; "
                f"cut it into smaller images"
            )
        try:
            pages, deep = _pages(file), _is_deep(file)
            if pages == 1:
                file.filename = ""  # else Pillow maps some TIFF files into memory, and turns their pixels wrongly
                file.load()
                orientation = _orientation(file)
        except Exception as error:  # Pillow's decoders raise many kinds for damaged files
            raise unreadable(path, error) from error
        if pages > 1:
            raise UserError(f"{path}: holds {pages} pages or frames, which would be images; save each as a file")
        yield file, orientation, deep


def header(path: Path | str) -> tuple[int, int, int]:
    """Height and width of the upright image, and the EXIF orientation (1..8) that it states; 1 is upright.

    Raises:
        UserError: as `opened`, as far as the header shows it.
    """
    with _header(path) as file:
        try:
            orientation = _orientation(file)
        except Exception as error:
            raise unreadable(path, error) from error
        swapped = orientation > 4 and file.format != "TIFF"  # Pillow turns a TIFF itself
        return (file.width, file.height, orientation) if swapped else (file.height, file.width, orientation)


def mode(path: Path | str) -> str:
    """Pillow's mode of an image, such as ``RGB``; only the header is read.

    Raises:
        UserError: as `opened`, as far as the header shows it.
    """
    with _header(path) as file:
        return file.mode


@contextmanager
def _header(path: Path | str) -> Iterator[ImageFile.ImageFile]:
    check_regular(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound is ours
        try:
            file = Image.open(path, formats=FORMATS)
        except (OSError, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
    with file:
        yield file


def unreadable(path: Path | str, error: Exception) -> UserError:
    """One line for a file that is damaged or of another format."""
    return UserError(f"{path}: cannot be read as an image ({error}); replace or remove it")


def _pages(file: Image.Image) -> int:
    """Pages or frames, without the thumbnails and smaller copies of a TIFF."""
    if file.format == "MPO" or not getattr(file, "is_animated", False):
        return 1
    if file.format != "TIFF":
        return int(getattr(file, "n_frames", 1))
    full = 0
    for page in range(PAGES):
        try:
            file.seek(page)
        except EOFError:
            break
        full += page == 0 or not int(file.tag_v2.get(SUBFILE, 0)) & REDUCED  # type: ignore[attr-defined]
    file.seek(0)
    return full


def _orientation(file: Image.Image) -> int:
    stated = file.getexif().get(ExifTags.Base.Orientation, 1)
    return stated if stated in range(1, 9) else 1


def turned(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """(H, W, …) pixels as stored, shown as an EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _is_deep(file: Image.Image) -> bool:
    """Whether it is a PNG or TIFF in colour (or with alpha) of 16 bits a channel; before it is loaded."""
    if file.mode not in ("RGB", "RGBA", "LA", "RGBX"):
        return False
    if file.format == "PNG":
        return any(str(tile[3]).endswith(";16B") for tile in file.tile)  # type: ignore[attr-defined]
    return file.format == "TIFF" and 16 in _tuple(file.tag_v2.get(BITS, 0))  # type: ignore[attr-defined]


def deep_colour(path: Path | str, size: tuple[int, int]) -> NDArray[np.uint16]:
    """uint16 (H, W, 3 or 4) of a file with 16 bits a channel and (width, height) ``size``, as stored."""
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[1::-1] != size:
        raise UserError(f"{path}: 16 bits a channel of a kind that OpenCV cannot read; save it with 8 bits")
    order = [2, 1, 0, 3][: found.shape[2]]
    return np.asarray(found[..., order], np.uint16)


def bits_of(values: NDArray[np.integer], file: Image.Image, path: Path | str, given: int | None = None) -> int:
    """How many bits of 16 an image uses: the fewest of 8, 10, 12, 14, 16 that hold its values, or those ``given``.

    Cameras of 10, 12 and 14 bits write their values as they are. What a TIFF states as its greatest value counts too;
    formats that state their range (PPM, JPEG 2000) are scaled to 16 bits by Pillow.

    Raises:
        UserError: a value needs more bits than given.
    """
    if file.format not in ("PNG", "TIFF"):
        return 16
    if given is not None:
        if int(values.max(initial=0)) >= 2**given:
            raise UserError(f"{path}: holds {values.max()}, which data.bits={given} does not hold; correct data.bits")
        return given
    stated = _tuple(file.tag_v2.get(GREATEST, 0)) if file.format == "TIFF" else (0,)  # type: ignore[attr-defined]
    top = max(int(values.max(initial=0)), *stated)
    return next((bits for bits in (8, 10, 12, 14) if top < 2**bits), 16)


def _tuple(value: object) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple) else (int(value),)  # type: ignore[call-overload]
