"""What a checkpoint and a run folder from a stranger may have built, and what a user's own ones may."""

import re
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from helpers import ROOT
from segnet.cli import CONF_DIR
from segnet.commands.build import build
from segnet.hydra_versions import BASE
from segnet.runs import record
from segnet.training.checkpoint import load_module, read, without_downloads
from segnet.trust import DEPTH, ENTRIES, OWN, RUN, check, plain

NET = "segnet.networks.segnet.SegNet"
DATA = "segnet.data.datamodule.SegmentationDataModule"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "functools.partial",
        "hydra.utils.call",
        "hydra.utils.instantiate",
        "torch.load",
        "torch.hub.load",
        "torch.nn.modules.module.torch.load",
        "torch.nn.Module.load_state_dict",
        "torch.nn.functional.relu",
        "segnet.synthetic.cables.write",
        "segnet.data.flat_cache.kept",
        "segnet.data.dataset.shield",
        "segnet.data.patterns.quick",
        "segnet.training.distillation.teacher",
        "segnet.data.dataset.cache.make_room",
        "segnet.training.callbacks.EpochTable",
        "segnet.training.preemption.AtomicCheckpoints",
        "segnet.data.datamodule.Path",
        "segnet.deployment.writer.write",
        "segnet.commands.train.run",
        "segnet.networks.segnet.torch.hub.load",
        "segnet.networks.segnet.SegNet.load_vgg16",
        "segnet.data.datamodule.os.system",
        "segnet.data.datamodule._size",
        "segmentation_models_pytorch.from_pretrained",
        "segmentation_models_pytorch.encoders.get_encoder",
        "segmentation_models_pytorch.encoders.timm_universal.TimmUniversalEncoder",
        "lightning.pytorch.Trainer",
        ["os.system"],
        {"_target_": "os.system"},
        3,
        None,
    ],
)
def test_a_target_outside_the_allowed_code_is_refused(target):
    config = {"model": {"net": {"_target_": NET, "extra": [{"_target_": target}]}}}
    with pytest.raises(ValueError, match=r"x\.ckpt: model.net.extra.0._target_=.* file must not run; .*add trust=true"):
        check(config, "x.ckpt")


@pytest.mark.parametrize(
    "target",
    [
        "lightning.pytorch.callbacks.LambdaCallback.setup",
        "lightning.pytorch.loggers.WandbLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.cli.LightningCLI",
        "lightning.pytorch.LightningModule.load_from_checkpoint",
        "albumentations.load",
        "albumentations.from_dict",
        "albumentations.Lambda",
        "albumentations.FDA",
        "albumentations.TextImage",
        "torchvision.datasets.OxfordIIITPet",
        "segnet.synthetic.cables.write",
        "segnet.runs.leaderboard.Leaderboard",
        "segnet.training.checkpoint.load_module",
    ],
)
@pytest.mark.parametrize("place", ["callbacks", "hydra"])
def test_so_is_it_in_the_record_of_a_run(target, place):
    with pytest.raises(ValueError, match="names code that a file must not run"):
        check({place: {"a": {"_target_": target, "_partial_": True}}}, "resume=x", RUN, Path("/run"))


