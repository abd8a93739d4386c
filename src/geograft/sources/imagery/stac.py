"""Rows of STAC items: which assets hold a sensor's bands, where they lie, and what the item states about them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import shapely
import shapely.geometry
from affine import Affine
from odc.geo.geobox import GeoBox

from geograft.errors import (
    GeograftError,
    MissingAsset,
    NoGeoreference,
    SensorMismatch,
    UnknownSensor,
    UnreadableScene,
)
from geograft.raster import Scene, ground_gsd, open_assets, open_scene
from geograft.raster.globe import box_of, mended
from geograft.raster.remote import is_address, is_remote
from geograft.sensors import Sensor, get_sensor
from geograft.sources.imagery.files import is_raster, whole_share
from geograft.sources.imagery.rows import THREADS, SceneRow, SceneSettings, as_text, attempts, row_of
from geograft.sources.imagery.stac_items import Item, items_of
from geograft.tables import track

_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINE = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
_BASELINE_OFFSET = -0.1
"""The reflectance of DN 0 since Sentinel-2's processing baseline 04.00; it was 0 before."""


def is_stac(source: str) -> bool:
    """Whether a source is a STAC item, collection or catalogue, an API, or a table of items, by its name."""
    name = source.split("?", maxsplit=1)[0].lower()
    if name.endswith((".json", ".geojson", ".parquet")):
        return True
    return is_address(source) and "{" not in source and not is_raster(source)


def item_rows(
    source: str, sensor: str | None, settings: SceneSettings, failed: Counter[str]
) -> Iterator[SceneRow | GeograftError]:
    """What came of each item of a STAC source.

    Args:
        source: see `is_stac`.
        sensor: what the bands mean; its `stac` says which assets hold them.
        settings: what to search for, and the signer.
        failed: filled with counts by reason of what a server did not give.

    Raises:
        UnknownSensor: the sensor is not named.
        DownloadFailed: the server refuses, fails or does not answer.
    """
    if sensor is None:
        raise UnknownSensor(f"A STAC item does not say which bands to read: pass --sensor for {source}.")
    spec = get_sensor(sensor)
    collections = spec.stac.collections if spec.stac else ()
    items = track(items_of(source, settings, collections, failed), "Reading STAC items")
    threads = THREADS if is_remote(source) else 1
    return attempts(partial(item_row, sensor=spec, signer=settings.signer), items, threads=threads)


def item_row(item: Item, *, sensor: Sensor, signer: str | None = None) -> SceneRow:
    """The footprint and the row of an item.

    What the item states about grid, data type, scale and offset is believed until its files are read, which checks
    it; files of this machine, and those of items that state no grid, are opened now.

    Raises:
        MissingAsset: a band has no asset.
        NoGeoreference: the item has neither geometry nor bounding box.
        SensorMismatch: data type, scale or offset contradict the sensor.
        GeograftError: a file that has to be opened cannot be; see `open_assets`.
        UnreadableScene: the item breaks the standard so far that nothing can be made of it.
    """
    try:
        return _row(item, sensor, signer)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UnreadableScene(f"The item {item.get('id')} is no STAC item ({error!r}): leave it out.") from error


def _row(item: Item, sensor: Sensor, signer: str | None) -> SceneRow:
    """The row of an item."""
    footprint = _footprint(item)
    chosen = {band: _asset(item, band, sensor) for band in sensor.bands}
    shift = _shift(item, chosen, sensor)
    values = _grid(item, chosen) if any(is_remote(asset["href"]) for asset in chosen.values()) else None
    scene = _scene(item, chosen, sensor, signer, shift)
    if values is None or not _stated_order(chosen, sensor):
        values = row_of(scene(), "", 0.0)
    mask = _mask(item, sensor)
    one = _one_file(chosen)
    about = {
        "scene_id": "/".join(str(part) for part in (item.get("collection"), item.get("id")) if part),
        "uri": one or item["self"],
        "sensor": sensor.name,
        "taken": _taken(item.get("properties") or {}),
        "kind": "file" if one else "assets",
        "assets": None if one else as_text({band: asset["href"] for band, asset in chosen.items()}),
        "mask_uri": mask,
        "signer": signer,
        "shift": shift,
    }
    about["cloud_share"] = _cloud_share(item, mask, scene)
    return SceneRow(footprint, {**values, **about})


# --- assets -----------------------------------------------------------------------------------------------


