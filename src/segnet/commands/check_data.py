"""Check a data set before training on it: what is wrong, what looks odd, what it holds."""

import re
import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segnet.cli import command
from segnet.commands import choices
from segnet.errors import UserError, printable

LOADERS = "segnet.data.datamodule.SegmentationDataModule"  # of conf/data/*.yaml


def run(cfg: DictConfig) -> None:
    """Write and print the report; exit code 1 if training would fail or be misled."""
    from pathlib import Path

    import torch

    from segnet.commands.sizes import settle_size
    from segnet.configuration import instantiate
    from segnet.data.description import NAME
    from segnet.data.splits import SPLITS
    from segnet.recipe import Survey, propose
    from segnet.reports import audit_report, data_audit, self_description, shrinking

    choices.settle_data(cfg, asking=bool(cfg.write), decide=bool(cfg.write))
    cfg.data.cache_dir, cfg.data.augment = None, []  # neither is looked at, and albumentations takes seconds to import
    settle_size(cfg.data)
    if cfg.data._target_ == LOADERS:  # nothing is loaded in batches, and Lightning takes seconds to import too
        cfg.data._target_ = "segnet.data.SegmentationData"
    data = instantiate(cfg.data, "data")
    data.prepare_data()
    data.setup()
    found: Any = OmegaConf.to_container(cfg.data, resolve=True)
    said = self_description.agreed(data.root, found, bool(cfg.overwrite)) if cfg.write else None
    if named := cfg.labels is not None:  # these take seconds to import
        from segnet.reports import held_out, label_ranking
    predictions = held_out.find(Path(str(cfg.labels)), data.root, data.num_classes) if named else None
    folder = Path(cfg.output_dir)
    if named and (shown := folder / label_ranking.IMAGES).exists():  # another ranking's images would lie among these
        raise UserError(f"output_dir={folder}: {shown} is there already; move it, or choose another output_dir")
    print(data.used(*SPLITS))
    widths, survey = shrinking.Widths(data), Survey(data)
    observers = (widths,) if predictions else (widths, survey)
    findings, tiles = data_audit.examine(data, int(cfg.near), int(cfg.contact), observers)
    findings["warnings"] += widths.warnings()
    if predictions:
        ranking = label_ranking.rank(data, predictions)
        findings["label_errors"], more = label_ranking.findings(ranking)
        findings["warnings"] += more
    audit_report.write(folder, findings, tiles)
    if predictions:
        label_ranking.write(folder, data, predictions, ranking, int(cfg.worst))
    print(audit_report.summary(findings))
    if predictions:
        print(f"{ranking.compared} masks compared with their predictions, {len(ranking.wrong)} of them probably wrong")
    if not findings["errors"] and not predictions:
        given = [word for word in HydraConfig.get().overrides.task if re.match(r"\+*data[=./]", word)]
        proposed = propose(survey.fingerprint(), given, torch.cuda.is_available())
        print(*map(printable, proposed.lines()), printable(proposed.command), sep="\n")
    print(f"written to {folder}")
    if said and not findings["errors"]:
        print(*map(printable, self_description.write(data.root, said)), sep="\n")
    elif said:
        print(f"{NAME} is not written, because of the errors")
    if findings["errors"] or (cfg.strict and findings["warnings"]):
        sys.exit(1)


main = command("check_data")(run)
