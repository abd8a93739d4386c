"""GRAFT's released checkpoints (Mall et al., ICLR 2024, arXiv 2312.06960), as satellite encoders.

They are Lightning files. `state_dict` holds `satellite_image_backbone.*` (transformers'
`CLIPVisionModelWithProjection`), `projector.0` (LayerNorm), `projector.1` (Linear without bias) and the buffer
`logit_scale`, which is 1 / τ itself and not its logarithm; pickled hyper-parameters of OmegaConf lie beside.

The image level and the pixel level have the same keys. Which of the two a file is, is told by the caller, by its name
or its hyper-parameters, or by its weights: CLIP's own weights are exact in float16, and training leaves them as they
were in the head that it does not use.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from geograft.errors import CheckpointMismatch
from geograft.models.foreign.architectures import Architecture, identify, measure
from geograft.models.foreign.result import Foreign, check_satellite
from geograft.models.foreign.satellite_layout import backbone_of

Level = Literal["image", "pixel"]

TEXT_ENCODERS = {
    "ViT-B-32": "openai/clip-vit-base-patch32",
    "ViT-B-16": "openai/clip-vit-base-patch16",
    "ViT-L-14": "openai/clip-vit-large-patch14",
    "ViT-L-14-336": "openai/clip-vit-large-patch14-336",
}
"""The CLIP whose text tower an encoder answers to, by the backbone that it was trained from; the released ones are
ViT-B-16."""

_PIXEL = re.compile(r"(?<![a-z])(pixel|patch)(?![a-z0-9])")
_IMAGE = re.compile(r"(?<![a-z])image(?![a-z0-9])")
_SAID = re.compile(r"(?P<level>pixel|patch|image)[_ -]?level")
_HEADS = {"pixel": "projector.1.weight", "image": "satellite_image_backbone.visual_projection.weight"}


class Told(NamedTuple):
    """A level, and what told it."""

    level: Level
    source: str
    certain: bool


def is_graft(weights: Mapping[str, Tensor]) -> bool:
    """Whether the keys are GRAFT's."""
    return any(key.startswith("satellite_image_backbone.") for key in weights)


def read_graft(
    weights: Mapping[str, Tensor],
    notes: dict[str, Any],
    *,
    path: Path,
    architecture: str | None = None,
    level: Level | None = None,
) -> Foreign:
    """A satellite encoder of GRAFT's own checkpoint.

    Args:
        weights: GRAFT's keys, without wrappers.
        notes: what else the file says.
        path: the file, for its name.
        architecture: what its backbone is said to be.
        level: what it was trained for, where the caller knows.

    Raises:
        UnknownModel: no architecture has that name.
        CheckpointMismatch: keys are missing, unknown, misshapen or transposed, values are not finite, or the
            backbone is none that GRAFT could have started from.
    """
    source = str(path)
    if "projector.1.bias" in weights:
        raise CheckpointMismatch(f"{source} has a projector with a bias, which no released GRAFT and no encoder has.")
    kept = {key: value for key, value in weights.items() if key != "logit_scale" and not key.endswith("position_ids")}
    backbone = _backbone(kept, architecture, source)
    config = backbone.config("quick_gelu")
    checked = check_satellite(kept, config, source=source)
    told = tell_level(checked, notes, path, said=level)
    return Foreign(
        kind="graft",
        level=told.level,
        config=config,
        weights=checked,
        text_encoder=TEXT_ENCODERS[backbone.name],
        notes=notes | _notes(backbone, weights, told),
    )


def _backbone(weights: Mapping[str, Tensor], named: str | None, source: str) -> Architecture:
    """The backbone's architecture, one of OpenAI's."""
    tower = backbone_of(weights)
    if "visual_projection.weight" not in tower:
        raise CheckpointMismatch(f"{source} lacks satellite_image_backbone.visual_projection: it is no whole GRAFT.")
    backbone = identify(measure(tower, source=source), named=named, source=source)
    if backbone.name not in TEXT_ENCODERS:
        raise CheckpointMismatch(
            f"{source} has the backbone {backbone.name}, which OpenAI published no CLIP of, so it is unknown which "
            f"text encoder it answers to; GRAFT's are of {', '.join(TEXT_ENCODERS)}."
        )
    return backbone


def _notes(backbone: Architecture, weights: Mapping[str, Tensor], told: Told) -> dict[str, Any]:
    """What is known of an encoder beside its weights."""
    scale = weights.get("logit_scale")
    notes: dict[str, Any] = {
        "architecture": backbone.name,
        "activation": "quick_gelu",
        "activation_source": "GRAFT starts from OpenAI's weights",
        "activation_certain": True,
        "project": "GRAFT",
        "level_source": told.source,
        "level_certain": told.certain,
    }
    if scale is not None and scale.numel() == 1 and float(scale) > 0:
        notes["temperature"] = 1 / float(scale)
    return notes


def tell_level(weights: Mapping[str, Tensor], notes: Mapping[str, Any], path: Path, *, said: Level | None) -> Told:
    """Which level a checkpoint was trained for, and what told it.

    Args:
        weights: GRAFT's keys.
        notes: what else the file says, with its hyper-parameters.
        path: the file; its name and those of the two folders above count.
        said: the caller's word.
    """
    folders = "/".join(path.absolute().parts[-3:-1])
    ways: tuple[tuple[str, Level | None], ...] = (
        ("given by the caller", said),
        ("the name of the file", _level_in(path.stem)),
        ("its hyper-parameters", _level_said(str(notes.get("hyper_parameters", "")))),
        ("its other head is exact in float16, so it was never trained", _level_of(weights)),
        ("the folders above it", _level_in(folders)),
    )
    for source, level in ways:
        if level is not None:
            return Told(level, source, certain=True)
    return Told("image", "nothing tells", certain=False)


def _level_in(text: str) -> Level | None:
    """The level that a name tells, if it tells one and not both."""
    pixel, image = bool(_PIXEL.search(text.lower())), bool(_IMAGE.search(text.lower()))
    if pixel == image:
        return None
    return "pixel" if pixel else "image"


def _level_said(text: str) -> Level | None:
    """The level that hyper-parameters tell in so many words; they speak of image sizes and patches anyhow."""
    found = {match["level"] for match in _SAID.finditer(text.lower())}
    if not found or {"image"} < found:
        return None
    return "image" if found == {"image"} else "pixel"


def _level_of(weights: Mapping[str, Tensor]) -> Level | None:
    """The level whose head was trained while the other one still is CLIP's."""
    trained = {level: not _exact_in_half(weights[key]) for level, key in _HEADS.items()}
    if trained["pixel"] == trained["image"]:
        return None
    return "pixel" if trained["pixel"] else "image"


def _exact_in_half(value: Tensor) -> bool:
    """Whether float16 holds every value, as it does for the weights that OpenAI published."""
    return bool(torch.equal(value, value.half().float()))
