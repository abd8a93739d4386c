"""Scenes: a georeferenced raster, the files that hold its bands, and what they mean. Opening one reads no pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from geograft.errors import SensorMismatch, UnknownSensor
from geograft.raster import metadata, tiles
from geograft.raster.files import absolute, with_file
from geograft.raster.grids import ground_gsd
from geograft.sensors import Sensor, get_sensor


@dataclass(frozen=True)
class Part:
    """One band of a scene whose bands are read one by one.

    Attributes:
        path: the file that holds it.
        band: its number there, from 1.
        nodata: the DN that means no data, or None.
    """

    path: str
    band: int
    nodata: float | None = None


@dataclass(frozen=True)
class Scene:
    """A georeferenced raster and what its bands mean.

    Attributes:
        path: the file's path, a tile template or URL with `{x}` and `{y}`, or the address of a STAC item whose
            bands lie in several files.
        geobox: its grid; the finest one where the bands' differ.
        sensor: its bands.
        taken: when it was taken (UTC), or None where neither name nor tags say.
        nodata: the DN that means no data, or None.
        bands: the file's band numbers (from 1) in the sensor's order; empty where `parts` say it.
        parts: the bands one by one, in the sensor's order, where they lie in several files or differ in nodata.
        mask_uri: its cloud mask, or None: then the file beside it that is called so, if there is one.
        signer: the name of what signs its addresses, or None.
        shift: what is added to every DN that is read, so that the sensor's offset holds.
    """

    path: str
    geobox: GeoBox
    sensor: Sensor
    taken: datetime | None = None
    nodata: float | None = None
    bands: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    mask_uri: str | None = None
    signer: str | None = None
    shift: int = 0

    @property
    def kind(self) -> str:
        """`xyz` for map tiles, `assets` for bands in several files, else `file`."""
        if "{x}" in self.path:
            return "xyz"
        return "assets" if any(part.path != self.path for part in self.parts) else "file"

    @cached_property
    def gsd(self) -> float:
        """Metres per pixel on the ground, which may differ from the sensor's nominal value."""
        return ground_gsd(self.geobox)

    @cached_property
    def tiles(self) -> tiles.TileSource:
        """The tile source of a scene of kind `xyz`."""
        return tiles.find_tiles(self.path)


def open_scene(
    path: str | Path,
    *,
    sensor: str | Path | Sensor | None = None,
    zoom: int | None = None,
    signer: str | None = None,
    shift: int = 0,
) -> Scene:
    """Open a raster file, or XYZ tiles by their template or folder.

    Args:
        path: a raster that GDAL reads, local or on a server; `…/{z}/{x}/{y}.jpg` (local or http); or a folder of
            tiles.
        sensor: what its bands mean, by name or by a YAML file; where None the file must say so, by its tag
            `GEOGRAFT_SENSOR` or by band names, data type and resolution that fit exactly one known sensor.
        zoom: the level of XYZ tiles, where the path does not say.
        signer: the name of what signs the address (see `geograft.raster.signing`).
        shift: what is added to every DN that is read so that the sensor's offset holds.

    Raises:
        MissingInput: there is no such file.
        UnreadableScene: it is damaged or not a raster, or its server refuses or fails.
        NoGeoreference: it has no CRS or no transform.
        UnknownSensor: the sensor is not named and cannot be told, or has an unknown name.
        SensorMismatch: bands, data type or scale contradict the sensor.
    """
    wanted = None if sensor is None else get_sensor(sensor)
    if tiles.is_tiles(path):
        return replace(_open_tiles(path, wanted, zoom), signer=signer)
    scene = with_file(path, lambda file: _scene(file, path, wanted, shift), signer=signer)
    return replace(scene, signer=signer, shift=shift)


def open_assets(
    uri: str,
    assets: Mapping[str, str],
    sensor: str | Sensor,
    *,
    mask_uri: str | None = None,
    signer: str | None = None,
    shift: int = 0,
    taken: datetime | None = None,
) -> Scene:
    """Open a scene whose bands lie in several files, of one or several resolutions.

    Args:
        uri: what the scene is called by, such as its STAC item's address.
        assets: band name to the file that holds it.
        sensor: what the bands mean.
        mask_uri: its cloud mask, or None.
        signer: the name of what signs the addresses.
        shift: what is added to every DN so that the sensor's offset holds.
        taken: when it was taken (UTC).

    Raises:
        SensorMismatch: a band is missing, or its data type, scale or offset contradict the sensor.
        MissingInput: there is no such local file.
        UnreadableScene: a file is damaged, or its server refuses or fails.
        NoGeoreference: a file has no CRS or no transform.
    """
    found = get_sensor(sensor)
    if missing := [band for band in found.bands if band not in assets]:
        raise SensorMismatch(f"{uri} has no asset for {', '.join(missing)} of {found.name}: pass another --sensor.")
    stated = _stated(found, shift)
    files = {band: absolute(assets[band]) for band in found.bands}
    opened = [
        with_file(path, partial(_part, band=band, sensor=stated, path=path), signer=signer)
        for band, path in files.items()
    ]
    finest = min((geobox for _, geobox in opened), key=ground_gsd)
    parts = tuple(part for part, _ in opened)
    return Scene(uri, finest, found, taken, found.nodata, (), parts, mask_uri, signer, shift)


def _stated(sensor: Sensor, shift: int) -> Sensor:
    """A sensor with the offset that files state before they are shifted onto the sensor's own."""
    return replace(sensor, offset=sensor.offset + shift * sensor.scale) if shift else sensor


def _scene(file: Any, path: str | Path, wanted: Sensor | None, shift: int) -> Scene:
    """The scene of an open file."""
    geobox = metadata.file_geobox(file, path)
    sensor = wanted or metadata.infer_sensor(file, ground_gsd(geobox), path)
    bands = metadata.match_bands(file, _stated(sensor, shift), path)
    nodata = metadata.band_nodata(file, bands, sensor)
    taken = metadata.date_taken(Path(path).stem, file.tags())
    scene = Scene(absolute(path), geobox, sensor, taken, nodata[0], bands)
    if all(_same(value, nodata[0]) for value in nodata):
        return scene
    parts = tuple(Part(scene.path, band, value) for band, value in zip(bands, nodata, strict=True))
    return replace(scene, nodata=sensor.nodata, bands=(), parts=parts)


def _part(file: Any, band: str, sensor: Sensor, path: str) -> tuple[Part, GeoBox]:
    """One band of an open file, by name where the file has several, and its grid."""
    geobox = metadata.file_geobox(file, path)
    numbers = metadata.match_bands(file, replace(sensor, bands=(band,), mean=(0.0,), std=(1.0,)), path)
    return Part(path, numbers[0], metadata.band_nodata(file, numbers, sensor)[0]), geobox


def _same(one: float | None, other: float | None) -> bool:
    """Whether two nodata values mean the same; NaN is NaN."""
    return one == other or (one is not None and other is not None and one != one and other != other)  # noqa: PLR0124


def _open_tiles(path: str | Path, sensor: Sensor | None, zoom: int | None) -> Scene:
    """XYZ tiles as a scene; their sensor must be named."""
    if sensor is None:
        raise UnknownSensor(f"Tiles do not say what they show: pass --sensor for {path}, such as map-tiles.")
    if len(sensor.bands) != 3 or sensor.dtype != "uint8":
        raise SensorMismatch(f"Tiles are three bands of uint8, unlike {sensor.name}: pass --sensor map-tiles or rgb.")
    source = tiles.find_tiles(path, zoom)
    return Scene(source.address, tiles.tiles_geobox(source), sensor)
