"""The CLIP vision transformers that are known by name, and how a checkpoint's shapes tell which one it is.

Names and sizes are those of open_clip's model configurations. Shapes tell everything but the number of attention
heads, which the name gives (64 channels a head, except in H, g, e and bigG), so a checkpoint whose shapes fit none
of these needs the `open_clip_config.json` that open_clip's own exports carry.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import CLIPConfig

from geograft.errors import CheckpointMismatch, UnknownModel

_WORDS = {
    "patch": "patches of {} px",
    "width": "width {}",
    "layers": "{} layers",
    "mlp": "feed-forward width {}",
    "dim": "embeddings of {}",
    "text_width": "text width {}",
    "text_layers": "{} text layers",
    "text_mlp": "text feed-forward width {}",
    "vocabulary": "a vocabulary of {}",
    "channels": "{} bands",
}
_TEXT = ("text_width", "text_layers", "text_mlp", "vocabulary")
_CONTEXTS = (77, 248)  # CLIP's, and that of Long-CLIP and those that follow it


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The sizes of a CLIP with two transformers.

    Attributes:
        name: as open_clip calls it.
        patch: patch width in px.
        width: length of the image tower's tokens.
        layers: of the image tower.
        dim: length of the embeddings.
        text_width: length of the text tower's tokens; 0 where there is no text tower.
        text_layers: of the text tower.
        image_size: image width in px.
        head_width: channels an attention head of the image tower.
        mlp: width of the image tower's feed-forward layers; 0 stands for four times `width`.
        text_mlp: the same of the text tower.
        text_heads: attention heads of the text tower; 0 stands for one in 64 channels.
        context: tokens a text.
        vocabulary: tokens that there are.
        channels: bands of the image.
    """

    name: str
    patch: int
    width: int
    layers: int
    dim: int
    text_width: int
    text_layers: int = 12
    image_size: int = 224
    head_width: int = 64
    mlp: int = 0
    text_mlp: int = 0
    text_heads: int = 0
    context: int = 77
    vocabulary: int = 49408
    channels: int = 3

    def __post_init__(self) -> None:
        """Fill in what follows from the widths."""
        object.__setattr__(self, "mlp", self.mlp or 4 * self.width)
        object.__setattr__(self, "text_mlp", self.text_mlp or 4 * self.text_width)
        object.__setattr__(self, "text_heads", self.text_heads or self.text_width // 64)

    def config(self, activation: str) -> CLIPConfig:
        """The architecture in transformers' words.

        Args:
            activation: "gelu" or "quick_gelu".
        """
        vision = {
            "hidden_size": self.width,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.width // self.head_width,
            "image_size": self.image_size,
            "patch_size": self.patch,
            "num_channels": self.channels,
            "hidden_act": activation,
            "projection_dim": self.dim,
        }
        return CLIPConfig(vision_config=vision, text_config=self._text(activation), projection_dim=self.dim)

    def _text(self, activation: str) -> dict[str, Any]:
        """The text tower in transformers' words; the end of a text is the highest id, as open_clip reads it."""
        if not self.text_width:
            return {"projection_dim": self.dim, "hidden_act": activation}
        return {
            "hidden_size": self.text_width,
            "intermediate_size": self.text_mlp,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": self.text_heads,
            "max_position_embeddings": self.context,
            "vocab_size": self.vocabulary,
            "bos_token_id": self.vocabulary - 2,
            "eos_token_id": self.vocabulary - 1,
            "hidden_act": activation,
            "projection_dim": self.dim,
        }


_BASE: dict[str, Any] = {"width": 768, "layers": 12, "dim": 512, "text_width": 512}
_PLUS: dict[str, Any] = {"width": 896, "layers": 12, "dim": 640, "text_width": 640}
_LARGE: dict[str, Any] = {"width": 1024, "layers": 24, "dim": 768, "text_width": 768}
_HUGE: dict[str, Any] = {
    "width": 1280, "layers": 32, "dim": 1024, "text_width": 1024, "text_layers": 24, "head_width": 80,
}  # fmt: skip
KNOWN: tuple[Architecture, ...] = (
    Architecture("ViT-S-32", patch=32, width=384, layers=12, dim=384, text_width=384),
    Architecture("ViT-S-16", patch=16, width=384, layers=12, dim=384, text_width=384),
    Architecture("ViT-S-32-alt", patch=32, width=384, layers=12, dim=256, text_width=256, text_layers=10),
    Architecture("ViT-S-16-alt", patch=16, width=384, layers=12, dim=256, text_width=256, text_layers=10),
    Architecture("ViT-M-32", patch=32, width=512, layers=12, dim=512, text_width=512),
    Architecture("ViT-M-16", patch=16, width=512, layers=12, dim=512, text_width=512),
    Architecture("ViT-M-32-alt", patch=32, width=512, layers=12, dim=384, text_width=384),
    Architecture("ViT-B-32", patch=32, **_BASE),
    Architecture("ViT-B-32-256", patch=32, image_size=256, **_BASE),
    Architecture("ViT-B-16", patch=16, **_BASE),
    Architecture("ViT-B-32-plus-256", patch=32, image_size=256, **_PLUS),
    Architecture("ViT-B-16-plus", patch=16, **_PLUS),
    Architecture("ViT-B-16-plus-240", patch=16, image_size=240, **_PLUS),
    Architecture("ViT-L-16", patch=16, **_LARGE),
    Architecture("ViT-L-16-320", patch=16, image_size=320, **_LARGE),
    Architecture("ViT-L-14", patch=14, **_LARGE),
    Architecture("ViT-L-14-280", patch=14, image_size=280, **_LARGE),
    Architecture("ViT-L-14-336", patch=14, image_size=336, **_LARGE),
    Architecture("ViT-H-16", patch=16, **_HUGE),
    Architecture("ViT-H-14", patch=14, **_HUGE),
    Architecture("ViT-H-14-378", patch=14, image_size=378, **_HUGE),
    Architecture(
        "ViT-g-14", patch=14, width=1408, layers=40, dim=1024, text_width=1024, text_layers=24, head_width=88, mlp=6144
    ),
    Architecture(
        "ViT-bigG-14", patch=14, width=1664, layers=48, dim=1280, text_width=1280, text_layers=32, head_width=104,
        mlp=8192,
    ),
    Architecture(
        "ViT-e-14", patch=14, width=1792, layers=56, dim=1280, text_width=1280, text_layers=36, head_width=112,
        mlp=15360,
    ),
)  # fmt: skip
"""By name, with the sizes of open_clip's configurations; ViT-M-16-alt is left out, since it scales its layers."""


# --- what a checkpoint's shapes say -----------------------------------------------------------------------


def measure(weights: Mapping[str, Tensor], *, source: str) -> Architecture:
    """The sizes of weights under transformers' keys; name and head widths stay open.

    Args:
        weights: keys of `CLIPModel`, with the text tower or without.
        source: what an error calls the weights.

    Raises:
        CheckpointMismatch: the weights from which sizes are read are missing or of another rank.
    """
    try:
        width, channels, patch, _ = weights["vision_model.embeddings.patch_embedding.weight"].shape
        tokens = len(weights["vision_model.embeddings.position_embedding.weight"]) - 1
        text = _measure_text(weights) if "text_model.embeddings.token_embedding.weight" in weights else {}
        sizes: dict[str, int] = {
            "patch": patch,
            "channels": channels,
            "image_size": patch * _side(tokens, source),
            "width": width,
            "layers": _layers(weights, "vision_model"),
            "mlp": len(weights["vision_model.encoder.layers.0.mlp.fc1.weight"]),
            "dim": len(weights["visual_projection.weight"]),
        }
        return Architecture(name="", head_width=1, **sizes, **({"text_width": 0, "text_layers": 0} | text))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointMismatch(f"{source} is no CLIP with vision transformer, or lacks {error}.") from error


def _measure_text(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes of the text tower."""
    vocabulary, width = weights["text_model.embeddings.token_embedding.weight"].shape
    return {
        "vocabulary": vocabulary,
        "text_width": width,
        "text_layers": _layers(weights, "text_model"),
        "text_mlp": len(weights["text_model.encoder.layers.0.mlp.fc1.weight"]),
        "context": len(weights["text_model.embeddings.position_embedding.weight"]),
    }


def _layers(weights: Mapping[str, Tensor], tower: str) -> int:
    """How many layers a tower has."""
    pattern = re.compile(rf"{tower}\.encoder\.layers\.(\d+)\.")
    return len({match[1] for key in weights if (match := pattern.match(key))})


def _side(tokens: int, source: str) -> int:
    """Patches along one side of a square image."""
    side = math.isqrt(max(tokens, 0))
    if side * side != tokens or not tokens:
        raise CheckpointMismatch(f"{source} was trained on images that are not square ({tokens} patches).")
    return side


def identify(measured: Architecture, *, named: str | None = None, source: str) -> Architecture:
    """The known architecture of measured sizes, at the image size and text length that were measured.

    Args:
        measured: from `measure`.
        named: the architecture that the weights are said to have, None to find it.
        source: what an error calls the weights.

    Raises:
        UnknownModel: no architecture has that name.
        CheckpointMismatch: the sizes are not those of the named architecture, or of none; the sentence names the
            nearest one.
    """
    if named is not None:
        return confirm(known(named), measured, source=source)
    fitting = [one for one in KNOWN if not _differences(one, measured)]
    if not fitting or (measured.text_width and measured.context not in _CONTEXTS):
        nearest = min(KNOWN, key=lambda one: (_distance(one, measured), abs(one.image_size - measured.image_size)))
        raise CheckpointMismatch(
            f"{source} has the sizes of no known architecture: nearest is {nearest.name}, but it has "
            f"{_told(nearest, measured)}. If it is open_clip's, lay its open_clip_config.json beside it."
        )
    exact = [one for one in fitting if one.image_size == measured.image_size]
    return _as_measured((exact or fitting)[0], measured)


def confirm(architecture: Architecture, measured: Architecture, *, source: str) -> Architecture:
    """An architecture, if the measured sizes agree with it, at the text length that was measured.

    Raises:
        CheckpointMismatch: they do not; the sentence names the architecture that they are of.
    """
    if not _told(architecture, measured):
        return _as_measured(architecture, measured)
    fitting = [one.name for one in KNOWN if not _told(one, measured)]
    hint = f"; its sizes are those of {fitting[0]}" if fitting else ""
    raise CheckpointMismatch(f"{source} is no {architecture.name}: it has {_told(architecture, measured)}{hint}.")


def _as_measured(architecture: Architecture, measured: Architecture) -> Architecture:
    """The architecture at the image size and text length that were measured, without text where there is none."""
    return dataclasses.replace(
        measured,
        name=architecture.name,
        head_width=architecture.head_width,
        text_heads=architecture.text_heads,
    )


def known(name: str) -> Architecture:
    """The architecture of a name, in open_clip's spelling or OpenAI's ("ViT-L/14@336px"), `-quickgelu` or not.

    Raises:
        UnknownModel: there is none, or it is one whose layout is not read.
    """
    spelled = name.replace("/", "-").replace("@", "-").removesuffix("px").lower().removesuffix("-quickgelu")
    for one in KNOWN:
        if one.name.lower() == spelled:
            return one
    why = " ResNet CLIPs are not read; take a ViT." if spelled.startswith("rn") else ""
    raise UnknownModel(
        f"No architecture is called {name!r}.{why} Known are {', '.join(architecture.name for architecture in KNOWN)}."
    )


def _differences(one: Architecture, measured: Architecture) -> list[str]:
    """The sizes in which a checkpoint differs from an architecture, without image size and text length."""
    names = [name for name in _WORDS if measured.text_width or name not in _TEXT]
    return [name for name in names if getattr(one, name) != getattr(measured, name)]


def _told(one: Architecture, measured: Architecture) -> str:
    """All differences in words; nothing where there are none."""
    told = [
        f"{_WORDS[name].format(getattr(measured, name))} instead of {getattr(one, name)}"
        for name in _differences(one, measured)
    ]
    if measured.image_size != one.image_size and "patch" not in _differences(one, measured):
        told.append(f"images of {measured.image_size} px instead of {one.image_size}")
    if measured.text_width and measured.context not in {one.context, *_CONTEXTS}:
        told.append(f"texts of {measured.context} tokens instead of {one.context}")
    return ", ".join(told)


def _distance(one: Architecture, measured: Architecture) -> float:
    """How far two architectures are apart: the sum of the ratios of their sizes, on a log scale."""
    return sum(abs(math.log(getattr(one, name) / getattr(measured, name))) for name in _differences(one, measured))