@pytest.mark.parametrize(
    ("node", "entry"),
    [
        ({"_target_": NET, "_args_": [1]}, "takes no _args_"),
        ({"_target_": NET, "_recursive_": False}, "takes no _recursive_"),
        ({"_target_": "torch.nn.Conv2d", "padding_mode": "../x"}, "padding_mode='../x'"),
        ({"_target_": "segmentation_models_pytorch.Unet", "encoder_name": "tu-hf-hub:a/b"}, "encoder_name="),
        ({"_target_": "segmentation_models_pytorch.Unet", "encoder_name": "tu-local-dir:x"}, "encoder_name="),
        ({"_target_": "segmentation_models_pytorch.Unet", "encoder_weights": "https://a"}, "encoder_weights="),
        ({"_target_": "segmentation_models_pytorch.Unet", "pretrained_cfg": {"file": "x"}}, "takes no pretrained_cfg"),
        ({"_target_": "segmentation_models_pytorch.Unet", "checkpoint_path": "x"}, "takes no checkpoint_path"),
        ({"_target_": "segmentation_models_pytorch.Unet", "kwargs": {}}, "takes no kwargs"),
        ({"_target_": "segmentation_models_pytorch.Unet", "aux_params": {"activation": "/x"}}, "aux_params='/x'"),
        ({"_target_": "torchvision.models.segmentation.fcn_resnet50", "kwargs": 1}, "takes no kwargs"),
        ({"_target_": "torchvision.models.segmentation.fcn.load_state_dict_from_url", "url": "x"}, "names code"),
        ({"_target_": DATA, "images": "/etc/*"}, "images='/etc/\\*'"),
        ({"_target_": DATA, "images": ["a/../../*"]}, "images='a/../../\\*'"),
        ({"_target_": DATA, "masks": "../../{stem}"}, "masks='../../{stem}'"),
        ({"_target_": DATA, "masks": "{stem.__class__}"}, "masks='{stem.__class__}'"),
        ({"_target_": "segnet.data.ByList", "train": "../../etc/passwd"}, "train="),
        ({"_target_": "segnet.data.ByList", "train": "~/x"}, "train="),
        ({"_target_": "torch.optim.SGD", "lr": {"_target_": "os.system"}}, "lr._target_='os.system'"),
        ({"_target_": NET, "a": "${oc.env:HOME}"}, "interpolation|HOME"),
        ({"_target_": NET, "${oc.env:HOME}": 1}, "HOME"),
    ],
)
def test_an_argument_that_opens_or_fetches_is_refused(node, entry):
    for where in ({"net": node}, {"net": {"_target_": NET, "a": {"b": [[node]]}}}, [node]):
        with pytest.raises(ValueError, match=entry):
            check(where, "x.ckpt")


@cache
def run(*overrides):
    """The record of a run as a user's command line made it."""
    with initialize_config_dir(str(CONF_DIR), **BASE):
        config = compose("train", [*overrides, f"data.root={ROOT}"])
    OmegaConf.set_struct(config, False)
    config.output_dir = "/runs/a"
    return config


def attacked(changes):
    config = deepcopy(run("data=folder"))
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=False, force_add=True)
    return config


ATTACK = {"_target_": "os.system", "command": "touch owned"}
MLFLOW = {"_target_": "segnet.training.loggers.MLflow", "save_dir": "${output_dir}"}


@pytest.mark.parametrize(
    "changes",
    [
        {"callbacks__x": ATTACK},
        {"logger__x": ATTACK},
        {"trainer__plugins": [ATTACK]},
        {"trainer": ATTACK},
        {"model__net": ATTACK},
        {"model__optimizer": {**ATTACK, "_partial_": True}},
        {"data___target_": "os.system"},
        {"data__augment": [{"_target_": "albumentations.Compose", "transforms": [ATTACK]}]},
        {"data__prepare": ATTACK},
        {"hydra__callbacks__x": ATTACK},
        {"unused": {"a": [{"b": ATTACK}]}},
        {"unused": "os.system", "callbacks__x": {"_target_": "${unused}", "command": "x"}},
        {"weights": "hf://user/name"},
        {"weights": ["a.ckpt", "hf://user/name"]},
        {"monitor": "${oc.env:HOME}"},
        {"monitor": "\\${oc.env:HOME}"},
        {"monitor": "${${mode}:HOME}"},
        {"monitor": "${oc.decode:'1'}"},
        {"monitor": "${now:%Y}"},
        {"monitor": "${oc.dict.values:data}"},
        {"callbacks__checkpoint__dirpath": "/elsewhere"},
        {"callbacks__checkpoint__dirpath": "${output_dir}/../../b"},
        {"data__classes": ["/elsewhere"], "callbacks__checkpoint__dirpath": "${data.classes.0}"},
        {"callbacks__epoch_table__path": "notes/todo.txt"},
        {"callbacks__epoch_table__path": "~/x"},
        {"logger__tensorboard__save_dir": "s3://bucket"},
        {"logger__tensorboard__version": "../../x"},
        {"trainer__default_root_dir": "/elsewhere"},
        {"trainer__default_root_dir": "notes"},
        {"callbacks__checkpoint__dirpath": "notes"},
        {"callbacks__checkpoint__dirpath": "notes/mine"},
        {"callbacks__checkpoint__filename": "a/b"},
        {"callbacks__last__dirpath": "notes"},
        {"callbacks__epoch_table__path": "todo.txt"},
        {"callbacks__x": {"_target_": "lightning.pytorch.callbacks.OnExceptionCheckpoint", "dirpath": "notes"}},
        {"logger__tensorboard__save_dir": "notes"},
        {
            "data__prepare": {"_target_": "segnet.synthetic.cables.write", "_partial_": True},
            "data__root": "../elsewhere",
        },
        {"data__prepare": {"_target_": "segnet.synthetic.cables.write", "_partial_": True, "root": "/elsewhere"}},
        {
            "data__prepare": {"_target_": "segnet.synthetic.cables.write", "_partial_": True},
            "data__root": "/else/where",
        },
        {"callbacks__x": {"_target_": "segnet.synthetic.cables.write", "_partial_": True, "images": 3}},
        {"callbacks__x": {"_target_": "lightning.pytorch.callbacks.LambdaCallback", "setup": ATTACK}},
        {"logger__x": {**MLFLOW, "tracking_uri": "http://elsewhere:5000"}},
        {"logger__x": {**MLFLOW, "tracking_uri": "sqlite:////elsewhere/mlflow.db"}},
        {"logger__x": {**MLFLOW, "save_dir": "/elsewhere"}},
        {"logger__x": {"_target_": "segnet.training.loggers.Wandb", "save_dir": "${output_dir}", "offline": False}},
        {"logger__x": {"_target_": "segnet.training.loggers.Wandb", "save_dir": "${output_dir}", "offline": 0}},
        {"logger__x": {**MLFLOW, "tracking_uri": "databricks"}},
        {"logger__x": {"_target_": "segnet.training.loggers.CSVLogger", "save_dir": "notes"}},
        {"logger__x": {"_target_": "segnet.training.loggers.require", "package": "os"}},
    ],
)
def test_a_hostile_record_is_refused(changes):
    with pytest.raises(ValueError, match=r"^resume=x: .*; if you made these files yourself, add trust=true$"):
        record.check(attacked(changes), "resume=x")


