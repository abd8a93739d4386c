"""What the bands of a scene mean: names, ground sample distance, scale and offset, nodata, statistics.

A sensor specification is a small YAML file, in `assets/sensors` or the user's own; nothing about bands, order or
scale is guessed. This module costs a few milliseconds to import, so that the command line may use it freely.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting, MissingInput, SensorMismatch, UnknownSensor


@dataclass(frozen=True)
class StacBands:
    """Where a STAC item keeps a sensor's bands.

    Attributes:
        assets: for each band the keys of the assets, or the common names of their bands, that hold it, best first;
            case does not count.
        collections: the collections that hold such scenes; items of any collection are read where empty.
        harmonise: whether scenes of another offset are moved onto the sensor's by whole DN as they are read, as
            Sentinel-2 needs, whose offset changed with the processing baseline 04.00; else they are refused.
    """

    assets: tuple[tuple[str, tuple[str, ...]], ...] = ()
    collections: tuple[str, ...] = ()
    harmonise: bool = False

    def __post_init__(self) -> None:
        """Take mappings and lists, as YAML and JSON give them."""
        pairs = self.assets.items() if isinstance(self.assets, Mapping) else self.assets
        named = tuple((band, (keys,) if isinstance(keys, str) else tuple(keys)) for band, keys in pairs)
        object.__setattr__(self, "assets", named)
        object.__setattr__(self, "collections", tuple(self.collections))


@dataclass(frozen=True)
class CloudMask:
    """Which asset of a STAC item says where clouds are, and how.

    Attributes:
        asset: its key, or the keys that it may have.
        classes: the values that are cloud, of a classification.
        bits: the bits of which one is set where there is cloud, of a quality band; the lowest is 0.
    """

    asset: tuple[str, ...]
    classes: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Take lists, and refuse a mask that says nothing, or says it twice."""
        object.__setattr__(self, "asset", (self.asset,) if isinstance(self.asset, str) else tuple(self.asset))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "bits", tuple(self.bits))
        if bool(self.classes) == bool(self.bits):
            raise BadSetting(f"The mask {self.asset[0]} needs the cloudy classes or the cloudy bits, one of both.")

    def cloudy(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where values of the mask mean cloud, any shape."""
        if self.classes:
            return np.asarray(np.isin(values, self.classes), np.bool_)
        flags = sum(1 << bit for bit in self.bits)
        return np.asarray((values.astype(np.int64) & flags) != 0, np.bool_)


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
        stac: where STAC items keep the bands, or None.
        mask: how the clouds of a STAC item are known, or None.
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
    stac: StacBands | None = field(default=None, compare=False)
    mask: CloudMask | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Take nested mappings, and refuse a specification that contradicts itself."""
        for name, kind in (("stac", StacBands), ("mask", CloudMask)):
            if isinstance(value := getattr(self, name), Mapping):
                object.__setattr__(self, name, kind(**value))
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
            empty = np.isnan(pixels) if np.isnan(self.nodata) else pixels == self.nodata
            values[np.broadcast_to(empty.all(axis=-3, keepdims=True), values.shape)] = 0
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


def get_sensor(name: str | Path | Sensor) -> Sensor:
    """The sensor of a name, or of a YAML file of the user's; a Sensor is passed through.

    The sensor of a file is called by the file's absolute path, so that every later stage finds it again.

    Raises:
        UnknownSensor: no specification has that name; the sentence lists the names.
        MissingInput: there is no such YAML file.
        BadSetting: the YAML file is no sensor specification; the sentence says why.
        SensorMismatch: the specification contradicts itself.
    """
    if isinstance(name, Sensor):
        return name
    if str(name).endswith((".yaml", ".yml")):
        return _own(Path(name).absolute())
    try:
        return _specifications()[str(name)]
    except KeyError:
        known = ", ".join(sensor_names())
        raise UnknownSensor(
            f"No sensor is called {str(name)!r}; the known ones are {known}. Your own is named by its file, my.yaml."
        ) from None


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


def _own(path: Path) -> Sensor:
    """The sensor of a user's YAML file; a file written anew is read anew."""
    try:
        about = path.stat()
    except OSError:
        raise MissingInput(f"There is no sensor file {path}: check the path.") from None
    return _read_own(path, about.st_mtime_ns)


@lru_cache(maxsize=32)
def _read_own(path: Path, modified: int) -> Sensor:  # noqa: ARG001 - a key of the cache
    """The sensor of a YAML file, called by its path."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise BadSetting(f"{path} must hold the fields of a sensor: see docs/data.md, Sensors.")
    try:
        _check_fields(values, path)
        return _parse({**values, "name": str(path)})
    except (TypeError, ValueError, AttributeError) as error:
        raise BadSetting(f"{path} is no sensor specification ({error}): see docs/data.md, Sensors.") from error


def _check_fields(values: dict[str, Any], path: Path) -> None:
    """Refuse fields that a sensor does not have, fields that are missing, and values of the wrong kind."""
    known = {each.name: each for each in fields(Sensor)}
    needed = {name for name, each in known.items() if each.default is MISSING} - {"name"}
    if wrong := sorted(set(values) - set(known)):
        raise BadSetting(f"{path} has the unknown fields {', '.join(wrong)}; a sensor has {', '.join(known)}.")
    if missing := sorted(needed - set(values)):
        raise BadSetting(f"{path} lacks the fields {', '.join(missing)}: see docs/data.md, Sensors.")
    for name in ("bands", "mean", "std", "display"):
        if not isinstance(values[name], list):
            raise BadSetting(f"{path}: {name} must be a list, not {values[name]!r}.")
    if np.dtype(str(values["dtype"])).kind not in "uif":
        raise BadSetting(f"{path}: dtype must be a numpy name such as uint16, not {values['dtype']!r}.")


def _parse(values: Mapping[str, Any]) -> Sensor:
    """A sensor of a YAML file's fields; lists become tuples, numbers floats, band names lower case."""
    found: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    found["bands"] = tuple(str(band).lower() for band in found["bands"])
    for name in ("gsd", "scale", "offset"):
        found[name] = float(found[name])
    for name in ("mean", "std", "display"):
        found[name] = tuple(float(value) for value in found[name])
    return Sensor(**found)
