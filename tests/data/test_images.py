"""Files become the arrays that were written into them; files that cannot are one line naming the file."""

import gc
import os
import socket
import struct
import time
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from segnet.data import encodings, looks
from segnet.data.decoding import EXTENSIONS, header, is_lossy, turned
from segnet.data.images import read_raw_mask, read_rgb, resize, resize_exact, resize_pair
from segnet.data.masks import Threshold
from segnet.errors import UserError

Y, X = np.mgrid[:24, :40]
SMOOTH = np.stack([Y * 9, X * 5, 255 - (X + Y) * 3], 2).astype(np.uint8)  # survives lossy encoders
GREY = (Y * 6 + X * 2).astype(np.uint8)
FEW = (np.stack([Y // 8, X // 10, (X + Y) // 32], 2) * 60).astype(np.uint8)  # fits a palette
FOUR = np.dstack([SMOOTH, (X * 6).astype(np.uint8)])
WIDE = np.repeat(GREY[..., None], 3, 2)


def store(path, array, **options):
    Image.fromarray(array).save(path, **options)


@pytest.mark.parametrize(
    ("name", "stored", "expected", "options", "tolerance"),
    [
        ("a.png", SMOOTH, SMOOTH, {}, 0),
        ("a.tif", SMOOTH, SMOOTH, {}, 0),
        ("a.tiff", SMOOTH, SMOOTH, {"compression": "tiff_lzw"}, 0),
        ("a.bmp", SMOOTH, SMOOTH, {}, 0),
        ("a.webp", SMOOTH, SMOOTH, {"lossless": True}, 0),
        ("a.jpg", SMOOTH, SMOOTH, {"quality": 98, "subsampling": 0}, 8),
        ("grey.png", GREY, WIDE, {}, 0),
        ("grey.jpg", GREY, WIDE, {"quality": 98}, 4),
        ("grey16.png", GREY.astype(np.uint16) * 257, WIDE, {}, 0),
        ("grey16.tif", GREY.astype(np.uint16) * 257, WIDE, {}, 0),
        ("rgba.png", FOUR, SMOOTH, {}, 0),
        ("bit.png", GREY > 100, np.uint8(255) * (WIDE > 100), {}, 0),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_kinds(tmp_path, name, stored, expected, options, tolerance):
    store(tmp_path / name, stored, **options)
    found = read_rgb(tmp_path / name)
    assert found.shape == (24, 40, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colour_of_16_bit(tmp_path, name):
    assert cv2.imwrite(str(tmp_path / name), SMOOTH[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_rgb(tmp_path / name), SMOOTH)


@pytest.mark.parametrize(
    "transparency",
    [
        None,
        0,
        bytes([0, 128]),
    ],
    ids=["opaque", "index", "bytes"],
)
def test_palette(tmp_path, transparency):
    image = Image.fromarray(FEW).quantize(64)
    image.save(tmp_path / "p.png", **({} if transparency is None else {"transparency": transparency}))
    assert np.abs(read_rgb(tmp_path / "p.png").astype(int) - FEW).max() <= 1
    assert np.array_equal(read_raw_mask(tmp_path / "p.png", "index"), np.asarray(image))  # indices, not colours


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 1), (8, 3)])
def test_exif_rotation_is_applied(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    store(tmp_path / "a.jpg", np.ascontiguousarray(np.rot90(SMOOTH, turns)), quality=98, subsampling=0, exif=exif)
    found = read_rgb(tmp_path / "a.jpg")
    assert found.shape == SMOOTH.shape
    assert np.abs(found.astype(int) - SMOOTH).max() <= 8


def promise(width, height):
    """A PNG that promises width × height pixels and holds none."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def raises_one_line(read, path, rule):
    with pytest.raises(ValueError) as error:
        read(path)
    text = str(error.value)
    assert str(path) in text
    assert rule in text
    assert "\n" not in text


@pytest.mark.parametrize("read", [read_rgb, partial(read_raw_mask, kind="grey")])
@pytest.mark.parametrize(
    ("side", "rule"), [(60_000, "(3600000000 pixels) exceeds limit"), (12_000, "12000×12000 pixels, more than")]
)
def test_bomb_is_refused_by_its_header(tmp_path, read, side, rule):
    path = tmp_path / "bomb.png"
    path.write_bytes(promise(side, side))
    start = time.perf_counter()
    raises_one_line(read, path, rule)
    assert time.perf_counter() - start < 1
    gc.collect()


def test_limit_counts_pixels(tmp_path):
    store(tmp_path / "a.png", SMOOTH)
    assert read_rgb(tmp_path / "a.png", max_pixels=24 * 40).shape == SMOOTH.shape
    with pytest.raises(ValueError, match=r"a\.png: 40×24 pixels, more than the limit of 959; cut it"):
        read_rgb(tmp_path / "a.png", max_pixels=24 * 40 - 1)
    gc.collect()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp"])
def test_truncated(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    path = tmp_path / name
    store(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    raises_one_line(read_rgb, path, "replace or remove it")
    gc.collect()


@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>" * 50, b"\x89PNG\r\n\x1a\n"])
def test_no_image(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    raises_one_line(read_rgb, path, "cannot be read as an image")
    raises_one_line(partial(read_raw_mask, kind="index"), path, "cannot be read as an image")


def test_broken_exif_is_one_line_or_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.webp"
    store(path, SMOOTH, exif=exif, lossless=True)
    data = path.read_bytes()
    at = data.rindex(b"MM\0*")  # the TIFF header inside the EXIF block
    path.write_bytes(data[:at] + b"^" + data[at + 1 :])
    try:
        told = f"{path} has shape {read_rgb(path).shape}"
    except ValueError as error:
        told = str(error)
    assert str(path) in told


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [GREY, GREY.astype(np.uint16) * 257, FOUR, SMOOTH], ids=["8", "16", "alpha", "rgb"])
def test_a_tiff_is_shown_as_its_exif_orientation_says(tmp_path, stored, orientation):
    """Pillow maps uncompressed files into memory, and turns some of those into other pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    store(tmp_path / "a.tif", stored, exif=exif)
    upright = turned(WIDE if stored.ndim == 2 else SMOOTH, orientation)
    assert header(tmp_path / "a.tif") == (*upright.shape[:2], orientation)
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), upright)
    if stored.ndim == 2:
        assert np.array_equal(read_raw_mask(tmp_path / "a.tif", "grey"), turned(stored, orientation))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
@pytest.mark.parametrize("kind", ["too large", "truncated"])
def test_no_file_stays_open(tmp_path, kind):
    path = tmp_path / "a.bmp"
    store(path, SMOOTH)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    kept = None  # an exception keeps what its frames hold, as pytest and a debugger do
    try:
        kept = read_rgb(path, max_pixels=10 if kind == "too large" else 10**6)
    except ValueError as error:
        kept = error
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]  # noqa: PTH208
    still = str(path) in links
    del kept
    gc.collect()
    assert not still


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.gif", "a.png"])
@pytest.mark.parametrize("read", [read_rgb, partial(read_raw_mask, kind="grey")])
def test_several_pages_are_several_images(tmp_path, name, read):
    store(tmp_path / name, SMOOTH, save_all=True, append_images=[Image.fromarray(FEW)])
    raises_one_line(read, tmp_path / name, "holds 2 pages or frames, which would be images; save each as a file")


def test_a_thumbnail_is_no_page(tmp_path):
    """TIFF marks reduced copies (NewSubfileType, bit 0), as cameras and slide scanners write them."""
    thumbnail = Image.fromarray(SMOOTH[::2, ::2])
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    store(tmp_path / "a.tif", SMOOTH, save_all=True, append_images=[thumbnail])
    with Image.open(tmp_path / "a.tif") as file:
        assert file.n_frames == 2
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), SMOOTH)


