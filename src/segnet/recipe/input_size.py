"""The rule of the input's size: whole images, made smaller, or crops at a scale that keeps thin lines."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segnet.data.crops import DEFAULT_SIZE
from segnet.recipe.budget import MOST
from segnet.recipe.plan import Case, Choice, Plan, floor, multiple, pair, scaled, shown, sides

LINE = 2.0  # pixels


def input_size(case: Case, plan: Plan) -> Iterator[Choice]:
    """Pixels of the input, from how many pixels the time allows.

    Both the size of an input and the number of inputs should grow with the time. 128×128 for 96 million pixels (CamVid,
    16 epochs: 0.485), 384×384 for 5.9 billion (CamVid, 109 epochs on a GPU: 0.737), and the square root between them.
    Never more than the image has, and not less than shows every image 400 times. Lines of less than two pixels are
    lost: where shrinking would do that to half of the classes or more, images keep the scale at which these are two and
    a half pixels wide, and training takes crops. DRIVE and CrackForest at their own size in crops of 256×256: vessels
    0.61, cracks 0.57 in 110 and 170 million pixels; shrunk to 480×480 for a minute 0.06 and 0.36.
    """
    data, named = case.data, case.named
    if named.get("data.crop") is not None:
        scale = float(named.get("data.scale") or 1)
        plan.size, plan.crop = (round(data.height * scale), round(data.width * scale)), pair(named["data.crop"])
        return
    if "data.image_size" in named:
        plan.size = pair(named["data.image_size"] or DEFAULT_SIZE)
        return
    area = case.budget.area()
    shrink = math.sqrt(max(area, case.budget.pixels / MOST / data.images["train"]) / data.area)
    widths = sorted(data.thickness[i] for i in data.foreground() if not math.isnan(data.thickness[i]))
    lost = sum(width * shrink < LINE for width in widths)
    if shrink >= 0.8:
        plan.size = (max(32, data.height), max(32, data.width))
        own = "own size" if data.one_size else "median size"
        yield Choice(
            sides("image_size", plan.size), f"the images' {own}, {shown((data.height, data.width))}, fits the time"
        )
    elif widths and 2 * lost >= len(widths) and not _whole(named):
        scale = max(min(1.0, 1.25 * LINE / widths[(len(widths) - 1) // 2]), shrink)
        scale = 1.0 if scale > 0.7 else math.ceil(100 * scale) / 100
        scale = float(named.get("data.scale") or scale)
        plan.size = (round(data.height * scale), round(data.width * scale))
        side = max(128, multiple(math.sqrt(area)))  # less shows too little around a line
        plan.crop = (min(side, floor(plan.size[0])), min(side, floor(plan.size[1])))
        yield Choice(
            sides("crop", plan.crop),
            f"lines of {widths[0]:.2g} pixels: whole images would be {shown(scaled(data, shrink))} in the time, "
            f"where {lost} of {len(widths)} classes are thinner than {LINE:g}",
        )
        if scale < 1:
            yield Choice(f"data.scale={scale:g}", f"still {widths[0] * scale:.2g} pixels wide, and more in each crop")
    else:
        plan.size = scaled(data, shrink)
        reason = f"{case.budget.pixels / 1e6:.0f} million pixels in all: as many more images as pixels an image"
        yield Choice(sides("image_size", plan.size), reason)
        if lost:
            thin = f"{lost} of {len(widths)} classes become thinner than {LINE:g} pixels"
            yield Choice("", thin if _whole(named) else f"{thin}; data.crop=256 keeps them")


def _whole(named: Mapping[str, Any]) -> bool:
    """Whether something that is named asks for whole images: ``data.crop=null``, or what crops are refused beside."""
    apart = named.get("data.positive_share") is not None or named.get("data.device_cache") is True
    return "data.crop" in named or apart or _cuts(named.get("data.augment") or ())


def _cuts(transforms: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the transforms, or of those that it is made of, has a size of its own."""
    return any({"size", "height"} & set(step) or _cuts(step.get("transforms") or ()) for step in transforms)
