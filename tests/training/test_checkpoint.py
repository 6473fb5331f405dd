"""A checkpoint from a stranger must not run code."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from segnet.errors import UserError
from segnet.networks.segnet import SegNet
from segnet.training.checkpoint import load_module, read, start_from
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


def test_foreign_and_damaged_files_are_named(tmp_path, trained):
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"foreign.ckpt: not a checkpoint written by segnet"):
        read(tmp_path / "foreign.ckpt")
    whole = (trained / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.ckpt: cannot be loaded safely"):
        read(tmp_path / "cut.ckpt")

    for name, content in {"empty": b"", "text": b"x", "null": bytes(100), "zip": b"PK\x03\x04"}.items():
        (tmp_path / f"{name}.ckpt").write_bytes(content)
        with pytest.raises(
            UserError, match=rf"{name}.ckpt: cannot be loaded safely \(.+\): it is damaged, or not"
        ) as told:
            read(tmp_path / f"{name}.ckpt")
        assert "weights_only" not in str(told.value)  # torch advises to load without it


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
        start_from(fresh(1, widths=(8, 64, 16, 16, 16)), file)  # narrower, but not everywhere
    module = fresh(1)
    module.net = nn.Conv2d(3, 1, 1)
    with pytest.raises(ValueError, match=r"it belongs to another network than this run's \(Missing key"):
        start_from(module, file)
    with pytest.raises(ValueError, match=r"weights=/nowhere.ckpt: no such file"):
        start_from(module, "/nowhere.ckpt")


def test_a_narrower_network_starts_from_a_part_of_the_channels(trained, capfd):
    file = trained / "checkpoints" / "best.ckpt"
    module, wide, other = fresh(1, (8, 16, 40, 76, 92)), fresh(1), fresh(2, (8, 16, 40, 76, 92))
    start_from(wide, file)
    start_from(module, file)
    assert "weights: [16,32,80,152,184] channels there, [8,16,40,76,92] here" in capfd.readouterr().err
    first, of_wide = module.net.encoder[0][0].weight, wide.net.encoder[0][0].weight
    strongest = wide.net.encoder[0][1].weight.abs().argsort(descending=True)[:8].sort().values
    assert torch.equal(first, of_wide[strongest])
    before = other.net.classifier.weight.clone()
    start_from(other, file)
    assert "1 class(es) there, 2 here; not loaded: classifier.bias, classifier.weight" in capfd.readouterr().err
    assert torch.equal(other.net.classifier.weight, before)
    assert torch.equal(other.net.encoder[0][0].weight, first)
    with pytest.raises(ValueError, match=r"weights=\[.*,.*\]: .* has more channels .* name one of them"):
        start_from(module, [file, file])
    biased = fresh(1)
    biased.net = SegNet(1, widths=(8, 16, 40, 76, 92), bias=True)
    with pytest.raises(ValueError, match=r"it belongs to another network than this run's \(Missing key"):
        start_from(biased, file)
