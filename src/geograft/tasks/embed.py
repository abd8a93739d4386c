"""Embeddings of chips over whole scenes, as a table that search reads.

One row is one chip: where it lies, which scene it was cut from, its unit embedding (float16) and the fingerprint of
the model that made it, so that another model's query is refused.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geograft.errors import BadSetting, EmptyTable, ModelMismatch, SceneTooSmall, UnreadableScene
from geograft.models.model import Model
from geograft.models.satellite import Level
from geograft.raster import Scene
from geograft.tables import Manifest, check_output, track, write_manifest, write_table
from geograft.tasks.sources import iterate_scenes, resolve_model
from geograft.tasks.windows import Chips, View, chips, count_blocks, open_view

logger = logging.getLogger(__name__)

EMBEDDING_COLUMNS = ("chip_id", "model", "embedding", "geometry")
MIN_VALID = 0.5
"""Chips with less data than this share are left out."""


@dataclass(frozen=True)
class EmbedSummary:
    """What `embed` wrote.

    Attributes:
        out: the table.
        model: fingerprint of the model.
        done: chips embedded.
        skipped: counts of chips left out, by reason.
        failed: counts of scenes that could not be read, by reason.
    """

    out: str
    model: str
    done: int
    skipped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)


def embed(
    scenes: Scene | str | Path,
    out: str | Path,
    *,
    model: Model | str | Path,
    level: Level | None = None,
    stride: int | None = None,
    sensor: str | None = None,
) -> EmbedSummary:
    """Write a table of chip embeddings that covers scenes without a gap.

    Args:
        scenes: a scene, a raster, a folder of rasters or a scene table.
        out: GeoParquet file; its manifest lies beside it.
        model: a model, its folder or its name.
        level: which embedding a chip gets: "image", or the mean of its patches at "pixel"; "image" where the model
            has it, if None.
        stride: pixels from one chip to the next; a chip's size if None.
        sensor: sensor of rasters whose file does not say it.

    Raises:
        EmptyTable: no scene holds a chip with data.
        ModelMismatch: a scene lacks bands that the model needs, or the model lacks the level.
        SceneTooSmall: the only scene is smaller than a chip.
    """
    check_output(out, (".parquet",))
    network = resolve_model(model)
    skipped: dict[str, int] = {}
    failed: dict[str, int] = {}
    table = embed_table(scenes, model=network, level=level, stride=stride, sensor=sensor, counts=(skipped, failed))
    write_table(table, Path(out))
    counts = {"done": len(table), "skipped": skipped, "failed": failed}
    settings = {
        "level": level or network.levels[0],
        "stride": stride or network.chip_size,
        "model": network.fingerprint,
    }
    write_manifest(Path(out), Manifest(stage="embed", inputs={"scenes": str(scenes)}, settings=settings, counts=counts))
    return EmbedSummary(str(out), network.fingerprint, len(table), skipped, failed)


def embed_table(
    scenes: Scene | str | Path,
    *,
    model: Model,
    level: Level | None = None,
    stride: int | None = None,
    sensor: str | None = None,
    counts: tuple[dict[str, int], dict[str, int]] | None = None,
) -> gpd.GeoDataFrame:
    """The table of `embed`, in memory: chip_id, scene_id, uri, sensor, epsg, left, top, gsd, size, model, embedding.

    Raises:
        EmptyTable: no scene holds a chip with data.
    """
    skipped, failed = counts or ({}, {})
    step = check_stride(stride, model.chip_size)
    parts: list[gpd.GeoDataFrame] = []
    for scene_id, scene in iterate_scenes(scenes, sensor, failed=failed):
        try:
            view = open_view(scene, sensor=model.sensor, gsd=model.gsd, size=model.chip_size)
            parts.extend(list(_scene_parts(scene_id, view, model, level, step, skipped)))
        except SceneTooSmall:
            if _is_alone(scenes):
                raise
            skipped["scene-too-small"] = skipped.get("scene-too-small", 0) + 1
        except UnreadableScene as error:
            if _is_alone(scenes):
                raise
            logger.warning("%s skipped: %s", scene_id, error)
            failed["unreadable-scene"] = failed.get("unreadable-scene", 0) + 1
    if not parts:
        lost = ", ".join(f"{count} {reason}" for reason, count in {**skipped, **failed}.items())
        raise EmptyTable(f"{scenes} holds no chip with data ({lost or 'no chips at all'}): give other scenes.")
    return gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), geometry="geometry", crs=4326)


def _is_alone(scenes: Scene | str | Path) -> bool:
    """Whether one scene was named, whose error is the user's answer, rather than a folder or table of them."""
    return isinstance(scenes, Scene) or (Path(scenes).is_file() and Path(scenes).suffix.lower() != ".parquet")


