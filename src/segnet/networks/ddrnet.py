"""DDRNet-23-slim: a narrow path at an eighth of the image's resolution beside a deep one, which exchange their maps.

Source: Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes",
2021 (arXiv 2101.06085), figure 4 and table 1; without the auxiliary head that its authors train with. A convolution
before a batch norm has no bias.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.settings import Positive


class DDRNet(nn.Module):
    """DDRNet-23-slim: 5,694,753 parameters for one class. Every stage takes and gives maps before their ReLU.

    Args:
        num_classes: channels of the logits, at least 1.
        width: channels at a quarter of the resolution; the narrow path has 2, the deep path up to 16 times as many.
    """

    def __init__(self, num_classes: Positive, width: Positive = 32) -> None:
        super().__init__()
        w, high = width, 2 * width
        self.stem = nn.Sequential(
            *_conv(3, w, 3, 2), nn.ReLU(), *_conv(w, w, 3, 2),
            _basic(w, w), _basic(w, w), _basic(w, high, 2), _basic(high, high),
        )  # fmt: skip
        self.deep3 = nn.Sequential(_basic(high, 4 * w, 2), _basic(4 * w, 4 * w))
        self.deep4 = nn.Sequential(_basic(4 * w, 8 * w, 2), _basic(8 * w, 8 * w))
        self.deep5 = _bottleneck(8 * w, 8 * w, 2)
        self.high3 = nn.Sequential(_basic(high, high), _basic(high, high))
        self.high4 = nn.Sequential(_basic(high, high), _basic(high, high))
        self.high5 = _bottleneck(high, high)
        self.up3 = nn.Sequential(nn.ReLU(), *_conv(4 * w, high, 1))
        self.up4 = nn.Sequential(nn.ReLU(), *_conv(8 * w, high, 1))
        self.down3 = nn.Sequential(nn.ReLU(), *_conv(high, 4 * w, 3, 2))
        self.down4 = nn.Sequential(nn.ReLU(), *_conv(high, 4 * w, 3, 2), nn.ReLU(), *_conv(4 * w, 8 * w, 3, 2))
        self.context = DAPPM(16 * w, 4 * w, 4 * w)
        self.head = nn.Sequential(*_preactivated(4 * w, high, 3), nn.BatchNorm2d(high), nn.ReLU())
        self.classifier = nn.Conv2d(high, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float of any size to (N, num_classes, H, W) logits; training needs N of at least 2."""
        shared = self.stem(x)
        deep, high = self.deep3(shared), self.high3(shared)
        deep, high = deep + self.down3(high), high + _resized(self.up3(deep), high)
        deep, high = self.deep4(deep), self.high4(high)
        deep, high = deep + self.down4(high), high + _resized(self.up4(deep), high)
        high = self.high5(high)
        high = high + _resized(self.context(self.deep5(deep)), high)
        return _resized(self.classifier(self.head(high)), x)


class DAPPM(nn.Module):
    """Deep aggregation pyramid pooling: means over ever larger surroundings, each refined together with the one before.

    Args:
        into: channels of the input.
        middle: of each surrounding.
        out: of the output.
    """

    def __init__(self, into: int, middle: int, out: int) -> None:
        super().__init__()
        pools = [nn.AvgPool2d(2 * step + 1, step, step) for step in (2, 4, 8)]
        self.scales = nn.ModuleList(
            nn.Sequential(pool, *_preactivated(into, middle, 1))
            for pool in (nn.Identity(), *pools, nn.AdaptiveAvgPool2d(1))
        )
        self.refine = nn.ModuleList(nn.Sequential(*_preactivated(middle, middle, 3)) for _ in self.scales[1:])
        self.merge = nn.Sequential(*_preactivated(5 * middle, out, 1))
        self.shortcut = nn.Sequential(*_preactivated(into, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, into, H, W) to (N, out, H, W)."""
        maps = [self.scales[0](x)]
        for scale, refine in zip(self.scales[1:], self.refine, strict=True):
            maps.append(refine(_resized(scale(x), x) + maps[-1]))
        merged: Tensor = self.merge(torch.cat(maps, 1)) + self.shortcut(x)
        return merged


class Residual(nn.Module):
    """ReLU, then convolutions and a shortcut side by side; no ReLU after their sum.

    Args:
        body: the convolutions.
        shortcut: what the input goes through, to the body's size.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        x = x.relu()
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


def _basic(into: int, out: int, stride: int = 1) -> Residual:
    body = nn.Sequential(*_conv(into, out, 3, stride), nn.ReLU(), *_conv(out, out, 3))
    same = into == out and stride == 1
    return Residual(body, nn.Identity() if same else nn.Sequential(*_conv(into, out, 1, stride)))


def _bottleneck(into: int, middle: int, stride: int = 1) -> Residual:
    layers = [*_conv(into, middle, 1), nn.ReLU(), *_conv(middle, middle, 3, stride), nn.ReLU()]
    body = nn.Sequential(*layers, *_conv(middle, 2 * middle, 1))
    return Residual(body, nn.Sequential(*_conv(into, 2 * middle, 1, stride)))


def _conv(into: int, out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)


def _preactivated(into: int, out: int, kernel: int) -> tuple[nn.Module, ...]:
    return nn.BatchNorm2d(into), nn.ReLU(), nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear")
