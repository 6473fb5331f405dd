"""Callbacks that take part in the training step."""

from typing import ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer

from segnet.errors import UserError


class InStep(Callback):
    """Takes part in every training step of one device, outside of a CUDA graph; nothing else was tried."""

    name: ClassVar[str]  # of its file in conf/callbacks

    def check_run(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuse a run of a kind that was not tried.

        Raises:
            UserError: with the settings that serve.
        """
        if trainer.world_size > 1 or trainer.precision == "16-mixed" or module.compile_mode is not None:
            raise UserError(
                f"callbacks={self.name}: serves neither several devices nor trainer.precision=16-mixed nor "
                f"model.compile; use trainer.devices=1 trainer.precision=auto model.compile=null"
            )