def _asset(item: Item, band: str, sensor: Sensor) -> dict[str, Any]:
    """The asset that holds a band: by its key, else by the common name of its one band, else one of all bands."""
    assets = {str(key).lower(): asset for key, asset in item["assets"].items()}
    accepted = dict(sensor.stac.assets).get(band, ()) if sensor.stac else ()
    names = [name.lower() for name in (*accepted, band)]
    by_name = {_common(asset)[0]: asset for asset in assets.values() if len(_common(asset)) == 1}
    for name in names:
        if found := assets.get(name) or by_name.get(name):
            return dict(found)
    for asset in assets.values():
        if set(sensor.bands) <= set(_common(asset)):
            return dict(asset)
    raise MissingAsset(
        f"The item {item.get('id')} has no asset for {band} of {sensor.name} (it has {', '.join(assets) or 'none'}): "
        "name its key under `stac: assets:` in the sensor's YAML."
    )


def _common(asset: Mapping[str, Any]) -> tuple[str, ...]:
    """The common names of an asset's bands, or their names, lower case."""
    bands = asset.get("eo:bands") or asset.get("bands") or []
    names = [band.get("common_name") or band.get("eo:common_name") or band.get("name") or "" for band in bands if band]
    return tuple(str(name).lower() for name in names)


def _one_file(chosen: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The file that holds all bands, or None where there are several."""
    hrefs = {str(asset["href"]) for asset in chosen.values()}
    return hrefs.pop() if len(hrefs) == 1 and len(chosen) > 1 else None


def _stated_order(chosen: Mapping[str, Mapping[str, Any]], sensor: Sensor) -> bool:
    """Whether one file of all bands needs no opening: it states none, or states them in the sensor's order."""
    if _one_file(chosen) is None:
        return True
    stated = _common(next(iter(chosen.values())))
    return not set(sensor.bands) <= set(stated) or stated[: len(sensor.bands)] == sensor.bands


def _scene(
    item: Item, chosen: Mapping[str, Mapping[str, Any]], sensor: Sensor, signer: str | None, shift: int
) -> "partial[Scene]":
    """What opens the item's scene."""
    one = _one_file(chosen)
    if one is not None:
        return partial(_in_stated_order, one, chosen, sensor, signer, shift)
    files = {band: str(asset["href"]) for band, asset in chosen.items()}
    return partial(open_assets, item["self"], files, sensor, signer=signer, shift=shift)


def _in_stated_order(
    path: str, chosen: Mapping[str, Mapping[str, Any]], sensor: Sensor, signer: str | None, shift: int
) -> Scene:
    """The scene of one file, refused where the file does not name its bands and the item orders them otherwise."""
    scene = open_scene(path, sensor=sensor, signer=signer, shift=shift)
    stated = _common(next(iter(chosen.values())))
    numbers = [part.band for part in scene.parts] or scene.bands
    wrong = [
        band
        for band, number in zip(sensor.bands, numbers, strict=True)
        if band in stated and stated.index(band) != number - 1
    ]
    if wrong:
        raise SensorMismatch(
            f"{path} holds {', '.join(stated)} by its STAC item; {sensor.name} needs {', '.join(sensor.bands)} in this "
            "order, or band names in the file."
        )
    return scene


def _mask(item: Item, sensor: Sensor) -> str | None:
    """The address of the item's cloud mask, or None."""
    assets = {str(key).lower(): asset for key, asset in item["assets"].items()}
    keys = sensor.mask.asset if sensor.mask else ()
    return next((str(assets[key.lower()]["href"]) for key in keys if key.lower() in assets), None)


# --- what an item states ----------------------------------------------------------------------------------


def _footprint(item: Item) -> Any:
    """The item's outline in longitude and latitude, or its bounding box."""
    geometry, box = item.get("geometry"), item.get("bbox")
    try:
        if geometry is not None:
            shape = shapely.from_wkb(geometry) if isinstance(geometry, bytes) else shapely.geometry.shape(geometry)
            return (
                mended(shape) if shape.geom_type in {"Polygon", "MultiPolygon"} and not shape.is_empty else _boxed(box)
            )
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise NoGeoreference(
            f"The geometry of the item {item.get('id')} is broken ({error}): mend the item."
        ) from error
    if box is None:
        raise NoGeoreference(f"The item {item.get('id')} has neither a geometry nor a bounding box: leave it out.")
    return _boxed(box)


def _boxed(box: Any) -> Any:
    """The outline of an item's bounding box, of two or three dimensions."""
    values = list(box.values()) if isinstance(box, Mapping) else list(box)
    half = len(values) // 2
    return box_of([values[0], values[1], values[half], values[half + 1]])


def _taken(properties: Mapping[str, Any]) -> datetime | None:
    """When the item was taken: its time, else the start of its interval, UTC, or None."""
    for name in ("datetime", "start_datetime"):
        value = properties.get(name)
        try:
            found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value)) if value else None
        except ValueError:
            continue
        if found is not None:
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return None