def options(group):
    names = {file.stem for file in (CONF_DIR / group).glob("*.yaml")}
    return [
        (group, name) for name in sorted(names) if (group, name) not in (("data", "default"), ("data", "checkpoint"))
    ]


GROUPS = ("data", "augment", "model", "loss", "optimizer", "scheduler", "trainer", "callbacks", "logger", "experiment")


@pytest.mark.parametrize("option", [option for group in GROUPS for option in options(group)], ids="=".join)
def test_what_this_programs_own_configuration_names_is_allowed(option):
    """In the record, and in a checkpoint: else a run would end with files that nothing can load."""
    config = run("=".join(option))
    record.check(config, "resume=x")
    kept = OmegaConf.to_container(config, resolve=True)
    check({"data": {**kept["data"], "augment": [], "prepare": None}, "model": kept["model"]}, "x.ckpt")


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "segnet.data.ByHash", "train": 1, "val": 0, "test": 0, "group": "/?(..)_\\d"},
        {"_target_": "segmentation_models_pytorch.Unet", "encoder_name": "tu-resnet18.a1_in1k", "classes": 2},
        {"_target_": "segmentation_models_pytorch.losses.JaccardLoss", "mode": "binary"},
        {"_target_": "torchvision.models.segmentation.lraspp_mobilenet_v3_large", "num_classes": 2},
        {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "_partial_": True, "mode": "min"},
        {"_target_": DATA, "root": "../elsewhere", "classes": ["n/a", "~", "a://b"], "masks": "{dir}/../{name}"[:5]},
    ],
)
def test_what_else_a_user_configures_is_allowed(node):
    check({"a": node}, "x.ckpt")


@pytest.mark.parametrize(
    "override",
    ["hydra.searchpath=[file:///x]", "hydra/callbacks=x", "+hydra.callbacks.x._target_=os.system", "~hydra.job",
     "+x@hydra.callbacks=y", "hydra.run.dir=/x", "experiment=../../x", "+trust=true", "data.root=${oc.env:HOME}",
     "optimizer@hydra=sgd"],
)  # fmt: skip
def test_overrides_that_set_hydra_or_lead_elsewhere_are_refused(override):
    with pytest.raises(ValueError, match=r"^resume=x: .*trust=true$"):
        record.check_overrides(["seed=1", override], "resume=x")
    record.check_overrides(["seed=1", "data.root=../x", "experiment=quickstart", "~callbacks.panels"], "resume=x")


