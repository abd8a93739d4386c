"""The satellite encoder: a vision transformer that answers in the space of a teacher of ground photos.

Layout and names are those of the released GRAFT code: `satellite_image_backbone` is transformers'
`CLIPVisionModelWithProjection`, `projector` is LayerNorm → Linear without bias. The image level reads the class
token through CLIP's own head; the pixel level reads every patch token through the projector.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch, UnknownModel

Level = Literal["image", "pixel"]
"""What an encoder was trained for: one embedding a chip, or one embedding a patch."""

LEVELS: tuple[Level, ...] = ("image", "pixel")


# --- what any encoder offers --------------------------------------------------------------------------------


class EncoderShape(Protocol):
    """What the outside of an encoder is like: the chips that it takes, the vectors that it gives."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names in the order of the input channels."""

    @property
    def dim(self) -> int:
        """Length of the embeddings."""

    @property
    def image_size(self) -> int:
        """Chip width and height in px."""

    @property
    def patch_size(self) -> int:
        """Patch width and height in px."""

    @property
    def grid(self) -> int:
        """Patches along one side of a chip."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them."""


class Encoder(Protocol):
    """A satellite encoder of any architecture, as `Model` and everything after it use one.

    It is an `nn.Module`; of a module's methods those are named here that are relied upon. `SatelliteEncoder`
    fulfils it.
    """

    @property
    def settings(self) -> EncoderShape:
        """The shape."""

    def embed(self, chips: Tensor) -> Tensor:
        """One unit vector a chip: normalised pixels (N, C, S, S) to (N, D)."""

    def tokens(self, chips: Tensor, *, level: Level = "pixel") -> Tensor:
        """One unit vector a patch: normalised pixels (N, C, S, S) to (N, D, h, w), row 0 at the chip's top."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The weights, as in `nn.Module`."""

    def state_dict(self) -> dict[str, Any]:
        """Key to weight, as in `nn.Module`."""

    def eval(self) -> Self:
        """Itself, ready for inference, as in `nn.Module`."""

    def to(self, device: torch.device | str) -> Self:
        """Itself on a device, as in `nn.Module`."""


# --- settings ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """The shape of a satellite encoder: all that is needed to build one before its weights are read.

    Attributes:
        bands: band names in the order of the input channels.
        dim: length of the embeddings, the teacher's.
        image_size: chip width and height in px.
        patch_size: patch width and height in px; divides `image_size`.
        width: length of the tokens inside.
        depth: number of transformer layers.
        heads: attention heads; divides `width`.
        expansion: width of the feed-forward layers over `width`.
        activation: "gelu", or CLIP's "quick_gelu".
    """

    bands: tuple[str, ...]
    dim: int
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    expansion: int = 4
    activation: str = "gelu"

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built."""
        sizes = (self.dim, self.image_size, self.patch_size, self.width, self.depth, self.heads, self.expansion)
        if min(sizes) < 1 or not self.bands:
            raise BadSetting("An encoder's sizes must be at least 1 and it needs at least one band.")
        if self.image_size % self.patch_size:
            raise BadSetting(f"Patches of {self.patch_size} px do not tile a chip of {self.image_size} px.")
        if self.width % self.heads:
            raise BadSetting(f"A width of {self.width} cannot be split into {self.heads} heads.")

    @property
    def grid(self) -> int:
        """Patches along one side of a chip."""
        return self.image_size // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them."""
        return {**dataclasses.asdict(self), "bands": list(self.bands)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderSettings":
        """The settings of `to_dict`'s values.

        Raises:
            CheckpointMismatch: a setting is missing, unknown or out of range.
        """
        try:
            return cls(**{**values, "bands": tuple(values["bands"])})
        except (KeyError, TypeError, BadSetting) as error:
            raise CheckpointMismatch(f"These are not the settings of a satellite encoder ({error}).") from error


_MINI: dict[str, Any] = {"image_size": 64, "patch_size": 8, "width": 160, "depth": 5, "heads": 5}
_VIT_B_16: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 16,
    "width": 768,
    "depth": 12,
    "heads": 12,
    "activation": "quick_gelu",
}
PRESETS: dict[str, dict[str, Any]] = {
    "mini": _MINI,
    "mini-10m": {**_MINI, "image_size": 32, "patch_size": 4},
    "vit-b-16": _VIT_B_16,
}
"""Preset name to the settings that do not depend on bands and teacher."""


