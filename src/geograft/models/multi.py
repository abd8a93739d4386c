"""One encoder for several sensors and ground sample distances: a shared transformer, a stem a sensor.

Each sensor has its own patch embedding, since its bands and patches are its own; the transformer, the heads and the
positional encoding are shared. The ground sample distance conditions the positional encoding, and nothing else, so
that for a given sensor the whole encoder is a plain `SatelliteEncoder`: `MultiEncoder.at` bakes it.
"""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from geograft.errors import CheckpointMismatch, UnknownModel
from geograft.models.model import JOINT
from geograft.models.numerics import weights_digest
from geograft.models.positions import ScaleEmbeddings
from geograft.models.satellite import LEVELS, EncoderSettings, Level, SatelliteEncoder, load_strictly
from geograft.models.stems import MultiSettings, SensorStem
from geograft.tables import atomic

__all__ = [
    "MultiEncoder",
    "MultiSettings",
    "SensorStem",
    "SensorView",
    "bake",
    "load_multi",
    "save_multi",
]

FORMAT = 1
"""Version of the folder's layout."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ARCHITECTURE = "geograft-multi-encoder"

_EMBEDDINGS = "satellite_image_backbone.vision_model.embeddings."
"""Where a plain encoder keeps what this one has for each sensor."""


# --- encoder ----------------------------------------------------------------------------------------------


class _Embedded(nn.Module):
    """Stands where a backbone embeds pixels, and passes on tokens that were embedded already."""

    def forward(self, tokens: Tensor, **_: Any) -> Tensor:
        return tokens


class MultiEncoder(nn.Module):
    """Chips of several sensors in, unit vectors in the teacher's space out.

    Args:
        settings: the shape; weights are random until they are trained, read or taken from `start_from`.
    """

    def __init__(self, settings: MultiSettings) -> None:
        super().__init__()
        self.settings = settings
        self.embeddings = ScaleEmbeddings(settings)
        self.body = SatelliteEncoder(settings.plain(settings.sensors[0].name))
        self.body.satellite_image_backbone.vision_model.embeddings = _Embedded()

    def embed(self, chips: Tensor, *, sensor: str) -> Tensor:
        """One unit vector a chip (image level).

        Args:
            chips: normalised pixels of one sensor, (N, C, S, S).
            sensor: whose.

        Returns:
            (N, D).

        Raises:
            ModelMismatch: the encoder does not know the sensor, or its chips have another shape.
        """
        return functional.normalize(self._run(chips, sensor).image_embeds, dim=-1)

    def tokens(self, chips: Tensor, *, sensor: str, level: Level = "pixel") -> Tensor:
        """One unit vector a patch, (N, D, h, w), row 0 at the chip's top; arguments and errors as in `embed`."""
        return self.body.read_patches(self._run(chips, sensor).last_hidden_state[:, 1:], level=level)

    def both(self, chips: Tensor, *, sensor: str) -> tuple[Tensor, Tensor]:
        """`embed` and `tokens` of the same chips, by one pass of the transformer."""
        found = self._run(chips, sensor)
        patches = self.body.read_patches(found.last_hidden_state[:, 1:], level="pixel")
        return functional.normalize(found.image_embeds, dim=-1), patches

    def forward(
        self, chips: Tensor, *, sensor: str, level: Level | Literal["both"] = "image"
    ) -> Tensor | tuple[Tensor, Tensor]:
        """`embed` at the image level, `tokens` at the pixel level, or `both`."""
        if level == "both":
            return self.both(chips, sensor=sensor)
        if level == "image":
            return self.embed(chips, sensor=sensor)
        return self.tokens(chips, sensor=sensor, level=level)

    def at(self, sensor: str, *, gsd: float | None = None) -> SatelliteEncoder:
        """The plain encoder of one sensor: its stem and its positions fixed, which changes no result.

        Args:
            sensor: one of the encoder's.
            gsd: metres per pixel of the chips to come, where it is not the one that the sensor was trained at.

        Returns:
            A copy in evaluation mode, on the same device.

        Raises:
            ModelMismatch: the encoder does not know the sensor.
            BadSetting: the gsd is not above 0.
        """
        stem = self.settings.stem(sensor)
        if gsd is not None:
            stem = dataclasses.replace(stem, gsd=gsd)
        with torch.random.fork_rng(devices=[]):  # the weights that are overwritten take nothing from a training's draw
            plain = SatelliteEncoder(self.settings.plain(sensor))
        weights = {key: value.detach() for key, value in self.body.state_dict().items()}
        weights |= {f"{_EMBEDDINGS}{key}": value for key, value in self.embeddings.baked(stem).items()}
        load_strictly(plain, weights, source=f"The encoder at {sensor}")
        return plain.to(self.embeddings.class_embedding.device).eval()

    def start_from(self, encoder: SatelliteEncoder) -> None:
        """Begin as a plain encoder: GRAFT's of one sensor, or one started from CLIP.

        Transformer, heads and learnt positions are copied, and what depends on scale starts at zero. So a sensor with
        the encoder's bands, patch and grid begins as that encoder, if the first sensor has that grid too; others borrow
        its kernels (`stems.borrow_kernels`) and interpolate its positions.

        Args:
            encoder: of the same width, depth, heads and embedding length.

        Raises:
            CheckpointMismatch: the encoder is of another architecture.
        """
        own, theirs = (_transformer(shape) for shape in (self.body.settings, encoder.settings))
        if own != theirs:
            raise CheckpointMismatch(f"The encoder to start from has {theirs}, this one {own}: take the same shape.")
        weights = encoder.state_dict()
        body = {key: value for key, value in weights.items() if not key.startswith(_EMBEDDINGS)}
        load_strictly(self.body, body, source="The encoder to start from")
        embeddings = {key.removeprefix(_EMBEDDINGS): weights[key] for key in weights.keys() - body.keys()}
        self.embeddings.start_from(embeddings, encoder.settings.bands)

    def _run(self, chips: Tensor, sensor: str) -> Any:
        """The backbone's output for chips of a sensor."""
        return self.body.satellite_image_backbone(pixel_values=self.embeddings(chips, sensor))


