"""A project of one's own in a new folder: settings, networks, losses and data beside this package's, without a fork."""

import keyword
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from segnet.errors import UserError
from segnet.files import ending_on_sigterm

USAGE = "usage: segnet-new <folder>, such as segnet-new my-project: begin a project of your own there"
NAME, PACKAGE = "my-project", "my_project"  # of the project that is copied, replaced throughout
_HERE = Path(__file__).resolve().parents[1]
# In the wheel beside the code, in a checkout at the top level.
TEMPLATE = next(path for path in (_HERE / "template", _HERE.parents[1] / "template") if path.is_dir())


def create(folder: Path) -> None:
    """Write a project into a folder that is new or empty; its last part names the project.

    Raises:
        UserError: the name cannot be one, the folder holds something, or cannot be written; nothing is left.
    """
    name = folder.name
    package = re.sub(r"[-.]", "_", name).lower()
    if not re.fullmatch(r"[A-Za-z]([\w.-]*[A-Za-z0-9])?", name, re.ASCII) or keyword.iskeyword(package):
        raise UserError(
            f"{name}: is no name of a project; use English letters, digits, - and _, a letter first, such as {NAME}"
        )
    found = find_spec(package)
    if package in ("segnet_lightning", "train") or (found is not None and found.origin is not None):
        raise UserError(f"{name}: there is a Python package {package} already; choose another name, such as my-{name}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: is there already, and nothing was written; choose a new name or an empty folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ending_on_sigterm(), TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as beside:
            made = Path(beside) / name
            for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
                if "__pycache__" in source.parts:
                    continue
                place = source.relative_to(TEMPLATE).as_posix().replace("gitignore", ".gitignore")
                file = made / place.replace(PACKAGE, package)
                file.parent.mkdir(parents=True, exist_ok=True)
                text = source.read_text(encoding="utf-8").replace(PACKAGE, package).replace(NAME, name)
                file.write_text(text, encoding="utf-8")
            made.rename(folder)  # at once, and never over something
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error


def main() -> None:
    """Create the folder that the command line names; an error ends in one line and exit code 1."""
    words = sys.argv[1:]
    if words in (["-h"], ["--help"]):
        print(USAGE)
        return
    try:
        if len(words) != 1 or words[0].startswith("-"):
            raise UserError(USAGE)
        folder = Path(words[0]).expanduser()
        create(folder.resolve())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    where = shlex.quote(str(folder))
    print(f"{folder} is a project; train with: cd {where} && python src/train.py experiment=quickstart")
