"""Check a data set before training on it: what is wrong, what looks odd, what it holds."""

import sys

from omegaconf import DictConfig

from segnet.cli import command
from segnet.commands import choices


def run(cfg: DictConfig) -> None:
    """Write and print the report; exit code 1 if training would fail or be misled."""
    from pathlib import Path

    from segnet.configuration import instantiate
    from segnet.data.splits import SPLITS
    from segnet.reports import audit_report, data_audit

    choices.settle_data(cfg, asking=False)
    cfg.data.cache_dir = None
    data = instantiate(cfg.data, "data")
    data.prepare_data()
    data.setup()
    print(data.used(*SPLITS))
    findings, tiles = data_audit.examine(data, int(cfg.near), int(cfg.contact))
    folder = Path(cfg.output_dir)
    audit_report.write(folder, findings, tiles)
    print(audit_report.summary(findings))
    print(f"written to {folder}")
    if findings["errors"] or (cfg.strict and findings["warnings"]):
        sys.exit(1)


main = command("check_data")(run)
