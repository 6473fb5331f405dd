"""Networks: images to logits; pooling that remembers where each maximum was."""

from segnet.networks.ensemble import Ensemble
from segnet.networks.pooling import max_pool, max_unpool
from segnet.networks.segnet import SegNet, SegNetBasic, SegNetCompact

__all__ = ["Ensemble", "SegNet", "SegNetBasic", "SegNetCompact", "max_pool", "max_unpool"]
