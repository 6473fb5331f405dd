"""What Hydra 1.3 and 1.4 call differently. Python 3.14 has 1.4, which warns of 1.3's ways; the others have 1.3."""

from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import OmegaConf

DELETES_IN_SWEEPS = hydra.__version__ != "1.4.0rc3"  # it refuses ``~key`` there
if hydra.__version__.startswith("1.3."):
    BASE: dict[str, Any] = {"version_base": "1.3"}  # of hydra.initialize_config_dir: the defaults, the only ones of 1.4
    MAIN = BASE  # of hydra.main
    INSTANTIATE: dict[str, Any] = {}  # of hydra.utils.instantiate
    register_resolver: Callable[..., None] = OmegaConf.register_new_resolver
else:
    # Any target, as in 1.3; `segnet.trust` checks those of a checkpoint.
    _any = hydra.utils.UNSAFE_DISABLE_EXECUTION_CHECKS  # type: ignore[attr-defined]
    BASE, MAIN, INSTANTIATE = {}, {"execution_whitelist": _any}, {"_execution_whitelist_": _any}
    register_resolver = OmegaConf.register_resolver
