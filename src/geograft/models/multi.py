"""One encoder for several sensors and ground sample distances: a shared transformer, a stem a sensor.

Each sensor has its own patch embedding, since its bands and patches are its own; the transformer, the heads and the
positional encoding are shared. The ground sample distance conditions the positional encoding, and nothing else, so
that for a given sensor the whole encoder is a plain `SatelliteEncoder`: `MultiEncoder.at` bakes it.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from geograft.errors import BadSetting, CheckpointMismatch, MixedSensors, ModelMismatch, UnknownModel
from geograft.models.numerics import weights_digest
from geograft.models.positions import ScalePositions, resample_positions
from geograft.models.satellite import LEVELS, EncoderSettings, Level, SatelliteEncoder, load_strictly
from geograft.models.stems import SensorStem, borrow_kernels
from geograft.sensors import Sensor
from geograft.tables import atomic

FORMAT = 1
"""Version of the joint folder's layout."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ARCHITECTURE = "geograft-multi-encoder"

_EMBEDDINGS = "satellite_image_backbone.vision_model.embeddings."
"""Where a plain encoder keeps what this one has for each sensor."""


# --- settings ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MultiSettings:
    """The shape of an encoder of several sensors.

    Attributes:
        sensors: the stems; the learnt positions have the grid of the first one.
        dim: length of the embeddings, the teacher's.
        width: length of the tokens inside; a multiple of 4.
        depth: number of transformer layers.
        heads: attention heads; divides `width`.
        expansion: width of the feed-forward layers over `width`.
        activation: "gelu", or CLIP's "quick_gelu".
        unit: metres that count as one step of the metric encoding; a patch of the first sensor where 0.
    """

    sensors: tuple[SensorStem, ...]
    dim: int
    width: int
    depth: int
    heads: int
    expansion: int = 4
    activation: str = "gelu"
    unit: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built; set the unit."""
        names = [stem.name for stem in self.sensors]
        if not names or len(set(names)) < len(names):
            raise BadSetting(f"An encoder of several sensors needs at least one, each with its own name, not {names}.")
        if self.width % 4:
            raise BadSetting(f"A metric encoding needs a width that is a multiple of 4, not {self.width}.")
        if self.unit < 0:
            raise BadSetting(f"The unit of the metric encoding must be positive, not {self.unit} m.")
        if not self.unit:
            object.__setattr__(self, "unit", float(self.sensors[0].gsd * self.sensors[0].patch_size))
        for name in names:
            self.plain(name)

    @classmethod
    def like(cls, shape: EncoderSettings, sensors: Sequence[SensorStem]) -> "MultiSettings":
        """An encoder with the transformer of a plain encoder's shape, for these sensors."""
        return cls(tuple(sensors), shape.dim, shape.width, shape.depth, shape.heads, shape.expansion, shape.activation)

    def stem(self, sensor: str) -> SensorStem:
        """The stem of a sensor.

        Raises:
            ModelMismatch: the encoder does not know the sensor.
        """
        for stem in self.sensors:
            if stem.name == sensor:
                return stem
        known = ", ".join(stem.name for stem in self.sensors)
        raise ModelMismatch(f"The encoder knows no sensor {sensor}, only {known}: train it with that sensor too.")

    def plain(self, sensor: str) -> EncoderSettings:
        """The shape of the plain encoder that a sensor's chips meet.

        Raises:
            ModelMismatch: the encoder does not know the sensor.
        """
        stem = self.stem(sensor)
        return EncoderSettings(
            bands=stem.bands,
            dim=self.dim,
            image_size=stem.image_size,
            patch_size=stem.patch_size,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            expansion=self.expansion,
            activation=self.activation,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them."""
        stems = [{**dataclasses.asdict(stem), "bands": list(stem.bands)} for stem in self.sensors]
        return {**dataclasses.asdict(self), "sensors": stems}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MultiSettings":
        """The settings of `to_dict`'s values.

        Raises:
            CheckpointMismatch: a setting is missing, unknown or out of range.
        """
        try:
            stems = tuple(SensorStem(**{**stem, "bands": tuple(stem["bands"])}) for stem in values["sensors"])
            return cls(**{**values, "sensors": stems})
        except (KeyError, TypeError, BadSetting) as error:
            raise CheckpointMismatch(
                f"These are not the settings of an encoder of several sensors ({error})."
            ) from error


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
        first = settings.plain(settings.sensors[0].name)
        self.body = SatelliteEncoder(first)
        embeddings = self.body.satellite_image_backbone.vision_model.embeddings
        self.body.satellite_image_backbone.vision_model.embeddings = _Embedded()
        self.class_embedding = embeddings.class_embedding
        self.positions = ScalePositions(settings.width, first.grid, settings.unit)
        self.kernels = nn.ParameterList(
            torch.empty(settings.width, len(stem.bands), stem.patch_size, stem.patch_size).normal_(std=0.02)
            for stem in settings.sensors
        )

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

    def forward(self, chips: Tensor, *, sensor: str, level: Level = "image") -> Tensor:
        """`embed` at the image level, `tokens` at the pixel level."""
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
        with torch.no_grad():
            weights = {key: value.detach() for key, value in self.body.state_dict().items()} | {
                f"{_EMBEDDINGS}class_embedding": self.class_embedding.detach(),
                f"{_EMBEDDINGS}patch_embedding.weight": self._kernels(sensor).detach(),
                f"{_EMBEDDINGS}position_embedding.weight": self.positions(stem),
            }
        load_strictly(plain, weights, source=f"The encoder at {sensor}")
        return plain.to(self.class_embedding.device).eval()

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
        first, theirs = self.settings.plain(self.settings.sensors[0].name), encoder.settings
        if (own := _transformer(first)) != (other := _transformer(theirs)):
            raise CheckpointMismatch(f"The encoder to start from has {other}, this one {own}: take the same shape.")
        embeddings = encoder.satellite_image_backbone.vision_model.embeddings
        body = {key: value for key, value in encoder.state_dict().items() if not key.startswith(_EMBEDDINGS)}
        load_strictly(self.body, body, source="The encoder to start from")
        self.positions.forget_scale()
        with torch.no_grad():
            self.class_embedding.copy_(embeddings.class_embedding)
            self.positions.learnt.copy_(resample_positions(embeddings.position_embedding.weight, first.grid))
            kernels = embeddings.patch_embedding.weight
            for stem, mine in zip(self.settings.sensors, self.kernels, strict=True):
                mine.copy_(borrow_kernels(kernels, theirs.bands, stem.bands, stem.patch_size))

    def _kernels(self, sensor: str) -> Tensor:
        """The patch embedding of a known sensor, (width, C, patch, patch)."""
        kernels: Tensor = self.kernels[self.settings.sensors.index(self.settings.stem(sensor))]
        return kernels

    def _run(self, chips: Tensor, sensor: str) -> Any:
        """The backbone's output for chips of a sensor."""
        stem = self.settings.stem(sensor)
        expected = (len(stem.bands), stem.image_size, stem.image_size)
        if tuple(chips.shape[1:]) != expected:
            raise ModelMismatch(
                f"The encoder takes chips of {sensor} of the shape (N, {', '.join(map(str, expected))}) with the bands "
                f"{', '.join(stem.bands)}, but got {tuple(chips.shape)}."
            )
        kernels = self._kernels(sensor)
        patches = functional.conv2d(chips.to(kernels.dtype), kernels, stride=stem.patch_size)
        tokens = patches.flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(len(chips), 1, -1)
        embedded = torch.cat([whole, tokens], dim=1) + self.positions(stem)
        return self.body.satellite_image_backbone(pixel_values=embedded)


def _transformer(shape: EncoderSettings) -> dict[str, Any]:
    """What two encoders must have in common for one to start from the other."""
    names = ("dim", "width", "depth", "heads", "expansion", "activation")
    return {name: getattr(shape, name) for name in names}


def check_sensors(encoder: nn.Module, sensors: Iterable[Sensor]) -> None:
    """Refuse pairs of several sensors for an encoder that cannot tell them apart.

    Args:
        encoder: what is to be trained.
        sensors: those of the pairs.

    Raises:
        MixedSensors: they are several, and the encoder is one of a single sensor.
        ModelMismatch: the encoder does not know one of them.
    """
    names = list(dict.fromkeys(sensor.name for sensor in sensors))
    if isinstance(encoder, MultiEncoder):
        for name in names:
            encoder.settings.stem(name)
    elif len(names) > 1:
        raise MixedSensors(
            f"The pairs are of the sensors {', '.join(names)}, but a plain encoder has one stem and knows no scale: "
            "train an encoder of several sensors (docs/scales.md), or one encoder a sensor."
        )


# --- files ------------------------------------------------------------------------------------------------


def bake(
    encoders: Mapping[Level, MultiEncoder], sensor: str, *, gsd: float | None = None
) -> dict[Level, SatelliteEncoder]:
    """The plain encoders of one sensor, level by level, as `Model` takes them; arguments and errors as in `at`."""
    return {level: encoder.at(sensor, gsd=gsd) for level, encoder in encoders.items()}


def save_multi(encoders: Mapping[Level, MultiEncoder], folder: str | Path) -> Path:
    """Write the joint weights of one or both levels in float32, to go on training or to bake from.

    A model that is used is baked first (`bake`) and saved with `save_model`.

    Returns:
        The folder.

    Raises:
        CheckpointMismatch: a weight is not finite; nothing is written.
        DiskFull: the disk filled up.
    """
    folder = Path(folder)
    weights = {
        f"{level}.{key}": value.detach().to("cpu", torch.float32).contiguous()
        for level, encoder in encoders.items()
        for key, value in encoder.state_dict().items()
    }
    if broken := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise CheckpointMismatch(f"The encoder is not saved: {broken[0]} holds NaN or infinite values.")
    levels = {level: encoder.settings.to_dict() for level, encoder in encoders.items()}
    config = {"format": FORMAT, "architecture": ARCHITECTURE, "fingerprint": weights_digest(weights), "levels": levels}
    contents = {WEIGHTS: save_tensors(weights), CONFIG: (json.dumps(config, indent=2) + "\n").encode()}
    with ExitStack() as renames:
        for name, content in contents.items():
            renames.enter_context(atomic(folder / name)).write_bytes(content)
    return folder


def load_multi(folder: str | Path) -> dict[Level, MultiEncoder]:
    """The encoders of a joint folder, level by level.

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
    return _read_levels(config.get("levels", {}), weights, folder)


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a joint folder."""
    try:
        config = dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        return config, load_tensors((folder / WEIGHTS).read_bytes())
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise CheckpointMismatch(f"{folder} is damaged ({error}): copy the folder again.") from error


def _read_levels(levels: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path) -> dict[Level, MultiEncoder]:
    """The encoders of a configuration with their weights, every key accounted for."""
    found: dict[Level, MultiEncoder] = {}
    if strangers := set(levels) - set(LEVELS) | {key.split(".")[0] for key in weights} - set(levels):
        raise CheckpointMismatch(f"{folder} has the unknown level {min(strangers)}.")
    for level in LEVELS:
        if level in levels:
            found[level] = MultiEncoder(MultiSettings.from_dict(levels[level]))
            own = {key.removeprefix(f"{level}."): v for key, v in weights.items() if key.startswith(f"{level}.")}
            load_strictly(found[level], own, source=f"The {level} level of {folder}")
            found[level].eval()
    return found
