"""Check a data set before training on it: what is wrong, what looks odd, what it holds."""

import re
import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from segnet.cli import command
from segnet.commands import choices
from segnet.errors import printable


def run(cfg: DictConfig) -> None:
    """Write and print the report; exit code 1 if training would fail or be misled."""
    from pathlib import Path

    import torch

    from segnet.commands.build import settle_size
    from segnet.configuration import instantiate
    from segnet.data.splits import SPLITS
    from segnet.recipe import propose
    from segnet.reports import audit_report, data_audit, shrinking

    choices.settle_data(cfg, asking=False)
    cfg.data.cache_dir = None
    settle_size(cfg.data)
    data = instantiate(cfg.data, "data")
    data.prepare_data()
    data.setup()
    print(data.used(*SPLITS))
    findings, tiles = data_audit.examine(data, int(cfg.near), int(cfg.contact))
    findings["warnings"] += shrinking.found(data)
    folder = Path(cfg.output_dir)
    audit_report.write(folder, findings, tiles)
    print(audit_report.summary(findings))
    if not findings["errors"]:
        given = [word for word in HydraConfig.get().overrides.task if re.match(r"\+*data[=./]", word)]
        proposed = propose(data, given, torch.cuda.is_available())
        print(*map(printable, proposed.lines()), printable(proposed.command), sep="\n")
    print(f"written to {folder}")
    if findings["errors"] or (cfg.strict and findings["warnings"]):
        sys.exit(1)


main = command("check_data")(run)
