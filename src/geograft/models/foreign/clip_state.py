"""CLIPs in transformers' layout whose weights come without their `config.json`, such as a bare `pytorch_model.bin`."""

from collections.abc import Mapping

from torch import Tensor

FIRST = "vision_model.embeddings.class_embedding"
"""The key by which this layout is known; SigLIP's has none."""


def is_clip_state(weights: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of transformers' `CLIPModel`."""
    return FIRST in weights


def without_buffers(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights, and the keys of the position numbers that older versions stored beside them."""
    left_out = [key for key in weights if key.endswith("position_ids")]
    return {key: value for key, value in weights.items() if key not in set(left_out)}, left_out
