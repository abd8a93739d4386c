"""Chips cut out of scenes: the nearest day first, of one day the clearest, several scenes put together where needed.

A chip's stacks are tried in the plan's order. Those of one day are looked at together and the one with the least
cloud in the footprint goes first. A stack serves where its cloud is within the limit and no pixel is missing.

Chips are read in the order of the scenes' blocks, neighbours by the same thread, so that GDAL decodes a block once.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geograft.errors import GeograftError, UnreachableScene
from geograft.pairs.cutting.mosaic import Mosaic, read_mosaic
from geograft.pairs.cutting.windows import BLOCK, Reader, windows
from geograft.raster import Scene, chip_geobox

logger = logging.getLogger(__name__)

READERS = 4
"""Threads that read chips: GDAL decodes, and waits for servers, without holding Python's lock."""

CACHE = 256 * 2**20
"""Bytes of decoded blocks that GDAL keeps for a process; rasterio takes a plain number as bytes."""


@dataclass(frozen=True)
class Stack:
    """Scenes that together cover a chip.

    Attributes:
        gap_days: days from the chip's photos to the scenes, or None where not known.
        scenes: scene ids; pixels come of the first, where that has none of the next.
    """

    gap_days: float | None
    scenes: tuple[str, ...]

    @property
    def day(self) -> int | None:
        """How many whole days away: stacks of equal days are compared by cloud."""
        return None if self.gap_days is None or np.isnan(self.gap_days) else round(abs(self.gap_days))


@dataclass(frozen=True)
class PlannedChip:
    """A chip to cut.

    Attributes:
        chip_id: its name.
        epsg, left, top: its CRS and top left corner.
        gsd: metres a pixel.
        size: pixels along a side.
        stacks: what to cut it of, best first.
    """

    chip_id: str
    epsg: int
    left: float
    top: float
    gsd: float
    size: int
    stacks: tuple[Stack, ...]

    @cached_property
    def geobox(self) -> GeoBox:
        """Its grid."""
        return chip_geobox(self.epsg, self.left, self.top, gsd=self.gsd, size=self.size)

    @property
    def place(self) -> tuple[int, float, float]:
        """Equal for chips of one footprint."""
        return (self.epsg, self.left, self.top)


@dataclass(frozen=True)
class Cut:
    """A chip's pixels, or why it has none.

    Attributes:
        scenes: ids of the scenes whose pixels it has, in the order of the stack.
        pixels: native values (C, S, S), or None.
        cloud: share of the footprint under clouds, 0 to 1.
        reason: "" where it was cut; else "cloudy", "nodata", "unreadable-scene" or "repeated-pixels".
    """

    scenes: tuple[str, ...] = ()
    pixels: NDArray[Any] | None = None
    cloud: float = 0.0
    reason: str = ""


FindScene = Callable[[str], Scene]
"""Gives the scene of an id."""


def cut_chips(chips: Sequence[PlannedChip], find: FindScene, max_cloud: float) -> list[Cut]:
    """Cut chips, each of its first stack that serves.

    Args:
        chips: of one shard; all that share a footprint must be among them.
        find: gives scenes by id; called from several threads.
        max_cloud: largest share of a footprint under clouds.

    Returns:
        The cuts, in the order of the chips. Of chips with one footprint and the same scenes the first by chip_id
        keeps its pixels, the others are "repeated-pixels".
    """
    order = reading_order(chips)
    runs = [run for run in np.array_split(order, READERS) if len(run)]
    cuts: dict[int, Cut] = {}

    def work(run: NDArray[np.int64]) -> list[Cut]:
        return list(_cut_run([chips[row] for row in run.tolist()], find, max_cloud))

    with block_cache(), ThreadPoolExecutor(READERS) as pool:
        for run, found in zip(runs, pool.map(work, runs), strict=True):
            cuts.update(zip(run.tolist(), found, strict=True))
    return without_repeats(chips, [cuts[row] for row in range(len(chips))])


def _cut_run(chips: Sequence[PlannedChip], find: FindScene, max_cloud: float) -> Iterator[Cut]:
    """Cut chips that follow each other in the reading order, those that share blocks out of one window."""
    boxes = [chip.geobox for chip in chips]
    scenes = [_first_scene(chip, find) for chip in chips]
    reader = Reader()
    for window, rows in windows(scenes, boxes):
        reader.window = window
        for row in rows:
            yield cut(chips[row], find, max_cloud, reader)


