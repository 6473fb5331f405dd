"""A trained SegNet with fewer channels: those that its batch norms scale most.

Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3, with as
many channels in each stage as asked for, instead of one threshold for all.
"""

import torch
from torch import Tensor, nn

from segnet.networks.segnet import SegNet

Unit = tuple[nn.Conv2d, nn.BatchNorm2d]


@torch.no_grad()
def prune(wide: SegNet, narrow: SegNet) -> None:
    """Fill a network with those channels of a wider one that have the greatest scales.

    An unpooling puts values where the encoder's maxima were, channel by channel. So the last convolution of an encoder
    stage and the one before its unpooling keep the same channels: those with the greatest sum of both scales, each over
    its own greatest. The classifier stays as it is where the classes are others in number.

    Args:
        wide: the trained network.
        narrow: the other one, with at most as many channels in each stage.

    Raises:
        RuntimeError: the convolutions of one of them have a bias, and the other's have not.
    """
    given = _units(wide)
    scales = [[norm.weight.abs() for _, norm in stage] for stage in given]
    last = len(wide.encoder) - 1
    for level in range(last):
        ends = scales[level], scales[2 * last - level]
        one, two = (end[-1] / end[-1].max().clamp(min=1e-12) for end in ends)
        for end in ends:
            end[-1] = one + two
    before = torch.arange(3)
    for stage, own, order in zip(given, _units(narrow), scales, strict=True):
        for (conv, norm), (new, new_norm), scale in zip(stage, own, order, strict=True):
            kept = scale.topk(new.out_channels).indices.sort().values
            new.load_state_dict(_part(conv, kept, before))
            new_norm.load_state_dict(_part(norm, kept))
            before = kept
    if narrow.classifier.out_channels == wide.classifier.out_channels:
        narrow.classifier.load_state_dict(_part(wide.classifier, torch.arange(wide.classifier.out_channels), before))


def _units(net: SegNet) -> list[list[Unit]]:
    """Convolutions with their batch norms: encoder stages from the image inwards, decoder stages back."""
    found = []
    for stage in (*net.encoder, *net.decoder):
        convs = [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in stage.modules() if isinstance(layer, nn.BatchNorm2d)]
        found.append(list(zip(convs, norms, strict=True)))
    return found


def _part(layer: nn.Module, kept: Tensor, before: Tensor | None = None) -> dict[str, Tensor]:
    """The entries of a layer for some of its output channels, and some of its inputs."""
    state = {name: value[kept] if value.ndim else value for name, value in layer.state_dict().items()}
    return state if before is None else state | {"weight": state["weight"][:, before]}
