"""`python src/train.py`: the command of the package, with the options of conf/ beside its own."""

import sys
from pathlib import Path

from segnet.commands.train import main

if __name__ == "__main__":
    sys.argv[1:1] = ["--config-dir", str(Path(__file__).resolve().parents[1] / "conf")]
    main()