def _grid(item: Item, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The grid of the finest band as the item states it, or None where it does not for every band."""
    boxes = [_geobox(item.get("properties") or {}, asset) for asset in chosen.values()]
    stated = [box for box in boxes if box is not None]
    if len(stated) < len(boxes):
        return None
    finest = min(stated, key=ground_gsd)
    height, width = finest.shape
    return {"epsg": finest.crs.epsg or 0, "gsd": ground_gsd(finest), "width": width, "height": height}


def _geobox(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> GeoBox | None:
    """An asset's grid by the projection extension, or None where it is not stated whole."""
    code, epsg, shape, transform = (
        asset.get(name) or properties.get(name) for name in ("proj:code", "proj:epsg", "proj:shape", "proj:transform")
    )
    code = code or (f"EPSG:{int(epsg)}" if epsg else None)
    if not code or shape is None or transform is None or len(shape) != 2 or len(transform) < 6:
        return None
    return GeoBox((int(shape[0]), int(shape[1])), Affine(*[float(value) for value in transform[:6]]), str(code))


def _cloud_share(item: Item, mask: str | None, scene: "partial[Scene]") -> float | None:
    """The cloudy share of a scene: as the item states it, else by a mask of this machine, else None."""
    stated = (item.get("properties") or {}).get("eo:cloud_cover")
    if isinstance(stated, (int, float)):
        return float(stated) / 100
    if mask is None or is_remote(mask) or not Path(mask).is_file():
        return None
    return whole_share(replace(scene(), mask_uri=mask))


# --- offsets ----------------------------------------------------------------------------------------------


def _shift(item: Item, chosen: Mapping[str, Mapping[str, Any]], sensor: Sensor) -> int:
    """What is added to every DN so that the sensor's offset holds: 0 unless the sensor harmonises.

    Raises:
        SensorMismatch: data type, scale or offset contradict the sensor, or bands contradict each other.
    """
    shifts = {_band_shift(item, band, asset, sensor) for band, asset in chosen.items()}
    if len(shifts) != 1:
        raise SensorMismatch(f"The bands of the item {item.get('id')} state several offsets: leave it out.")
    return shifts.pop()


def _band_shift(item: Item, band: str, asset: Mapping[str, Any], sensor: Sensor) -> int:
    """The shift of one band."""
    facts = _facts(asset, band)
    dtype, scale = facts.get("data_type"), facts.get("scale")
    if dtype is not None and dtype != sensor.dtype:
        raise SensorMismatch(f"{asset['href']} is {dtype}, but {sensor.name} is {sensor.dtype}: pass another --sensor.")
    if scale is not None and abs(scale - sensor.scale) > 1e-6 * sensor.scale:
        raise SensorMismatch(
            f"{asset['href']} has the scale {scale:g}, {sensor.name} {sensor.scale:g}: pass another --sensor."
        )
    harmonise = sensor.stac is not None and sensor.stac.harmonise
    offset = _offset(item, facts) if harmonise else facts.get("offset")
    if offset is None and not harmonise:
        return 0
    if offset is None:
        raise SensorMismatch(
            f"The item {item.get('id')} does not say which offset its DN have: it needs s2:processing_baseline or "
            "raster:bands."
        )
    moved = (offset - sensor.offset) / sensor.scale
    if abs(moved - round(moved)) > 1e-3 or (round(moved) and not harmonise):
        raise SensorMismatch(
            f"{asset['href']} has the offset {offset:g}, {sensor.name} {sensor.offset:g}: pass another --sensor."
        )
    return round(moved)


def _offset(item: Item, facts: Mapping[str, Any]) -> float | None:
    """The reflectance of DN 0 of a Sentinel-2 item's files, or None where the item does not say.

    Files whose offset was taken out, and products of baselines before 04.00, have none, whatever else the item
    states: catalogues copy `raster:bands` from one template to all items. Else what is stated holds, else the
    baseline's.
    """
    properties = item.get("properties") or {}
    if any(properties.get(name) is True for name in _APPLIED):
        return 0.0
    baseline = next((_number(properties[name]) for name in _BASELINE if properties.get(name)), None)
    if baseline is not None and baseline < 4:
        return 0.0
    stated = facts.get("offset")
    return stated if stated is not None or baseline is None else _BASELINE_OFFSET


def _facts(asset: Mapping[str, Any], band: str) -> dict[str, Any]:
    """What an asset states about a band: data_type, scale, offset; of STAC 1.0 or 1.1."""
    names, listed = _common(asset), asset.get("raster:bands") or asset.get("bands") or [{}]
    place = names.index(band) if band in names and len(listed) == len(names) else 0
    own = {key.removeprefix("raster:"): value for key, value in dict(listed[place] or {}).items() if value is not None}
    whole = {key: asset.get(key, asset.get(f"raster:{key}")) for key in ("data_type", "scale", "offset")}
    return {**{key: value for key, value in whole.items() if value is not None}, **own}


def _number(text: Any) -> float | None:
    """A baseline such as "05.09" as a number, or None."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