class SensorView(nn.Module):
    """An encoder of several sensors as the chips of one see it: an `Encoder` with the weights of the whole, no copy.

    Args:
        whole: the encoder of several sensors; what is learnt through the view is learnt by it.
        sensor: whose chips the view takes.

    Raises:
        ModelMismatch: the encoder does not know the sensor.
    """

    def __init__(self, whole: MultiEncoder, sensor: str) -> None:
        super().__init__()
        self.settings = whole.settings.plain(sensor)
        self.whole, self.sensor = whole, sensor

    @property
    def satellite_image_backbone(self) -> nn.Module:
        """The shared transformer."""
        backbone: nn.Module = self.whole.body.satellite_image_backbone
        return backbone

    def embed(self, chips: Tensor) -> Tensor:
        """One unit vector a chip, (N, D)."""
        return self.whole.embed(chips, sensor=self.sensor)

    def tokens(self, chips: Tensor, *, level: Level = "pixel") -> Tensor:
        """One unit vector a patch, (N, D, h, w)."""
        return self.whole.tokens(chips, sensor=self.sensor, level=level)

    def forward(self, chips: Tensor, *, level: Level | Literal["both"] = "image") -> Tensor | tuple[Tensor, Tensor]:
        """`embed` at the image level, `tokens` at the pixel level, or both by one pass."""
        return self.whole(chips, sensor=self.sensor, level=level)  # type: ignore[no-any-return]


def _transformer(shape: EncoderSettings) -> dict[str, Any]:
    """What two encoders must have in common for one to start from the other."""
    names = ("dim", "width", "depth", "heads", "expansion", "activation")
    return {name: getattr(shape, name) for name in names}


# --- files ------------------------------------------------------------------------------------------------


def bake(
    encoders: Mapping[Level, MultiEncoder], sensor: str, *, gsd: float | None = None
) -> dict[Level, SatelliteEncoder]:
    """The plain encoders of one sensor, level by level, as `Model` takes them; arguments and errors as in `at`.

    An encoder that serves both levels is baked once and serves both.
    """
    plain = {id(encoder): encoder.at(sensor, gsd=gsd) for encoder in encoders.values()}
    return {level: plain[id(encoder)] for level, encoder in encoders.items()}


