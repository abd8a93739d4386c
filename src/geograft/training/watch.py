"""What an epoch is watched by where truth is at hand: maps and chips named by words, beside the loss.

No label is used: not to learn, and not to choose. The best epoch is the one of the lowest `val_loss`, which needs
photos only; what is reported here shows whether a falling loss makes better maps.
"""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from torch import Tensor
from torch.nn import functional

from geograft.errors import BadSetting, EmptyTable, MissingInput, SensorMismatch, UnreadableScene
from geograft.models.satellite import Encoder, Level
from geograft.pairs.dataset import PairSet
from geograft.sensors import Sensor
from geograft.tasks.queries import ClassQuery, ClassVectors, TextEncoder, encode_classes
from geograft.world.classes import CLASSES, SEEN_TEMPLATES
from geograft.world.labels import truth_for_chips

NONE = -1
"""Index of pixels and chips of no class."""

MOST = 256
"""Chips that tell enough of an epoch."""

_BATCH = 64
_SUFFIXES = (".tif", ".tiff", ".png")


@dataclass(frozen=True)
class Truth:
    """Chips whose classes are known.

    Attributes:
        pixels: native values of the sensor, (N, C, S, S).
        cover: class index of each pixel, (N, S, S), -1 where there is none.
        labels: class index of each chip, (N,), -1 where there is none.
        sensor: what the bands mean.
    """

    pixels: NDArray[Any]
    cover: NDArray[np.int64]
    labels: NDArray[np.int64]
    sensor: Sensor

    def __len__(self) -> int:
        """The number of chips."""
        return len(self.pixels)

    def draw(self, most: int, seed: int) -> "Truth":
        """At most so many chips, drawn by a seed."""
        rows = _draw(np.arange(len(self)), most, seed)
        return Truth(self.pixels[rows], self.cover[rows], self.labels[rows], self.sensor)


class Watch:
    """Measures an encoder by words on chips whose classes are known.

    Args:
        truth: the chips.
        words: unit vectors of the words of the classes that the truth counts from 0.
        level: whose patches are read; chips are read by their own vector at the image level, and by the mean of their
            patches at the pixel level.
    """

    def __init__(self, truth: Truth, words: ClassVectors, *, level: Level) -> None:
        self.truth, self.words, self.level = truth, words, level

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Figures of an encoder in evaluation mode.

        Returns:
            `val_miou`: mean over the classes in the truth of intersection over union, every pixel getting the best of
            all classes. `val_top1`: share of labelled chips whose class is right; left out where none is labelled.

        Raises:
            ModelMismatch: the encoder takes other chips.
        """
        classes = len(self.words.names)
        counts, right = np.zeros((classes, classes), np.int64), 0
        device = next(iter(encoder.parameters())).device
        vectors = torch.from_numpy(self.words.vectors).to(device)
        with torch.inference_mode():
            for start in range(0, len(self.truth), _BATCH):
                rows = slice(start, start + _BATCH)
                chips = torch.from_numpy(self.truth.sensor.normalise(self.truth.pixels[rows])).to(device)
                pixels, whole = self._guess(encoder, chips, vectors)
                counts += _confusion(self.truth.cover[rows], pixels, classes)
                right += int((whole == self.truth.labels[rows]).sum())
        labelled = int((self.truth.labels != NONE).sum())
        return {"val_miou": _mean_iou(counts), **({"val_top1": right / labelled} if labelled else {})}

    def _guess(self, encoder: Encoder, chips: Tensor, vectors: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The best class of pixels (n, S, S) and of chips (n,)."""
        tokens = encoder.tokens(chips, level=self.level).float()
        whole = encoder.embed(chips).float() if self.level == "image" else tokens.mean(dim=(2, 3))
        coarse = self._best(torch.einsum("td,ndhw->nthw", vectors, tokens))
        fine = functional.interpolate(coarse, chips.shape[-2:], mode="bilinear", align_corners=False)
        return fine.argmax(dim=1).cpu().numpy(), self._best(whole @ vectors.T).argmax(dim=1).cpu().numpy()

    def _best(self, cosines: Tensor) -> Tensor:
        """The maximum over each class's phrasings of cosines (n, T, ...), giving (n, K, ...)."""
        starts = np.searchsorted(self.words.owner, np.arange(len(self.words.names) + 1)).tolist()
        parts = [cosines[:, first:last].amax(dim=1) for first, last in itertools.pairwise(starts)]
        return torch.stack(parts, dim=1)


