"""Neighbouring chips read at once: one window of a scene for several chips that lie on its own pixels.

A read of its own costs each chip as much as decoding a block. Chips whose blocks are mostly the same ones are read as
one window and cut out of it; what a chip holds does not depend on that, since on a scene's own pixels nothing is
resampled.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from affine import Affine
from odc.geo.geobox import GeoBox

from geograft.errors import GeograftError
from geograft.raster import Raster, Scene, cloud_share, read
from geograft.raster.clouds import mask_of

logger = logging.getLogger(__name__)

BLOCK = 256
"""Pixels of a scene's block, along a side."""

WIDEST = 8
"""Blocks of a window, along a side."""

WASTE = 1.25
"""Blocks of a window for one that its chips need, at most."""

Span = tuple[int, int, int, int]
"""First and last block row, first and last block column."""


def offset(grid: GeoBox, other: GeoBox) -> tuple[int, int] | None:
    """Row and column of another grid's corner on a grid; None where they have not their pixels in common."""
    here, there = grid.affine, other.affine
    wide = max(abs(here.a), abs(here.b), abs(here.d), abs(here.e))
    if max(abs(getattr(here, name) - getattr(there, name)) for name in "abde") > 1e-6 * wide or grid.crs != other.crs:
        return None
    east, north = there.c - here.c, there.f - here.f
    area = here.a * here.e - here.b * here.d
    column, row = (here.e * east - here.b * north) / area, (here.a * north - here.d * east) / area
    whole = max(abs(column - round(column)), abs(row - round(row))) < 1e-3
    return (round(row), round(column)) if whole else None


@dataclass
class Window:
    """A window of a scene, read when the first of its chips asks for it.

    Attributes:
        scene: the scene.
        boxes: the chips' grids, each on the scene's own pixels.
    """

    scene: Scene
    boxes: list[GeoBox]
    _held: Raster | None = None

    def cut(self, box: GeoBox) -> Raster:
        """The pixels of one of the grids.

        Raises:
            UnreadableScene: the file is damaged or gone, here or where another chip lies.
        """
        if self._held is None:
            self._held = read(self.scene, _around(self.boxes))
        row, column = offset(self._held.geobox, box) or (0, 0)
        part = (slice(row, row + box.shape[0]), slice(column, column + box.shape[1]))
        return Raster(self._held.pixels[:, *part].copy(), self._held.valid[part], box)


def _around(boxes: Sequence[GeoBox]) -> GeoBox:
    """The grid that holds boxes of one grid."""
    first = boxes[0]
    corners = [offset(first, box) or (0, 0) for box in boxes]
    top, left = (min(corner[axis] for corner in corners) for axis in (0, 1))
    bottom, right = (
        max(corner[axis] + box.shape[axis] for corner, box in zip(corners, boxes, strict=True)) for axis in (0, 1)
    )
    return GeoBox((bottom - top, right - left), first.affine @ Affine.translation(left, top), first.crs)


@dataclass
class Reader:
    """Reads scenes for the chips of one thread.

    Attributes:
        window: what the chips that are cut now share.
    """

    window: Window | None = None
    _masked: dict[int, bool] = field(default_factory=dict)

    def read(self, scene: Scene, box: GeoBox) -> Raster:
        """As `raster.read`, out of the window where it holds the grid.

        Raises:
            UnreadableScene: the file is damaged or gone.
        """
        if self.window is not None and scene is self.window.scene and any(box is each for each in self.window.boxes):
            try:
                return self.window.cut(box)
            except GeograftError as error:  # it may be another chip's pixels that are damaged
                logger.debug("Chips are read one by one: %s", error)
                self.window = None
        return read(scene, box)

    def cloud_share(self, scene: Scene, box: GeoBox) -> float:
        """As `raster.cloud_share`; whether a scene has a mask at all is looked up once.

        Raises:
            UnreadableScene: the mask is damaged or gone.
        """
        if id(scene) not in self._masked:
            self._masked[id(scene)] = mask_of(scene) is not None
        return cloud_share(scene, box) if self._masked[id(scene)] else 0.0


# --- which chips share a window ---------------------------------------------------------------------------


def windows(scenes: Sequence[Scene | None], boxes: Sequence[GeoBox]) -> Iterator[tuple[Window | None, list[int]]]:
    """Runs of chips, in order, with the window that they share.

    Args:
        scenes: the scene that each chip is read of first; None where that is not known.
        boxes: the chips' grids.

    Yields:
        The window, or None for a chip that is read on its own; and the chips' rows.
    """
    run: list[int] = []
    whole: Span | None = None
    needed: set[tuple[int, int]] = set()
    for row, (scene, box) in enumerate(zip(scenes, boxes, strict=True)):
        span = _span(scene, box)
        joined = _join(whole, span) if run and scenes[run[0]] is scene else None
        if joined is not None and _fits(joined, len(needed | _blocks(span))):
            whole = joined
        else:
            if run:
                yield _window(scenes, boxes, run), run
            run, whole, needed = [], span, set()
        run.append(row)
        needed |= _blocks(span)
    if run:
        yield _window(scenes, boxes, run), run


def _window(scenes: Sequence[Scene | None], boxes: Sequence[GeoBox], run: list[int]) -> Window | None:
    """The window of a run of chips."""
    scene = scenes[run[0]]
    return Window(scene, [boxes[row] for row in run]) if scene is not None and len(run) > 1 else None


def _span(scene: Scene | None, box: GeoBox) -> Span | None:
    """The blocks under a chip that lies on a scene's own pixels."""
    corner = offset(scene.geobox, box) if scene is not None and scene.kind == "file" else None
    if corner is None:
        return None
    (top, left), (height, width) = corner, box.shape
    return (top // BLOCK, (top + height - 1) // BLOCK, left // BLOCK, (left + width - 1) // BLOCK)


def _blocks(span: Span | None) -> set[tuple[int, int]]:
    """The blocks of a span."""
    if span is None:
        return set()
    return {(row, column) for row in range(span[0], span[1] + 1) for column in range(span[2], span[3] + 1)}


def _join(one: Span | None, other: Span | None) -> Span | None:
    """The span around two."""
    if one is None or other is None:
        return None
    return (min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3]))


def _fits(span: Span, needed: int) -> bool:
    """Whether a window is worth to be read as one."""
    height, width = span[1] - span[0] + 1, span[3] - span[2] + 1
    return max(height, width) <= WIDEST and height * width <= WASTE * needed
