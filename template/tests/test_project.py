"""What this project adds: its network, its loss, its data, and a training with all three."""

import subprocess
import sys
from pathlib import Path

import torch
from my_project.loss import Focused
from my_project.network import SmallNet

ROOT = Path(__file__).resolve().parents[1]


def test_logits_have_the_size_of_the_image():
    assert SmallNet(num_classes=2, width=4)(torch.zeros(3, 3, 31, 64)).shape == (3, 2, 31, 64)


def test_without_a_power_the_loss_is_cross_entropy_and_ignored_pixels_count_nowhere():
    logits, mask = torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], mask.float())
    assert torch.allclose(Focused(0.0)(logits, mask), expected)
    assert Focused(2.0)(logits, torch.full_like(mask, 255)) == 0


def test_an_epoch_makes_a_checkpoint(tmp_path):
    command = [sys.executable, str(ROOT / "src" / "train.py"), "experiment=small", "trainer=cpu"]
    small = ["trainer.max_epochs=1", "data.prepare.images=12", "output_dir=run"]
    done = subprocess.run([*command, *small], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
