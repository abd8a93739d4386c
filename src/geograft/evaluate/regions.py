"""Test regions of World-1: pixels, truth and chips of one region as one sensor saw it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
from numpy.typing import NDArray

from geograft.errors import MissingInput, SceneTooSmall
from geograft.raster import Scene, cloud_share, open_scene, read
from geograft.world.classes import CLASSES
from geograft.world.labels import chip_label

CLASS_COUNT = len(CLASSES)


@dataclass(frozen=True)
class RegionView:
    """One region as one sensor saw it, with its truth.

    Attributes:
        seed: the region's seed.
        sensor: the sensor's name.
        pixels: the whole scene in native units, (C, H, W).
        truth: class id of each pixel, (H, W) uint8, 0 without truth.
        fine: class id of each square metre, from which chips get their class, (H * step, W * step).
        size: rows and columns of a chip.
        stride: pixels between the chips that are classified and searched.
        per_class: most chips of one class that are classified and searched.
    """

    seed: int
    sensor: str
    pixels: NDArray[Any]
    truth: NDArray[np.uint8]
    fine: NDArray[np.uint8]
    size: int
    stride: int
    per_class: int

    @property
    def step(self) -> int:
        """Metres of a pixel."""
        fine, coarse = len(self.fine), len(self.truth)
        return fine // coarse

    @cached_property
    def corners(self) -> NDArray[np.int64]:
        """Top row and left column of every chip, (N, 2), row by row; chips lie inside."""
        sides = [np.arange(0, length - self.size + 1, self.stride) for length in self.truth.shape]
        return np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every chip from 0, or -1 where the chip has none, (N,)."""
        step, side = self.step, self.size * self.step
        labels = [
            chip_label(np.stack([self.fine[r : r + side, c : c + side] for r, c in self.corners[some] * step]))
            for some in batches(np.arange(len(self.corners)), 256)
        ]
        return np.concatenate(labels) - 1

    @cached_property
    def picked(self) -> NDArray[np.int64]:
        """The labelled chips that are classified and searched, common classes thinned by a draw of the seed."""
        draw = np.random.default_rng(self.seed)
        parts = [np.flatnonzero(self.labels == index) for index in range(CLASS_COUNT)]
        thinned = [draw.permutation(part)[: self.per_class] for part in parts]
        return np.sort(np.concatenate(thinned))

    @cached_property
    def mapped(self) -> NDArray[np.int64]:
        """The chips side by side on which maps are compared."""
        return np.flatnonzero((self.corners % self.size == 0).all(axis=1))

    def chips(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Pixels of chips, (N, C, S, S)."""
        size = self.size
        return np.stack([self.pixels[:, r : r + size, c : c + size] for r, c in self.corners[numbers]])

    def truths(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Class ids of the pixels of chips, (N, S, S)."""
        size = self.size
        return np.stack([self.truth[r : r + size, c : c + size] for r, c in self.corners[numbers]])


def load_region(folder: Path, sensor: str, *, chip: tuple[int, int], per_class: int) -> RegionView:
    """A region's clearest scene of a sensor, with the truth on its grid.

    Args:
        folder: what `make_region` wrote.
        sensor: "world-1m" or "world-10m".
        chip: size and stride of the chips, in pixels.
        per_class: most chips of one class.

    Raises:
        MissingInput: the region holds no scene of that sensor, or no truth.
        SceneTooSmall: a chip does not fit into the scene.
    """
    scene = clearest_scene(folder, sensor)
    if min(scene.geobox.shape) < chip[0]:
        raise SceneTooSmall(f"{scene.path} is smaller than a chip of {chip[0]} pixels; make a larger region")
    pixels = read(scene, scene.geobox).pixels
    step, (height, width) = round(scene.gsd), scene.geobox.shape
    fine = read_truth(folder)[: height * step, : width * step]
    return RegionView(
        _about(folder)["seed"], sensor, pixels, coarsen_classes(fine, step), fine, chip[0], chip[1], per_class
    )


def region_size(folder: Path) -> int:
    """Side of a finished region in metres."""
    return int(_about(folder)["size"])


def clearest_scene(folder: Path, sensor: str) -> Scene:
    """The scene of a sensor with the smallest share of cloud, the earliest of several.

    Raises:
        MissingInput: there is none.
    """
    files = sorted(file for file in (folder / "scenes").glob(f"{sensor}_*.tif") if not file.stem.endswith("_clouds"))
    if not files:
        raise MissingInput(f"{folder} holds no scene of {sensor}; make the region again with that sensor")
    scenes = [open_scene(file, sensor=sensor) for file in files]
    return min(scenes, key=lambda scene: cloud_share(scene, scene.geobox))


def read_truth(folder: Path) -> NDArray[np.uint8]:
    """Class ids of a region at 1 m, (H, W).

    Raises:
        MissingInput: the region's truth is gone.
    """
    path = folder / "truth" / "classes.tif"
    if not path.is_file():
        raise MissingInput(f"{path} does not exist; evaluation needs a region's truth, so make the region again")
    with rasterio.open(path) as file:
        return cast("NDArray[np.uint8]", file.read(1))


def coarsen_classes(classes: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """The commonest class of each block of times x times pixels; of equally common ones the lowest id."""
    if times == 1:
        return classes
    height, width = classes.shape[0] // times, classes.shape[1] // times
    blocks = classes[: height * times, : width * times].reshape(height, times, width, times).swapaxes(1, 2)
    flat = blocks.reshape(height * width, times * times).astype(np.int64)
    counts = np.zeros((height * width, CLASS_COUNT + 1), dtype=np.int32)
    np.add.at(counts, (np.arange(len(flat))[:, None], flat), 1)
    commonest: NDArray[np.uint8] = counts.argmax(axis=1).astype(np.uint8)
    return commonest.reshape(height, width)


def batches(numbers: NDArray[np.int64], size: int) -> Sequence[NDArray[np.int64]]:
    """Consecutive parts of at most `size` numbers."""
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def _about(folder: Path) -> dict[str, Any]:
    """What a finished region says of itself."""
    text = (folder / "region.json").read_text(encoding="utf-8")
    summary: dict[str, Any] = json.loads(text)["summary"]
    return summary
