"""A local web page: drop an image and see what a trained network predicts, and what is decided from it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import ending_on_sigterm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segnet.decisions import OperatingPoint
    from segnet.deployment.prediction import Prediction
    from segnet.deployment.predictor import Predictor

STEP = 0.001  # of a slider, see `step`
LISTED = 100  # objects in the table, the largest ones
HEADERS = ["class", "area", "left", "top", "width", "height", "mean probability", "greatest probability"]


def run(cfg: DictConfig) -> None:
    """Serve the page until it is interrupted."""
    from tempfile import TemporaryDirectory

    from segnet.deployment.predictor import of_command

    predictor = of_command(cfg)
    with ending_on_sigterm(), TemporaryDirectory(prefix="segnet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of what is uploaded and shown
        launch(page(predictor, cfg), cfg, Path(folder))


def movable(predictor: "Predictor") -> "OperatingPoint | None":
    """The operating point that the sliders move: the model's, or that of a binary task without one; None of others."""
    from segnet.decisions import OperatingPoint

    if predictor.point is None and len(predictor.model.classes) == 1:
        return OperatingPoint((0.5,), (0.5,), (1,))
    return predictor.point


def labels(point: "OperatingPoint | None", classes: Sequence[str]) -> list[str]:
    """Of the sliders, one for each kind of defect; none without a point."""
    return [] if point is None else [f"{name} above" for name in classes[1:]] or ["threshold"]


def step(threshold: float) -> float:
    """The place of a slider that is nearest."""
    return min(round(threshold, 3), 1 - STEP)


def exact(point: "OperatingPoint", thresholds: Sequence[float]) -> tuple[float, ...]:
    """Of sliders: the point's own threshold where a slider can come no nearer to it."""
    both = zip(point.thresholds, thresholds, strict=True)
    return tuple(own if step(given) == step(own) else given for own, given in both)


def answer(predictor: "Predictor", max_pixels: int, max_seconds: float) -> Callable[..., list[Any]]:
    """What the page shows for a file, and for thresholds, one for each kind of defect; none: the predictor's.

    Overlay, mask, confidence and uncertainty as uint8 RGB, a table of areas, the verdict, and a table of objects. One
    image is predicted at a time, and the last one is kept, so that other thresholds need no network. A prediction
    that takes longer than ``max_seconds``, the time that it waits for others included, is answered with an error.
    """
    from concurrent.futures import ThreadPoolExecutor
    from dataclasses import replace

    import cv2
    import gradio
    import numpy as np

    from segnet.data.images import read_rgb
    from segnet.decisions import moved
    from segnet.deployment.measures import grey
    from segnet.visualization.overlays import overlay, palette

    model, base = predictor.model, movable(predictor)
    table = palette(len(model.classes), model.colors)
    one = ThreadPoolExecutor(1)
    last: dict[str, Prediction] = {}

    def predicted(path: str, image: Any) -> "Prediction":
        if path not in last:
            (found,) = predictor([image])
            last.clear()
            last[path] = found
        return last[path]

    def call(path: str | None, *thresholds: float) -> list[Any]:
        if path is None:
            return [None] * (7 if predictor.mc_samples else 6)
        try:
            image = read_rgb(path, max_pixels, getattr(model, "bits", None))
        except (ValueError, OSError) as error:
            text = str(error).replace(path, os.path.basename(path))  # noqa: PTH119 (text)
            raise gradio.Error(text.replace(os.path.dirname(path), "")) from error  # noqa: PTH120 (text)
        waiting = one.submit(predicted, path, image)
        try:
            found = waiting.result(max_seconds)
        except TimeoutError as error:
            waiting.cancel()  # if it has not begun
            raise gradio.Error(f"the prediction took longer than {max_seconds:g} s") from error
        if base is not None and thresholds and (asked := exact(base, thresholds)) != base.thresholds:
            found = replace(found, point=moved.at(base, asked))
        mask, score = found.decided()

        def heat(values: Any) -> Any:
            return cv2.applyColorMap(grey(values), cv2.COLORMAP_VIRIDIS)[..., ::-1]

        maps = [overlay(image, mask, table, len(model.classes) == 1), table[mask], heat(found.confidence())]
        if found.variance is not None:
            maps.append(heat(found.entropy()))
        return [*(np.ascontiguousarray(m) for m in maps), *in_words(found, mask, score, model.classes)]

    return call


