"""`open_clip_config.json`: what open_clip's own exports say of a model beside its weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from geograft.errors import CheckpointMismatch
from geograft.models.foreign.architectures import KNOWN, Architecture, confirm

NAME = "open_clip_config.json"
_PLAIN = {
    "vision_cfg": {
        "image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout", "output_tokens",
    },
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "output_tokens"},
}  # fmt: skip
_DEFAULTS = {"pool_type": ("tok", "argmax"), "pos_embed_type": ("learnable",), "proj_type": ("linear",)}
_RESIZE = {"shortest": "crop", "squash": "squash"}


@dataclasses.dataclass(frozen=True)
class Described:
    """What a configuration says: the architecture, the activation and, where it says so, the preprocessing."""

    architecture: Architecture
    quick_gelu: bool
    preprocess: dict[str, Any] | None


def read_configuration(path: Path, measured: Architecture, *, source: str) -> Described:
    """What an `open_clip_config.json` says, if the weights are those that it describes.

    Args:
        path: the file.
        measured: the weights' sizes, from `architectures.measure`.
        source: what an error calls the weights.

    Raises:
        CheckpointMismatch: the file cannot be read, describes another kind of tower, or other sizes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = content["model_cfg"]
        _refuse_options(model["vision_cfg"], model["text_cfg"], path)
        described = _architecture(model)
        preprocess = _preprocess(content.get("preprocess_cfg"), described.image_size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(f"{path} is no configuration of open_clip ({error!r}).") from error
    architecture = confirm(described, measured, source=source)
    return Described(architecture, quick_gelu=bool(model.get("quick_gelu", False)), preprocess=preprocess)


def _architecture(model: dict[str, Any]) -> Architecture:
    """The architecture that a configuration describes, by its name where it has one."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    text_width = text.get("width", 512)
    described = Architecture(
        name=f"model of {NAME}",
        patch=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        dim=model["embed_dim"],
        text_width=text_width,
        text_layers=text.get("layers", 12),
        image_size=vision.get("image_size", 224),
        head_width=vision.get("head_width", 64),
        mlp=int(vision["width"] * vision.get("mlp_ratio", 4.0)),
        text_mlp=int(text_width * text.get("mlp_ratio", 4.0)),
        text_heads=text.get("heads", 8),
        context=text.get("context_length", 77),
        vocabulary=text.get("vocab_size", 49408),
    )
    names = (one.name for one in KNOWN if dataclasses.replace(one, name=described.name) == described)
    return dataclasses.replace(described, name=next(names, described.name))


def _refuse_options(vision: dict[str, Any], text: dict[str, Any], path: Path) -> None:
    """Refuse what CLIP's two plain transformers do not have."""
    for name, options in (("vision_cfg", vision), ("text_cfg", text)):
        for key, value in options.items():
            if key in _PLAIN[name] or value is None or value is False or value in _DEFAULTS.get(key, ()):
                continue
            raise CheckpointMismatch(f"{path} asks for {key} = {value!r}, which CLIP's plain transformers do not have.")


def _preprocess(options: dict[str, Any] | None, size: int) -> dict[str, Any] | None:
    """A configuration's preprocessing in the words of `preprocess.yaml`, None where it says nothing of it."""
    if not options or "mean" not in options or "std" not in options:
        return None
    return {
        "size": size,
        "resize": _RESIZE[options.get("resize_mode") or "shortest"],
        "resample": options.get("interpolation") or "bicubic",
        "mean": [float(value) for value in options["mean"]],
        "std": [float(value) for value in options["std"]],
    }
