"""Predict files, folders, globs, videos, cameras and watched folders: masks, overlays, verdicts, objects."""

import sys

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import check_output

DEFECTIVE = 10  # the exit code, where exit_code=verdict asks for one


def run(cfg: DictConfig) -> None:
    """Predict ``input``; unreadable files are skipped, listed at the end, and make the exit code 1."""
    from functools import partial
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from segnet.decisions.given import told
    from segnet.deployment import inputs, writer
    from segnet.deployment.live import predict_live
    from segnet.deployment.predictor import of_command
    from segnet.deployment.sources import is_live
    from segnet.deployment.watched import predict_watched

    if cfg.exit_code == "verdict" and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError("exit_code=verdict: -m runs several predictions, and has one exit code; leave one of them out")
    given = str(cfg.input)
    if cfg.watch and not Path(given).is_dir():
        raise UserError(f"watch=true with input={given}: is no folder; give one, or leave watch=true out")
    if is_live(given):
        predict = partial(predict_live, cfg=cfg)
    elif cfg.watch:
        predict = partial(predict_watched, cfg=cfg)
    else:
        files = inputs.find(given)
        if Path(cfg.output_dir).resolve() in {file.resolve().parent for file in files}:
            raise UserError(f"output_dir={cfg.output_dir}: holds the images of input={given}; choose another folder")
        predict = partial(writer.write, files=files, cfg=cfg)
    if Path(given).is_dir():
        check_output(cfg.output_dir, "input", cfg.input)
    predictor = of_command(cfg)
    print(told(predictor.point, predictor.model.classes))
    if predict(predictor) and cfg.exit_code == "verdict":
        sys.exit(DEFECTIVE)


main = command("predict")(run)
