"""Which class index each label of a source gets."""

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from segnet.annotations.records import BACKGROUND, IGNORE, Source
from segnet.data.description import check_texts
from segnet.data.grouping import check_names
from segnet.data.masks import IGNORE_INDEX, check_classes
from segnet.errors import UserError

Wanted = Sequence[str] | Mapping[str, str | Sequence[str]] | None


@dataclass(frozen=True)
class Classes:
    """Names as the data module wants them, and the index of each label; one that has none is left out."""

    names: list[str]
    index: dict[str, int]

    @property
    def foreground(self) -> list[str]:
        """Without the background."""
        return self.names if len(self.names) == 1 else self.names[1:]


def named(wanted: Wanted) -> list[str]:
    """The labels of which ``wanted`` makes classes by naming them, where it says of each class which they are."""
    if not isinstance(wanted, Mapping):
        return []
    return [str(label) for group in wanted.values() for label in ([group] if isinstance(group, str | int) else group)]


def choose(source: Source, wanted: Wanted, ignore: Sequence[str]) -> Classes:
    """One class becomes a binary task ``[name]``; several ``[background, a, b]``.

    Args:
        source: whose labels they are.
        wanted: names of labels in order; or of classes, each with the labels that it is made of; None: all labels.
        ignore: labels whose pixels count nowhere.

    Raises:
        UserError: a label that is named is not there, is named twice, or there is no class.
    """
    ground = {label for label in source.labels if label.lower() in BACKGROUND}
    hidden = {IGNORE, *ignore}
    there = [label for label in source.labels if label not in ground | hidden]
    groups = _groups(source, there, wanted)
    listed = [label for labels in groups.values() for label in labels]
    shown = f"the labels are {', '.join(source.labels) or 'none'}"
    if unknown := [label for label in [*listed, *ignore] if label not in source.labels]:
        key = "classes" if unknown[0] in listed else "ignore"
        raise UserError(f"{key}: {unknown[0]!r} is no label of the source; choose: {shown}")
    if twice := [label for i, label in enumerate(listed) if label in listed[:i] or label in hidden]:
        raise UserError(f"classes: {twice[0]!r} is there twice, or in ignore too; name every label once")
    if not groups:
        raise UserError(f"no class to learn: {shown}; name some with 'classes=[<label>,<label>]'")
    names = list(groups) if len(groups) == 1 else ["background", *groups]
    if wanted is None and (odd := [name for name in groups if not name.isprintable() or set(name) & set("/\\")]):
        raise UserError(
            f"classes: the label {odd[0]!r} is no name of a class, for '/'; name them: {_mapping(groups.values())}"
        )
    check_classes(names, len(names), None)
    check_texts(names, "classes")
    check_names("classes", names)
    index = {label: place for place, labels in enumerate(groups.values(), 1) for label in labels}
    zero = {label: 0 for label in ground if label not in index}
    return Classes(names, zero | dict.fromkeys(hidden, IGNORE_INDEX) | index)


def told(classes: Classes, wanted: Wanted) -> list[str]:
    """What is said of labels that differ in case only and may mean one class, unless their classes are named."""
    groups = defaultdict[str, list[str]](list)
    for name in classes.foreground:
        groups[name.casefold()].append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if isinstance(wanted, Mapping) or not alike:
        return []
    return [
        f"the labels {'; '.join(' and '.join(names) for names in alike)} differ in case only and are classes of their "
        f"own; {_mapping(groups.values())} makes one of them"
    ]


def quoted(labels: Iterable[str]) -> str:
    """Labels as a list in an override, whatever is in them."""
    return f"[{','.join(json.dumps(label, ensure_ascii=False) for label in labels)}]"


def _mapping(groups: Iterable[Sequence[str]]) -> str:
    """``classes=`` as it is typed, for groups of labels; a name is the first label in letters that Hydra takes."""
    pairs = dict[str, str]()
    for labels in groups:
        name = plain = re.sub(r"\W+", "_", labels[0], flags=re.ASCII).strip("_") or "a"
        while name in pairs:
            name = f"{plain}_{len(pairs) + 1}"
        pairs[name] = quoted(labels)
    return shlex.quote(f"classes={{{','.join(f'{name}:{labels}' for name, labels in pairs.items())}}}")


def _groups(source: Source, there: Sequence[str], wanted: Wanted) -> dict[str, list[str]]:
    """Labels of each class."""
    if wanted is None and not source.named and len(there) == 1:
        return {"defect": list(there)}  # as data=folder calls it
    if wanted is None:
        return {(label if source.named else f"class_{label}"): [label] for label in there}
    if isinstance(wanted, Mapping):
        return {str(n): [str(v) for v in ([g] if isinstance(g, str | int) else g)] for n, g in wanted.items()}
    names = [str(name) for name in wanted if str(name).lower() not in BACKGROUND]
    if source.named:
        return {name: [name] for name in names}
    if len(names) != len(there):
        raise UserError(
            f"classes={list(wanted)}: the source has {len(there)} values without names, {', '.join(there)}; give "
            f"each a name in this order, or say which is which, such as 'classes={{a:{quoted(there[:1] or ['1'])}}}'"
        )
    return {name: [label] for name, label in zip(names, there, strict=True)}
