"""The scene table: GeoTIFFs of a folder, or XYZ tiles, one row each, unusable ones counted by reason."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from rasterio.windows import Window

from geograft.errors import (
    BadSetting,
    EmptyTable,
    GeograftError,
    MissingInput,
    NoGeoreference,
    SensorMismatch,
    UnknownSensor,
    UnreadableScene,
)
from geograft.raster import Scene, cloud_mask_path, ground_gsd, open_scene
from geograft.raster.tiles import is_tiles, list_tiles, tile_at, tile_square
from geograft.tables import Manifest, check_output, track, write_manifest, write_table

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".tif", ".tiff", ".vrt"})
"""The scene files that a folder is searched for."""

COLUMNS = (
    "scene_id",
    "uri",
    "sensor",
    "taken",
    "epsg",
    "gsd",
    "width",
    "height",
    "kind",
    "cloud_share",
)
"""The columns of a scene table beside its geometry (the footprint, EPSG:4326)."""

_REASONS: tuple[tuple[type[GeograftError], str], ...] = (
    (NoGeoreference, "no-georeference"),
    (SensorMismatch, "sensor-mismatch"),
    (UnknownSensor, "unknown-sensor"),
    (UnreadableScene, "unreadable-scene"),
)


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are read.

    Attributes:
        zoom: the level of XYZ tiles, where the path does not say.
        bounds: west, south, east, north in degrees: what of remote tiles to use, since a server does not say what
            it covers.
    """

    zoom: int | None = None
    bounds: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse a zoom or bounds that no tiles have."""
        if self.zoom is not None and not 0 <= self.zoom <= 30:
            raise BadSetting(f"A zoom lies between 0 and 30, not {self.zoom}.")
        if self.bounds is None:
            return
        west, south, east, north = self.bounds
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise BadSetting(f"Bounds are west, south, east, north in degrees, not {list(self.bounds)}.")


@dataclass(frozen=True)
class SceneSummary:
    """What came of reading scenes.

    Attributes:
        out: the scene table.
        scenes: rows written.
        skipped: reason to count.
    """

    out: Path
    scenes: int
    skipped: dict[str, int]


def read_scenes(
    source: str | Path,
    out: str | Path,
    *,
    sensor: str | None = None,
    settings: SceneSettings | None = None,
) -> SceneSummary:
    """Read the footprints and facts of a folder's GeoTIFFs, of one file, or of XYZ tiles into a scene table.

    Cloud masks (`*_clouds.tif`) are counted into `cloud_share` of their scene. A file of a folder that cannot be
    used is skipped and counted by reason: `no-georeference`, `sensor-mismatch`, `unknown-sensor`,
    `unreadable-scene`.

    Args:
        source: a folder (searched through), a raster file, a tile folder or `…/{z}/{x}/{y}.jpg`, local or http(s).
        out: the GeoParquet to write; its manifest lies beside it.
        sensor: what the bands mean; files of another sensor are skipped. Each file must say where None.
        settings: see `SceneSettings`.

    Raises:
        MissingInput: there is no such source.
        EmptyTable: no scene is left; the sentence holds the first file's error.
        GeograftError: the one file or tile source that was named cannot be used.
        DiskFull: the disk filled up; nothing was left behind.
    """
    settings = settings or SceneSettings()
    check_output(out, (".parquet",))
    skipped: Counter[str] = Counter()
    if is_tiles(source):
        rows = [_tiles_row(source, sensor, settings)]
    elif Path(source).is_dir():
        rows = _folder_rows(Path(source), sensor, skipped)
    elif Path(source).is_file():
        rows = [_file_row(Path(source), Path(source).parent, sensor)]
    else:
        raise MissingInput(f"There is no folder, raster or tile template {source}: check the path.")
    table = pd.DataFrame([row[1] for row in rows], columns=list(COLUMNS))
    table["taken"] = pd.to_datetime(table["taken"], utc=True).astype("datetime64[us, UTC]")
    write_table(gpd.GeoDataFrame(table, geometry=[row[0] for row in rows], crs="EPSG:4326"), out)
    counts = {"done": len(rows), "skipped": dict(skipped), "failed": {}}
    write_manifest(out, Manifest("scenes", {"source": source}, {"sensor": sensor, **vars(settings)}, counts))
    return SceneSummary(Path(out), len(rows), dict(skipped))


def scene_of(row: Mapping[str, Any]) -> Scene:
    """The scene of a row of a scene table, opened once a process while it stays among the latest.

    Args:
        row: at least `uri` and `sensor`.

    Raises:
        GeograftError: the scene cannot be opened, or contradicts its row; see `open_scene`.
    """
    return open_scene(row["uri"], sensor=row["sensor"])


def _folder_rows(folder: Path, sensor: str | None, skipped: Counter[str]) -> list[tuple[Any, dict[str, Any]]]:
    """The rows of a folder's scenes, sorted by path; reasons are counted into `skipped`."""
    paths = sorted(path for path in folder.rglob("*") if _is_scene(path))
    rows = []
    first = "it holds no .tif or .vrt file"
    for path in track(paths, "Reading scenes"):
        try:
            rows.append(_file_row(path, folder, sensor))
        except tuple(kind for kind, _ in _REASONS) as error:
            first = str(error) if not skipped else first
            skipped[next(reason for kind, reason in _REASONS if isinstance(error, kind))] += 1
            logger.info("Scene skipped: %s", error)
    if not rows:
        raise EmptyTable(f"No scene of {folder} can be used: {first}")
    return rows


