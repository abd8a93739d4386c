"""Exact search: the chips that fit a text, a photo or another chip best."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from geograft.errors import BadSetting, ModelMismatch, UnreadableScene
from geograft.models.model import Model
from geograft.raster import Scene
from geograft.tasks.embed import EMBEDDING_COLUMNS, chip_embeddings, embed_table, embedding_matrix, read_embeddings
from geograft.tasks.queries import DEFAULT_TEMPLATES, Query, encode_phrasings, parse_query
from geograft.tasks.sources import resolve_model

_ROWS_AT_A_TIME = 65_536


def search(
    source: Scene | str | Path | gpd.GeoDataFrame,
    query: str | Path | Query | NDArray[Any],
    *,
    model: Model | str | Path,
    k: int = 20,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    sensor: str | None = None,
    sheet: str | Path | None = None,
) -> gpd.GeoDataFrame:
    """The k chips that fit a query best, by exact comparison with every chip.

    Args:
        source: a table that `embed` wrote (a path or the table itself), or a scene, raster, folder or scene table,
            which is then embedded first.
        query: text (phrasings separated by commas, the best fitting one counts), a photo's path, or a chip's pixels.
        model: a model, its folder or its name.
        k: how many chips to return at most.
        templates: sentences around the phrasings, averaged.
        sensor: sensor of rasters whose file does not say it.
        sheet: where to write a picture of the hits with their scores.

    Returns:
        Rank (from 1), score (cosine), chip_id, scene and footprint of each hit, best first; CRS EPSG:4326.

    Raises:
        BadQuery: the text is empty or the chip has a wrong shape.
        BadSetting: k is below 1.
        ModelMismatch: the table was made by another model.
    """
    if k < 1:
        raise BadSetting(f"k is {k}; ask for at least 1 chip")
    network, parsed = resolve_model(model), parse_query(query)
    table = _chips_of(source, network, sensor)
    scores = rank_scores(embedding_matrix(table), query_vectors(network, parsed, templates=templates))
    hits = _best(table, scores, k)
    if sheet is not None:
        from geograft.tasks.sheets import hit_sheet

        hit_sheet(hits, Path(sheet), title=parsed.label)
    return hits


def query_vectors(model: Model, query: Query, *, templates: Sequence[str] = DEFAULT_TEMPLATES) -> NDArray[np.float32]:
    """Unit vectors that a query stands for, (T, D); several phrasings give several.

    Raises:
        NoTextEncoder: the query is text and the model's teacher knows none.
        UnreadableScene: the photo is no image.
    """
    if query.photo is not None:
        return model.teacher.encode_photos([_open_photo(query.photo)])
    if query.chip is not None:
        return chip_embeddings(model, query.chip[None])
    return encode_phrasings(model, query.phrasings, templates=templates)


def rank_scores(embeddings: NDArray[np.float16], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of every embedding (N, D) with the best fitting of some vectors (T, D), (N,)."""
    if embeddings.shape[1] != vectors.shape[1]:
        raise ModelMismatch(
            f"the table's embeddings have {embeddings.shape[1]} values, the query's {vectors.shape[1]}; "
            "search with the model that made the table"
        )
    scores = np.empty(len(embeddings), dtype=np.float32)
    for first in range(0, len(embeddings), _ROWS_AT_A_TIME):
        some = slice(first, first + _ROWS_AT_A_TIME)
        scores[some] = (embeddings[some].astype(np.float32) @ vectors.T).max(axis=1)
    return scores


def best_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows of the k highest scores, best first; equal scores in row order."""
    order: NDArray[np.int64] = np.argsort(-scores, kind="stable")[:k]
    return order


def _chips_of(source: Any, model: Model, sensor: str | None) -> gpd.GeoDataFrame:
    """The embedded chips of a table of embeddings, or of scenes embedded now."""
    if isinstance(source, gpd.GeoDataFrame):
        return source
    if not isinstance(source, Scene) and Path(source).suffix == ".parquet" and _is_embeddings(Path(source)):
        return read_embeddings(source, fingerprint=model.fingerprint)
    return embed_table(source, model=model, sensor=sensor)


def _is_embeddings(path: Path) -> bool:
    """Whether a Parquet file has the columns that `embed` writes; a damaged one has none."""
    try:
        return set(EMBEDDING_COLUMNS) <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return False


def _best(table: gpd.GeoDataFrame, scores: NDArray[np.float32], k: int) -> gpd.GeoDataFrame:
    rows = best_rows(scores, k)
    hits = table.iloc[rows].drop(columns=["embedding"]).reset_index(drop=True)
    hits.insert(0, "rank", np.arange(1, len(hits) + 1))
    hits.insert(1, "score", scores[rows])
    return hits


def _open_photo(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise UnreadableScene(f"{path} is no image that can be read; give a JPEG or PNG photo") from error