def test_a_phones_second_image_is_no_page(tmp_path):
    store(tmp_path / "a.mpo", SMOOTH, save_all=True, append_images=[Image.fromarray(FEW)], quality=98, subsampling=0)
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - SMOOTH).max() <= 8


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_the_bits_in_use_are_taken(tmp_path, bits, name, colour):
    """Cameras write 10, 12 and 14 bits as they are into 16: shifted by 8 they would be black."""
    eight = SMOOTH if colour else GREY
    fine = np.random.default_rng(0).integers(0, 2 ** (bits - 8), eight.shape)
    stored = (eight.astype(np.uint16) << (bits - 8)) + fine.astype(np.uint16)
    stored.flat[0] = 2**bits - 1
    assert cv2.imwrite(str(tmp_path / name), stored[..., ::-1] if colour else stored)
    found = read_rgb(tmp_path / name)
    expected = eight.copy()
    expected.flat[0] = 255
    assert np.array_equal(found, expected if colour else np.repeat(expected[..., None], 3, 2))


def test_the_greatest_value_that_a_tiff_states_counts(tmp_path):
    """A dark image of a 12-bit camera stays dark."""
    store(tmp_path / "a.tif", GREY.astype(np.uint16) * 2, tiffinfo={281: 4095})
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), np.repeat((GREY.astype(int) * 2 >> 4)[..., None], 3, 2))