def in_words(found: "Prediction", mask: "NDArray[np.uint8]", score: float, classes: Sequence[str]) -> list[Any]:
    """Rows of the areas, the verdict with what it rests on, and rows of the largest objects.

    Args:
        found: what was predicted.
        mask: (H, W), as it was decided.
        score: of the image.
        classes: their names.
    """
    from segnet.decisions import predicted_objects
    from segnet.decisions.operating_point import verdict
    from segnet.deployment.measures import areas

    shares = areas(mask, len(classes))[1::2]
    rows = [[name, f"{share} %"] for name, share in zip(classes, shares, strict=True)]
    there = predicted_objects(mask, found.probabilities.numpy())
    kept = there.largest(LISTED)
    names = [classes[0] if len(classes) == 1 else classes[index] for index in kept.classes]
    columns = zip(names, kept.regions.areas.tolist(), kept.boxes.tolist(), kept.mean, kept.greatest, strict=True)
    listed = [[n, area, *box, f"{mean:.3f}", f"{most:.3f}"] for n, area, box, mean, most in columns]
    most = f", the {LISTED} largest below" if len(there) > LISTED else ""
    told = f"**{verdict(mask)}** · {len(there)} object{'s' * (len(there) != 1)}{most} · score {score:.3f}"
    return [rows, told, listed]


def beside(predictor: "Predictor") -> Callable[..., str]:
    """What is said beside the sliders for thresholds: both rates with their intervals, or why there are none."""
    from segnet.decisions import moved

    def say(*thresholds: float) -> str:
        point = predictor.point
        if point is None:
            return "No rates: the model carries no operating point. `calibrate.py` counts them."
        if (found := moved.rates(point, exact(point, thresholds))) is None:
            return (
                "No rates: the record of the operating point does not hold them. `calibrate.py` counts them, of "
                f"several kinds of defects on at most {moved.VALUES:,} images times kinds."
            )
        texts = [
            f"{name} rate {100 * rate:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            for name, (rate, low, high) in ((name, found[name]) for name in moved.RATES)
        ]
        places = ", ".join(f"{threshold:.3f}" for threshold in found["threshold"])
        where = f"counted at {places} on the images that chose the operating point"
        return f"{', '.join(texts)} {where}; in brackets the interval (95 %)"

    return say


def page(predictor: "Predictor", cfg: DictConfig) -> Any:
    """The page as gradio Blocks, which delete what was uploaded after a while."""
    import gradio

    from segnet.decisions.given import told as told_of
    from segnet.networks.window import shown as shown_at

    model, base = predictor.model, movable(predictor)
    height, width = model.image_size
    trained = f"on crops of {shown_at(model.image_size, model.scale)}" if model.on_crops else f"at {height}×{width}"
    about = f"{', '.join(model.classes)} · trained {trained} · {told_of(predictor.point, model.classes)}"
    age = int(60 * cfg.keep_minutes)
    with gradio.Blocks(title="SegNet", analytics_enabled=False, delete_cache=(min(60, age), age)) as blocks:
        gradio.Markdown(f"# SegNet\nDrop an image. {about}")
        with gradio.Row():
            # A path, not an array: gradio would decode it before its size is checked.
            given = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="image")
            names = ["overlay", "mask", "confidence", *(["uncertainty"] if predictor.mc_samples else [])]
            shown = [gradio.Image(label=name, format="png", interactive=False) for name in names]
        decided = gradio.Markdown()
        starts = [] if base is None else [*map(step, base.thresholds)]
        with gradio.Row():
            sliders = [
                gradio.Slider(0, 1 - STEP, start, step=STEP, label=label, min_width=200)
                for start, label in zip(starts, labels(base, model.classes), strict=True)
            ]
        say = beside(predictor)
        told = gradio.Markdown(say(*starts))
        areas = gradio.Dataframe(headers=["class", "area"], label="areas", interactive=False)
        objects = gradio.Dataframe(headers=HEADERS, label="objects", interactive=False)
        call = answer(predictor, cfg.max_pixels, cfg.max_seconds)
        images, decisions = [*shown, areas], [decided, objects]
        # A new image is decided by the operating point: first its images, as other programs ask for them.
        drawn = given.change(
            lambda path: call(path)[: len(images)], given, images, api_name="predict", api_visibility="undocumented"
        )
        drawn.success(
            lambda path: [*starts, *call(path)[len(images) :]], given, [*sliders, *decisions], api_visibility="private"
        )
        for slider in sliders:
            slider.release(call, [given, *sliders], [*images, *decisions], api_visibility="private")
            slider.change(say, sliders, told, api_visibility="private", queue=False)
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
