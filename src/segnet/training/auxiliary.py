"""Auxiliary supervision: 1×1 classifiers on inner decoder stages, which take part in training and in nothing else.

Source: Lee et al., "Deeply-Supervised Nets", AISTATS 2015, section 2.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from segnet.errors import UserError
from segnet.networks.segnet import UnpoolingNetwork
from segnet.settings import NotNegative
from segnet.training.in_step import InStep
from segnet.training.module import SegmentationModule


class Auxiliary(InStep):
    """Adds to the training loss that of a 1×1 classifier on each decoder stage but the first and the last.

    Each classifier is judged by the module's loss on the mask at its stage's size (nearest pixel). They belong to this
    callback: they step by an AdamW of their own, only its state in a checkpoint has them, for `resume`, and the network
    and its weights are those of a run without them. They start at zero, so no random number is drawn for them.

    Args:
        weight: of the mean of their losses.
        lr_scale: their learning rate over the network's; 0.25 is what `Muon` gives to the network's own classifier.
    """

    name = "auxiliary"

    def __init__(self, weight: NotNegative = 0.4, lr_scale: NotNegative = 0.25) -> None:
        self.weight, self.lr_scale = weight, lr_scale
        self.features: dict[int, Tensor] = {}  # of the batch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the classifiers.

        Raises:
            UserError: the network has no decoder stages, or the run is of a kind that was not tried.
        """
        if stage != "fit":
            return
        assert isinstance(pl_module, SegmentationModule)
        if not isinstance(pl_module.net, UnpoolingNetwork):
            raise UserError("callbacks=auxiliary: needs the decoder stages of a SegNet; use model=segnet")
        self.check_run(trainer, pl_module)
        self.stages = list(pl_module.net.decoder)[1:-1]
        widths = [[m for m in s.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features for s in self.stages]
        device = trainer.strategy.root_device
        self.heads = nn.ModuleList(nn.Conv2d(width, len(pl_module.classes), 1) for width in widths).to(device)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)
        self.optimizer = torch.optim.AdamW(self.heads.parameters())
        self.hooks = [s.register_forward_hook(partial(self._keep, i)) for i, s in enumerate(self.stages)]
        self.loss = pl_module.loss
        pl_module.auxiliary = self.added

    def _keep(self, index: int, stage: nn.Module, _: Any, output: Tensor) -> None:
        if stage.training and torch.is_grad_enabled():
            self.features[index] = output

    def added(self, mask: Tensor) -> Tensor:
        """What is added to the loss of a batch, a scalar, after the network has seen it.

        Args:
            mask: (N, H, W) class indices.
        """
        losses = []
        for index, head in enumerate(self.heads):
            logits = head(self.features.pop(index))
            small = F.interpolate(mask[:, None].float(), logits.shape[-2:])[:, 0].long()
            with torch.autocast(logits.device.type, enabled=False):
                losses.append(self.loss(logits.float(), small))
        return self.weight * torch.stack(losses).mean()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Step the classifiers, at the schedule's rate."""
        self.optimizer.param_groups[0]["lr"] = self.lr_scale * optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the network as it would be without them."""
        if stage == "fit":
            assert isinstance(pl_module, SegmentationModule)
            pl_module.auxiliary = None
            for hook in self.hooks:
                hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """For a run that resumes."""
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume."""
        self.heads.load_state_dict(state_dict["heads"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