def test_the_bits_that_are_given_hold_for_dark_images_too(tmp_path):
    for name, stored in (("a.png", GREY.astype(np.uint16) * 3), ("b.png", SMOOTH[..., ::-1].astype(np.uint16) * 3)):
        assert cv2.imwrite(str(tmp_path / name), stored)
        expected = stored[..., ::-1] if stored.ndim == 3 else np.repeat(stored[..., None], 3, 2)
        assert np.array_equal(read_rgb(tmp_path / name, bits=12), expected >> 4)
        raises_one_line(partial(read_rgb, bits=9), tmp_path / name, f"holds {stored.max()}, which data.bits=9 does not")
    store(tmp_path / "c.png", SMOOTH)
    assert np.array_equal(read_rgb(tmp_path / "c.png", bits=12), SMOOTH)  # 8 bits are 8 bits


def test_floating_point_images_go_from_0_to_1(tmp_path):
    store(tmp_path / "a.tif", GREY.astype(np.float32) / 255)
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), WIDE)
    for values in (GREY.astype(np.float32), GREY / np.float32(255) - 1, np.full((24, 40), np.nan, np.float32)):
        store(tmp_path / "b.tif", values)
        raises_one_line(read_rgb, tmp_path / "b.tif", "are not in 0..1; save it with 8 or 16 bits")


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jp2", {"irreversible": False}), ("a.ppm", {}), ("a.JFIF", None), ("a.gif", None), ("a.pgm", {})],
)
def test_formats_that_were_passed_over(tmp_path, name, options):
    array = GREY if name in ("a.gif", "a.pgm") else SMOOTH
    lossy = {"format": "JPEG", "quality": 98, "subsampling": 0} if name == "a.JFIF" else {}
    store(tmp_path / name, array, **(options or {}), **lossy)
    assert Path(name).suffix.lower() in EXTENSIONS
    expected = WIDE if array is GREY else SMOOTH
    assert np.abs(read_rgb(tmp_path / name).astype(int) - expected).max() <= (8 if lossy else 0)


