"""What the tasks accept as a model and as scenes: objects, paths, names and scene tables."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from geograft.errors import EmptyTable, GeograftError, MissingInput
from geograft.models.loading import load
from geograft.models.model import Model
from geograft.raster import Scene, open_scene
from geograft.sources.scenes import scene_of
from geograft.tables import read_schema, read_table

logger = logging.getLogger(__name__)

_NEEDED, _OPTIONAL = ("scene_id", "uri", "sensor"), ("assets", "mask_uri", "signer", "shift", "kind")

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2"})


def resolve_model(model: Model | str | Path) -> Model:
    """A model as it is, or loaded from whatever `geograft.load` takes."""
    return model if isinstance(model, Model) else load(model)


def resolve_scene(scene: Scene | str | Path, sensor: str | None = None) -> Scene:
    """A scene as it is, or opened from a path.

    Raises:
        MissingInput: the file does not exist.
    """
    return scene if isinstance(scene, Scene) else open_scene(scene, sensor=sensor)


def iterate_scenes(
    source: Scene | str | Path, sensor: str | None = None, *, failed: dict[str, int] | None = None
) -> Iterator[tuple[str, Scene]]:
    """Id and scene of everything that a source names.

    Args:
        source: a scene, a raster, a folder of rasters, or a scene table (Parquet with scene_id, uri, sensor).
        sensor: sensor of rasters whose file does not say it.
        failed: filled with counts by reason of scenes that a table or folder names and that cannot be opened.

    Raises:
        EmptyTable: the table or folder names no scene.
        MissingInput: the source does not exist.
    """
    if isinstance(source, Scene):
        yield _scene_id(source), source
        return
    path = Path(source)
    if not path.exists():
        raise MissingInput(f"{path} does not exist; give a raster, a folder of rasters or a scene table")
    if path.is_file() and path.suffix.lower() != ".parquet":
        yield path.stem, open_scene(path, sensor=sensor)
        return
    yield from _several(path, sensor, failed if failed is not None else {})


def _several(path: Path, sensor: str | None, failed: dict[str, int]) -> Iterator[tuple[str, Scene]]:
    rows = _table_rows(path) if path.is_file() else _folder_rows(path, sensor)
    if not rows:
        raise EmptyTable(f"{path} names no scene")
    for row in rows:
        try:
            scene = scene_of(row)
        except GeograftError as error:
            logger.warning("%s skipped: %s", row["uri"], error)
            failed["unreadable-scene"] = failed.get("unreadable-scene", 0) + 1
            continue
        yield str(row["scene_id"]), scene


def _table_rows(path: Path) -> list[dict[str, Any]]:
    names = [name for name in (*_NEEDED, *_OPTIONAL) if name in read_schema(path).names or name in _NEEDED]
    return list(pd.DataFrame(read_table(path, columns=names)).to_dict("records"))


def _folder_rows(path: Path, sensor: str | None) -> list[dict[str, Any]]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in RASTER_SUFFIXES)
    scenes = [file for file in files if not file.stem.endswith("_clouds")]
    return [{"scene_id": file.stem, "uri": str(file), "sensor": sensor} for file in scenes]


def _scene_id(scene: Scene) -> str:
    return Path(str(scene.path)).stem or "scene"
