"""The scene table: rasters, STAC items or map tiles, one row each, unusable ones counted by reason."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely

from geograft.errors import EmptyTable, GeograftError, MissingInput, UnreachableScene
from geograft.raster import Scene, ground_gsd, open_assets, open_scene
from geograft.raster.files import modified
from geograft.raster.remote import is_remote
from geograft.raster.tiles import is_tiles, list_tiles, tile_at, tile_square
from geograft.sensors import get_sensor
from geograft.sources.imagery import files as scene_files
from geograft.sources.imagery import stac, wmts
from geograft.sources.imagery.rows import (
    COLUMNS,
    THREADS,
    SceneRow,
    SceneSettings,
    attempts,
    reason_of,
    row_of,
    unwanted,
)
from geograft.tables import Manifest, check_output, track, write_manifest, write_table

__all__ = ["COLUMNS", "SceneSettings", "SceneSummary", "read_scenes", "scene_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneSummary:
    """What came of reading scenes.

    Attributes:
        out: the scene table.
        scenes: rows written.
        skipped: reason to count, of scenes that cannot be used or are not wanted.
        failed: reason to count, of scenes or parts of a catalogue that a server did not give; another run may.
    """

    out: Path
    scenes: int
    skipped: dict[str, int]
    failed: dict[str, int]


@dataclass
class _Counts:
    """What was left out so far, and the first error, for the sentence where nothing is left."""

    skipped: Counter[str]
    failed: Counter[str]
    first: str | None = None

    def leave_out(self, error: GeograftError) -> None:
        """Count a scene that cannot be used: as failed where another run may find its server well."""
        counts = self.failed if isinstance(error, UnreachableScene) else self.skipped
        counts[reason_of(error)] += 1
        self.first = self.first or str(error)
        logger.info("Scene left out: %s", error)


def read_scenes(
    source: str | Path,
    out: str | Path,
    *,
    sensor: str | None = None,
    settings: SceneSettings | None = None,
) -> SceneSummary:
    """Read the footprints and facts of rasters, of a STAC catalogue or API, or of map tiles into a scene table.

    A scene of several that cannot be used is skipped and counted by reason: `no-georeference`, `sensor-mismatch`,
    `unknown-sensor`, `unreadable-scene`, `missing-file`, `no-asset`, `duplicate-id`; so is one that the settings
    leave out: `outside-bounds`, `outside-datetime`, `cloudy`.

    Args:
        source: a folder (searched through), a raster file or its address, a pattern, a text file of paths and
            addresses; a STAC item, collection or catalogue (.json), API (an address) or stac-geoparquet (.parquet);
            a tile folder or `…/{z}/{x}/{y}.jpg`, local or http(s); a WMTS template or capabilities document.
        out: the GeoParquet to write; its manifest lies beside it.
        sensor: what the bands mean, by name or YAML file; files of another sensor are skipped. Each file must say
            where None; STAC items and tiles need it.
        settings: see `SceneSettings`.

    Raises:
        MissingInput: there is no such source.
        EmptyTable: no scene is left; the sentence holds the first scene's error.
        DownloadFailed: a catalogue's server refuses, fails or does not answer.
        GeograftError: the one file or tile source that was named cannot be used.
        DiskFull: the disk filled up; nothing was left behind.
    """
    settings = settings or SceneSettings()
    check_output(out, (".parquet",))
    if sensor is not None:
        sensor = get_sensor(sensor).name
    counts = _Counts(Counter(), Counter())
    rows = _kept(_results(str(source), sensor, settings, counts), settings, counts)
    if not rows:
        raise EmptyTable(f"No scene of {source} can be used: {counts.first or _left_out(counts)}")
    _write(rows, out)
    done = {"done": len(rows), "skipped": dict(counts.skipped), "failed": dict(counts.failed)}
    write_manifest(out, Manifest("scenes", {"source": str(source)}, {"sensor": sensor, **asdict(settings)}, done))
    return SceneSummary(Path(out), len(rows), dict(counts.skipped), dict(counts.failed))


def scene_of(row: Mapping[str, Any]) -> Scene:
    """The scene of a row of a scene table, opened once a process while it stays among the latest.

    Its files are opened here, and stay open for `read` and `cloud_share`; addresses that expire are signed.

    Args:
        row: a row by the names of the columns; `uri` and `sensor` are enough for scenes of one file.

    Raises:
        GeograftError: the scene cannot be opened, or contradicts its row; see `open_scene`.
    """
    values = tuple(_text(row, name) for name in ("uri", "sensor", "assets", "mask_uri", "signer"))
    shift, taken = (None if pd.isna(row.get(name)) else row.get(name) for name in ("shift", "taken"))
    files = json.loads(values[2]).values() if values[2] else (values[0] or "",)
    when = None if taken is None else pd.Timestamp(taken).to_pydatetime()
    return _opened(values, int(shift or 0), when, tuple(modified(file) for file in files))


@lru_cache(maxsize=256)
def _opened(
    values: tuple[str | None, ...],
    shift: int,
    taken: datetime | None,
    modified_: tuple[tuple[int, int], ...],  # noqa: ARG001 - files written anew are opened anew
) -> Scene:
    """The scene of a row's facts."""
    uri, sensor, assets, mask_uri, signer = values
    if assets is None:
        scene = open_scene(uri or "", sensor=sensor, signer=signer, shift=shift)
    else:
        scene = open_assets(uri or "", json.loads(assets), sensor or "", signer=signer, shift=shift)
    return replace(scene, mask_uri=mask_uri, taken=scene.taken or taken)


