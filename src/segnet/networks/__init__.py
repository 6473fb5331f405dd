"""Networks: images to logits; pooling that remembers where each maximum stood."""

from segnet.networks.pooling import max_pool, max_unpool
from segnet.networks.segnet import SegNet, SegNetBasic, SegNetCompact

__all__ = ["SegNet", "SegNetBasic", "SegNetCompact", "max_pool", "max_unpool"]