def _first_scene(chip: PlannedChip, find: FindScene) -> Scene | None:
    """The scene that a chip is most likely cut of; None where that is several, or cannot be opened."""
    if not chip.stacks or len(chip.stacks[0].scenes) != 1:
        return None
    try:
        return find(chip.stacks[0].scenes[0])
    except GeograftError:
        return None


def reading_order(chips: Sequence[PlannedChip]) -> NDArray[np.int64]:
    """Rows of chips by scene, then by strips of one block's height from the top, each from left to right."""

    def key(row: int) -> tuple[str, int, float, float, float]:
        chip = chips[row]
        first = chip.stacks[0].scenes[0] if chip.stacks else ""
        return (first, chip.epsg, -(chip.top // (BLOCK * chip.gsd)), chip.left, -chip.top)

    return np.array(sorted(range(len(chips)), key=key), np.int64)


@contextmanager
def block_cache() -> Iterator[None]:
    """GDAL with a cache of fixed size: by default it takes a twentieth of the memory in every process."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        yield


def without_repeats(chips: Sequence[PlannedChip], cuts: list[Cut]) -> list[Cut]:
    """The cuts, those that repeat another's pixels emptied.

    Chips of one place at other times may fall back to the same scenes; the first by chip_id keeps them.
    """
    first: set[tuple[Any, ...]] = set()
    out = list(cuts)
    for row in sorted(range(len(chips)), key=lambda row: chips[row].chip_id):
        if cuts[row].pixels is None:
            continue
        key = (*chips[row].place, frozenset(cuts[row].scenes))
        if key in first:
            out[row] = Cut(reason="repeated-pixels")
        first.add(key)
    return out


def cut(chip: PlannedChip, find: FindScene, max_cloud: float, reader: Reader | None = None) -> Cut:
    """Cut a chip of the first of its stacks that is clear and whole there.

    Args:
        chip: with its stacks, best first.
        find: gives scenes by id.
        max_cloud: largest share of the footprint under clouds.
        reader: reads the scenes; it may hold pixels of several chips.

    Returns:
        The cut; where no stack serves, the reason of the last that was tried.
    """
    reader = reader or Reader()
    reason = "nodata"
    for _, tied in groupby(chip.stacks, key=lambda stack: stack.day):
        looks, failed = _looks(chip, list(tied), find, reader)
        reason = failed or reason
        for look in sorted(looks, key=lambda look: look.cloud):
            served = _serve(look, max_cloud, reader)
            if served.pixels is not None:
                return served
            reason = served.reason
    return Cut(reason=reason)


@dataclass(frozen=True)
class _Look:
    """What a stack shows of a chip.

    Attributes:
        scenes: the stack, ids to scenes.
        box: the chip's grid.
        cloud: share of the footprint under clouds.
        mosaic: its pixels, where the cloud could not be told without them.
    """

    scenes: dict[str, Scene]
    box: GeoBox
    cloud: float
    mosaic: Mosaic | None = None


def _looks(chip: PlannedChip, stacks: list[Stack], find: FindScene, reader: Reader) -> tuple[list[_Look], str]:
    """What stacks of one day show of a chip, in their order; and "unreadable-scene" where one could not be read."""
    looks, reason = [], ""
    for stack in stacks:
        try:
            looks.append(_look({name: find(name) for name in stack.scenes}, chip.geobox, reader))
        except UnreachableScene:
            raise
        except GeograftError as error:
            logger.warning("Chip %s: %s", chip.chip_id, error)
            reason = "unreadable-scene"
    return looks, reason


def _look(scenes: dict[str, Scene], box: GeoBox, reader: Reader) -> _Look:
    """The cloud over a chip; of several scenes, of the pixels that come of each."""
    if len(scenes) == 1:
        return _Look(scenes, box, reader.cloud_share(next(iter(scenes.values())), box))
    mosaic = read_mosaic(list(scenes.values()), box)
    return _Look(scenes, box, mosaic.cloud(list(scenes.values())), mosaic)


def _serve(look: _Look, max_cloud: float, reader: Reader) -> Cut:
    """The chip of a look, or why it does not serve."""
    if look.cloud > max_cloud:
        return Cut(reason="cloudy")
    names = list(look.scenes)
    try:
        raster = look.mosaic.raster if look.mosaic else reader.read(look.scenes[names[0]], look.box)
    except UnreachableScene:
        raise
    except GeograftError as error:
        logger.warning("Chip at %s: %s", look.box.affine, error)
        return Cut(reason="unreadable-scene")
    if not raster.valid.all():
        return Cut(reason="nodata")
    used = look.mosaic.used if look.mosaic else (0,)
    return Cut(tuple(names[number] for number in used), raster.pixels, look.cloud)
