"""Objects from a configuration: what is the user's mistake, and what is a fault of the code."""

from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from segnet import configuration
from segnet.errors import UserError
from segnet.networks.segnet import SegNet
from segnet.training.losses import CrossEntropy
from segnet.training.optimizers import Muon

NET = {"_target_": "segnet.networks.segnet.SegNet", "num_classes": 1, "widths": [4, 4, 4, 4, 4]}
UNET = {"_target_": "segmentation_models_pytorch.Unet", "encoder_name": "resnet18", "encoder_weights": None}


def test_nested_objects_are_built_with_plain_lists_and_dicts():
    config = OmegaConf.create({"net": {**NET, "widths": "${widths}"}, "widths": [4, 5, 6, 7, 8]})
    net = configuration.instantiate(config.net, "net")
    assert isinstance(net, SegNet)
    factory = configuration.instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}, "optimizer")
    assert isinstance(factory(net.parameters()), torch.optim.SGD)
    assert (
        type(configuration.instantiate(OmegaConf.create({"_target_": "builtins.list", "_args_": [[1]]}), "x")) is list
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**NET, "depth": 5},
            "model.depth=5: SegNet takes no such argument; it takes num_classes, widths, .*pretrained",
        ),
        ({"_target_": NET["_target_"]}, "model: SegNet needs num_classes, which is not given"),
        (
            {"_target_": "segnet.networks.segnet.SegNets"},
            "model._target_=segnet.networks.segnet.SegNets: no such class",
        ),
        ({"_target_": "nowhere.Net"}, "model._target_=nowhere.Net: no such class or function"),
        ({"_target_": "torch.nn.Sequential", "_args_": [{**NET, "depth": 5}]}, "model._args_.0.depth=5: "),
        ({"_target_": "torch.optim.SGD", "_partial_": True, "speed": 1}, "model.speed=1: SGD takes no such argument"),
        ({"_target_": "torch.nn.Dropout", "p": 2}, "model: .*between 0 and 1"),  # refused by the library
        (
            {"_target_": "torch.nn.Conv2d", "in_channels": "a", "out_channels": 1, "kernel_size": 1},
            "model.in_channels=a: must be an integer",
        ),
        ({**NET, "dropout": 2}, "model.dropout=2: must be a number in"),
        ({**UNET, "in_channels": 4}, "model.in_channels=4: must be 3, as images are RGB"),
        ({**UNET, "depth": 5}, "model.depth=5: Unet takes no such argument"),
        (
            {"_target_": "lightning.pytorch.Trainer", "precision": "bf16-true"},
            "model.precision=bf16-true: must be",
        ),
        (
            {"_target_": "lightning.pytorch.callbacks.ThroughputMonitor", "batch_size_fn": NET, "window_size": 0},
            "model.window_size=0: must be an integer of at least 2",  # taken by **kwargs
        ),
        ({"_target_": "albumentations.GaussianBlur", "blur_limit": -3}, "model.blur_limit=-3: must be an integer"),
        (
            {"_target_": "albumentations.RandomResizedCrop", "size": [0, 0]},
            "model.size=.*: must be a list of 2: an integer of at least 1",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(config, message):
    with pytest.raises(UserError, match=message) as found:
        configuration.instantiate(config, "model")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "config",
    [
        {**UNET, "encoder_name": "tu-resnet18", "drop_path_rate": 0.1},
        {"_target_": "lightning.pytorch.callbacks.StochasticWeightAveraging", "swa_lrs": [0.1, 0.01]},
        {"_target_": "albumentations.GaussianBlur", "blur_limit": [0, 3]},
    ],
)
def test_what_a_library_takes_passes(config):
    configuration.check_arguments(config, "x")


@pytest.mark.parametrize("weight", [5, ["a"]])
def test_a_type_error_within_the_package_is_raised_as_it_is(weight):
    """Raised by the constructor itself, and by what it calls; arguments without a name are not compared with types."""
    loss = {"_target_": "segnet.training.losses.CrossEntropy", "_args_": [1, weight]}
    with pytest.raises(TypeError):
        configuration.instantiate({"loss": loss}, "model")
    with pytest.raises(TypeError):
        configuration.call(partial(CrossEntropy, weight=weight), "model.loss", 1)


def test_a_factory_is_told_by_its_key():
    parameters = [torch.nn.Parameter(torch.zeros(2, 2))]
    for optimizer in (torch.optim.SGD, Muon):  # the library's check, and one of ours
        with pytest.raises(UserError, match=r"^model\.optimizer: .*-1"):
            configuration.call(partial(optimizer, lr=-1), "model.optimizer", parameters)
    with pytest.raises(UserError, match=r"^model\.optimizer: .*'str'"):
        configuration.call(partial(torch.optim.SGD, lr="abc"), "model.optimizer", parameters)
