"""What tests share besides fixtures."""

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Small and quiet; every test of a command adds its own overrides.
SMALL = ("trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.progress")
SMALL += ("trainer.enable_model_summary=false", "data.image_size=64")


def call_main(name: str, *arguments: str) -> int:
    """Run the command's ``main`` in this process, as ``python src/<name>.py`` would; its exit code."""
    before = sys.argv, dict(os.environ)
    sys.argv = [f"{name}.py", *arguments]
    try:
        importlib.import_module(f"segnet.commands.{name}").main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        import torch

        torch.use_deterministic_algorithms(False)  # the trainer sets it for the whole process
        sys.argv = before[0]
        os.environ.clear()
        os.environ.update(before[1])
    return 0