def _source_name(folder: Path) -> str:
    """The folder's name, which keeps ids of several sources apart; that of its parent where it is called scenes."""
    folder = folder.absolute()
    return folder.parent.name if folder.name == "scenes" else folder.name


def _is_scene(path: Path) -> bool:
    """Whether a file may be a scene: a raster that is no cloud mask and no hidden leftover."""
    named = path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    return named and not path.stem.endswith("_clouds") and path.is_file()


def _file_row(path: Path, folder: Path, sensor: str | None) -> tuple[Any, dict[str, Any]]:
    """The footprint and the row of one raster file."""
    scene = open_scene(path, sensor=sensor)
    _read_last_block(path)
    name = f"{_source_name(folder)}/{path.relative_to(folder).with_suffix('').as_posix()}"
    return scene.geobox.geographic_extent.geom, _row(scene, name, _cloud_share(path))


def _tiles_row(source: str | Path, sensor: str | None, settings: SceneSettings) -> tuple[Any, dict[str, Any]]:
    """The footprint and the row of a tile source: the union of its tiles, or the bounds of a remote one."""
    scene = open_scene(source, sensor=sensor, zoom=settings.zoom)
    tiles = list_tiles(scene.tiles)
    if tiles is not None:
        footprint = shapely.union_all([tile_square(scene.tiles, x, y) for x, y in tiles])
    else:
        footprint = shapely.box(*(settings.bounds or (-180, -85, 180, 85)))
    if tiles is not None and settings.bounds is not None:
        footprint = footprint.intersection(shapely.box(*settings.bounds))
    if footprint.is_empty:
        raise EmptyTable(f"No tile of {source} lies within the bounds {settings.bounds}: choose others.")
    row = _row(scene, _tiles_name(scene), 0.0)
    return footprint, row | {"gsd": ground_gsd(tile_at(scene.tiles, *footprint.centroid.coords[0]))}


def _tiles_name(scene: Scene) -> str:
    """A tile source's id: the last folder above the zoom that is not called tiles, and the zoom."""
    above = scene.path.split("{x}", maxsplit=1)[0].rstrip("/").split("/")
    name = next((part for part in reversed(above[:-1]) if part not in {"", "tiles"}), "tiles")
    return f"{name}-{scene.tiles.zoom}"


def _row(scene: Scene, scene_id: str, cloud_share: float) -> dict[str, Any]:
    """A scene's row of the table."""
    height, width = scene.geobox.shape
    return {
        "scene_id": scene_id,
        "uri": scene.path,
        "sensor": scene.sensor.name,
        "taken": scene.taken,
        "epsg": scene.geobox.crs.epsg or 0,
        "gsd": scene.gsd,
        "width": width,
        "height": height,
        "kind": scene.kind,
        "cloud_share": cloud_share,
    }


def _read_last_block(path: Path) -> None:
    """Read a scene's last block, which a file that was cut short does not have.

    Raises:
        UnreadableScene: it cannot be read.
    """
    try:
        with rasterio.open(path) as file:
            rows, columns = file.block_shapes[0]
            top, left = (file.height - 1) // rows * rows, (file.width - 1) // columns * columns
            file.read(1, window=Window(left, top, file.width - left, file.height - top))
    except rasterio.errors.RasterioError as error:
        raise UnreadableScene(f"{path} is cut short or damaged ({error}): fetch it again.") from error


def _cloud_share(path: Path) -> float:
    """The share of a scene's cloud mask that is cloud, from at most 1024 pixels a side; 0 without a mask."""
    mask = cloud_mask_path(path)
    if not mask.is_file():
        return 0.0
    with rasterio.open(mask) as file:
        shape = (min(1024, file.height), min(1024, file.width))
        return float(np.mean(file.read(1, out_shape=shape) == 1))