def test_only_plain_values_of_bounded_depth_and_number():
    assert plain({"a": (1, [True, None, "x", 0.5])}, "x") == {"a": [1, [True, None, "x", 0.5]]}
    deep: list = []
    for _ in range(DEPTH + 1):
        deep = [deep]
    ring: list = []
    ring.append(ring)
    wide = [0] * 1000
    for _ in range(30):  # as a pickle and a YAML file may share parts
        wide = [wide, wide]
    for value in (deep, ring, wide, [0] * (ENTRIES + 1), {"a": {1, 2}}, [torch.zeros(1)], [b"x"]):
        with pytest.raises(ValueError, match=r"x: its configuration (is too deep or too large|holds a)"):
            plain(value, "x")
        with pytest.raises(ValueError, match="x: its configuration"):
            record.check_references(value, "x")


def test_every_module_that_writes_files_is_excluded():
    """What checkpoints may name grows without an edit of the list, unless a new module writes files."""
    writing = re.compile(
        r"\.(write_text|write_bytes|mkdir|unlink|rename|rmtree|savefig|imwrite|save_checkpoint|open_memmap|memmap)\(|"
        r"(torch|np|OmegaConf|image)\.save\(|open\(\s*\"[wax]"
    )
    found = set()
    for home in OWN.homes:
        path = ROOT / "src" / home.replace(".", "/")
        for module in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            if writing.search(module.read_text()):
                found.add(".".join(module.relative_to(ROOT / "src").with_suffix("").parts))
    assert len(found) >= 3
    assert found <= set(OWN.excluded)


@pytest.fixture
def changed(trained, tmp_path):
    """A function that gives the trained checkpoint with another configuration."""

    def make(**parts):
        content = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
        for key, value in parts.items():
            content["config"].setdefault(key, {}).update(value)
        torch.save(content, tmp_path / "x.ckpt")
        return tmp_path / "x.ckpt"

    return make


def test_a_users_own_class_needs_trust(changed, tmp_path, monkeypatch):
    (tmp_path / "mine_alone.py").write_text(
        "import pathlib\nfrom segnet.networks.segnet import SegNet\n"
        "class Net(SegNet):\n    def __init__(self, **given):\n"
        f"        super().__init__(**given)\n        pathlib.Path({str(tmp_path)!r}, 'ran').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = changed(model={"net": {"_target_": "mine_alone.Net", "num_classes": 1}})
    with pytest.raises(ValueError, match=r"model\.net\._target_='mine_alone\.Net' names code .* add trust=true"):
        load_module(file)
    assert not (tmp_path / "ran").exists()
    assert type(load_module(file, trusted=True).net).__name__ == "Net"
    assert (tmp_path / "ran").exists()


def test_its_cache_is_not_used_and_its_data_are_not_made(changed, tmp_path):
    file = changed(data={"cache_dir": str(tmp_path), "prepare": ATTACK, "augment": [ATTACK]})
    config = read(file)["config"]["data"]
    assert (config["cache_dir"], config["prepare"], config["augment"]) == (None, None, [])


def test_no_part_of_a_loaded_network_fetches_its_own_weights():
    unet, segnet = "segmentation_models_pytorch.Unet", "torchvision.models.segmentation.lraspp_mobilenet_v3_large"
    assert without_downloads({"_target_": unet, "encoder_name": "resnet18"}) == {
        "_target_": unet, "encoder_name": "resnet18", "encoder_weights": None,
    }  # fmt: skip
    found = without_downloads([{"_target_": NET, "pretrained": True, "a": {"_target_": segnet, "weights": "DEFAULT"}}])
    assert found == [
        {"_target_": NET, "pretrained": False, "a": {"_target_": segnet, "weights": None, "weights_backbone": None}}
    ]


@pytest.mark.parametrize(
    "config", [{"a": 1}, {"model": {"net": {}}, "data": {}}, {"model": {"classes": ["a"]}, "data": 3}]
)
def test_half_a_checkpoint_is_one_line(tmp_path, config):
    torch.save({"config": config, "state_dict": {"a": torch.zeros(1)}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt: not a checkpoint written by segnet"):
        load_module(tmp_path / "x.ckpt")


def test_a_resumed_run_downloads_no_weights(monkeypatch, tmp_path):
    """They would be replaced by its checkpoint's at once."""

    def fetch(*_, **__):
        raise OSError("would download")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose("train", ["model=segnet_vgg16", "model.net.pretrained=true", "trainer=cpu", "logger=none"])
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra", None)
    cfg.output_dir = str(tmp_path)
    _, module, _ = build(cfg, weights_follow=True)
    assert module.config["model"]["net"]["pretrained"] is True  # on record as it was asked for
    with pytest.raises(OSError, match="would download"):
        build(cfg)