def preset_settings(preset: str, *, bands: Sequence[str], dim: int) -> EncoderSettings:
    """The settings of a preset for given bands and a teacher's embedding length.

    Args:
        preset: "mini" (64 px, patches of 8), "mini-10m" (32 px, patches of 4) or "vit-b-16" (224 px, 16).
        bands: band names in input order.
        dim: the teacher's embedding length.

    Raises:
        UnknownModel: no preset has that name.
    """
    if preset not in PRESETS:
        raise UnknownModel(f"No preset is called {preset!r}; the known ones are {', '.join(PRESETS)}.")
    return EncoderSettings(bands=tuple(bands), dim=dim, **PRESETS[preset])


# --- encoder ----------------------------------------------------------------------------------------------


class SatelliteEncoder(nn.Module):
    """Chips in, unit vectors in the teacher's space out: one a chip, or one a patch.

    Args:
        settings: the shape; weights are random until they are trained or read.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.satellite_image_backbone = CLIPVisionModelWithProjection(_backbone_config(settings))
        self.projector = nn.Sequential(
            nn.LayerNorm(settings.width), nn.Linear(settings.width, settings.dim, bias=False)
        )

    def embed(self, chips: Tensor) -> Tensor:
        """One unit vector a chip (image level).

        Args:
            chips: normalised pixels, (N, C, S, S).

        Returns:
            (N, D).

        Raises:
            ModelMismatch: the chips have other bands or another size than the encoder.
        """
        return functional.normalize(self._run(chips).image_embeds, dim=-1)

    def tokens(self, chips: Tensor, *, level: Level = "pixel") -> Tensor:
        """One unit vector a patch.

        Args:
            chips: normalised pixels, (N, C, S, S).
            level: "pixel" reads the patch tokens through the projector, as the pixel level is trained;
                "image" reads them through the image level's head, which was trained on the class token only.

        Returns:
            (N, D, h, w), row 0 at the chip's top.

        Raises:
            ModelMismatch: the chips have other bands or another size than the encoder, or no such level.
        """
        return self.read_patches(self._run(chips).last_hidden_state[:, 1:], level=level)

    def read_patches(self, hidden: Tensor, *, level: Level) -> Tensor:
        """Unit vectors of patch tokens as the backbone leaves them.

        Args:
            hidden: the tokens of a square of patches, row by row, without the class token, (N, h * w, width).
            level: as in `tokens`.

        Returns:
            (N, D, h, w).

        Raises:
            ModelMismatch: there is no such level.
        """
        vectors = functional.normalize(self._read_out(hidden, level), dim=-1)
        grid = math.isqrt(hidden.shape[1])
        return vectors.transpose(1, 2).reshape(-1, self.settings.dim, grid, grid)  # traced graphs keep any batch

    def both(self, chips: Tensor) -> tuple[Tensor, Tensor]:
        """`embed` and `tokens` of the same chips, by one pass of the transformer."""
        found = self._run(chips)
        patches = self.read_patches(found.last_hidden_state[:, 1:], level="pixel")
        return functional.normalize(found.image_embeds, dim=-1), patches

    def forward(self, chips: Tensor, *, level: Level | Literal["both"] = "image") -> Tensor | tuple[Tensor, Tensor]:
        """`embed` at the image level, `tokens` at the pixel level, or `both`."""
        if level == "both":
            return self.both(chips)
        return self.embed(chips) if level == "image" else self.tokens(chips, level=level)

    def _read_out(self, hidden: Tensor, level: Level) -> Tensor:
        """Patch tokens (N, T, width) in the teacher's space, (N, T, D)."""
        if level == "pixel":
            return self.projector(hidden)  # type: ignore[no-any-return]
        if level == "image":
            backbone = self.satellite_image_backbone
            return backbone.visual_projection(backbone.vision_model.post_layernorm(hidden))  # type: ignore[no-any-return]
        raise ModelMismatch(f"No level is called {level!r}; the levels are {' and '.join(LEVELS)}.")

    def _run(self, chips: Tensor) -> Any:
        """The backbone's output for chips of the right shape."""
        settings = self.settings
        expected = (len(settings.bands), settings.image_size, settings.image_size)
        if tuple(chips.shape[1:]) != expected:
            raise ModelMismatch(
                f"The encoder takes chips of the shape (N, {', '.join(map(str, expected))}) with the bands "
                f"{', '.join(settings.bands)}, but got {tuple(chips.shape)}."
            )
        return self.satellite_image_backbone(pixel_values=chips)


