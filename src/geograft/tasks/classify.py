"""Zero-shot classification: each chip, or each image of a folder, gets the class whose words fit it best."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from geograft.errors import EmptyTable, ModelMismatch
from geograft.models.model import Model
from geograft.models.satellite import Level
from geograft.raster import Scene
from geograft.tables import check_output, track, write_table
from geograft.tasks.embed import chip_embeddings, embed_table, embedding_matrix
from geograft.tasks.queries import DEFAULT_TEMPLATES, ClassVectors, encode_classes, parse_classes
from geograft.tasks.sources import resolve_model

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_BATCH = 256


def classify(
    source: Scene | str | Path | NDArray[Any],
    classes: str | Sequence[str],
    *,
    model: Model | str | Path,
    level: Level | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    sensor: str | None = None,
    stride: int | None = None,
    out: str | Path | None = None,
) -> pd.DataFrame:
    """The best fitting class of each chip, with the score of every class.

    Args:
        source: chips (N, C, S, S) in the units of the model's sensor; a scene, raster, folder of rasters or scene
            table, which is cut into chips without a gap; or a folder of plain images (JPEG, PNG), one chip each.
        classes: for example `"water; crops, farmland"`: classes by semicolon, phrasings by comma.
        model: a model, its folder or its name.
        level: which embedding a chip gets: "image", or the mean of its patches at "pixel"; "image" where the model
            has it, if None.
        templates: sentences around the phrasings, averaged.
        sensor: sensor of rasters whose file does not say it.
        stride: pixels from one chip of a scene to the next; a chip's size if None.
        out: Parquet file to write; GeoParquet where the chips have a place.

    Returns:
        chip_id, label, and one column of cosines per class; footprints too (a GeoDataFrame) for scenes.

    Raises:
        BadQuery: the class list is empty or names something twice.
        EmptyTable: the source holds no chip or image.
        ModelMismatch: bands or level that the model lacks.
    """
    if out is not None:
        check_output(out, (".parquet",))
    network = resolve_model(model)
    vectors = encode_classes(network, parse_classes(classes), templates=templates)
    table, embeddings = _embedded(source, network, level, sensor, stride)
    result = _with_scores(table, vectors.scores(embeddings), vectors)
    if out is not None:
        write_table(result, Path(out))
    return result


def _embedded(
    source: Any, model: Model, level: Level | None, sensor: str | None, stride: int | None
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """Rows without scores, and their embeddings."""
    if isinstance(source, np.ndarray):
        return _embedded_array(source, model, level)
    if not isinstance(source, Scene) and _is_image_folder(Path(source)):
        return _embedded_images(Path(source), model, level)
    table = embed_table(source, model=model, level=level, stride=stride, sensor=sensor)
    return table.drop(columns=["embedding"]), embedding_matrix(table).astype(np.float32)


def _embedded_array(
    pixels: NDArray[Any], model: Model, level: Level | None
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    if pixels.ndim != 4 or not len(pixels):
        raise EmptyTable(f"chips must be (N, bands, size, size) with N of at least 1, got {pixels.shape}")
    starts = range(0, len(pixels), _BATCH)
    parts = [chip_embeddings(model, pixels[first : first + _BATCH], level=level) for first in starts]
    return pd.DataFrame({"chip_id": [str(number) for number in range(len(pixels))]}), np.concatenate(parts)


def _embedded_images(folder: Path, model: Model, level: Level | None) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """Embeddings of plain images; unreadable ones are left out and said."""
    if absent := [band for band in model.sensor.bands if band not in {"red", "green", "blue"}]:
        raise ModelMismatch(
            f"images in {folder} hold red, green and blue only, but the model needs {', '.join(absent)} too; "
            "use a model of three bands, or scenes with these bands"
        )
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    for batch_names, batch in _image_batches(folder, model):
        names.extend(batch_names)
        parts.append(chip_embeddings(model, batch, level=level))
    if not names:
        raise EmptyTable(f"{folder} holds no image that can be read")
    return pd.DataFrame({"chip_id": names}), np.concatenate(parts)


def _image_batches(folder: Path, model: Model) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    for first in track(range(0, len(files), _BATCH), "classify images"):
        read = [(file, read_image(file, model)) for file in files[first : first + _BATCH]]
        good = [(str(file.relative_to(folder)), pixels) for file, pixels in read if pixels is not None]
        if good:
            yield [name for name, _ in good], np.stack([pixels for _, pixels in good])


def read_image(path: Path, model: Model) -> NDArray[np.float32] | None:
    """A plain image as a chip of a model of true-colour bands, (3, S, S); None if it cannot be read.

    The middle square is scaled to the model's chip size.
    """
    try:
        with Image.open(path) as image:
            square = ImageOps.fit(image.convert("RGB"), (model.chip_size, model.chip_size), Image.Resampling.BICUBIC)
    except (UnidentifiedImageError, OSError) as error:
        logger.warning("%s skipped: %s", path, error)
        return None
    order = [("red", "green", "blue").index(band) for band in model.sensor.bands]
    shown = np.asarray(square, dtype=np.float32).transpose(2, 0, 1)[order] / 255
    low, high = model.sensor.display
    native = (shown * (high - low) + low - model.sensor.offset) / model.sensor.scale
    return np.asarray(native, dtype=np.float32)


def _with_scores(table: pd.DataFrame, scores: NDArray[np.float32], vectors: ClassVectors) -> pd.DataFrame:
    """The table with label and one score column per class, footprints last."""
    names = np.array(vectors.names)
    result = table.copy()
    result.insert(1, "label", names[scores.argmax(axis=1)])
    taken = set(result.columns)
    for number, name in enumerate(vectors.names):
        result[name if name not in taken else f"{name} (score)"] = scores[:, number]
    if isinstance(table, gpd.GeoDataFrame):
        columns = [name for name in result.columns if name != "geometry"]
        result = result[[*columns, "geometry"]]
    return result


def _is_image_folder(path: Path) -> bool:
    return path.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*"))
