"""How an encoder is optimised: which weights decay, and how the step size rises and falls."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Share of the full learning rate at a step: a linear rise, then half a cosine down to zero.

    Args:
        step: 0 to `steps` - 1.
        steps: number of steps of the whole run.
        warmup: the share of the steps over which it rises, in [0, 1).

    Returns:
        Factor in (0, 1].
    """
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def make_optimiser(model: nn.Module, *, lr: float, weight_decay: float) -> AdamW:
    """AdamW that decays matrices only: norms, biases, embeddings of places and single scales keep their size."""
    groups = [
        {"params": list(_trainable(model, matrices=True)), "weight_decay": weight_decay},
        {"params": list(_trainable(model, matrices=False)), "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.98), eps=1e-6)


def set_rate(optimiser: AdamW, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def _trainable(model: nn.Module, *, matrices: bool) -> Iterable[Any]:
    for name, weight in model.named_parameters():
        decays = weight.ndim > 1 and "position_embedding" not in name and "class_embedding" not in name
        if weight.requires_grad and decays == matrices:
            yield weight