def _backbone_config(settings: EncoderSettings) -> CLIPVisionConfig:
    """Settings in transformers' words."""
    return CLIPVisionConfig(
        hidden_size=settings.width,
        intermediate_size=settings.width * settings.expansion,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        num_channels=len(settings.bands),
        projection_dim=settings.dim,
        hidden_act=settings.activation,
        attn_implementation="sdpa",
    )


# --- reading tokens at a place ----------------------------------------------------------------------------


def sample_tokens(
    tokens: Tensor,
    owner: Tensor,
    positions: Tensor,
    image_size: float,
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Tensor:
    """The vectors at places inside chips, between the centres of the patches.

    Token (i, j) stands at ((i + 0.5) · patch, (j + 0.5) · patch) px; beyond the outermost centres the border
    token holds. "nearest" takes the patch that contains the place, as the paper does (Eq. 2).

    Args:
        tokens: unit vectors, (N, D, h, w).
        owner: the chip of each place, (P,), integers in [0, N).
        positions: row and column of each place in px from the chip's top-left corner, (P, 2).
        image_size: the chips' width and height in px.
        mode: "bilinear" or "nearest".

    Returns:
        Unit vectors, (P, D), of the tokens' dtype.

    Raises:
        BadSetting: there is no such mode.
    """
    size = positions.new_tensor(tokens.shape[-2:])
    place = positions * (size / image_size)  # in patches; patch i reaches from i to i + 1
    if mode == "nearest":
        index = torch.minimum(place.floor().clamp(min=0), size - 1).long()
        return functional.normalize(_pick(tokens, owner, index), dim=-1)
    if mode != "bilinear":
        raise BadSetting(f"Tokens are read 'bilinear' or 'nearest', not {mode!r}.")
    place = torch.minimum((place - 0.5).clamp(min=0), size - 1)
    low = place.floor()
    share = (place - low).to(tokens.dtype)
    corners = (low.long(), torch.minimum(low + 1, size - 1).long())
    return functional.normalize(_blend(tokens, owner, corners, share), dim=-1)


def _blend(tokens: Tensor, owner: Tensor, corners: tuple[Tensor, Tensor], share: Tensor) -> Tensor:
    """The four tokens around each place, weighted by `share` (P, 2), the way from the low to the high corner."""
    result = tokens.new_zeros((len(owner), tokens.shape[1]))
    for down in (0, 1):
        for right in (0, 1):
            index = torch.stack([corners[down][:, 0], corners[right][:, 1]], dim=1)
            rows = share[:, 0] if down else 1 - share[:, 0]
            columns = share[:, 1] if right else 1 - share[:, 1]
            result = result + _pick(tokens, owner, index) * (rows * columns)[:, None]
    return result


def _pick(tokens: Tensor, owner: Tensor, index: Tensor) -> Tensor:
    """The tokens at rows and columns `index` (P, 2) of their chips, (P, D)."""
    return tokens[owner, :, index[:, 0], index[:, 1]]


# --- weights ----------------------------------------------------------------------------------------------


def load_strictly(module: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Copy weights into a module whose keys and shapes must be exactly theirs.

    Args:
        module: what receives the weights.
        weights: key to tensor.
        source: what the sentence of an error calls the weights.

    Raises:
        CheckpointMismatch: keys are missing or unknown, shapes differ, or a weight is not finite.
    """
    expected = module.state_dict()
    problems = [f"missing {key}" for key in expected if key not in weights]
    problems += [f"unknown {key}" for key in weights if key not in expected]
    problems += [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    ]
    problems += [f"{key} is not finite" for key, value in weights.items() if not torch.isfinite(value).all()]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointMismatch(f"{source} is of another architecture or damaged: {'; '.join(problems[:5])}{more}.")
    module.load_state_dict({key: value.to(expected[key].dtype) for key, value in weights.items()})


def init_from_clip(encoder: SatelliteEncoder, folder: str | Path) -> None:
    """Start an encoder's backbone from the image tower of a CLIP, as GRAFT does; the projector stays as it is.

    Args:
        encoder: of the CLIP's own shape (preset "vit-b-16" for CLIP ViT-B/16) with three bands.
        folder: a CLIP in transformers' format, or its name on the hub.

    Raises:
        UnknownModel: there is no such folder or name.
        CheckpointMismatch: the tower's keys or shapes are not the encoder's.
    """
    from geograft.models.clip import read_vision_tower

    load_strictly(encoder.satellite_image_backbone, read_vision_tower(folder), source=str(folder))
