"""What the bands of a scene mean: names, ground sample distance, scale and offset, nodata, statistics.

A sensor specification is a small YAML file in `assets/sensors`; nothing about bands, order or scale is
guessed. This module costs a few milliseconds to import, so that the command line may use it freely.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.errors import SensorMismatch, UnknownSensor


@dataclass(frozen=True)
class Sensor:
    """What the bands of a scene mean.

    A band's physical value is `scale * DN + offset`: reflectance or brightness, about 0 to 1.

    Attributes:
        name: short name, as in `--sensor`.
        bands: band names in file order, lower case.
        gsd: nominal ground sample distance in metres; a scene's own may differ.
        dtype: numpy name of the files' data type.
        scale: physical units per DN.
        offset: physical value of DN 0.
        nodata: the DN that means no data, or None.
        mean: mean physical value of each band.
        std: standard deviation of each band's physical value.
        display: the physical range that is shown as 0 to 255.
        description: one sentence for people.
    """

    name: str
    bands: tuple[str, ...]
    gsd: float
    dtype: str
    scale: float
    offset: float
    nodata: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    display: tuple[float, float]
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a specification that contradicts itself."""
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise SensorMismatch(f"Sensor {self.name}: bands, mean and std must have the same length.")
        if min(self.std) <= 0 or self.gsd <= 0 or self.display[0] >= self.display[1]:
            raise SensorMismatch(f"Sensor {self.name}: std, gsd and the display range must be positive.")

    def physical(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Physical values of native ones, any shape, float32; nodata is not treated."""
        return pixels.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def normalise(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Zero-mean, unit-variance values, as encoders take them.

        Args:
            pixels: native values, (..., C, H, W).

        Returns:
            float32, the same shape; a pixel that is nodata in all bands becomes 0, the mean.

        Raises:
            SensorMismatch: C is not this sensor's number of bands.
        """
        self._check(pixels)
        std = np.asarray(self.std, np.float32)
        gain = np.float32(self.scale) / std
        shift = (np.float32(self.offset) - np.asarray(self.mean, np.float32)) / std
        values = pixels.astype(np.float32)
        values *= gain[:, None, None]
        values += shift[:, None, None]
        if self.nodata is not None:
            empty = (pixels == self.nodata).all(axis=-3, keepdims=True)
            values *= ~empty
        return values

    def rgb(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """A picture for eyes, and for encoders of photos.

        Args:
            pixels: native values, (C, H, W).

        Returns:
            uint8 (H, W, 3): the red, green and blue bands, or the first band as grey where one is absent,
            stretched over the display range.

        Raises:
            SensorMismatch: C is not this sensor's number of bands.
        """
        self._check(pixels)
        low, high = self.display
        shown = self.physical(pixels[list(self.rgb_bands)])
        shown = np.clip((shown - low) * np.float32(255 / (high - low)), 0, 255)
        return np.ascontiguousarray(np.rint(shown).astype(np.uint8).transpose(1, 2, 0))

    @property
    def rgb_bands(self) -> tuple[int, int, int]:
        """The positions of red, green and blue; the first band three times where one is absent."""
        if not {"red", "green", "blue"} <= set(self.bands):
            return (0, 0, 0)
        return (self.bands.index("red"), self.bands.index("green"), self.bands.index("blue"))

    def _check(self, pixels: NDArray[Any]) -> None:
        """Refuse pixels of another number of bands."""
        if pixels.ndim < 3 or pixels.shape[-3] != len(self.bands):
            raise SensorMismatch(
                f"Sensor {self.name} has {len(self.bands)} bands ({', '.join(self.bands)}), "
                f"but the pixels have the shape {pixels.shape}; give (..., bands, rows, columns)."
            )


def sensor_names() -> tuple[str, ...]:
    """The names of the sensors that this package knows, sorted."""
    return tuple(sorted(_specifications()))


def get_sensor(name: str | Sensor) -> Sensor:
    """The sensor of a name; a Sensor is passed through.

    Raises:
        UnknownSensor: no specification has that name; the sentence lists the names.
    """
    if isinstance(name, Sensor):
        return name
    try:
        return _specifications()[name]
    except KeyError:
        known = ", ".join(sensor_names())
        raise UnknownSensor(f"No sensor is called {name!r}; the known ones are {known}.") from None


def measure(pixels: NDArray[Any], sensor: Sensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band's physical value: the `mean` and `std` of a specification.

    Args:
        pixels: native values, (N, C, H, W), of chips drawn over many places.
        sensor: gives scale, offset and nodata; pixels that are nodata in all bands do not count.

    Returns:
        Means and standard deviations, in band order, rounded to 4 digits.
    """
    sensor._check(pixels)  # noqa: SLF001
    bands = np.moveaxis(pixels, -3, 0).reshape(len(sensor.bands), -1)
    if sensor.nodata is not None:
        bands = bands[:, (bands != sensor.nodata).any(axis=0)]
    mean = bands.mean(axis=1, dtype=np.float64) * sensor.scale + sensor.offset
    std = bands.std(axis=1, dtype=np.float64) * sensor.scale
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


@cache
def _specifications() -> dict[str, Sensor]:
    """All specifications of the package, by name."""
    import yaml

    folder = resources.files("geograft") / "assets" / "sensors"
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".yaml")]
    sensors = [_parse(yaml.safe_load(text)) for text in texts]
    return {sensor.name: sensor for sensor in sensors}


def _parse(fields: dict[str, Any]) -> Sensor:
    """A sensor of a YAML file's fields; lists become tuples."""
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    return Sensor(**values)
