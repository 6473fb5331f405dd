"""Random transforms of samples, of any library: albumentations', torchvision's v2, or any callable of the same form.

A transform is called as ``transform(image=image, mask=mask)`` with uint8 (H, W, 3) RGB and uint8 (H, W), and returns a
dict with both, of the same kind and one height and width. One with a method ``set_random_seed(seed)`` is told the seed
of each draw; Python's, NumPy's and torch's generators are set to it, and put back after it, for those without.
"""

import inspect
import random
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.errors import UserError

Array = NDArray[np.uint8]


class Transforms:
    """Transforms one after the other, drawn by a seed.

    Args:
        transforms: in their order. Those of albumentations that follow each other become one ``Compose``, which refuses
            misspelt arguments.

    Raises:
        UserError: one is not callable as ``transform(image=…, mask=…)``.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.steps: list[Callable[..., Any]] = []
        for ours, group in groupby(transforms, of_albumentations):
            if ours:
                import albumentations

                self.steps.append(albumentations.Compose(list(group), strict=True))
            else:
                self.steps += [_adapted(transform) for transform in group]
        self.global_generators = not all(map(of_albumentations, transforms))  # albumentations has its own

    def __call__(self, image: Array, mask: Array, seed: int) -> tuple[Array, Array]:
        """Transform a sample; the same seed in 0..2³²−1 draws the same.

        Raises:
            UserError: a transform returns something else than an image and its mask.
        """
        if not self.global_generators:
            return self._run(image, mask, seed)
        before = random.getstate(), np.random.get_state()  # noqa: NPY002 - others draw from it
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            try:
                return self._run(image, mask, seed)
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])  # noqa: NPY002

    def _run(self, image: Array, mask: Array, seed: int) -> tuple[Array, Array]:
        for number, step in enumerate(self.steps):
            if of_albumentations(step):
                share_generators(step, step_seed(seed, number))
            elif hasattr(step, "set_random_seed"):
                step.set_random_seed(step_seed(seed, number))
            try:
                out = step(image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))
            except Exception as error:
                if not of_albumentations(step):
                    raise
                height, width = image.shape[:2]
                raise UserError(
                    f"data.augment: {error}; the images are {height}×{width} here (data.image_size or data.crop): "
                    f"give transforms that take them, such as smaller crops"
                ) from error
            image, mask = _pair(out, step)
        return image, mask


def step_seed(seed: int, step: int) -> int:
    """The seed of one of several steps of a draw, in 0..2³²−1: equal ones would draw alike."""
    return zlib.crc32(f"{seed} {step}".encode())


def share_generators(compose: Any, seed: int) -> None:
    """Let all transforms of a ``Compose`` draw from the same two generators, one after the other.

    By its ``set_random_seed`` each gets generators of its own of one seed, and draws what the others draw: of two flips
    with a probability of a half either both or none.
    """
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))


class TorchVision:
    """A transform of ``torchvision.transforms.v2`` in albumentations' form; masks are interpolated as its masks are."""

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform

    def __call__(self, image: Array, mask: Array) -> dict[str, Array]:
        """Apply it; see the module's docstring."""
        from torchvision import tv_tensors

        pixels, classes = torch.tensor(image).permute(2, 0, 1), torch.tensor(mask)
        pixels, classes = self.transform(tv_tensors.Image(pixels), tv_tensors.Mask(classes))
        return {"image": pixels.permute(1, 2, 0).numpy(), "mask": classes.numpy()}


def of_albumentations(transform: Any) -> bool:
    """Whether a transform, or what it is derived from, is albumentations'."""
    library = sys.modules.get("albumentations")
    return library is not None and isinstance(transform, (library.BasicTransform, library.BaseCompose))


def _adapted(transform: Any) -> Callable[..., Any]:
    v2 = sys.modules.get("torchvision.transforms.v2")
    if v2 is not None and isinstance(transform, v2.Transform):
        return TorchVision(transform)
    called = transform.forward if isinstance(transform, torch.nn.Module) else transform
    try:
        inspect.signature(called).bind(image=None, mask=None)
    except TypeError as error:
        raise UserError(
            f"data.augment: {_name(transform)} is not called as transform(image=…, mask=…) ({error}); give a transform "
            f"of albumentations or torchvision.transforms.v2, or a callable of that form"
        ) from error
    return transform  # type: ignore[no-any-return]


def _pair(out: Any, step: Any) -> tuple[Array, Array]:
    name = f"data.augment: {_name(step)}"
    if not isinstance(out, Mapping) or not {"image", "mask"} <= set(out):
        raise UserError(f'{name} returns no image and mask; it must return {{"image": …, "mask": …}}')
    image, mask = np.asarray(out["image"]), np.asarray(out["mask"])
    for kind, array in (("image", image), ("mask", mask)):
        if array.dtype != np.uint8:
            raise UserError(
                f"{name} turns the {kind} into {array.dtype}; it must stay uint8, as the network scales by itself; "
                f"leave out what normalizes or converts"
            )
    if image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
        raise UserError(
            f"{name} returns an image of {image.shape} and a mask of {mask.shape}; they must be (height, width, 3) and "
            f"(height, width); leave out ToTensorV2, and move both by one transform"
        )
    return image, mask


def _name(transform: Any) -> str:
    transform = getattr(transform, "transform", transform)
    if of_albumentations(transform) and hasattr(transform, "transforms"):
        return ", ".join(map(_name, transform.transforms))
    return getattr(transform, "__name__", type(transform).__name__)
