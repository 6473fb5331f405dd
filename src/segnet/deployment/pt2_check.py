"""What a pt2 file may hold, checked before torch opens it.

`torch.export.load` looks operators up by name and evaluates the expressions of sizes as Python, so a stranger's file
could run code. Only names and expressions that our own export produces are let through.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|torch\.sym_(max|min|float|ite)|math\.(ceil|floor|trunc)|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|getitem)"
)
_MEMBER = re.compile(
    r"(models/\w+\.json|data/(weights|constants|sample_inputs)/[\w.]+|extra/[\w.]+|archive_\w+|byteorder|\.data/\w+)"
)
_WORDS = {"Symbol", "Integer", "Float", "Rational", "Mul", "Add", "Pow", "Max", "Min", "Mod", "FloorDiv", "IntTrueDiv"}
_WORDS |= {"FloatTrueDiv", "ToFloat", "PythonMod", "CleanDiv", "positive", "integer", "True", "precision", "Ne", "Eq"}
_SPECS = {"null", "builtins.tuple", "builtins.dict", "builtins.list"}


def check_pt2(path: Path) -> None:
    """Refuse a pt2 file that holds more than `segnet.deployment.exported_model.write` produces.

    Raises:
        ValueError: saying what it holds.
        zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if strange := [name for name in names if not _MEMBER.fullmatch(name)]:
            raise ValueError(f"it holds {strange[0]!r}")
        models = [whole for name, whole in names.items() if name.startswith("models/")]
        if not models:
            raise ValueError("it holds no model")
        for name in models:
            graph = json.loads(archive.read(name))
            if graph.get("guards_code"):
                raise ValueError("it holds guard code")
            for key, value in _strings(graph):
                if key == "target" and not _OPERATOR.fullmatch(value):
                    raise ValueError(f"it names the operator {value!r}")
                if key == "expr_str" and not all(_plain(word) for word in re.findall(r"[^\W\d][\w.]*", value)):
                    raise ValueError(f"it holds the expression {value!r}")
                if key in ("in_spec", "out_spec") and set(re.findall(r'"type": "?([\w.]+)', value)) - _SPECS:
                    raise ValueError(f"it takes or gives {value!r}")


def _plain(word: str) -> bool:
    return word in _WORDS or re.fullmatch(r"[su]\d+", word) is not None


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in nested containers, with the key it stands under."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _strings(part, str(name))
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part, key)
    elif isinstance(value, str):
        yield key, value