def _draw(rows: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """At most so many of the rows, in order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _confusion(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts of truth (rows) against guess (columns), without the pixels of no class, (K, K)."""
    known = truth != NONE
    flat = np.bincount(truth[known] * classes + guess[known], minlength=classes * classes)
    return flat.reshape(classes, classes)


def _mean_iou(counts: NDArray[np.int64]) -> float:
    """Mean over the classes in the truth of intersection over union, as the cards define it."""
    present = counts.sum(axis=1) > 0
    right = np.diagonal(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    return float((right[present] / union[present]).mean())


# --- chips of the simulated world --------------------------------------------------------------------------


def watch_world(
    pairs: PairSet, regions: Sequence[Path], *, encoder: TextEncoder, level: Level, most: int = MOST, seed: int = 0
) -> Watch:
    """A watch over chips of pairs that lie in simulated regions, by the seen words of all classes.

    Args:
        pairs: those to validate on.
        regions: the simulated regions that they lie in, with their truth.
        encoder: the text encoder, a teacher or a model.
        level: the level that is trained.
        most: chips to watch, drawn from those with truth.
        seed: of the draw.

    Raises:
        EmptyTable: no chip lies in one of the regions.
        MissingInput: a region has no truth.
        NoTextEncoder: the encoder knows no text.
    """
    truth = truth_for_chips(regions, pairs.table)
    rows = np.flatnonzero(truth.cover.any(axis=(1, 2)))
    if not len(rows):
        raise EmptyTable("None of the chips lies in one of the regions: name the regions that the pairs were made of.")
    rows = _draw(rows, most, seed)
    index = np.full(256, NONE, np.int64)
    index[[cover.id for cover in CLASSES]] = np.arange(len(CLASSES))
    known = Truth(pairs.pixels(rows), index[truth.cover[rows]], index[truth.labels[rows]], pairs.sensor)
    classes = [ClassQuery(cover.name, cover.words) for cover in CLASSES]
    return Watch(known, encode_classes(encoder, classes, templates=SEEN_TEMPLATES), level=level)


# --- chips and masks of a folder ---------------------------------------------------------------------------


def watch_folder(
    folder: Path,
    *,
    words: ClassVectors,
    sensor: Sensor,
    size: int,
    level: Level,
    most: int = MOST,
    seed: int = 0,
) -> Watch:
    """A watch over a folder of chips and masks.

    Args:
        folder: with `chips/` and `masks/`, rasters (.tif, .png) of the same names and sizes. A mask holds the number of
            a class, from 1 in the order of `words`, and 0 where there is no truth. Chips larger than the encoder's are
            cut into squares side by side. A chip is labelled with the class that covers at least half of it.
        words: unit vectors of the words of the classes (`encode_classes`).
        sensor: what the chips' bands mean, in order.
        size: chip width and height of the encoder in px.
        level: the level that is trained.
        most: chips to watch.
        seed: of the draw.

    Raises:
        MissingInput: there are no chips, or a chip has no mask.
        UnreadableScene: a file is no raster.
        SensorMismatch: a chip has other bands than the sensor, or another size than its mask.
        BadSetting: a chip is smaller than the encoder's, or a mask holds a class that has no words.
        EmptyTable: the masks hold no class at all.
    """
    files = sorted(file for file in (folder / "chips").glob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise MissingInput(f"{folder / 'chips'} holds no rasters: a folder to watch has chips/ and masks/.")
    drawn = [files[row] for row in _draw(np.arange(len(files)), most, seed)]
    truth = _read_truth(folder, drawn, sensor=sensor, size=size, classes=len(words.names))
    return Watch(truth.draw(most, seed), words, level=level)


def _read_truth(folder: Path, files: Sequence[Path], *, sensor: Sensor, size: int, classes: int) -> Truth:
    """Chips of a folder with their truth."""
    parts = [_read_both(file, _mask_of(file, folder / "masks"), sensor, size) for file in files]
    pixels, masks = (np.concatenate(column) for column in zip(*parts, strict=True))
    if masks.max() > classes:
        raise BadSetting(f"The masks of {folder} hold the class {masks.max()}, but there are words for {classes}.")
    cover = masks.astype(np.int64) - 1
    known = (cover != NONE).any(axis=(1, 2))
    if not known.any():
        raise EmptyTable(f"The masks of {folder} hold no class: 0 means no truth, classes count from 1.")
    return Truth(pixels[known], cover[known], _labels(cover[known], classes), sensor)


def _mask_of(chip: Path, masks: Path) -> Path:
    """The mask of a chip's file."""
    for suffix in _SUFFIXES:
        if (path := masks / f"{chip.stem}{suffix}").is_file():
            return path
    raise MissingInput(f"{chip} has no mask of its name in {masks}: remove the chip, or add the mask.")


def _read_both(chip: Path, mask: Path, sensor: Sensor, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Squares of a chip (n, C, size, size) and of its mask (n, size, size)."""
    pixels, classes = _read(chip), _read(mask)
    if classes.shape != (1, *pixels.shape[1:]) or len(pixels) != len(sensor.bands):
        raise SensorMismatch(
            f"{chip} is {pixels.shape}, its mask {classes.shape}: a chip needs the {len(sensor.bands)} bands of "
            f"{sensor.name} ({', '.join(sensor.bands)}), and a mask one band of the same rows and columns."
        )
    if min(pixels.shape[1:]) < size:
        raise BadSetting(f"{chip} is smaller than the encoder's chips of {size} px: leave it out.")
    return _squares(pixels, size), _squares(classes, size)[:, 0]


def _read(path: Path) -> NDArray[Any]:
    """A raster, (C, H, W)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # where a chip lies does not matter here
            with rasterio.open(path) as file:
                return cast("NDArray[Any]", file.read())
    except RasterioError as error:
        raise UnreadableScene(f"{path} cannot be read ({error}): replace the file.") from error


def _squares(raster: NDArray[Any], size: int) -> NDArray[Any]:
    """Squares side by side from the top left corner, (n, C, size, size); the rest is left out."""
    bands, rows, columns = len(raster), raster.shape[1] // size, raster.shape[2] // size
    cut = raster[:, : rows * size, : columns * size].reshape(bands, rows, size, columns, size)
    return cut.transpose(1, 3, 0, 2, 4).reshape(rows * columns, bands, size, size)


def _labels(cover: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The class that covers at least half of each chip, or none, (N,)."""
    flat = cover.reshape(len(cover), -1)
    counts = np.stack([np.bincount(row[row != NONE], minlength=classes) for row in flat])
    best = counts.argmax(axis=1)
    return np.where(counts[np.arange(len(flat)), best] * 2 >= flat.shape[1], best, NONE)
