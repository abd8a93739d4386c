"""What an open raster file says about itself: grid, band names, sensor, date. Nothing is guessed."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from geograft.errors import NoGeoreference, SensorMismatch, UnknownSensor
from geograft.sensors import Sensor, get_sensor, sensor_names

SENSOR_TAG = "GEOGRAFT_SENSOR"
"""The file tag that names the sensor."""

_COLOURS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")


def open_raster(path: str | Path) -> Any:
    """An open dataset, whose bands count as alpha only where the file means it.

    GDAL marks the fourth of four 8-bit bands as alpha unless its writer says otherwise, so a near infrared band
    often carries that mark; a band with another description is no alpha band, and must not mask the others.
    """
    file = rasterio.open(path)
    marked = [text for text, colour in _described(file) if colour == ColorInterp.alpha]
    if all(text in {"", "alpha"} for text in marked):
        return file
    with file, MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(file, memory.name, driver="VRT")
        text = memory.read().decode("utf-8")
    return rasterio.open(text.replace("<ColorInterp>Alpha<", "<ColorInterp>Undefined<"))


def _described(file: Any) -> list[tuple[str, ColorInterp]]:
    """Each band's description, lower case, and its colour mark."""
    texts = [(text or "").strip().lower() for text in file.descriptions]
    return list(zip(texts, file.colorinterp, strict=True))


def file_geobox(file: Any, path: str | Path) -> GeoBox:
    """The grid of an open file.

    Raises:
        NoGeoreference: it has no CRS or no transform.
    """
    if file.crs is None and file.gcps[0]:
        raise NoGeoreference(f"{path} has ground control points only: gdalwarp it onto a grid, -t_srs EPSG:<code>.")
    if file.crs is None:
        raise NoGeoreference(
            f"{path} has no coordinate reference system: write it with gdal_translate -a_srs EPSG:<code>."
        )
    if file.transform.is_identity:
        raise NoGeoreference(
            f"{path} has no transform from pixels to the ground: write it with gdal_translate -a_ullr."
        )
    return GeoBox((file.height, file.width), file.transform, _crs(file.crs))


def _crs(crs: Any) -> str:
    """A file's CRS by its EPSG code where that means exactly the same, else by its definition."""
    code = crs.to_epsg()
    same = code is not None and CRS.from_epsg(code) == crs
    return f"EPSG:{code}" if same else str(crs.to_wkt())


def band_names(file: Any) -> dict[int, str | None]:
    """The colour bands of an open file: number (from 1) to lower-case name, None where the file does not say.

    Alpha bands are left out.
    """
    described = enumerate(_described(file), start=1)
    return {number: text or _COLOURS.get(colour) for number, (text, colour) in described if colour != ColorInterp.alpha}


def infer_sensor(file: Any, gsd: float, path: str | Path) -> Sensor:
    """The sensor that a file names by its tag, or the only one whose names, type and resolution fit.

    Raises:
        UnknownSensor: none fits, or several do.
    """
    tag = file.tags().get(SENSOR_TAG)
    if tag:
        return get_sensor(tag)
    names = tuple(band_names(file).values())
    fitting = [name for name in sensor_names() if _fits(get_sensor(name), names, file.dtypes[0], gsd)]
    if len(fitting) == 1:
        return get_sensor(fitting[0])
    why = f"{' and '.join(fitting)} fit" if fitting else "none is known that fits"
    raise UnknownSensor(
        f"{path} does not say which sensor took it ({why} {len(names)} bands of {file.dtypes[0]} at {gsd:.3g} m): "
        f"pass --sensor with one of {', '.join(sensor_names())}."
    )


def _fits(sensor: Sensor, names: tuple[str | None, ...], dtype: str, gsd: float) -> bool:
    """Whether a file's own words are those of a sensor, at a resolution within a factor of 1.5."""
    return names == sensor.bands and dtype == sensor.dtype and 2 / 3 <= gsd / sensor.gsd <= 1.5


