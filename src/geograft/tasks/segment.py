"""Open-vocabulary maps: every pixel of a scene gets the class whose words fit it best.

The scene is covered by overlapping chips. Each chip's patch embeddings are scored against the class words, the scores
are brought to the pixel grid bilinearly, and overlapping chips are blended with a smooth weight that falls towards
the chip's border, where an encoder sees least context. Chips lie on one grid over the whole scene, so the result does
not depend on the windows in which it is computed.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geograft.errors import BadSetting
from geograft.models.model import Model
from geograft.models.satellite import Level
from geograft.raster import Scene, write_cog
from geograft.tables import track
from geograft.tasks.colours import class_colours
from geograft.tasks.queries import DEFAULT_TEMPLATES, ClassQuery, ClassVectors, encode_classes, parse_classes
from geograft.tasks.sources import resolve_model, resolve_scene
from geograft.tasks.windows import Chips, View, chip_starts, open_view, slice_chips

logger = logging.getLogger(__name__)

Scorer = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Turns chips (N, C, S, S) into class scores on any coarser grid (N, K, h, w)."""

_IN_MEMORY = 2**27
"""Bytes above which a map is kept in a temporary file instead of in memory."""


@dataclass(frozen=True)
class ClassMap:
    """A map of classes.

    Attributes:
        labels: class of each pixel, (H, W) uint8: 1 for the first class, 0 where the scene holds no data.
        scores: cosine of the winning class, (H, W) float16; NaN where there is no data.
        geobox: where the pixels lie.
        classes: class names, K of them.
        colours: colour of each class, (R, G, B).
        tags: what made the map, written into the file's metadata.
    """

    labels: NDArray[np.uint8]
    scores: NDArray[np.float16]
    geobox: GeoBox
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    tags: dict[str, str] = field(default_factory=dict)

    def to_cog(self, path: str | Path, *, scores: str | Path | None = None) -> Path:
        """Write a cloud-optimised GeoTIFF with a colour table and class names, which QGIS opens coloured.

        Args:
            path: the file of classes.
            scores: a second file with the winning class's cosine, uint8 with scale and offset, if wanted.

        Raises:
            DiskFull: nothing is left under either name.
        """
        names = dict(enumerate(("no data", *self.classes)))
        colours = dict(enumerate(((0, 0, 0), *self.colours)))
        write_cog(
            Path(path), self.labels, self.geobox, nodata=0, band_names=("class",), colours=colours, categories=names,
            tags=self.tags,
        )  # fmt: skip
        if scores is not None:
            self._write_scores(Path(scores))
        return Path(path)

    def picture(self) -> NDArray[np.uint8]:
        """The map in its colours, (H, W, 3) uint8; no data is black."""
        palette = np.array([(0, 0, 0), *self.colours], dtype=np.uint8)
        return palette[self.labels]

    def shares(self) -> dict[str, float]:
        """Share of the pixels with data that each class takes."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes) + 1)[1:]
        total = max(int(counts.sum()), 1)
        return {name: float(count / total) for name, count in zip(self.classes, counts, strict=True)}

    def _write_scores(self, path: Path) -> None:
        packed = np.nan_to_num((self.scores.astype(np.float32) + 1) * 100, nan=255).round().astype(np.uint8)
        write_cog(
            path, packed, self.geobox, nodata=255, band_names=("cosine",), tags=self.tags, scale=0.01, offset=-1.0
        )


def segment(
    scene: Scene | str | Path,
    classes: str | Sequence[str],
    *,
    model: Model | str | Path,
    level: Level = "pixel",
    stride: int | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    sensor: str | None = None,
    out: str | Path | None = None,
) -> ClassMap:
    """The class map of a scene of any size, from words.

    Args:
        scene: a scene or a raster's path.
        classes: for example `"water; crops, farmland; trees, forest"`: classes by semicolon, phrasings by comma.
        model: a model, its folder or its name.
        level: "pixel", or "image" to read the image level out densely.
        stride: pixels between overlapping chips; half a chip if None. Smaller is smoother and slower.
        templates: sentences around the phrasings, averaged.
        sensor: sensor of a scene given by path, where the file does not say it.
        out: where to write the map as a cloud-optimised GeoTIFF.

    Returns:
        The map, on the scene's own grid if it has the model's ground sample distance, else on the resampled one.

    Raises:
        BadQuery: the class list is empty or names something twice.
        BadSetting: the stride is not between 1 and the chip size.
        ModelMismatch: the scene lacks bands, or the model lacks the level.
        SceneTooSmall: the scene is smaller than a chip.
    """
    parsed = parse_classes(classes)
    network = resolve_model(model)
    view = open_view(resolve_scene(scene, sensor), sensor=network.sensor, gsd=network.gsd, size=network.chip_size)
    vectors = encode_classes(network, parsed, templates=templates)
    labels, scores = dense_map(
        view, text_scorer(network, vectors, level), size=network.chip_size, stride=stride, classes=len(parsed)
    )
    tags = _tags(network, parsed, templates, view, level)
    result = ClassMap(labels, scores, view.grid, vectors.names, class_colours(parsed), tags)
    if out is not None:
        result.to_cog(out)
    return result


def text_scorer(model: Model, vectors: ClassVectors, level: Level) -> Scorer:
    """Scores of chips' patches against class words: the maximum over phrasings of the cosine."""

    def score(pixels: NDArray[Any]) -> NDArray[np.float32]:
        return vectors.dense_scores(model.dense(pixels, level=level))

    return score


