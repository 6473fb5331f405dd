"""Small networks to export, and images for them."""

import subprocess
import sys
from functools import partial

import torch
from torch import nn

from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule

# Runs a script as `python -I` does, and refuses what a device does not have.
ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
own = {"torch", "scipy", "PIL"} if "executorch" in sys.modules else {"PIL"} if "--images" in sys.argv else set()
heavy = ({"segnet", "torch", "cv2", "scipy", "hydra", "PIL", "jax", "tensorflow"} - own) & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def module_of(net, classes=("defect",), size=(48, 64)):
    """A network whose statistics and weights have seen something, so that no map is constant."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
        if isinstance(layer, nn.Conv2d) and layer.out_channels == len(classes):
            nn.init.normal_(layer.weight, std=1.0)
    sgd = partial(torch.optim.SGD, lr=0.01)
    loss = CrossEntropy(len(classes))
    return SegmentationModule(net, loss, sgd, classes=list(classes), image_size=size).eval()


def about(module):
    mean, std = (value.flatten().tolist() for value in (module.mean, module.std))
    return {
        "classes": module.classes, "colors": None, "image_size": list(module.image_size), "mean": mean, "std": std,
    }  # fmt: skip


def photos(count, size):
    torch.manual_seed(1)
    coarse = torch.rand(count, 3, 6, 8) * 255
    return nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255).byte()


def probabilities(module, images):
    with torch.no_grad():
        return module.probabilities(module(images))


def measured(folder, *arguments):
    """The row that the script prints, by column."""
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "measure.py"), "--seconds=0.01", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-3:]  # some runtimes print before it
    header, rule, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert set(rule) == {"---:"}
    return {name: float(value) for name, value in zip(header, row, strict=True)}
