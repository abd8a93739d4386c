"""An image tower alone as a satellite encoder: the layout of `SatelliteEncoder` around CLIP's vision weights."""

from collections.abc import Mapping

from torch import Tensor

_BACKBONE = "satellite_image_backbone."
_HEAD = {
    "projector.0.weight": "vision_model.post_layernorm.weight",
    "projector.0.bias": "vision_model.post_layernorm.bias",
    "projector.1.weight": "visual_projection.weight",
}


def as_satellite(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An image tower's weights under the keys of `SatelliteEncoder`; the projector starts as the tower's own head.

    Args:
        weights: keys of transformers' `CLIPVisionModelWithProjection`.
    """
    tower = {f"{_BACKBONE}{key}": value for key, value in weights.items()}
    return tower | {new: weights[old] for new, old in _HEAD.items() if old in weights}


def backbone_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of a satellite encoder under the keys of `CLIPVisionModelWithProjection`."""
    return {key.removeprefix(_BACKBONE): value for key, value in weights.items() if key.startswith(_BACKBONE)}
