"""Photos that look alike: a 64-bit perceptual hash each, compared among photos of one neighbourhood only.

The hash (pHash; Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010) keeps the signs of
the lowest frequencies, so another size or JPEG quality changes few of its bits.
"""

import warnings
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from geograft.sources.judging.cells import neighbourhoods, place_cells

NEIGHBOURHOOD_M = 1000.0
"""Photos at least this near to each other are compared."""

_SIDE, _LOW = 32, 8


def photo_hash(path: str | Path) -> int | None:
    """The perceptual hash of a local photo, as displayed (turned by its EXIF orientation); None where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.draft("L", (4 * _SIDE, 4 * _SIDE))
                return image_hash(ImageOps.exif_transpose(image))
    except Exception:  # noqa: BLE001 - broken files raise errors of many kinds, and none of them compares
        return None


def image_hash(image: Image.Image) -> int:
    """The perceptual hash of an image: bit k is set where coefficient k of its 8 x 8 lowest exceeds their median."""
    from scipy.fft import dctn

    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    low = dctn(np.asarray(grey, np.float64), norm="ortho")[:_LOW, :_LOW].ravel().round(6)  # a flat image has zeros
    bits = low > np.median(low[1:])  # without the mean brightness, which would outweigh all
    return int(np.packbits(bits).view(">u8")[0])


class Likeness:
    """The perceptual hashes of the photos kept so far, by place.

    Args:
        distance: the largest number of differing bits at which two photos are near-duplicates.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        self._cells: dict[int, array[int]] = {}

    def alike(self, value: int, around: NDArray[np.int64]) -> bool:
        """Whether a photo that was added in one of some cells looks like this one.

        Args:
            value: the photo's perceptual hash.
            around: the cells of its neighbourhood, (K,).
        """
        near = [self._cells[cell] for cell in set(around.tolist()) if cell in self._cells]
        return any(int(_bits_apart(value, hashes).min()) <= self._distance for hashes in near)

    def add(self, value: int, cell: int) -> None:
        """Remember a kept photo's hash in its cell."""
        self._cells.setdefault(cell, array("Q")).append(value)


def _bits_apart(value: int, hashes: "array[int]") -> NDArray[np.uint8]:
    """Hamming distances of one hash to many, (N,)."""
    apart: NDArray[np.uint8] = np.bitwise_count(np.frombuffer(hashes, np.uint64) ^ np.uint64(value))
    return apart


def hash_places(lon: Any, lat: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cell of each position, (N,), and the cells around it, (N, K)."""
    return place_cells(lon, lat, NEIGHBOURHOOD_M), neighbourhoods(lon, lat, NEIGHBOURHOOD_M)
