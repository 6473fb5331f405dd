"""SegNet and its relatives: encoder, decoder that unpools with the encoder's maxima, pixel-wise classifier.

Every network maps float (N, 3, H, W), H and W of at least 32, to logits (N, num_classes, H, W).

Sources: Badrinarayanan et al., "SegNet", TPAMI 2017 (sections 3 and 3.2); Kendall et al., "Bayesian SegNet", BMVC 2017
(section 3: dropout in the central stages); He et al., "Delving Deep into Rectifiers", ICCV 2015 (initialisation).
"""

import math
from collections.abc import Sequence
from itertools import chain, pairwise, zip_longest

from torch import Tensor, nn

from segnet.errors import UserError
from segnet.networks import folding
from segnet.networks.normalization import as_pixels, norm_relu
from segnet.networks.pooling import max_pool, max_unpool
from segnet.settings import BelowOne, Positive, Widths

PRIOR = 0.05  # share of the positive class that a binary network expects before it has seen anything
SMALLEST = 32  # five 2×2 poolings leave one pixel


class Stage(nn.Sequential):
    """Layers in turn; a batch norm and the ReLU after it are one step, and maps may be folded."""

    def forward(self, x: Tensor, folded: bool = False) -> Tensor:
        """(N, C, H, W) to (N, C', H, W); folded (N, 4 C, H/2, W/2) to (N, 4 C', H/2, W/2)."""
        layers = iter(zip_longest(self, list(self)[1:]))
        for layer, following in layers:
            if isinstance(layer, Stage):
                x = layer(x, folded)
            elif isinstance(layer, nn.BatchNorm2d) and isinstance(following, nn.ReLU):
                x = norm_relu(x, layer, following)
                next(layers)  # the ReLU
            elif isinstance(layer, nn.Conv2d):
                x = folding.convolve(x, layer) if folded else layer(x)
            else:
                x = as_pixels(layer, x, folded)
        return x


