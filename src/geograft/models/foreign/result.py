"""What reading a foreign checkpoint gives, and the checks that every one of them passes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

from geograft.errors import CheckpointMismatch


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A checkpoint of another project in the layout that this package reads.

    Attributes:
        kind: "openclip", "openai-jit", "clip-transformers-state", "senclip" or "graft".
        level: None for a whole CLIP (image and text); "image" or "pixel" for a satellite encoder.
        config: its architecture in transformers' words.
        weights: float32; of a whole CLIP under the keys of transformers' `CLIPModel`, of a satellite encoder under
            those of `SatelliteEncoder` (`satellite_image_backbone.*`, `projector.*`).
        text_encoder: the name of the text encoder that a satellite encoder answers to, where it is known.
        notes: what else is known, as plain values: `architecture`, `activation`, `activation_source`,
            `activation_certain`, `project`, `preprocess` (in the words of `preprocess.yaml`), `left_out`, and what
            the file said of itself (`epoch`, `name`, ...).
    """

    kind: str
    level: Literal["image", "pixel"] | None
    config: CLIPConfig
    weights: dict[str, Tensor]
    text_encoder: str | None
    notes: dict[str, Any]


def check_whole(weights: Mapping[str, Tensor], config: CLIPConfig, *, source: str) -> dict[str, Tensor]:
    """The weights of a whole CLIP in float32, after every key, shape and value was found right.

    Raises:
        CheckpointMismatch: a key is missing or unknown, a shape is wrong, or a value is not finite.
    """
    with torch.device("meta"):
        expected = CLIPModel(config).state_dict()
    return _checked(weights, expected, source)


def check_satellite(weights: Mapping[str, Tensor], config: CLIPConfig, *, source: str) -> dict[str, Tensor]:
    """The weights of a satellite encoder in float32, after every key, shape and value was found right.

    Raises:
        CheckpointMismatch: a key is missing or unknown, a shape is wrong, or a value is not finite.
    """
    with torch.device("meta"):
        backbone = CLIPVisionModelWithProjection(config.vision_config).state_dict()
        width, dim = config.vision_config.hidden_size, config.projection_dim
        norm = torch.empty(width)
        projector = {
            "projector.0.weight": norm,
            "projector.0.bias": norm,
            "projector.1.weight": torch.empty(dim, width),
        }
    expected = {f"satellite_image_backbone.{key}": value for key, value in backbone.items()} | projector
    return _checked(weights, expected, source)


def _checked(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights in float32 if they are exactly what is expected."""
    problems = [f"missing {key}" for key in expected if key not in weights]
    problems += [f"unknown {key}" for key in weights if key not in expected]
    problems += [_shapes(key, weights[key], expected[key]) for key in expected if key in weights]
    problems += [f"{key} is not finite" for key, value in weights.items() if not torch.isfinite(value).all()]
    if problems := [problem for problem in problems if problem]:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointMismatch(f"{source} is of another architecture or damaged: {'; '.join(problems[:5])}{more}.")
    return {key: value.float() for key, value in weights.items()}


def _shapes(key: str, found: Tensor, expected: Tensor) -> str:
    """What is wrong with a weight's shape, or nothing."""
    if found.shape == expected.shape:
        return ""
    turned = " (it is transposed)" if found.ndim == 2 and found.T.shape == expected.shape else ""
    return f"{key} is {tuple(found.shape)} instead of {tuple(expected.shape)}{turned}"