@pytest.mark.parametrize("read", [read_rgb, partial(read_raw_mask, kind="grey")])
def test_a_postscript_file_runs_nothing(tmp_path, monkeypatch, read):
    """Pillow gives EPS to Ghostscript, whatever the file's name."""
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    raises_one_line(read, path, "cannot be read as an image")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkfifo, "a FIFO and no image file"),
        (os.mkdir, "a folder and no image file"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(path), "a socket and no image file"),
        (lambda path: os.symlink("nowhere", path), "a link to a file that does not exist"),  # noqa: PTH211
        (lambda path: os.symlink("/dev/zero", path), "a device and no image file"),  # noqa: PTH211
        (lambda path: None, "cannot be read (No such file or directory)"),
    ],
    ids=["fifo", "folder", "socket", "link", "device", "nothing"],
)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_what_is_no_file_is_one_line_and_waits_for_nobody(tmp_path, make, told):
    path = tmp_path / "x.png"
    make(str(path))
    for read in (read_rgb, partial(read_raw_mask, kind="index")):
        raises_one_line(read, path, told)
    gc.collect()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_every_exif_orientation(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    store(tmp_path / name, SMOOTH, exif=exif)
    with Image.open(tmp_path / name) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    assert np.array_equal(read_rgb(tmp_path / name), expected)
    assert header(tmp_path / name) == (*expected.shape[:2], orientation)
    assert np.array_equal(turned(SMOOTH, orientation), expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_a_mask_in_the_alpha_channel(tmp_path, mode):
    alpha = np.where(GREY > 100, 255, 0).astype(np.uint8)
    colour = Image.new("RGB", (40, 24), (255, 0, 0)).convert(mode[:-1] if mode != "PA" else "RGB")
    colour.putalpha(Image.fromarray(alpha))
    colour.convert("RGBA" if mode == "PA" else mode).save(tmp_path / "m.png")
    for kind in ("grey", "index"):
        assert np.array_equal(read_raw_mask(tmp_path / "m.png", kind), alpha)
    raises_one_line(partial(read_raw_mask, kind="rgb"), tmp_path / "m.png", "the mask in the alpha channel")


def test_grey_with_alpha_is_grey(tmp_path):
    for alpha in (np.full_like(GREY, 255), np.where(GREY > 0, 255, 0).astype(np.uint8), GREY):
        store(tmp_path / "m.png", np.dstack([GREY, alpha]))
        with Image.open(tmp_path / "m.png") as file:
            assert file.mode == "LA"
        found = read_raw_mask(tmp_path / "m.png", "grey")
        assert found.shape == GREY.shape
        assert np.array_equal(found, GREY)
    store(tmp_path / "m.png", np.dstack([GREY, np.where(X > 9, 255, 0).astype(np.uint8)]))
    raises_one_line(partial(read_raw_mask, kind="grey"), tmp_path / "m.png", "say different things")


def test_a_mask_of_16_bit_colour_keeps_its_values(tmp_path):
    values = np.repeat((GREY > 100).astype(np.uint16)[..., None], 3, 2)
    assert cv2.imwrite(str(tmp_path / "m.png"), values)
    assert np.array_equal(read_raw_mask(tmp_path / "m.png", "index"), values[..., 0])  # Pillow alone gives 0 everywhere


def test_a_mask_in_colour_says_which(tmp_path):
    store(tmp_path / "m.png", FEW)
    raises_one_line(partial(read_raw_mask, kind="grey"), tmp_path / "m.png", "it holds [[0,0,0],[0,")


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_a_palette_of_one_colour_hides_the_mask(tmp_path, kind):
    indices = (GREY > 100).astype(np.uint8)
    file = Image.fromarray(indices, "L")
    file.putpalette([0, 0, 0] * 2)
    file.save(tmp_path / "m.png")
    raises_one_line(partial(read_raw_mask, kind=kind), tmp_path / "m.png", "indices [0, 1] in one colour")
    assert np.array_equal(read_raw_mask(tmp_path / "m.png", "index"), indices)


LOSSY = {
    "a.jpg": {}, "a.webp": {"quality": 20}, "a.jp2": {"irreversible": True}, "a.j2k": {"irreversible": True},
    "a.tif": {"compression": "jpeg"},
}  # fmt: skip
EXACT = {
    "a.png": {}, "a.webp": {"lossless": True}, "a.jp2": {}, "a.tif": {"compression": "tiff_lzw"}, "b.tif": {},
    "a.bmp": {},
}  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [*LOSSY.items(), *EXACT.items()])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_changes_values_is_known(tmp_path, name, options, channels):
    values = np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8) * 100
    array = values if channels == 1 else np.repeat(values[..., None], 3, axis=2)
    Image.fromarray(array).save(tmp_path / name, **options)
    exact = np.array_equal(np.asarray(Image.open(tmp_path / name).convert("L")), values)
    assert is_lossy(tmp_path / name) != exact
    assert exact == (EXACT.get(name) is options)


def test_what_changes_values_is_known_by_its_content(tmp_path):
    Image.fromarray(SMOOTH).save(tmp_path / "a.png", format="WEBP", quality=20)
    Image.fromarray(SMOOTH).save(tmp_path / "b.tif", format="JPEG")
    assert is_lossy(tmp_path / "a.png")
    assert is_lossy(tmp_path / "b.tif")


@pytest.mark.parametrize(("name", "options"), LOSSY.items())
def test_masks_in_what_changes_values_are_black_and_white_or_asked_about(tmp_path, name, options):
    disc = np.hypot(*np.mgrid[-32:32, -32:32]) < 20
    for i in range(3):
        Image.fromarray(np.repeat(np.roll(disc, i)[..., None], 3, axis=2) * np.uint8(255)).save(
            tmp_path / f"{i}{name[1:]}", **options
        )
    files = sorted(tmp_path.iterdir())
    assert encodings.recognise(looks.looks(files)).mask.encoding == "threshold"
    for i, file in enumerate(files):
        assert (Threshold()(read_raw_mask(file, "grey"), file) != np.roll(disc, i)).mean() < 0.02
        Image.fromarray(np.roll(disc, i) * np.uint8(2) + np.roll(disc, 9) * np.uint8(1)).save(file, **options)
    with pytest.raises(UserError, match="its compression changes values"):
        encodings.recognise(looks.looks(files))