def dense_map(
    view: View,
    scorer: Scorer,
    *,
    size: int,
    classes: int,
    stride: int | None = None,
    window: int = 512,
    batch: int = 64,
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Labels and winning scores of every pixel of a view, computed window by window.

    Args:
        view: the scene as the model sees it.
        scorer: class scores of chips.
        size: rows and columns of a chip.
        classes: how many classes the scorer scores.
        stride: pixels between overlapping chips; half a chip if None.
        window: rows and columns computed at a time; decides memory, not the result.
        batch: chips scored at a time.

    Returns:
        Labels (H, W) uint8 from 1, 0 without data; scores (H, W) float16, NaN without data.
    """
    step = _check_stride(stride, size)
    starts = [chip_starts(length, size, step) for length in view.shape]
    labels, scores = _canvas(view.shape, np.uint8), _canvas(view.shape, np.float16)
    blender = _Blender(view, scorer, size, classes, batch)
    blocks = list(_blocks(view.shape, window))
    for block in track(blocks, "segment", len(blocks)):
        blended, valid = blender.scores(_touching(starts, block, size), block)
        labels[block] = np.where(valid, blended.argmax(axis=0) + 1, 0)
        scores[block] = np.where(valid, blended.max(axis=0), np.nan)
    return labels, scores


def upsample(scores: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Scores of patches (N, K, h, w) on the pixels of their chips (N, K, size, size), bilinear."""
    tensor = torch.from_numpy(np.ascontiguousarray(scores))
    fine = torch.nn.functional.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)
    pixels: NDArray[np.float32] = fine.numpy()
    return pixels


def blend_weight(size: int) -> NDArray[np.float32]:
    """Weight of each pixel of a chip (size, size): a Hann window, positive everywhere, 1 in the middle."""
    ramp = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    return np.outer(ramp, ramp).astype(np.float32)


@dataclass(frozen=True)
class _Blender:
    """Class scores of any window of a view, from the chips that reach into it."""

    view: View
    scorer: Scorer
    size: int
    classes: int
    batch: int

    def scores(
        self, starts: tuple[NDArray[np.int64], NDArray[np.int64]], window: tuple[slice, slice]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Weighted mean score of every class (K, rows, columns), and whether each pixel is valid."""
        rows, columns = (slice(int(s[0]), int(s[-1]) + self.size) for s in starts)
        pixels, valid = self.view.read(rows, columns)
        total = self._total(slice_chips(pixels, valid, *starts, size=self.size), valid.shape)
        inner_rows, inner_columns = _shift(window[0], rows.start), _shift(window[1], columns.start)
        inner = total[:, inner_rows, inner_columns]
        return inner[:-1] / inner[-1], valid[inner_rows, inner_columns]

    def _total(self, cut: Chips, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Weighted sums of the scores of all classes, and of the weights in the last row, (K + 1, rows, columns).

        Chips are added in the order of rows and columns, so that every window adds the same numbers in one order.
        """
        total = np.zeros((self.classes + 1, *shape), dtype=np.float32)
        weight, size = blend_weight(self.size), self.size
        for first in range(0, len(cut.rows), self.batch):
            some = slice(first, first + self.batch)
            fine = upsample(self.scorer(cut.pixels[some]), size) * weight
            rows, columns = cut.rows[some] - cut.rows[0], cut.columns[some] - cut.columns[0]
            for one, row, column in zip(fine, rows, columns, strict=True):
                total[:-1, row : row + size, column : column + size] += one
                total[-1, row : row + size, column : column + size] += weight
        return total


def _shift(window: slice, origin: int) -> slice:
    return slice(window.start - origin, window.stop - origin)


def _touching(
    starts: list[NDArray[np.int64]], window: tuple[slice, slice], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The chip starts, by rows and columns, whose chips reach into a window."""
    rows, columns = (s[(s < w.stop) & (s + size > w.start)] for s, w in zip(starts, window, strict=True))
    return rows, columns


def _blocks(shape: tuple[int, int], window: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, shape[0], window):
        for left in range(0, shape[1], window):
            yield slice(top, min(top + window, shape[0])), slice(left, min(left + window, shape[1]))


def _canvas(shape: tuple[int, int], dtype: type) -> NDArray[Any]:
    """An empty array; large ones lie in a temporary file, so that memory stays flat in the scene's size."""
    if shape[0] * shape[1] * np.dtype(dtype).itemsize <= _IN_MEMORY:
        return np.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _check_stride(stride: int | None, size: int) -> int:
    step = size // 2 if stride is None else stride
    if not 1 <= step <= size:
        raise BadSetting(f"stride {step} must lie between 1 and the chip size {size}, or pixels would be left out")
    return step


def _tags(
    model: Model, classes: Sequence[ClassQuery], templates: Sequence[str], view: View, level: str
) -> dict[str, str]:
    tags = {
        "GEOGRAFT_MODEL": model.fingerprint,
        "GEOGRAFT_LEVEL": level,
        "GEOGRAFT_CLASSES": "; ".join(", ".join(one.phrasings) for one in classes),
        "GEOGRAFT_TEMPLATES": " | ".join(templates),
    }
    return {**tags, "GEOGRAFT_GRID": view.note} if view.note else tags