class UnpoolingNetwork(nn.Module):
    """Stages with a pooling after each, a middle, the stages back with an unpooling before each, a classifier.

    Args:
        encoder: stages from the image inwards; each keeps the height and width.
        middle: what happens between the last pooling and the first unpooling.
        decoder: as many stages as the encoder, from the inside out.
        classifier: last convolution, to ``num_classes`` channels.
    """

    def __init__(
        self,
        encoder: Sequence[Stage],
        middle: Stage,
        decoder: Sequence[Stage],
        classifier: nn.Conv2d,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.middle = middle
        self.decoder = nn.ModuleList(decoder)
        self.classifier = classifier
        self.pooled_dropout = nn.ModuleList(nn.Identity() for _ in encoder)
        self.apply(_he)
        # Start from "rare" instead of "half of all pixels" (Lin et al., "Focal Loss", ICCV 2017, section 4.1): else the
        # first steps push every feature down, and a deep decoder does not recover on defects of a per cent or two.
        nn.init.normal_(classifier.weight, std=0.01)
        assert classifier.bias is not None
        nn.init.constant_(classifier.bias, math.log(PRIOR / (1 - PRIOR)) if classifier.out_channels == 1 else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float to (N, num_classes, H, W) logits."""
        if min(x.shape[-2:]) < SMALLEST:
            raise UserError(
                f"image is {x.shape[-2]}×{x.shape[-1]}: height and width must be at least {SMALLEST} "
                f"pixels; choose a larger data.image_size"
            )
        folded = folding.pays(x, chain(self.encoder[0].modules(), self.decoder[-1].modules(), [self.classifier]))
        last = len(self.encoder) - 1
        x = folding.fold(x) if folded else x
        memory = []
        for level, (stage, dropout) in enumerate(zip(self.encoder, self.pooled_dropout, strict=True)):
            x = stage(x, folded and level == 0)
            size = (x.shape[-2], x.shape[-1])
            x, code = max_pool(x, folded and level == 0)
            x = dropout(x)
            memory.append((code, size))
        x = self.middle(x)
        for level, stage in enumerate(self.decoder):
            x = stage(max_unpool(x, *memory.pop(), folded and level == last), folded and level == last)
        if folded:
            return folding.unfold(folding.convolve(x, self.classifier), self.classifier.out_channels)
        out: Tensor = self.classifier(x)
        return out


class SegNet(UnpoolingNetwork):
    """The 13 convolutions of VGG16 and their mirror image; the 26th convolution is the 3×3 classifier.

    Args:
        num_classes: channels of the logits (1 for a binary task), at least 1.
        widths: channels of the five encoder stages (VGG16: 64, 128, 256, 512, 512).
        bias: convolutions before a batch norm keep a bias, as VGG16's do; it changes no output.
        dropout: probability after the three central encoder and decoder stages (Bayesian SegNet: 0.5).
        pretrained: fill the encoder from torchvision's ``vgg16_bn`` ImageNet weights (needs VGG16's
            widths and ``bias=True``; downloads 528 MB at first use).
    """

    CONVS = (2, 2, 3, 3, 3)

    def __init__(
        self,
        num_classes: Positive,
        widths: Widths = (16, 32, 80, 152, 184),
        bias: bool = False,
        dropout: BelowOne = 0.0,
        pretrained: bool = False,
    ) -> None:
        _check(num_classes, dropout)
        if not isinstance(widths, Sequence) or len(widths) != len(self.CONVS) or not all(map(_positive, widths)):
            raise UserError(f"widths={widths}: must be 5 positive channel counts, such as [16, 32, 80, 152, 184]")
        encoder: list[Stage] = []
        decoder: list[Stage] = []
        for level, ((into, out), convs) in enumerate(zip(pairwise((3, *widths)), self.CONVS, strict=True)):
            encoder.append(_stage([into] + [out] * convs, 3, bias))
            # Mirrored: the last convolution leaves the stage's width; the outermost stage's is the classifier.
            back = [out] * convs + ([into] if level > 0 else [])
            decoder.insert(0, _stage(back, 3, bias))
        super().__init__(encoder, Stage(), decoder, nn.Conv2d(widths[0], num_classes, 3, padding=1))
        self.widths = tuple(widths)
        if dropout > 0:
            _add_dropout(self, dropout, stages=(2, 3, 4))
        if pretrained:
            self.load_vgg16(bias, widths)

    def load_vgg16(self, bias: bool, widths: Sequence[int]) -> None:
        """Copy torchvision's ``vgg16_bn`` features, layer by layer, into the encoder."""
        if not bias or tuple(widths) != (64, 128, 256, 512, 512):
            raise UserError(
                f"pretrained=true with widths={list(widths)}, bias={bias}: VGG16's weights fit widths "
                f"[64, 128, 256, 512, 512] with bias=true only; use model=segnet_vgg16"
            )
        from torchvision.models import VGG16_BN_Weights, vgg16_bn

        features = vgg16_bn(weights=VGG16_BN_Weights.IMAGENET1K_V1).features
        theirs = [m for m in features.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        ours = [m for m in self.encoder.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        for source, target in zip(theirs, ours, strict=True):
            target.load_state_dict(source.state_dict())


class SegNetBasic(UnpoolingNetwork):
    """The paper's small variant (section 3): 4 + 4 convolutions 7×7 of 64 channels, no ReLU in the decoder.

    Layers as in the authors' ``segnet_basic_train.prototxt``, without its local response normalisation of
    the input, which per-channel normalisation replaces.

    Args:
        num_classes: channels of the logits, at least 1.
        width: channels of every stage.
        dropout: probability after the two central encoder and decoder stages (Bayesian SegNet-Basic: 0.5).
    """

    def __init__(self, num_classes: Positive, width: Positive = 64, dropout: BelowOne = 0.0) -> None:
        _check(num_classes, dropout)
        if not _positive(width):
            raise UserError(f"width={width}: must be a positive number of channels, such as 64")
        encoder = [_stage([3 if i == 0 else width, width], 7, True) for i in range(4)]
        decoder = [_stage([width, width], 7, True, relu=False) for _ in range(4)]
        super().__init__(encoder, Stage(), decoder, nn.Conv2d(width, num_classes, 1))
        if dropout > 0:
            _add_dropout(self, dropout, stages=(2, 3))


class SegNetCompact(UnpoolingNetwork):
    """The shorter network of the original cable-inspection project: 3,087,297 parameters for one class.

    Four stages of two 3×3 convolutions (32, 64, 128, 256), a 256→512→256 bottleneck, four decoder stages
    whose second convolution has no ReLU, a 1×1 classifier.

    Args:
        num_classes: channels of the logits, at least 1.
        dropout: probability after the two central encoder and decoder stages.
    """

    def __init__(self, num_classes: Positive, dropout: BelowOne = 0.0) -> None:
        _check(num_classes, dropout)
        widths = (32, 64, 128, 256)
        encoder = [_stage([a, b, b], 3, True) for a, b in pairwise((3, *widths))]
        middle = Stage(*_conv(256, 512, 3, True), nn.Conv2d(512, 256, 1))
        decoder = [_stage([a, b, b], 3, True, last_relu=False) for a, b in pairwise((256, 128, 64, 32, 32))]
        super().__init__(encoder, middle, decoder, nn.Conv2d(32, num_classes, 1))
        if dropout > 0:
            _add_dropout(self, dropout, stages=(2, 3))


def _conv(into: int, out: int, kernel: int, bias: bool, relu: bool = True) -> list[nn.Module]:
    layers = [nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias), nn.BatchNorm2d(out)]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


def _stage(channels: Sequence[int], kernel: int, bias: bool, relu: bool = True, last_relu: bool = True) -> Stage:
    """Convolution + batch norm (+ ReLU) for each step in ``channels``."""
    layers: list[nn.Module] = []
    last = len(channels) - 2
    for i, (into, out) in enumerate(pairwise(channels)):
        layers += _conv(into, out, kernel, bias, relu and (i < last or last_relu))
    return Stage(*layers)


def _add_dropout(net: UnpoolingNetwork, p: float, stages: Sequence[int]) -> None:
    """Dropout after these encoder stages (once pooled) and the decoder stages that mirror them."""
    for i in stages:
        net.pooled_dropout[i] = nn.Dropout(p)
        mirror = len(net.encoder) - 1 - i
        net.decoder[mirror] = Stage(net.decoder[mirror], nn.Dropout(p))


def _check(num_classes: int, dropout: float) -> None:
    if not _positive(num_classes):
        raise UserError(f"num_classes={num_classes}: must be an integer of at least 1; set data.num_classes")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise UserError(f"dropout={dropout}: must lie in [0, 1); the Bayesian variants use 0.5")


def _positive(value: object) -> bool:
    return type(value) is int and value > 0


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def count_parameters(net: nn.Module) -> int:
    """Trainable parameters, as in Lightning's summary."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def enable_mc_dropout(net: nn.Module) -> int:
    """Keep dropout active in evaluation mode for Monte-Carlo samples; returns how many layers there are."""
    layers = [m for m in net.modules() if isinstance(m, nn.Dropout)]
    for layer in layers:
        layer.train()
    return len(layers)
