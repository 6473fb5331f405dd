"""A checkpoint from a stranger must not run code."""

import pickle
import pkgutil
import re

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from helpers import ROOT
from segnet.networks.segnet import SegNet
from segnet.training.checkpoint import ALLOWED, EXCLUDED, check_targets, load_module, read, start_from
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule


class Evil:
    def __reduce__(self):
        return (exec, ("open('owned', 'w').close()",))


def test_rebuilds_the_module_from_the_file_alone(trained):
    module = load_module(trained / "checkpoints" / "best.ckpt")
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not module.training
    assert module(torch.zeros(1, 3, 50, 70, dtype=torch.uint8)).shape == (1, 1, 50, 70)


def test_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for save in (torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))):
        save({"config": {}, "state_dict": Evil()}, tmp_path / "evil.ckpt")
        with pytest.raises(ValueError, match="cannot be loaded safely"):
            read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "torch.nn.modules.module.torch.load",
        "segnet.synthetic.cables.write",
        "segnet.data.cache.open_or_build",
        "segnet.data.dataset.cache.open_or_build",
        "segnet.training.callbacks.EpochTable",
        "segnet.training.preemption.AtomicCheckpoints",
        "segnet.data.datamodule.Path",
        "segnet.deployment.writer.write",
        "segnet.commands.train.run",
        "segnet.networks.segnet.torch.hub.load",
        "segnet.data.datamodule.os.system",
        "segnet.data.datamodule._size",
        "segmentation_models_pytorch.from_pretrained",
        "hydra.utils.call",
        "lightning.pytorch.Trainer",
    ],
)
def test_a_target_outside_the_allowed_code_is_refused(target):
    config = {"model": {"net": {"_target_": "segnet.networks.segnet.SegNet", "extra": [{"_target_": target}]}}}
    with pytest.raises(ValueError, match="must not run"):
        check_targets(config, "x.ckpt")


def test_every_module_that_writes_files_is_excluded():
    """The packages that checkpoints may name grow without an edit of the list, unless a new module writes files."""
    writing = re.compile(
        r"\.(write_text|write_bytes|mkdir|unlink|rename|rmtree|savefig|imwrite|save_checkpoint|open_memmap|memmap)\(|"
        r"(torch|np|OmegaConf|image)\.save\(|open\(\s*\"[wax]"
    )
    found = set()
    for package in ALLOWED:
        for module in pkgutil.iter_modules([str(ROOT / "src" / package.replace(".", "/"))], f"{package}."):
            source = (ROOT / "src" / f"{module.name.replace('.', '/')}.py").read_text()
            if writing.search(source):
                found.add(module.name)
    assert len(found) >= 3
    assert found <= set(EXCLUDED)


def test_an_interpolation_is_refused():
    with pytest.raises(ValueError, match="interpolation"):
        check_targets({"model": {"net": {"name": "${oc.env:HOME}"}}}, "x.ckpt")


@pytest.mark.parametrize(
    "target",
    [
        "segnet.networks.segnet.SegNet",
        "segnet.networks.SegNet",
        "segnet.data.ByHash",
        "segnet.training.losses.dice",
        "segmentation_models_pytorch.Unet",
        "torch.optim.SGD",
        "torch.nn.Conv2d",
    ],
)
def test_what_a_run_writes_is_allowed(target):
    check_targets({"_target_": target}, "x.ckpt")


def test_foreign_and_damaged_files_are_named(tmp_path, trained):
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"foreign.ckpt: not a checkpoint written by segnet"):
        read(tmp_path / "foreign.ckpt")
    whole = (trained / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.ckpt: cannot be loaded safely"):
        read(tmp_path / "cut.ckpt")


def test_every_configured_target_is_one_that_a_checkpoint_may_name():
    """Else a run would end with a checkpoint that nothing can load."""
    for group in ("data", "model", "loss", "optimizer", "scheduler"):
        for file in (ROOT / "conf" / group).rglob("*.yaml"):
            text = "\n".join(line for line in file.read_text().splitlines() if "${" not in line)
            found = yaml.safe_load(text) or {}
            found = {k: v for k, v in found.items() if k not in ("augment", "prepare", "defaults")}
            check_targets(found, str(file))


def fresh(classes, widths=(16, 32, 80, 152, 184)):
    names = [f"class {i}" for i in range(classes)]
    return SegmentationModule(
        SegNet(num_classes=classes, widths=widths), CrossEntropy(classes), torch.optim.SGD, classes=names, image_size=32
    )


def test_a_network_starts_from_the_weights_of_a_checkpoint(trained):
    file = trained / "checkpoints" / "best.ckpt"
    module = fresh(1)
    start_from(module, file)
    state = torch.load(file, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[f"net.{name}"]) for name, value in module.net.state_dict().items())


def test_of_several_checkpoints_a_network_starts_from_the_mean(trained, tmp_path):
    first = trained / "checkpoints" / "best.ckpt"
    content = torch.load(first, weights_only=True)
    others = [tmp_path / "1.ckpt", tmp_path / "2.ckpt"]
    states = [content["state_dict"]]
    for file in others:
        states.append({name: value + torch.rand(value.shape).to(value.dtype) for name, value in states[0].items()})
        torch.save({**content, "state_dict": states[-1]}, file)
    module = fresh(1)
    start_from(module, [first, *others])
    for name, value in module.net.state_dict().items():
        if value.is_floating_point():
            expected = np.mean([state[f"net.{name}"].numpy() for state in states], axis=0)
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"weights=\[\]: name at least one checkpoint"):
        start_from(module, [])


def test_for_other_classes_only_the_classifier_starts_afresh(trained, capfd):
    file = trained / "checkpoints" / "best.ckpt"
    module = fresh(3)
    before = {name: value.clone() for name, value in module.net.state_dict().items()}
    start_from(module, file)
    state = torch.load(file, weights_only=True)["state_dict"]
    kept = [name for name, value in module.net.state_dict().items() if value.shape != state[f"net.{name}"].shape]
    assert sorted(kept) == sorted(name for name, value in before.items() if len(value.shape) and value.shape[0] == 3)
    assert f"weights: 1 class(es) there, 3 here; not loaded: {', '.join(sorted(kept))}" in capfd.readouterr().err
    for name, value in module.net.state_dict().items():
        assert torch.equal(value, before[name] if name in kept else state[f"net.{name}"])


def test_weights_of_another_network_are_refused(trained):
    file = trained / "checkpoints" / "best.ckpt"
    with pytest.raises(ValueError, match=r"weights=.*: it belongs to another network than this run's \(size mismatch"):
        start_from(fresh(1, widths=(8, 16, 16, 16, 16)), file)
    module = fresh(1)
    module.net = nn.Conv2d(3, 1, 1)
    with pytest.raises(ValueError, match=r"it belongs to another network than this run's \(Missing key"):
        start_from(module, file)
    with pytest.raises(ValueError, match=r"weights=/nowhere.ckpt: no such file"):
        start_from(module, "/nowhere.ckpt")
