"""Distillation: the loss by hand, and a student that follows its teacher."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError
from segnet.networks.segnet import SegNetBasic
from segnet.training.distillation import Teacher, _scale, divergence
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_value_and_gradient_by_hand(classes, temperature):
    random = np.random.default_rng(classes)
    own, given = random.normal(size=(2, 2, classes, 4, 5)) * 3
    mask = random.integers(0, max(classes, 2), (2, 4, 5))
    mask[0, :2] = IGNORE_INDEX
    counted = mask != IGNORE_INDEX

    def soft(z):  # probabilities of every class, (N, K, H, W)
        z = np.concatenate([0 * z, z], 1) if classes == 1 else z
        e = np.exp(z / temperature)
        return e / e.sum(1, keepdims=True)

    q, p = soft(own), soft(given)
    value = temperature**2 * ((p * np.log(p / q)).sum(1) * counted).sum() / counted.sum()
    gradient = temperature * ((q - p) * counted[:, None])[:, -classes:] / counted.sum()
    student = torch.tensor(own, requires_grad=True)
    loss = divergence(student, torch.tensor(given), torch.tensor(mask), temperature)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(student.grad.numpy(), gradient, rtol=1e-7, atol=1e-12)
    if classes == 1:  # the gradient of binary cross-entropy with the teacher's probability as target
        again = torch.tensor(own, requires_grad=True)
        target = torch.tensor(p[:, 1:])
        bce = F.binary_cross_entropy_with_logits(again / temperature, target, reduction="none")
        (temperature**2 * (bce * torch.tensor(counted)[:, None]).sum() / counted.sum()).backward()
        torch.testing.assert_close(student.grad, again.grad)


def test_a_batch_without_a_counted_pixel_is_zero():
    student = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = divergence(student, torch.randn(1, 1, 4, 4), torch.full((1, 4, 4), IGNORE_INDEX), 2.0)
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


class Bright(nn.Module):
    """Knows the defect: where the image is bright."""

    def forward(self, x):
        return 4 * x.mean(1, keepdim=True)


def module_of(net, size=32):
    return SegmentationModule(
        net, CrossEntropy(1), partial(torch.optim.AdamW, lr=0.01), classes=["defect"], image_size=size,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip


def distance(student, teacher, image):
    student.eval()
    with torch.no_grad():
        return (student.logits(image).sigmoid() - teacher.logits(image).sigmoid()).abs().mean().item()


def test_a_student_moves_towards_its_teacher_against_the_masks():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (4, 3, 4, 4)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    batch = {"image": image, "mask": torch.zeros(4, 32, 32, dtype=torch.long)}  # the masks know nothing of it
    found = {}
    for weight in (0.0, 0.9):
        teacher = Teacher("", module_of(Bright()).eval(), weight, 2.0, (1, 1))
        torch.manual_seed(1)
        student = module_of(SegNetBasic(1, width=8))
        student.teacher = teacher
        before = distance(student, teacher, image)
        optimizer = student.optimizer(student.parameters())
        student.train()
        for _ in range(40):
            optimizer.zero_grad()
            student._results(batch)[0].backward()
            optimizer.step()
        found[weight] = distance(student, teacher, image) / before
    assert found[0.9] < 0.5
    assert found[0.0] > 0.9
    assert not any("teacher" in name for name in student.state_dict())
    assert not teacher.module.training
    assert copy.deepcopy(student).teacher is teacher


@pytest.mark.parametrize("size", [48, (64, 32)])
def test_a_teacher_of_another_size_sees_its_own_scale(size):
    torch.manual_seed(0)
    net = SegNetBasic(1, width=4)
    own = module_of(net, size).eval()
    height, width = own.image_size
    teacher = Teacher("", own, 0.5, 1.0, (height / 32, width / 32))
    for side in (32, 40):  # as in validation, and a crop of a larger image
        image = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
        wanted = (round(side * height / 32), round(side * width / 32))
        resized = F.interpolate(image.double(), wanted, mode="bilinear", antialias=True).float()
        with torch.no_grad():
            expected = F.interpolate(own.logits(resized), (side, side), mode="bilinear")
        torch.testing.assert_close(teacher.logits(image), expected)
        assert not teacher.logits(image).requires_grad


def test_crops_are_compared_by_their_scale_and_not_with_whole_images():
    given, student = module_of(Bright(), 64), module_of(Bright(), 32)
    assert _scale("a.ckpt", given, student) == [2, 2]
    for module, scale in ((given, 0.75), (student, 0.25)):
        module.config = {"data": {"crop": module.image_size[0], "scale": scale}}
    assert _scale("a.ckpt", given, student) == [3, 3]
    student.config = {"data": {"crop": None}}
    with pytest.raises(UserError, match=r"a.ckpt: it was trained on crops, and this run is not"):
        _scale("a.ckpt", given, student)
