"""Search hyperparameters with Optuna: trials are ordinary trainings, pruned by the median, resumable after a kill."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segnet import passwords
from segnet.cli import command
from segnet.command_line import override
from segnet.errors import UserError
from segnet.mirror import is_mirror
from segnet.overrides import name_of
from segnet.runs import resume


def run(cfg: DictConfig) -> float:
    """Run trials until the study has ``trials`` of them.

    Returns:
        The best value of ``monitor``.
    """
    from pathlib import Path

    from segnet.commands import choices, search

    own = ("trials", "storage", "study", "prune", "search", "resume", "output_dir", "hydra", "trust", "verbose")
    overrides = list(HydraConfig.get().overrides.task)
    resumed = cfg.resume
    if resumed is not None:
        cfg, overrides = resume.saved_study(cfg)
    if passwords.has(str(OmegaConf.to_container(cfg, resolve=False).get("storage"))):  # type: ignore[union-attr]
        raise UserError(
            f"storage={passwords.masked(str(cfg.storage))}: a file says its password, which the record would repeat; "
            f"leave it out there, and set PGPASSWORD (or {passwords.KEY}) in the environment"
        )
    given = [o for o in overrides if o.lstrip("+~").split("=")[0].split(".")[0] not in own]
    space = search.space(cfg.search)
    given = choices.for_trials(cfg, given, space)
    if is_mirror(cfg.data.root):  # fetched once, for all trials
        others = [word for word in given if name_of(word) not in ("data.root", "data.prepare")]
        given = [*others, override("data.root", str(cfg.data.root)), "data.prepare=null"]
    found = search.open_study(cfg)
    source = None if cfg.trust or resumed is None else f"resume={resumed}"
    search.search(found, cfg, space, given, source)
    best = search.report(found, Path(cfg.output_dir), given, source)
    print(f"best trial {best.number}: {cfg.monitor} {best.value:.4f} with {best.params}")
    print(f"its configuration {Path(cfg.output_dir) / 'best.yaml'}")
    return float(best.value or 0)


main = command("tune")(run)
