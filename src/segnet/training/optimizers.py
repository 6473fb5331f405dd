"""Muon: momentum whose matrices are made orthogonal before they step (Jordan et al., 2024).

Sources: https://kellerjordan.github.io/posts/muon for the method; Liu et al., "Muon is Scalable for LLM Training"
(arXiv 2502.16982, section 2.2) for the factor of the learning rate; Loshchilov and Hutter (arXiv 1711.05101) for AdamW.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim.adamw import adamw

from segnet.errors import UserError
from segnet.networks.replay import Replay
from segnet.settings import BelowOne, NotNegative, Positive

# Of each Newton-Schulz iteration x -> a·x + (b·xxᵀ + c·(xxᵀ)²)·x; they bring every singular value from 0..1 near 1
# (https://leloykun.github.io/ponder/muon-opt-coeffs).
COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


class Muon(torch.optim.Optimizer):
    """Muon for convolutions, each flattened from (O, I, K, K) to (O, K·K·I); AdamW for the rest.

    The rest is in a parameter group of its own: biases, batch norms, depthwise filters (C, 1, K, K), which are no
    matrices, and the classifier, which is the last parameter of two or more dimensions. Every rate in the groups is
    Muon's, so that schedulers drive both; `step` scales AdamW's. OneCycleLR cycles ``betas``, thus AdamW's alone.

    Args:
        params: of the network, in its order; those without gradient stay as they are.
        lr: Muon's learning rate. A step of O×I is 0.2·√max(O, I) times the orthogonal matrix, as large as AdamW's.
        momentum: share of the old average of gradients in the new one.
        nesterov: step along the average that the next step would have, were its gradient the same.
        weight_decay: decoupled, of both groups.
        fallback_lr_scale: AdamW's learning rate over ``lr``.
        betas: AdamW's, of the averages of gradients and of their squares.
        eps: added to AdamW's denominator; the smallest norm that a matrix is divided by.
        ns_steps: Newton-Schulz iterations; beyond five, the coefficients of the fifth repeat.

    Raises:
        UserError: an option is out of its range, or a loaded state is another optimizer's.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: NotNegative = 0.02,
        momentum: BelowOne = 0.95,
        nesterov: bool = True,
        weight_decay: NotNegative = 0.01,
        fallback_lr_scale: NotNegative = 0.25,
        betas: tuple[BelowOne, BelowOne] = (0.9, 0.95),
        eps: NotNegative = 1e-8,
        ns_steps: Positive = 5,
    ) -> None:
        beta1, beta2 = betas
        defaults: dict[str, Any] = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
            "fallback_lr_scale": fallback_lr_scale, "betas": (beta1, beta2), "eps": eps, "ns_steps": ns_steps,
        }  # fmt: skip
        for name in ("lr", "weight_decay", "fallback_lr_scale", "eps"):
            if not 0 <= defaults[name] < inf:
                raise UserError(f"{name}={defaults[name]}: must be a number of at least 0")
        for name, share in {"momentum": momentum, "betas[0]": beta1, "betas[1]": beta2}.items():
            if not 0 <= share < 1:
                raise UserError(f"{name}={share}: must lie in [0, 1)")
        if ns_steps < 1:
            raise UserError(f"ns_steps={ns_steps}: must be at least 1")
        params = list(params)
        matrices = {p for p in [p for p in params if p.ndim >= 2][:-1] if p.shape[1] > 1}
        groups = [
            {"params": [p for p in params if p in matrices], "name": "matrices"},
            {"params": [p for p in params if p not in matrices], "name": "rest"},
        ]
        super().__init__(groups, defaults)
        self._orthogonal = Replay(partial(_orthogonal, steps=ns_steps, eps=eps), most=1, own=False)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step once in the parameters' own precision, also under autocast; what ``closure`` returns, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, update in zip(self.param_groups, (self._muon, self._adamw), strict=True):
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                with torch.autocast(params[0].device.type, enabled=False):
                    update(params, [p.grad for p in params], group)
        return loss

    def _muon(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        averages = [self.state[p]["momentum_buffer"] for p in params]
        # One kernel for many tensors, as in torch's own optimizers; torch has no public name for that.
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, averages, group["momentum"]) if group["nesterov"] else averages
        # Channels last, as they lie in memory: the order of columns makes no difference to the iteration.
        found = list(self._orthogonal(*(update.movedim(1, -1) for update in updates)))
        torch._foreach_add_([p.movedim(1, -1) for p in params], found, alpha=-group["lr"])

    def _adamw(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p] |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p), "step": step}
        first, second, steps = ([self.state[p][key] for p in params] for key in ("exp_avg", "exp_avg_sq", "step"))
        adamw(
            params, grads, first, second, [], steps, amsgrad=False, maximize=False, fused=params[0].is_cuda,
            lr=group["lr"] * group["fallback_lr_scale"], beta1=group["betas"][0], beta2=group["betas"][1],
            weight_decay=group["weight_decay"], eps=group["eps"],
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; the state of version 0.1, which was timm's Muon, is refused."""
        if [group.get("name") for group in state_dict["param_groups"]] != [g["name"] for g in self.param_groups]:
            raise UserError(
                "the checkpoint's optimizer state is not of this Muon, which steps biases with AdamW (before: NAdamW); "
                "resume with the version that began the run, or start a new one with weights=<checkpoint>"
            )
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            if "step" in state:  # torch and Lightning leave it where it was loaded; AdamW's fused kernel wants it here
                state["step"] = state["step"].to(p.device)


muon = Muon  # the name in configurations of version 0.1


def _orthogonal(*updates: Tensor, steps: int, eps: float) -> list[Tensor]:
    """The step of each update (O, ..., I) at rate 1."""
    matrices = orthogonal([update.flatten(1) for update in updates], steps, eps, pad=updates[0].is_cuda)
    sized = zip(updates, matrices, strict=True)
    return [matrix.reshape(update.shape) * (0.2 * max(matrix.shape) ** 0.5) for update, matrix in sized]


def orthogonal(matrices: Sequence[Tensor], steps: int, eps: float, pad: bool) -> list[Tensor]:
    """Of each matrix nearly the nearest one with orthogonal rows or columns.

    Singular values of at least a hundredth of the matrix's norm end in 0.97..1.04 after five iterations.

    Args:
        matrices: float (O, I), of any sizes.
        steps: Newton-Schulz iterations, in float32.
        eps: smallest norm that a matrix is divided by.
        pad: iterate over all with the same number of rows at a time, columns of zeros beside the narrower ones, which
            stay zeros: a GPU has time for zeros but not for many kernels. Else over all of the same size.
    """
    alike = defaultdict(list)
    for i, matrix in enumerate(matrices):
        alike[len(matrix), 0 if pad else matrix.shape[1]].append(i)
    found = list(matrices)
    for members in alike.values():
        batch = pad_sequence([matrices[i].mT.float() for i in members], batch_first=True).mT
        tall = batch.shape[1] > batch.shape[2]
        x = (batch.mT if tall else batch).contiguous()
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp_(min=eps)
        for a, b, c in (COEFFICIENTS + COEFFICIENTS[-1:] * steps)[:steps]:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        for i, result in zip(members, x.mT if tall else x, strict=True):
            found[i] = result[:, : matrices[i].shape[1]]
    return found
