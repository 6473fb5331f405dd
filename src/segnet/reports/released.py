"""The model card of a run as the first page of its published folder."""

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from segnet.training.published import CONFIG, SUMS, WEIGHTS

FRONT = "---\nlibrary_name: segnet-lightning\npipeline_tag: image-segmentation\n---\n"  # what model hubs read
_IMAGE = re.compile(r"^!\[[^\]]*\]\(([^)]+)\)\n?", re.MULTILINE)
_OUTPUTS = re.compile(r"^## Outputs\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LOCAL = re.compile(r" \(of the single networks: [^)\n]*\)|^The predictions are in `[^`\n]*`\.\n", re.MULTILINE)
_ABSOLUTE = r"(?:file://|(?<![\w./:~}*?\]]))[~/]"
_PATH = re.compile(_ABSOLUTE + r"[^\s'\"`|,;()\[\]]*/([^\s'\"`|,;()\[\]/]+)")
_QUOTED = re.compile(r"`(?:file://)?[~/][^`\n]*/([^`/\n]+)`")
_COMMAND = re.compile(r"^python src/\S+\.py .*$", re.MULTILINE)
_OF_A_WORD = re.compile(_ABSOLUTE + r"[^'\"|,;\[\]{}]*/([^'\"|,;\[\]{}/]+)")  # in which blanks are of the path


def write(run: Path, folder: Path, root: str, photos: bool, ensemble: bool, notes: Sequence[str]) -> list[str]:
    """Write README.md and the images that it shows; what is to be told about them.

    Args:
        run: the folder of a finished run.
        folder: to publish.
        root: of the data. It and other absolute paths are cut to their last part.
        photos: with the outputs, which show images of the data.
        ensemble: the weights are those of several networks, from which no training can start.
        notes: what of the release is otherwise than the run's card says, to stand at its top.
    """
    text = (run / "README.md").read_text(encoding="utf-8")
    text = text if photos else _OUTPUTS.sub("", text)
    shown, gone = 0, []

    def image(link: re.Match[str]) -> str:
        nonlocal shown
        source = (run / link[1]).resolve()
        if not source.is_relative_to(run.resolve()) or not source.is_file():  # nothing else of this machine
            gone.append(link[1])
            return ""
        (folder / link[1]).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / link[1])
        shown += link[1].startswith("photo/")
        return link[0]

    text = _LOCAL.sub("", _IMAGE.sub(image, text))
    text = without_paths(text.replace(root, Path(root).name) if Path(root).is_absolute() else text)
    title, _, rest = text.partition("\n")
    text = "\n\n".join([title, *notes]) + f"\n{rest}"
    files = FILES.format(key="teacher" if ensemble else "weights")
    (folder / "README.md").write_text(f"{FRONT}{text.rstrip()}\n\n{files}", encoding="utf-8")
    told = [f"README.md shows {shown} images of the data; photos=false leaves them out"] if shown else []
    return told + [f"README.md without images that the run no longer has: {', '.join(gone)}"] * bool(gone)


def without_paths(text: str) -> str:
    """The text with absolute paths cut to their last part, those with blanks in commands that can be pasted too."""
    return _PATH.sub(r"\1", _QUOTED.sub(r"`\1`", _COMMAND.sub(_shortened, text)))


def _shortened(command: re.Match[str]) -> str:
    """A command line whose words have no absolute paths."""
    words = shlex.split(command[0])
    short = [_OF_A_WORD.sub(r"\1", word) for word in words]
    return command[0] if short == words else shlex.join(short)


FILES = f"""## Files

| file | |
|---|---|
| `{WEIGHTS}` | the weights |
| `{CONFIG}` | what rebuilds the network, classes, mean and standard deviation, image size, operating point |
| `{SUMS}` | `sha256sum -c {SUMS}` compares every file with what was published |

A folder with a `verification.md` holds an exported model. With segnet-lightning the folder takes the place of a
checkpoint:

```
python src/train.py data=folder data.root=/my/images {{key}}=<this folder>
python src/predict.py ckpt_path=<this folder> input=/my/images
```

"""