def chip_embeddings(model: Model, pixels: NDArray[Any], *, level: Level | None = None) -> NDArray[np.float32]:
    """One unit vector per chip (N, D): the image level's, or the mean of the patches at the pixel level.

    Args:
        model: the model.
        pixels: native units of its sensor, (N, C, S, S).
        level: "image" or "pixel"; the first level that the model has, if None.

    Raises:
        ModelMismatch: the model lacks the level.
    """
    chosen = level or model.levels[0]
    if chosen == "image":
        return model.embed_chips(pixels)
    mean = model.dense(pixels, level="pixel").mean(axis=(2, 3))
    unit: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-12)
    return unit


def chip_rows(scene_id: str, view: View, cut: Chips, size: int) -> gpd.GeoDataFrame:
    """Where chips of a view lie: chip_id, scene_id, uri, sensor, epsg, left, top, gsd, size and footprint."""
    grid: GeoBox = view.grid
    corners = [grid.affine @ (int(c), int(r)) for r, c in zip(cut.rows, cut.columns, strict=True)]
    rows = pd.DataFrame(
        {
            "chip_id": [f"{scene_id}-{r}-{c}" for r, c in zip(cut.rows, cut.columns, strict=True)],
            "scene_id": scene_id,
            "uri": str(view.scene.path),
            "sensor": view.scene.sensor.name,
            "epsg": grid.crs.epsg,
            "left": [corner[0] for corner in corners],
            "top": [corner[1] for corner in corners],
            "gsd": abs(grid.affine.a),
            "size": size,
        }
    )
    return gpd.GeoDataFrame(rows, geometry=_footprints(grid, cut, size), crs=4326)


def read_embeddings(path: str | Path, *, fingerprint: str | None = None) -> gpd.GeoDataFrame:
    """A table that `embed` wrote.

    Raises:
        EmptyTable: it has no rows.
        MissingColumns: it is no table of embeddings.
        ModelMismatch: another model made it.
    """
    from geograft.tables import read_table

    table = read_table(Path(path))
    _check_columns(path, table)
    makers = set(table["model"].unique())
    if fingerprint is not None and makers != {fingerprint}:
        raise ModelMismatch(
            f"{path} holds embeddings of model {', '.join(sorted(makers))}, the query's model is {fingerprint}; "
            "search with that model, or embed the scenes again with this one."
        )
    return gpd.GeoDataFrame(table)


def embedding_matrix(table: pd.DataFrame) -> NDArray[np.float16]:
    """The column of embeddings as one matrix, (N, D)."""
    return np.stack(table["embedding"].to_list()).astype(np.float16, copy=False)


def check_stride(stride: int | None, size: int) -> int:
    """The pixels from one chip to the next: a chip's size if None.

    Raises:
        BadSetting: the stride is below 1.
    """
    if stride is not None and stride < 1:
        raise BadSetting(f"stride {stride} must be at least 1 pixel")
    return size if stride is None else stride


def _scene_parts(
    scene_id: str, view: View, model: Model, level: Level | None, step: int, skipped: dict[str, int]
) -> Iterator[gpd.GeoDataFrame]:
    """The rows of a scene, block by block."""
    size = model.chip_size
    blocks = chips(view, size=size, stride=step)
    for cut in track(blocks, f"embed {scene_id}", count_blocks(view, size=size, stride=step)):
        enough = cut.valid >= MIN_VALID
        if missing := int((~enough).sum()):
            skipped["mostly-nodata"] = skipped.get("mostly-nodata", 0) + missing
        if enough.any():
            kept = Chips(cut.pixels[enough], cut.valid[enough], cut.rows[enough], cut.columns[enough])
            yield _embed_block(scene_id, view, kept, model, level)


def _embed_block(scene_id: str, view: View, cut: Chips, model: Model, level: Level | None) -> gpd.GeoDataFrame:
    rows = chip_rows(scene_id, view, cut, model.chip_size)
    rows["model"] = model.fingerprint
    rows["embedding"] = list(chip_embeddings(model, cut.pixels, level=level).astype(np.float16))
    return rows


def _footprints(grid: GeoBox, cut: Chips, size: int) -> list[BaseGeometry]:
    return [
        grid[int(r) : int(r) + size, int(c) : int(c) + size].extent.to_crs(4326).geom
        for r, c in zip(cut.rows, cut.columns, strict=True)
    ]


def _check_columns(path: str | Path, table: pd.DataFrame) -> None:
    from geograft.errors import MissingColumns

    if missing := [name for name in EMBEDDING_COLUMNS if name not in table.columns]:
        raise MissingColumns(f"{path} lacks {', '.join(missing)}; make a table of embeddings with `geograft embed`")
    if table.empty:
        raise EmptyTable(f"{path} holds no embeddings")