def _text(row: Mapping[str, Any], name: str) -> str | None:
    """A text of a row, None where it has none."""
    value = row.get(name)
    return value if isinstance(value, str) and value else None


# --- sources ----------------------------------------------------------------------------------------------


def _results(
    source: str, sensor: str | None, settings: SceneSettings, counts: _Counts
) -> Iterable[SceneRow | GeograftError]:
    """What came of each scene of a source, whatever its kind."""
    if wmts.is_wmts(source):
        return [_wmts_row(source, sensor, settings)]
    if is_tiles(source):
        return [_tiles_row(source, sensor, settings)]
    if stac.is_stac(source):
        return stac.item_rows(source, sensor, settings, counts.failed)
    if not (is_remote(source) or scene_files.is_pattern(source) or Path(source).exists()):
        raise MissingInput(f"There is no folder, raster, catalogue or tile template {source}: check the path.")
    named = scene_files.named_files(source)
    work = partial(scene_files.file_row, sensor=sensor, settings=settings)
    if named and named[0][1] == source:
        return [work(named[0])]
    if not named:
        counts.first = f"it holds no {', '.join(sorted(scene_files.SUFFIXES))} file"
    threads = THREADS if any(is_remote(path) for _, path in named) else 1
    results: Iterable[SceneRow | GeograftError] = track(
        attempts(work, named, threads=threads), "Reading scenes", len(named)
    )
    return results


def _kept(results: Iterable[SceneRow | GeograftError], settings: SceneSettings, counts: _Counts) -> list[SceneRow]:
    """The rows to write; everything else is counted."""
    rows, seen = [], set()
    for result in results:
        if isinstance(result, GeograftError):
            counts.leave_out(result)
            continue
        reason, key = unwanted(result, settings), (result.facts["scene_id"], result.facts["uri"])
        if reason is None and key in seen:
            reason = "duplicate-id"
        if reason is not None:
            counts.skipped[reason] += 1
            continue
        seen.add(key)
        rows.append(result)
    return rows


def _left_out(counts: _Counts) -> str:
    """Why nothing is left where no scene is broken."""
    said = ", ".join(f"{count} {reason}" for reason, count in {**counts.skipped, **counts.failed}.items())
    return f"{said}; choose other bounds, dates or clouds" if said else "it names none"


def _write(rows: list[SceneRow], out: str | Path) -> None:
    """Write the scene table."""
    table = pd.DataFrame([row.facts for row in rows], columns=list(COLUMNS))
    table["taken"] = pd.to_datetime(table["taken"], utc=True).astype("datetime64[us, UTC]")
    table["cloud_share"] = table["cloud_share"].astype("float64")
    table["shift"] = table["shift"].fillna(0).astype("int32")
    for name in ("assets", "mask_uri", "signer"):
        table[name] = table[name].astype("string")
    write_table(gpd.GeoDataFrame(table, geometry=[row.footprint for row in rows], crs="EPSG:4326"), out)


# --- tiles ------------------------------------------------------------------------------------------------


def _tiles_row(source: str, sensor: str | None, settings: SceneSettings) -> SceneRow:
    """The row of a tile source, whose footprint is the union of its tiles, or the bounds of a remote one."""
    scene = open_scene(source, sensor=sensor, zoom=settings.zoom, signer=settings.signer)
    tiles = list_tiles(scene.tiles)
    if tiles is None:
        return _tile_scene_row(scene, settings.area or shapely.box(-180, -85, 180, 85), _tiles_name(scene))
    outline = shapely.union_all([tile_square(scene.tiles, x, y) for x, y in tiles])
    if settings.area is not None:
        outline = outline.intersection(settings.area)
    if outline.is_empty:
        raise EmptyTable(f"No tile of {source} lies within the bounds {settings.bounds}: choose others.")
    return _tile_scene_row(scene, outline, _tiles_name(scene))


def _wmts_row(source: str, sensor: str | None, settings: SceneSettings) -> SceneRow:
    """The row of a layer of a WMTS."""
    layer = wmts.find_layer(source, settings)
    scene = open_scene(layer.template, sensor=sensor, zoom=settings.zoom, signer=settings.signer)
    outline = layer.footprint if settings.area is None else layer.footprint.intersection(settings.area)
    if outline.is_empty:
        raise EmptyTable(f"The layer {layer.name} has nothing within the bounds {settings.bounds}: choose others.")
    return _tile_scene_row(replace(scene, taken=layer.taken), outline, f"{layer.name}-{scene.tiles.zoom}")


def _tile_scene_row(scene: Scene, outline: Any, scene_id: str) -> SceneRow:
    """A tile source's row; its resolution is that of its middle."""
    gsd = ground_gsd(tile_at(scene.tiles, *outline.centroid.coords[0]))
    return SceneRow(outline, row_of(scene, scene_id, 0.0) | {"gsd": gsd})


def _tiles_name(scene: Scene) -> str:
    """A tile source's id: the last folder above the zoom that is not called tiles, and the zoom."""
    above = scene.path.split("{x}", maxsplit=1)[0].rstrip("/").split("/")
    name = next((part for part in reversed(above[:-1]) if part not in {"", "tiles"}), "tiles")
    return f"{name}-{scene.tiles.zoom}"