def match_bands(file: Any, sensor: Sensor, path: str | Path) -> tuple[int, ...]:
    """The file's band numbers in the sensor's order.

    By name where the file names all of the sensor's bands; in order where it has as many, and those that it names
    stand in the sensor's order or are none of the sensor's.

    Raises:
        SensorMismatch: bands, data type, scale or offset contradict the sensor.
    """
    names = band_names(file)
    numbers = {name: number for number, name in reversed(names.items())}
    if all(band in numbers for band in sensor.bands):
        chosen = tuple(numbers[band] for band in sensor.bands)
    elif len(names) == len(sensor.bands) and _in_order(tuple(names.values()), sensor.bands):
        chosen = tuple(names)
    else:
        found = ", ".join(name or "unnamed" for name in names.values())
        raise SensorMismatch(
            f"{path} has the bands {found}; sensor {sensor.name} needs {', '.join(sensor.bands)}. "
            "Pass another --sensor, or write a file with these bands."
        )
    _check_values(file, chosen, sensor, path)
    return chosen


def _in_order(names: tuple[str | None, ...], bands: tuple[str, ...]) -> bool:
    """Whether no band stands where another is needed: RGB files often leave the fourth band without a name."""
    known = [(name, band) for name, band in zip(names, bands, strict=True) if name in bands]
    return all(name == band for name, band in known) and (not known or all(n is None or n in bands for n in names))


def band_nodata(file: Any, bands: tuple[int, ...], sensor: Sensor) -> tuple[float | None, ...]:
    """The DN of each band that means no data: the file's, where it states one for any band, else the sensor's."""
    stated = tuple(file.nodatavals[band - 1] for band in bands)
    return stated if any(value is not None for value in stated) else (sensor.nodata,) * len(bands)


def _check_values(file: Any, bands: tuple[int, ...], sensor: Sensor, path: str | Path) -> None:
    """Refuse another data type, scale or offset than the sensor's; a file that states none is believed."""
    for band in bands:
        dtype, scale, offset = file.dtypes[band - 1], file.scales[band - 1], file.offsets[band - 1]
        if file.colorinterp[band - 1] == ColorInterp.palette:
            raise SensorMismatch(
                f"{path} holds numbers of a colour table, not {sensor.name}: write it with gdal_translate -expand rgb."
            )
        if dtype != sensor.dtype:
            raise SensorMismatch(
                f"{path} is {dtype}, but {sensor.name} is {sensor.dtype}: pass another --sensor, or convert the file."
            )
        if (scale, offset) == (1.0, 0.0):
            continue
        if abs(scale - sensor.scale) > 1e-6 * sensor.scale or abs(offset - sensor.offset) > 1e-6:
            raise SensorMismatch(
                f"{path} states scale {scale:g} and offset {offset:g}; sensor {sensor.name} has "
                f"{sensor.scale:g} and {sensor.offset:g}. Pass another --sensor."
            )


def date_taken(stem: str, tags: dict[str, str]) -> datetime | None:
    """When a scene was taken (UTC): the date in its name, or else `TIFFTAG_DATETIME`.

    The name comes first, since many programs write the day of processing into the tag; where both say the same
    day, the tag adds the hour. A year alone is no date.
    """
    tagged = _parse_tag(tags.get("TIFFTAG_DATETIME", ""))
    match = _DATE.search(stem)
    if match is None:
        return tagged
    try:
        named = datetime(int(match[1]), int(match[3]), int(match[4]), tzinfo=UTC)
    except ValueError:
        return tagged
    return tagged if tagged and tagged.date() == named.date() else named


def _parse_tag(text: str) -> datetime | None:
    """A TIFF or ISO date, UTC where it states no zone, or None."""
    for form in ("%Y:%m:%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"):
        try:
            found = datetime.strptime(text.strip(), form)  # noqa: DTZ007
        except ValueError:
            continue
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return None