@pytest.mark.parametrize("quality", [30, 60, 80, 95])
def test_a_grey_mask_in_webp_is_grey(tmp_path, quality):
    y, x = np.mgrid[:64, :64]
    disc = (y - 30) ** 2 + (x - 25) ** 2 <= 144
    Image.fromarray(disc.astype(np.uint8) * 255).save(tmp_path / "m.webp", quality=quality)
    found = Threshold()(read_raw_mask(tmp_path / "m.webp", "grey"), tmp_path / "m.webp")
    assert (found != disc).mean() < 0.01


def test_masks_that_are_no_numbers(tmp_path):
    store(tmp_path / "m.tif", np.array([[0, np.nan], [1, np.inf]], np.float32))
    raises_one_line(partial(read_raw_mask, kind="grey"), tmp_path / "m.tif", "not finite numbers")


@pytest.mark.parametrize("size", [(31, 17), (50, 133), (190, 20)])
def test_strips_have_the_bits_of_the_whole(size, monkeypatch):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 101, 83, 3), np.uint8)).permute(0, 3, 1, 2)
    whole = torch.nn.functional.interpolate(images.double(), size, mode="bilinear", antialias=True).float()
    monkeypatch.setattr("segnet.data.images.STRIP", 83 * 7)
    assert torch.equal(resize_exact(images, size), whole)


def test_conversion_in_strips_changes_nothing(tmp_path, monkeypatch):
    store(tmp_path / "a.png", FOUR)
    whole = read_rgb(tmp_path / "a.png")
    monkeypatch.setattr("segnet.data.images.STRIP", 40 * 5)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), whole)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (GREY, GREY),
        (GREY.astype(np.uint16) * 200, GREY.astype(np.uint16) * 200),
        (WIDE, GREY),  # grey saved as RGB
        (np.dstack([WIDE, GREY]), GREY),
        (SMOOTH, SMOOTH),
        (FOUR, SMOOTH),
        (GREY > 100, np.uint8(255) * (GREY > 100)),
    ],
    ids=["grey", "grey16", "grey as rgb", "grey as rgba", "rgb", "rgba", "bit"],
)
def test_raw_mask(tmp_path, stored, expected):
    store(tmp_path / "m.png", stored)
    found = read_raw_mask(tmp_path / "m.png", "rgb" if expected.ndim == 3 else "grey")
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(31, 17), (50, 33), (90, 120), (61, 150)])
def test_resize_agrees_with_pillow(size):
    noise = np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    tensor = torch.from_numpy(noise).permute(2, 0, 1)[None]
    whole = resize(tensor, size)
    real = resize_exact(tensor, size)
    pillow = np.asarray(Image.fromarray(noise).resize(size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    exact = [Image.fromarray(noise[..., c].astype(np.float32)).resize(size[::-1], 2) for c in range(3)]
    assert (whole.dtype, real.dtype) == (torch.uint8, torch.float32)
    assert whole.shape == real.shape == (1, 3, *size)
    assert np.abs(whole[0].numpy().astype(int) - pillow).max() <= 1
    assert np.abs(real[0].numpy() - np.stack(exact)).max() <= 1e-4


def test_resize_to_its_own_size_changes_nothing():
    tensor = (torch.rand(2, 3, 9, 11) * 255).to(torch.uint8)
    assert torch.equal(resize(tensor, (9, 11)), tensor)
    assert torch.equal(resize_exact(tensor, (9, 11)), tensor.float())


@pytest.mark.parametrize("size", [(13, 29), (24, 40), (51, 87)])
def test_pair(size):
    mask = (np.array([[0, 1, 7, 255]], np.uint8).repeat(10, 1)).repeat(24, 0)
    mask[12:] = mask[12:, ::-1]
    image, small = resize_pair(SMOOTH, mask, size)
    rows = ((np.arange(size[0]) + 0.5) * 24 / size[0]).astype(int)  # the pixel under every new centre
    columns = ((np.arange(size[1]) + 0.5) * 40 / size[1]).astype(int)
    assert np.array_equal(small, mask[np.ix_(rows, columns)])
    assert set(np.unique(small)) == {0, 1, 7, 255}
    pillow = np.asarray(Image.fromarray(SMOOTH).resize(size[::-1], Image.Resampling.BILINEAR))
    assert image.dtype == small.dtype == np.uint8
    assert np.abs(image.astype(int) - pillow).max() <= 1
