"""A local web page: drop an image and see what a trained network predicts."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError

if TYPE_CHECKING:
    from segnet.deployment.predictor import Predictor


def run(cfg: DictConfig) -> None:
    """Serve the page until it is interrupted."""
    import torch

    from segnet import environment
    from segnet.deployment.predictor import Predictor, load_model

    if type(cfg.port) is not int or not 0 < cfg.port < 65536:
        raise UserError(f"port={cfg.port}: must lie in 1..65535")
    environment.keep_freed_memory()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    precision = environment.fastest_precision(device) if cfg.precision == "auto" else cfg.precision
    torch.manual_seed(cfg.seed)
    predictor = Predictor(
        load_model(str(cfg.ckpt_path), device, cfg.trust), precision, cfg.tile, cfg.overlap,
        mc_samples=cfg.mc_samples, batch_size=cfg.batch_size,
    )  # fmt: skip
    launch(page(predictor, cfg.max_pixels), cfg.host, cfg.port, cfg.max_upload_mb)


def answer(predictor: "Predictor", max_pixels: int) -> Callable[[str | None], list[Any]]:
    """What the page shows for a file: overlay, mask, confidence and uncertainty as uint8 RGB, and a table of areas."""
    import cv2
    import gradio
    import numpy as np

    from segnet.data.images import read_rgb
    from segnet.deployment.measures import areas, grey
    from segnet.visualization.overlays import overlay, palette

    model = predictor.model
    table = palette(len(model.classes), model.colors)

    def call(path: str | None) -> list[Any]:
        if path is None:
            return [None] * (5 if predictor.mc_samples else 4)
        try:
            image = read_rgb(path, max_pixels)
        except (ValueError, OSError) as error:
            raise gradio.Error(str(error).replace(path, os.path.basename(path))) from error  # noqa: PTH119 (text)
        (found,) = predictor([image])
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


def page(predictor: "Predictor", max_pixels: int) -> Any:
    """The page as gradio Blocks."""
    import gradio

    model = predictor.model
    height, width = model.image_size
    about = f"{', '.join(model.classes)} · trained at {height}×{width}"
    with gradio.Blocks(title="SegNet", analytics_enabled=False) as blocks:
        gradio.Markdown(f"# SegNet\nDrop an image. {about}")
        with gradio.Row():
            # A path, not an array: gradio would decode it before its size is checked.
            given = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="image")
            names = ["overlay", "mask", "confidence", *(["uncertainty"] if predictor.mc_samples else [])]
            shown = [gradio.Image(label=name, format="png", interactive=False) for name in names]
        areas = gradio.Dataframe(headers=["class", "area"], label="areas", interactive=False)
        given.change(answer(predictor, max_pixels), given, [*shown, areas], api_name="predict")
    return blocks


def launch(blocks: Any, host: str, port: int, max_upload_mb: float) -> None:
    """Serve until Ctrl-C."""
    try:
        _, url, _ = blocks.queue(default_concurrency_limit=1).launch(
            server_name=host, server_port=port, share=False, quiet=True, show_error=True, ssr_mode=False,
            max_file_size=int(max_upload_mb * 1e6), prevent_thread_lock=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"port={port}: cannot be served on {host} ({error}); choose another") from error
    print(f"open {url}   (Ctrl-C stops it)", flush=True)
    blocks.block_thread()


main = command("demo")(run)
