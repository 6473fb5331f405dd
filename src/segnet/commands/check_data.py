"""Check a data set before training on it: what is wrong, what looks odd, what it holds."""

import sys

from omegaconf import DictConfig

from segnet.cli import command
from segnet.commands import choices


def run(cfg: DictConfig) -> None:
    """Write and print the report; exit code 1 if training would fail or be misled."""
    import json
    from pathlib import Path

    from segnet.configuration import instantiate
    from segnet.data.splits import SPLITS
    from segnet.reports import data_audit

    choices.settle_data(cfg)
    cfg.data.cache_dir = None
    data = instantiate(cfg.data, "data")
    data.prepare_data()
    data.setup()
    print(data.used(*SPLITS))
    findings = data_audit.examine(data, int(cfg.near))
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")
    data_audit.contact_sheet(data, findings, int(cfg.contact), folder / "contact.jpg")
    print(data_audit.summary(findings))
    print(f"written to {folder}")
    if findings["errors"] or (cfg.strict and findings["warnings"]):
        sys.exit(1)


main = command("check_data")(run)
