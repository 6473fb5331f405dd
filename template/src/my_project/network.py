"""A network of one's own."""

from torch import Tensor, nn


class SmallNet(nn.Module):
    """Three convolutions at half the resolution.

    Args:
        num_classes: channels of the logits.
        width: channels between the convolutions.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, num_classes, 3, padding=1),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of float images (N, 3, H, W)."""
        return nn.functional.interpolate(self.layers(image), image.shape[2:], mode="bilinear")
