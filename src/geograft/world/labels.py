"""What a chip shows according to the truth: cover on the chip's own grid, and one label by the share of each class.

Evaluation and the supervised oracle read the truth through this module only; training without text never does.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray

from geograft.errors import BadSetting, MissingInput
from geograft.world.classes import CLASSES

_IDS = np.array([cover.id for cover in CLASSES], np.uint8)
_SHARES = np.array([cover.share for cover in CLASSES])


@dataclasses.dataclass(frozen=True)
class ChipTruth:
    """The truth of chips.

    Attributes:
        chip_ids: (N,).
        cover: the commonest class id of each pixel of the chip's grid, (N, S, S) uint8; 0 outside all regions.
        labels: class id of each chip, (N,) int64; 0 where no class fills its share (see `chip_label`).
    """

    chip_ids: NDArray[np.object_]
    cover: NDArray[np.uint8]
    labels: NDArray[np.int64]


def chip_label(cover: NDArray[np.uint8]) -> NDArray[np.int64]:
    """One class a chip: the one that fills the most of the share that it needs.

    A wheat field must fill half a chip to be what the chip shows, a railway an eighth: `CoverClass.share`. The label is
    the class with the largest share / needed share, if that is at least 1.

    Args:
        cover: class ids, (N, H, W); 0 counts as no class.

    Returns:
        Class ids, (N,); 0 for a chip that shows no class enough.
    """
    flat = cover.reshape(len(cover), -1)
    filled = np.stack([(flat == class_id).mean(axis=1) for class_id in _IDS], axis=1) / _SHARES
    best = filled.argmax(axis=1)
    enough = filled[np.arange(len(flat)), best] >= 1
    return np.where(enough, _IDS[best], 0).astype(np.int64)


def truth_for_chips(regions: Sequence[Path], chips: pd.DataFrame) -> ChipTruth:
    """The truth of chips that lie in simulated regions.

    Args:
        regions: region folders with `truth/classes.tif` at 1 m.
        chips: chip_id, epsg, left, top, gsd and size of each (the chip table of `geograft.pairs`); gsd in whole
            metres, all chips of one size.

    Returns:
        The truth in the order of `chips`. The labels follow the 1 m truth also where the grid is coarser.

    Raises:
        MissingInput: a region has no truth.
        BadSetting: chips of several sizes, or of a gsd that is no whole number of metres.
    """
    if len(set(chips["size"])) > 1 or (chips["gsd"] % 1).any():
        raise BadSetting("Truth is cut for chips of one size with a gsd in whole metres; cut the others apart.")
    size = int(chips["size"].iloc[0]) if len(chips) else 0
    cover = np.zeros((len(chips), size, size), np.uint8)
    labels = np.zeros(len(chips), np.int64)
    for region in regions:
        truth, epsg, left, top = _read_truth(Path(region))
        for row in np.flatnonzero(chips["epsg"].to_numpy() == epsg):
            chip = chips.iloc[row]
            step = int(chip["gsd"])
            fine = _window(truth, round(top - chip["top"]), round(chip["left"] - left), size * step)
            if fine is not None:
                cover[row] = _commonest(fine, step)
                labels[row] = chip_label(fine[None])[0]
    return ChipTruth(chips["chip_id"].to_numpy(object), cover, labels)


def _read_truth(region: Path) -> tuple[NDArray[np.uint8], int, float, float]:
    """A region's classes, EPSG code, left and top."""
    path = region / "truth" / "classes.tif"
    if not path.is_file():
        raise MissingInput(f"There is no {path}: name the folder of a simulated region that has its truth.")
    with rasterio.open(path) as file:
        return file.read(1), file.crs.to_epsg(), file.transform.c, file.transform.f


def _window(truth: NDArray[np.uint8], row: int, column: int, size: int) -> NDArray[np.uint8] | None:
    """A square of the truth, 0 beyond its edge; None where they do not meet."""
    height, width = truth.shape
    if row >= height or column >= width or row + size <= 0 or column + size <= 0:
        return None
    out = np.zeros((size, size), np.uint8)
    top, left = max(row, 0), max(column, 0)
    part = truth[top : row + size, left : column + size]
    out[top - row : top - row + part.shape[0], left - column : left - column + part.shape[1]] = part
    return out


def _commonest(fine: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The commonest id of each block of step × step pixels, the smaller id of a tie."""
    if step == 1:
        return fine
    size = len(fine) // step
    blocks = fine.reshape(size, step, size, step).transpose(0, 2, 1, 3).reshape(size * size, -1)
    counts = np.bincount((np.arange(size * size)[:, None] * 256 + blocks).ravel(), minlength=size * size * 256)
    commonest: NDArray[np.uint8] = counts.reshape(size, size, 256).argmax(axis=2).astype(np.uint8)
    return commonest
