"""TensorBoard as a review desk: its own page, panels that can be read, curves, histograms, sweeps and traces."""

import json
import re

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from helpers import SMALL, call_main
from segnet.hydra_versions import BASE
from segnet.overrides import CONF_DIR
from segnet.reports.parameters import parameters, swept
from segnet.runs import record
from segnet.training.metrics import rates
from segnet.visualization.overlays import DEFECT, MISSED, VOID, WRONG, palette
from segnet.visualization.review import LINE, MOST, RULE, legend, review

# So few steps are recorded whole.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch Profiler default schedule")


@pytest.fixture(scope="module")
def desk(tmp_path_factory, cable, cache):
    """A run on images of another shape than the network's input, with everything on request."""
    home = tmp_path_factory.mktemp("desk")
    for folder, way in (("images", Image.Resampling.BILINEAR), ("masks", Image.Resampling.NEAREST)):
        (home / "data" / folder).mkdir(parents=True)
        for path in sorted((cable / folder).iterdir()):
            with Image.open(path) as image:
                image.resize((96, 64), way).save(home / "data" / folder / path.name)
    code = call_main(
        "train", *SMALL, f"data.root={home / 'data'}", f"data.cache_dir={cache}", f"output_dir={home / 'run'}",
        "data.batch_size=8", "callbacks=[histograms,objects]", "trainer.profiler=pytorch",
    )  # fmt: skip
    assert code == 0
    return home / "run"


@pytest.fixture(scope="module")
def board(desk):
    return EventAccumulator(str(desk), size_guidance={"images": 0, "tensors": 0}).Reload()


def test_the_page_of_custom_scalars_has_its_curves(board):
    event = board.Tensors("custom_scalars__config__")[-1]
    page = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in page.category] == [
        "losses", "IoU by class", "learning rate and speed", "object recall",
    ]  # fmt: skip
    tags = board.Tags()["scalars"]
    shown = {}
    for category in page.category:
        for chart in category.chart:
            shown[category.title, chart.title] = sorted(
                tag for tag in tags if any(re.match(form, tag) for form in chart.multiline.tag)
            )
    assert shown["losses", "loss"] == ["train/loss", "val/loss"]
    assert shown["IoU by class", "mean"] == ["train/iou", "val/iou"]
    assert shown["IoU by class", "validation"] == ["val/iou/defect"]
    assert shown["learning rate and speed", "images a second"] == ["speed/images_per_second"]
    assert shown["object recall", "validation"] == [f"val/object_recall/size{i}" for i in (1, 2, 3, 4)]


def test_panels_have_the_proportions_of_their_files(board):
    event = board.Images("val/0")[0]
    width = (event.width - 3 * RULE) / 4
    assert (width, event.height) == (256, round(256 * 64 / 96) + 2 * LINE)


def test_the_curve_of_precision_and_recall_is_that_of_the_counts(board, desk):
    event = board.Tensors("val/defect")[-1]
    tp, fp, tn, fn, precision, recall = tensor_util.make_ndarray(event.tensor_proto)
    with (desk / "results.json").open() as file:
        metrics = json.load(file)["metrics"]
    assert (tp + fp + tn + fn == tp[0] + fp[0]).all()  # all pixels, whatever the threshold
    assert recall[0] == 1
    assert precision[0] == pytest.approx(tp[0] / (tp[0] + fp[0]))
    area = -np.sum(np.diff(recall, append=0) * precision)
    assert area == pytest.approx(metrics["val/average_precision"], abs=0.02)


def test_rates_are_those_of_plain_counting():
    generator = np.random.default_rng(0)
    probability, truth = generator.random(500), generator.random(500) < 0.3
    bins = np.minimum((probability * 9).astype(int), 9)
    counts = np.array([np.bincount(bins[truth == is_positive], minlength=10) for is_positive in (False, True)])
    for i, (tp, fp, tn, fn, precision, recall) in enumerate(rates(counts).T):
        above = probability >= i / 9
        assert (tp, fp) == ((above & truth).sum(), (above & ~truth).sum())
        assert (tn, fn) == ((~above & ~truth).sum(), (~above & truth).sum())
        assert precision == tp / max(tp + fp, 1)
        assert recall == tp / truth.sum()


