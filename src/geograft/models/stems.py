"""The shape of an encoder of several sensors, and how a new sensor's patch embedding starts from a known one."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch
from geograft.models.satellite import EncoderSettings
from geograft.sensors import Sensor


@dataclasses.dataclass(frozen=True)
class SensorStem:
    """What an encoder of several sensors knows of one of them.

    Attributes:
        name: the sensor's.
        bands: band names in the order of the input channels.
        gsd: metres per pixel of its chips.
        image_size: chip width and height in px.
        patch_size: patch width and height in px; divides `image_size`.
    """

    name: str
    bands: tuple[str, ...]
    gsd: float
    image_size: int
    patch_size: int

    def __post_init__(self) -> None:
        """Refuse a ground sample distance that is none; the rest is checked with the encoder's shape."""
        if not (math.isfinite(self.gsd) and self.gsd > 0):
            raise BadSetting(f"The sensor {self.name} needs a ground sample distance above 0 m, not {self.gsd}.")

    @classmethod
    def of(cls, sensor: Sensor, *, image_size: int, patch_size: int, gsd: float | None = None) -> "SensorStem":
        """The stem of a sensor for chips and patches of given sizes, at the sensor's own gsd where None is given."""
        return cls(sensor.name, sensor.bands, sensor.gsd if gsd is None else gsd, image_size, patch_size)

    @property
    def grid(self) -> int:
        """Patches along one side of a chip."""
        return self.image_size // self.patch_size


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


def borrow_kernels(kernels: Tensor, known: Sequence[str], bands: Sequence[str], patch: int) -> Tensor:
    """The patch embedding that a sensor starts with, from that of another.

    A band that the other sensor has takes that band's kernel, any other band the mean of all kernels; all are scaled
    by the ratio of the numbers of bands, so that the sum over bands keeps its size. Patches of another size take
    kernels resampled by `resample_kernels`. With the same bands and patch the kernels are returned as they are.

    Args:
        kernels: the known patch embedding, (width, known bands, p, p).
        known: its bands, in order.
        bands: those of the new sensor, in order.
        patch: the new sensor's patch in px.

    Returns:
        (width, bands, patch, patch).
    """
    mean = kernels.mean(dim=1)
    picked = [kernels[:, list(known).index(band)] if band in known else mean for band in bands]
    scaled = torch.stack(picked, dim=1) * (len(known) / len(bands))
    return scaled if patch == kernels.shape[-1] else resample_kernels(scaled, patch)


def resample_kernels(kernels: Tensor, patch: int) -> Tensor:
    """Kernels for patches of another size that answer to resized patches as the old ones do to the original.

    With B the bilinear resize of a patch, they are the least-squares solution w' of <B x, w'> = <x, w> for all x:
    w' = pinv(B^T) w (the PI-resize of FlexiViT, Beyer et al. 2023). Exact where patches grow.

    Args:
        kernels: (width, bands, p, p).
        patch: the new size in px.

    Returns:
        (width, bands, patch, patch).
    """
    old = kernels.shape[-1]
    pixels = torch.eye(old * old, dtype=torch.float64).reshape(old * old, 1, old, old)
    resized = functional.interpolate(pixels, (patch, patch), mode="bilinear", align_corners=False, antialias=True)
    transposed = resized.reshape(old * old, patch * patch)  # row i is B applied to pixel i, so this is B^T
    inverse = torch.linalg.pinv(transposed).to(kernels.device)
    flat: Tensor = kernels.flatten(2).double() @ inverse.T
    return flat.reshape(*kernels.shape[:2], patch, patch).to(kernels.dtype)
