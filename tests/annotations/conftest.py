"""What the tests of imported labels share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from segnet.cli import CONF_DIR, check_settings
from segnet.commands import import_labels
from segnet.errors import explain
from segnet.synthetic import cables

Run = Callable[..., tuple[int, Path, str]]


@pytest.fixture(scope="session")
def cable12(shared) -> Path:
    """12 rendered cables of 64×64, two of each kind; those without a defect have empty masks."""
    return shared("cable12", lambda root: cables.write(root, images=12, size=64, seed=3))


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """``run(input, *overrides)``: exit code, folder, and what was printed.

    As the command's ``main``, but for Hydra's composition, which takes ten times as long as the rest; the tests of
    printed commands take that way too.
    """
    parser = OverridesParser.create()

    def call(given: Path, *overrides: str, out: str = "out") -> tuple[int, Path, str]:
        folder = tmp_path / out
        cfg = OmegaConf.load(CONF_DIR / "import_labels.yaml")
        cfg.update({"output_dir": str(tmp_path / "log"), "trust": False})
        for override in parser.parse_overrides([f'input="{given}"', f'output="{folder}"', *overrides]):
            cfg[override.key_or_group] = override.value()
        code = 0
        try:
            check_settings(cfg, "import_labels")
            import_labels.run(cfg)
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            code = 1
            print(f"error: {message}")
        printed = capfd.readouterr()
        return code, folder, printed.out + printed.err

    return call
