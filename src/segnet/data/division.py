"""What a data set's division into splits must hold, and what people are told of it."""

from collections.abc import Sequence

from segnet.data.pairs import Pair
from segnet.data.patterns import Masks, shown
from segnet.errors import UserError

NEEDED = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}  # splits, by Lightning's stage
Indices = dict[str, list[int]]


def require(names: Sequence[str], indices: Indices, found: int, split: object) -> None:
    """Refuse a division that has no image for one of these splits.

    Args:
        names: of the splits that are needed.
        indices: of the images of each split.
        found: how many images there are, in a split or not.
        split: what has divided them, which the message quotes.
    """
    if empty := [name for name in names if not indices.get(name)]:
        sizes = ", ".join(f"{name} {len(part)}" for name, part in indices.items())
        given = " ".join(f"data.split.{name}={getattr(split, name, None)}" for name in empty)
        remedy = f"correct {given}" if found >= len(names) else f"add images: {len(names)} are the fewest"
        raise UserError(f"data.split gives no image to {', '.join(empty)} ({sizes}) of the {found} there are; {remedy}")


def empty(indices: Indices) -> tuple[list[str], list[str]]:
    """What a data audit says of empty splits: errors, where training needs images, and warnings."""
    errors = [f"no image in {n}: training needs some, so correct data.split" for n in NEEDED["fit"] if not indices[n]]
    return errors, [] if indices["test"] else ["no image in test: a run ends without a test"]


def require_masks(pairs: Sequence[Pair], pattern: Masks) -> None:
    """Refuse to train where no image has a mask: the pattern ``data.masks`` is wrong, or there is nothing to learn."""
    if all(pair.mask is None for pair in pairs):
        raise UserError(f"data.masks={shown(pattern)}: none of {len(pairs)} images has a mask; correct the pattern")


def told(names: Sequence[str], pairs: Sequence[Pair], indices: Indices, found: int) -> str:
    """How many images these splits use, and where the others are."""
    used = {i for name in names for i in indices[name]}
    shown = ", ".join(f"{len(indices[name])} {name}" if len(names) > 1 else name for name in names)
    others = {name: len(set(part) - used) for name, part in indices.items() if name not in names}
    others["in no split"] = found - len(pairs)
    left = ", ".join(f"{count} {name}" for name, count in others.items() if count) or "none"
    bare = sum(pairs[i].mask is None for i in used)
    line = f"{len(used)} of {found} images used ({shown}); left out: {left}"
    return f"{line}; {bare} without a mask count as free of defects" if bare else line
