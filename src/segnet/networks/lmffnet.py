"""LMFFNet: few channels, dilated depthwise convolutions, the image itself fed in again at every resolution.

Source: Shi et al., "LMFFNet: A Well-Balanced Lightweight Network for Fast and Accurate Semantic Segmentation", IEEE
TNNLS 34(6), 2023 (doi:10.1109/TNNLS.2022.3176493), the network LMFFNet-3-8 of its tables.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.settings import Positive

DILATIONS = (2, 2, 2), (4, 4, 8, 8, 16, 16, 32, 32)  # of the blocks at a quarter and an eighth of the resolution


class LMFFNet(nn.Module):
    """LMFFNet-3-8: three and eight bottlenecks, maps mixed by 1×1 convolutions; 1,341,166 parameters for one class.

    Args:
        num_classes: channels of the logits, at least 1.
    """

    def __init__(self, num_classes: Positive) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 32, stride=2), *_conv(32, 32), *_conv(32, 32))
        # Channels: 35 = 32 + the image's 3, 131 = 2·64 + 3, 259 = 2·128 + 3.
        self.mix0, self.mix1, self.mix2 = _mix(35), _mix(131), _mix(259)
        self.down1 = PooledBeside(35, 64)
        self.down2 = nn.Sequential(*_conv(131, 128, stride=2))
        self.blocks1 = nn.Sequential(*(SplitExtractMerge(64, dilation) for dilation in DILATIONS[0]))
        self.blocks2 = nn.Sequential(*(SplitExtractMerge(128, dilation) for dilation in DILATIONS[1]))
        self.attention1, self.attention2 = PartitionAttention(64), PartitionAttention(128)
        self.fine, self.coarse = nn.Conv2d(131, 16, 1, bias=False), nn.Conv2d(259, 32, 1, bias=False)
        self.gate = nn.Sequential(*_conv(48, 48, groups=48), nn.Conv2d(48, num_classes, 1, bias=False))
        self.head = nn.Sequential(*_conv(259, 259, groups=259))
        self.classifier = nn.Conv2d(259, num_classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float to (N, num_classes, H, W) logits; H and W of at least 9."""
        half = _halved(x)
        quarter = _halved(half)
        down = self.down1(self.mix0(torch.cat([self.stem(x), half], 1)))
        fine = self.mix1(torch.cat([self.blocks1(down), self.attention1(down), quarter], 1))
        down = self.down2(fine)
        coarse = self.mix2(torch.cat([self.blocks2(down), self.attention2(down), _halved(quarter)], 1))
        gate = self.gate(torch.cat([self.fine(fine), _resized(self.coarse(coarse), fine)], 1)).sigmoid()
        return _resized(_resized(self.classifier(self.head(coarse)), fine) * gate, x)


class SplitExtractMerge(nn.Module):
    """The SEM-B bottleneck: half the channels, of which one half sees its neighbours and one half looks further.

    Args:
        width: channels of input and output, a multiple of 4.
        dilation: of the half that looks further.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        part = width // 4
        self.split = nn.Sequential(*_conv(width, 2 * part))
        self.near = nn.Sequential(*_conv(part, part, groups=part))
        self.far = nn.Sequential(*_conv(part, part, dilation=dilation, groups=part))
        self.merge = nn.Sequential(*_conv(2 * part, 2 * part), nn.Conv2d(2 * part, width, 1, bias=False))
        self.out = nn.Sequential(*_norm(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        near, far = self.split(x).chunk(2, 1)
        out: Tensor = self.out(x + self.merge(torch.cat([self.near(near), self.far(far)], 1)))
        return out


class PartitionAttention(nn.Module):
    """PMCA: a factor for each of the channels, from its means over the image and over the quarters of the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.quarters = nn.Conv2d(width, width, 2, groups=width, bias=False)
        layers = [nn.Conv2d(width, width // 8, 1, bias=False), nn.PReLU(), nn.Conv2d(width // 8, width, 1, bias=False)]
        self.factors = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same; H and W of at least 2."""
        out: Tensor = x * self.factors(self.quarters(quarter_means(x)) + x.mean((2, 3), keepdim=True))
        return out


def quarter_means(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2, 2); the middle row or column of an odd side is in both halves.

    That is adaptive average pooling, whose gradient has no deterministic form on a GPU.
    """
    rows, columns = (((0, (side + 1) // 2), (side // 2, side)) for side in x.shape[-2:])
    means = [x[..., top:bottom, left:right].mean((2, 3)) for top, bottom in rows for left, right in columns]
    return torch.stack(means, -1).reshape(*x.shape[:2], 2, 2)


class PooledBeside(nn.Module):
    """Downsampling by a convolution, with the maxima of 2×2 windows beside its channels.

    Args:
        into: channels of the input and of the maxima.
        out: channels of both together.
    """

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out - into, 3, 2, 1, bias=False)
        self.norm = nn.Sequential(*_norm(out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, into, H, W) to (N, out, H / 2, W / 2), rounded up."""
        out: Tensor = self.norm(torch.cat([self.conv(x), F.max_pool2d(x, 2, ceil_mode=True)], 1))
        return out


class Dilated(nn.Conv2d):
    """A dilated depthwise convolution, on a CPU in float32: in bfloat16 its gradient is wrong there (torch 2.14.1)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def _conv(into: int, out: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d if dilation == 1 else Dilated
    return conv(into, out, 3, stride, dilation, dilation, groups, bias=False), *_norm(out)


def _mix(width: int) -> nn.Sequential:
    return nn.Sequential(*_norm(width), nn.Conv2d(width, width, 1, bias=False))


def _norm(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(width, eps=1e-3), nn.PReLU(width)


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 2, 1)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear")