def save_multi(encoders: Mapping[Level, MultiEncoder], folder: str | Path) -> Path:
    """Write the weights for all sensors, of one or both levels, in float32, to go on training or to bake from.

    A model that is used is baked first (`bake`) and saved with `save_model`.

    Returns:
        The folder.

    Raises:
        CheckpointMismatch: a weight is not finite; nothing is written.
        DiskFull: the disk filled up.
    """
    folder = Path(folder)
    stored = _stored(encoders)
    weights = {
        f"{name}.{key}": value.detach().to("cpu", torch.float32).contiguous()
        for name, encoder in stored.items()
        for key, value in encoder.state_dict().items()
    }
    if broken := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise CheckpointMismatch(f"The encoder is not saved: {broken[0]} holds NaN or infinite values.")
    config = {
        "format": FORMAT,
        "architecture": ARCHITECTURE,
        "fingerprint": weights_digest(weights),
        "levels": list(encoders),
        "encoders": {name: encoder.settings.to_dict() for name, encoder in stored.items()},
    }
    contents = {WEIGHTS: save_tensors(weights), CONFIG: (json.dumps(config, indent=2) + "\n").encode()}
    with ExitStack() as renames:
        for name, content in contents.items():
            renames.enter_context(atomic(folder / name)).write_bytes(content)
    return folder


def _stored(encoders: Mapping[Level, MultiEncoder]) -> dict[str, MultiEncoder]:
    """The encoders by the names of their weights: those of the levels, or one that serves both."""
    if len(encoders) > len({id(encoder) for encoder in encoders.values()}):
        return {JOINT: next(iter(encoders.values()))}
    return {str(level): encoder for level, encoder in encoders.items()}


def load_multi(folder: str | Path) -> dict[Level, MultiEncoder]:
    """The encoders that `save_multi` wrote, level by level.

    Raises:
        UnknownModel: there is no such folder.
        CheckpointMismatch: it holds something else, another version, or files that do not belong together.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise UnknownModel(f"There is no encoder of several sensors in {folder}: it would hold a {CONFIG}.")
    config, weights = _read_files(folder)
    if config.get("architecture") != ARCHITECTURE or config.get("format") != FORMAT:
        raise CheckpointMismatch(f"{folder} holds no encoder of several sensors of the format {FORMAT}.")
    if weights_digest(weights) != config.get("fingerprint"):
        raise CheckpointMismatch(f"The files in {folder} do not belong together: copy the whole folder again.")
    return _read_levels(config, weights, folder)


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a folder."""
    try:
        config = dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        return config, load_tensors((folder / WEIGHTS).read_bytes())
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise CheckpointMismatch(f"{folder} is damaged ({error}): copy the folder again.") from error


def _read_levels(config: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path) -> dict[Level, MultiEncoder]:
    """The encoders of a configuration with their weights, every key accounted for."""
    levels, encoders = config.get("levels"), config.get("encoders")
    if not isinstance(levels, list) or not isinstance(encoders, dict) or set(levels) - set(LEVELS):
        raise CheckpointMismatch(f"{folder / CONFIG} names no levels and encoders: copy the folder again.")
    names = {level: JOINT if JOINT in encoders else level for level in LEVELS if level in levels}
    if strangers := {key.split(".")[0] for key in weights} ^ set(names.values()) | set(encoders) ^ set(names.values()):
        raise CheckpointMismatch(f"{folder} lacks {min(strangers)}, or has it for no level: copy the folder again.")
    built = {name: _read_encoder(name, values, weights, folder) for name, values in encoders.items()}
    return {level: built[name] for level, name in names.items()}


def _read_encoder(name: str, values: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path) -> MultiEncoder:
    """One of the encoders of a folder."""
    encoder = MultiEncoder(MultiSettings.from_dict(values))
    own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
    load_strictly(encoder, own, source=f"The encoder {name} of {folder}")
    return encoder.eval()
