"""How an encoder is optimised: which weights learn, decay and how fast; how the step size rises and falls; averages."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from geograft.errors import BadSetting

_BLOCK = re.compile(r"(?:^|(?<!text_model)\.)encoder\.layers\.(\d+)\.")
"""The transformer blocks of transformers' vision models, by the names of their weights."""

_BOTTOM = re.compile(r"(?:^|\.)(?:embeddings|pre_layrnorm|stem|stems)\.")
"""What stands below the first block."""


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


def make_optimiser(model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float = 1.0) -> AdamW:
    """AdamW that decays matrices only: norms, biases, embeddings of places and single scales keep their size.

    Args:
        model: whose weights that want a gradient are optimised.
        lr: highest learning rate.
        weight_decay: of matrices.
        layer_decay: what the learning rate is multiplied by from one transformer block to the one below; the head
            above the last block learns at the full rate (BEiT, Bao et al. 2022).

    Raises:
        BadSetting: `layer_decay` is not 1 and the model's weights name no transformer blocks.
    """
    depth = _depth(model, "layer_decay") if layer_decay != 1 else 0
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            scale = layer_decay ** (depth - _layer(name, depth)) if layer_decay != 1 else 1.0
            groups.setdefault((weight_decay if _decays(name, weight) else 0.0, scale), []).append(weight)
    parts = [
        {"params": weights, "weight_decay": decay, "scale": scale}
        for (decay, scale), weights in sorted(groups.items(), key=lambda item: (-item[0][0], item[0][1]))
    ]
    return AdamW(parts, lr=lr, betas=(0.9, 0.98), eps=1e-6)


def set_rate(optimiser: AdamW, lr: float) -> None:
    """Set the learning rate of every group, each by its own scale."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)


def freeze_layers(model: nn.Module, blocks: int) -> None:
    """Keep the embeddings and the first blocks of a transformer as they are: their weights want no gradient.

    Args:
        model: a vision model whose weights are named as transformers names them (`encoder.layers.N`).
        blocks: how many, from the bottom; 0 freezes nothing.

    Raises:
        BadSetting: the model names no such blocks, or has fewer.
    """
    if not blocks:
        return
    depth = _depth(model, "freeze")
    if blocks >= depth:
        raise BadSetting(f"freeze is {blocks}, but the model has {depth - 1} blocks: freeze at most that many.")
    for name, weight in model.named_parameters():
        if _layer(name, depth) <= blocks:
            weight.requires_grad_(False)


def _depth(model: nn.Module, setting: str) -> int:
    """The number of the layer above the last block: blocks count from 1, the embeddings are 0."""
    found = [int(match[1]) for name, _ in model.named_parameters() if (match := _BLOCK.search(name))]
    if not found:
        names = ", ".join(name for name, _ in list(model.named_parameters())[:3])
        raise BadSetting(
            f"{setting} needs a vision transformer whose weights are named encoder.layers.0, 1, ..., but this model's "
            f"are named {names}, ...: leave {setting} at its default."
        )
    return max(found) + 2


def _layer(name: str, depth: int) -> int:
    """The layer that a weight belongs to: 0 below the first block, then the blocks, `depth` above the last one."""
    if match := _BLOCK.search(name):
        return int(match[1]) + 1
    return 0 if _BOTTOM.search(name) else depth


def _decays(name: str, weight: Tensor) -> bool:
    return weight.ndim > 1 and "position_embedding" not in name and "class_embedding" not in name


class Average:
    """The exponential moving average of a model's weights, which validates better than the last step's.

    Early on it looks back over a tenth of the steps at most, so that it does not remember the random start.

    Args:
        model: whose weights are followed, from what they are now.
        decay: share of the average kept at a step, in (0, 1).

    Source: Polyak & Juditsky 1992; the warm-up is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model's weights after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._model.state_dict().items():
            kept = self.weights[name]
            if kept.is_floating_point():
                kept.lerp_(value, 1 - decay)
            else:
                kept.copy_(value)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from an average that was kept."""
        for name, value in weights.items():
            self.weights[name].copy_(value)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the model has the average's weights."""
        before = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self._model.load_state_dict(before)
