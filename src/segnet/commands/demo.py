"""A local web page: drop an image and see what a trained network predicts."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError

if TYPE_CHECKING:
    from segnet.deployment.predictor import Predictor


def run(cfg: DictConfig) -> None:
    """Serve the page until it is interrupted."""
    from tempfile import TemporaryDirectory

    import torch

    from segnet import environment
    from segnet.deployment.predictor import Predictor, load_model

    if type(cfg.port) is not int or not 0 < cfg.port < 65536:
        raise UserError(f"port={cfg.port}: must lie in 1..65535")
    environment.keep_freed_memory()
    device = environment.device_of(cfg.device)
    precision = environment.fastest_precision(device) if cfg.precision == "auto" else cfg.precision
    torch.manual_seed(cfg.seed)
    predictor = Predictor(
        load_model(str(cfg.ckpt_path), device, cfg.trust, precision), precision, cfg.tile, cfg.overlap,
        mc_samples=cfg.mc_samples, batch_size=cfg.batch_size,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the folder is removed
    with TemporaryDirectory(prefix="segnet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of what is uploaded and shown
        launch(page(predictor, cfg), cfg, Path(folder))


def answer(predictor: "Predictor", max_pixels: int, max_seconds: float) -> Callable[[str | None], list[Any]]:
    """What the page shows for a file: overlay, mask, confidence and uncertainty as uint8 RGB, and a table of areas.

    One image is predicted at a time. One that takes longer than ``max_seconds``, the time that it waits for others
    included, is answered with an error.
    """
    from concurrent.futures import ThreadPoolExecutor

    import cv2
    import gradio
    import numpy as np

    from segnet.data.images import read_rgb
    from segnet.deployment.measures import areas, grey
    from segnet.visualization.overlays import overlay, palette

    model = predictor.model
    table = palette(len(model.classes), model.colors)
    one = ThreadPoolExecutor(1)

    def call(path: str | None) -> list[Any]:
        if path is None:
            return [None] * (5 if predictor.mc_samples else 4)
        try:
            image = read_rgb(path, max_pixels)
        except (ValueError, OSError) as error:
            text = str(error).replace(path, os.path.basename(path))  # noqa: PTH119 (text)
            raise gradio.Error(text.replace(os.path.dirname(path), "")) from error  # noqa: PTH120 (text)
        waiting = one.submit(predictor, [image])
        try:
            (found,) = waiting.result(max_seconds)
        except TimeoutError as error:
            waiting.cancel()  # if it has not begun
            raise gradio.Error(f"the prediction took longer than {max_seconds:g} s") from error
        mask = found.mask()

        def heat(values: Any) -> Any:
            return cv2.applyColorMap(grey(values), cv2.COLORMAP_VIRIDIS)[..., ::-1]

        maps = [overlay(image, mask, table, len(model.classes) == 1), table[mask], heat(found.confidence())]
        if found.variance is not None:
            maps.append(heat(found.entropy()))
        shares = areas(mask, len(model.classes))[1::2]
        rows = [[name, f"{share} %"] for name, share in zip(model.classes, shares, strict=True)]
        return [*(np.ascontiguousarray(m) for m in maps), rows]

    return call


def page(predictor: "Predictor", cfg: DictConfig) -> Any:
    """The page as gradio Blocks, which delete what was uploaded after a while."""
    import gradio

    from segnet.networks.window import shown as shown_at

    model = predictor.model
    height, width = model.image_size
    trained = f"on crops of {shown_at(model.image_size, model.scale)}" if model.on_crops else f"at {height}×{width}"
    about = f"{', '.join(model.classes)} · trained {trained}"
    age = int(60 * cfg.keep_minutes)
    with gradio.Blocks(title="SegNet", analytics_enabled=False, delete_cache=(min(60, age), age)) as blocks:
        gradio.Markdown(f"# SegNet\nDrop an image. {about}")
        with gradio.Row():
            # A path, not an array: gradio would decode it before its size is checked.
            given = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="image")
            names = ["overlay", "mask", "confidence", *(["uncertainty"] if predictor.mc_samples else [])]
            shown = [gradio.Image(label=name, format="png", interactive=False) for name in names]
        areas = gradio.Dataframe(headers=["class", "area"], label="areas", interactive=False)
        call = answer(predictor, cfg.max_pixels, cfg.max_seconds)
        given.change(call, given, [*shown, areas], api_name="predict", api_visibility="undocumented")
    return blocks


def launch(blocks: Any, cfg: DictConfig, folder: Path) -> None:
    """Serve until Ctrl-C, behind a `Guard`; ``folder`` is where uploads are kept."""
    from starlette.middleware import Middleware

    from segnet.commands.guard import Guard

    most = int(cfg.max_upload_mb * 1e6)
    guard = Middleware(
        Guard, host=cfg.host, port=cfg.port, folder=folder, most=most, total=int(cfg.max_total_mb * 1e6),
        files=int(cfg.max_files), seconds=cfg.max_seconds,
    )  # fmt: skip
    try:
        # Without show_error the page tells what gradio.Error says; anything else, which could name paths, only here.
        _, url, _ = blocks.queue(default_concurrency_limit=1, max_size=int(cfg.max_queue)).launch(
            server_name=cfg.host, server_port=cfg.port, share=False, quiet=True, show_error=False, ssr_mode=False,
            max_file_size=most, prevent_thread_lock=True, app_kwargs={"middleware": [guard]}, footer_links=[],
            enable_monitoring=False, mcp_server=False, pwa=False,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"port={cfg.port}: cannot be served on {cfg.host} ({error}); choose another") from error
    print(f"open {url}   (Ctrl-C stops it)", flush=True)
    blocks.block_thread()


main = command("demo")(run)