def test_histograms_hold_the_weights_that_were_trained(board, desk):
    state = torch.load(desk / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    weights = {name.removeprefix("net.") for name in state if name.startswith("net.")}
    tags = board.Tags()["histograms"]
    assert {tag.removeprefix("weights/") for tag in tags if tag.startswith("weights/")} <= weights
    assert len([tag for tag in tags if tag.startswith("gradients/")]) > 50
    for tag in (tag for tag in tags if tag.startswith("weights/")):
        (event,) = board.Histograms(tag)
        assert event.histogram_value.num == state["net." + tag.removeprefix("weights/")].numel()


def test_the_trace_of_the_profiler_can_be_opened(desk):
    traces = sorted(desk.rglob("*.pt.trace.json"))
    assert traces
    for path in traces:
        names = {event.get("name", "") for event in json.loads(path.read_text())["traceEvents"]}
        assert any("conv2d" in name or "convolution" in name for name in names)


def drawing(classes, size, ignored=False):
    image = np.zeros((32, 32, 3), np.uint8)
    truth = np.zeros((32, 32), np.uint8)
    truth[:16] = len(classes) if len(classes) == 1 else len(classes) - 1
    if ignored:
        truth[0] = 255
    return review(image, truth, np.zeros_like(truth), palette(len(classes)), classes, size)


@pytest.mark.parametrize(
    ("size", "kept"), [((64, 96), (171, 256)), ((300, 200), (300, 200)), ((2000, 1000), (480, 240))]
)
def test_a_panel_is_of_a_readable_size(size, kept):
    drawn = drawing(["defect"], size)
    assert max(kept) <= MOST
    assert drawn.shape == (kept[0] + 2 * LINE, 4 * kept[1] + 3 * RULE, 3)
    assert (drawn[0] == 255).all()
    assert (drawn[:LINE, : kept[1]] < 100).any()  # a title above each column
    assert (drawn[:LINE, -kept[1] :] < 100).any()
    errors = drawn[LINE : LINE + kept[0], -kept[1] :]
    assert (errors[: kept[0] // 2 - 8] == MISSED).all()


def test_the_legend_names_every_colour():
    table = palette(1)
    below = drawing(["Öffnung 孔"], (256, 256))[-LINE:]
    for color in (DEFECT, MISSED):
        assert (below == color).all(axis=2).any()
    assert not (below == WRONG).all(axis=2).any()
    many = [f"class {i}" for i in range(40)]
    lines = drawing(many, (256, 256), ignored=True)[LINE + 256 :]
    assert len(lines) % LINE == 0
    assert len(lines) > LINE  # they take more than one line
    for color in (*palette(40)[:40], WRONG, VOID):
        assert (lines == color).all(axis=2).any()
    assert [line.shape for line in legend(100, [(table[1], "a name much longer than this line is wide")])] == [
        (26, 100, 3)
    ]


def sessions(folder):
    metadata = EventAccumulator(str(folder)).Reload().summary_metadata["_hparams_/session_start_info"]
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    return dict(content.session_start_info.hparams.items())


def test_columns_of_a_sweep_are_the_values_that_it_varies(tmp_path, cable, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = call_main(
        "train", "-m", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "output_dir=sweep", "~callbacks.panels",
        "own_size=false", "model.optimizer.lr=0.1,0.001", "optimizer=sgd", "model.net.widths=[8,8,16,16,16]",
    )  # fmt: skip
    assert code == 0
    for job, lr in (("0", 0.1), ("1", 0.001)):
        found = sessions(tmp_path / "sweep" / job)
        assert list(found) == ["lr"]
        assert found["lr"].number_value == lr


def test_columns_of_a_search_and_of_a_single_run(tmp_path):
    overrides = ["experiment=quickstart", "data.prepare.images=96", "model.optimizer.lr=0.25", "~callbacks.panels"]
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose("train", [*overrides, f"output_dir={tmp_path / 'study' / '0'}"])
    record.write(cfg, overrides, tmp_path / "study" / "0")
    alone = parameters(cfg)
    assert alone == {
        "net": "SegNet", "loss": "WeightedSum", "optimizer": "SGD", "lr": 0.25, "batch_size": cfg.data.batch_size,
        "image_size": cfg.data.image_size, "epochs": cfg.trainer.max_epochs, "seed": 0, "experiment": "quickstart",
        "data.prepare.images": 96,
    }  # fmt: skip
    assert type(alone["lr"]) is float
    space = {"model.optimizer.lr": {"low": 0.1, "high": 1.0}, "optimizer": {"choices": ["sgd"]}}
    record.write(OmegaConf.create({"search": space}), overrides, tmp_path / "study")
    assert swept(tmp_path / "study" / "0") == ["model.optimizer.lr", "optimizer"]
    assert parameters(cfg)["lr"] == 0.25
    assert len(parameters(cfg)) == 2
    assert swept(tmp_path / "study") == []
