"""Which scenes a chip can be cut of, best first: the one nearest in time to its photos, or several of one day.

A stack is one scene that holds the whole chip, or scenes of one day that hold it together, to be mosaicked. Where no
day holds it alone, scenes of several days are put together, the nearest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geograft.pairs.grid import Floats, Ints
from geograft.pairs.planning.ground import CHUNK, Ground, joined, mirrored
from geograft.pairs.planning.survey import INSET_PX, Survey
from geograft.pairs.times import DAY, NEVER

MAX_STACKS = 8
"""The most that are tried for one chip."""

MAX_SCENES = 8
"""The most scenes of one stack."""

_MANY = 1 << 40
"""Numbers of stacks of several scenes begin here."""


Group = tuple[int, tuple[int, ...]]
"""A chip and scenes that may hold it together."""


@dataclass(frozen=True)
class Stacks:
    """The stacks of chips, best first.

    Attributes:
        chip: the chip of each stack, ascending, (K,).
        gap_days: days from the median of the chip's photos to the stack's first scene, NaN where unknown, (K,).
        lead: the first scene of each stack, a row of the scene table, (K,).
        more: the further scenes of the stacks that have any, best first, by the stack's row.
    """

    chip: Ints
    gap_days: NDArray[np.float32]
    lead: Ints
    more: dict[int, tuple[int, ...]]

    @classmethod
    def joined(cls, parts: Sequence["Stacks"]) -> "Stacks":
        """Stacks of several groups of chips as one; the chips are numbered already."""
        if not parts:
            return cls(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64), {})
        starts = np.cumsum([0, *(len(part.chip) for part in parts)]).tolist()
        more = {
            start + row: rest for start, part in zip(starts, parts, strict=False) for row, rest in part.more.items()
        }
        chip, gap, lead = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("chip", "gap_days", "lead")
        )
        return cls(chip, gap, lead, more)

    def best(self, chips: int) -> Ints:
        """A number of each chip's best stack, the same for the same scenes in any order; -1 for none, (chips,)."""
        rows = np.flatnonzero(np.diff(self.chip, prepend=-1))
        out = np.full(chips, -1, np.int64)
        out[self.chip[rows]] = self.lead[rows]
        names: dict[tuple[int, ...], int] = {}
        for row in sorted(set(rows.tolist()) & set(self.more)):
            scenes = sorted((int(self.lead[row]), *self.more[row]))
            out[self.chip[row]] = _MANY + names.setdefault(tuple(scenes), len(names))
        return out

    def of_table(self, number: Ints) -> "Stacks":
        """The stacks with scenes counted in the whole scene table.

        Args:
            number: the table's row of each scene of the ground.
        """
        more = {row: tuple(number[list(scenes)].tolist()) for row, scenes in self.more.items()}
        return Stacks(self.chip, self.gap_days, number[self.lead], more)

    def take(self, chips: Ints) -> "Stacks":
        """The stacks of some chips, renumbered in the order given."""
        starts, stops = np.searchsorted(self.chip, chips), np.searchsorted(self.chip, chips, side="right")
        counts = stops - starts
        rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - starts, counts)
        kept = np.flatnonzero(np.isin(rows, list(self.more))) if self.more else ()
        more = {int(place): self.more[int(rows[place])] for place in kept}
        return Stacks(np.repeat(np.arange(len(chips)), counts), self.gap_days[rows], self.lead[rows], more)


@dataclass(frozen=True)
class Chips:
    """Chips that look for scenes.

    Attributes:
        centre: the photo that each is centred on, (N,).
        x: grid column, (N,).
        y: grid row, (N,).
        middle: the median time of each chip's photos, `times.NEVER` where unknown, (N,).
    """

    centre: Ints
    x: Ints
    y: Ints
    middle: Ints

    def part(self, start: int) -> "Chips":
        """At most `CHUNK` of the chips."""
        rows = slice(start, start + CHUNK)
        return Chips(self.centre[rows], self.x[rows], self.y[rows], self.middle[rows])


@dataclass(frozen=True)
class Stacker:
    """Finds stacks.

    Attributes:
        survey: the scenes of a zone.
        max_gap_days: scenes further in time from a chip's photos are not used; any where None.
    """

    survey: Survey
    max_gap_days: float | None = None
    _unions: dict[tuple[int, ...], Any] = field(default_factory=dict, repr=False)

    def find(self, chips: Chips) -> Stacks:
        """The stacks of chips."""
        return Stacks.joined([self._find(start, chips.part(start)) for start in range(0, len(chips.x), CHUNK)])

    def _find(self, first: int, chips: Chips) -> Stacks:
        """The stacks of a few chips, numbered from `first`."""
        chip, scene, whole = self.survey.met(chips.centre, chips.x, chips.y)
        far = np.abs(self._gap(chip, scene, chips.middle))
        if self.max_gap_days is not None:
            near = ~(far > self.max_gap_days)
            chip, scene, whole, far = chip[near], scene[near], whole[near], far[near]
        many = self._many(Touch(chip[~whole], scene[~whole], far[~whole]), chip[whole], chips)
        lone, lead = chip[whole], scene[whole]
        more = {len(lone) + row: scenes[1:] for row, (_, scenes) in enumerate(many)}
        lone = np.append(lone, [number for number, _ in many]).astype(np.int64)
        lead = np.append(lead, [scenes[0] for _, scenes in many]).astype(np.int64)
        return self._ranked(first, Stacks(lone, np.empty(0, np.float32), lead, more), chips.middle)

    def _gap(self, chip: Ints, scene: Ints, middle: Ints) -> Floats:
        """Days from the chips' photos to scenes, NaN where unknown."""
        taken, wanted = self.survey.ground.taken[scene], middle[chip]
        known = (taken != NEVER) & (wanted != NEVER)
        return np.where(known, (np.where(known, taken, 0) - np.where(known, wanted, 0)) / DAY, np.nan)

    def _many(self, touch: "Touch", served: Ints, chips: Chips) -> list[Group]:
        """Stacks of several scenes: of one day; of several days for chips that nothing else serves."""
        ground = self.survey.ground
        days = np.where(ground.taken[touch.scene] == NEVER, NEVER, ground.taken[touch.scene] // DAY)
        found = self._whole(touch.groups(ground, days), chips)
        rest = touch.without(np.append(served, [chip for chip, _ in found]).astype(np.int64))
        return found + self._whole(rest.groups(ground, np.zeros(len(rest.chip), np.int64)), chips)

    def _whole(self, groups: list[Group], chips: Chips) -> list[Group]:
        """The groups whose scenes hold their chip together."""
        chip = np.array([one for one, _ in groups], np.int64)
        margin = -INSET_PX * self.survey.grid.gsd
        squares = shapely.polygons(self.survey.outline(chips.x[chip], chips.y[chip], margin))
        unions = np.array([self._union(tuple(sorted(scenes))) for _, scenes in groups], dtype=object)
        held = shapely.covers(unions, squares)
        return [group for group, whole in zip(groups, held.tolist(), strict=True) if whole]

    def _union(self, members: tuple[int, ...]) -> Any:
        """The ground of some scenes."""
        if members not in self._unions:
            shapes, _ = mirrored(self.survey.ground.shapes[list(members)])
            self._unions[members] = joined(shapes, self.survey.seam)
        return self._unions[members]

    def _ranked(self, first: int, found: Stacks, middle: Ints) -> Stacks:
        """Stacks by chip, whole days of gap, clouds, gap and scene; the best of each chip."""
        ground = self.survey.ground
        chip, lead = found.chip, found.lead
        gap = self._gap(chip, lead, middle)
        far = np.where(np.isnan(gap), np.inf, np.abs(gap))
        cloud = ground.clouds[lead]
        for row, scenes in found.more.items():
            cloud[row] = max(cloud[row], ground.clouds[list(scenes)].max())
        order = np.lexsort((lead, far, cloud, np.rint(far), chip))
        rank = np.arange(len(order)) - np.searchsorted(chip[order], chip[order])
        order = order[rank < MAX_STACKS]
        more = {}
        if found.more:
            more = {place: found.more[row] for place, row in enumerate(order.tolist()) if row in found.more}
        return Stacks(chip[order] + first, gap[order].astype(np.float32), lead[order], more)


@dataclass(frozen=True)
class Touch:
    """Scenes that hold a part of a chip.

    Attributes:
        chip: (K,).
        scene: rows of the ground, (K,).
        far: days between them, NaN where unknown, (K,).
    """

    chip: Ints
    scene: Ints
    far: Floats

    def without(self, chips: Ints) -> "Touch":
        """What touches other chips than some."""
        keep = ~np.isin(self.chip, chips)
        return Touch(self.chip[keep], self.scene[keep], self.far[keep])

    def groups(self, ground: Ground, day: Ints) -> list[Group]:
        """Two and more scenes of a chip and day, the nearest in time first, then the clearest: (chip, scenes).

        Of scenes with one footprint the first alone is taken: a further one would add no ground.

        Args:
            ground: the scenes.
            day: of each row, (K,).
        """
        far = np.where(np.isnan(self.far), np.inf, self.far)
        order = np.lexsort((self.scene, ground.clouds[self.scene], far, day, self.chip))
        chip, day, scene = self.chip[order], day[order], self.scene[order]
        group = np.cumsum((np.diff(chip, prepend=-1) != 0) | (np.diff(day, prepend=0) != 0))
        kept = np.sort(np.unique(group * len(ground.outline) + ground.outline[scene], return_index=True)[1])
        starts = np.append(np.flatnonzero(np.diff(group[kept], prepend=0)), len(kept)).tolist()
        chips, scenes = chip[kept].tolist(), scene[kept].tolist()
        return [(chips[a], tuple(scenes[a : min(b, a + MAX_SCENES)])) for a, b in pairwise(starts) if b - a > 1]


def median_times(chip: Ints, taken: Ints, chips: int) -> Ints:
    """The median time of each chip's photos, `times.NEVER` where no time is known, (chips,).

    Args:
        chip: the chip of each photo, (P,).
        taken: the time of each photo, (P,).
        chips: number of chips.
    """
    known = taken != NEVER
    order = np.lexsort((taken[known], chip[known]))
    sorted_times = taken[known][order]
    counts = np.bincount(chip[known], minlength=chips)
    starts = np.cumsum(counts) - counts
    some = np.flatnonzero(counts)
    low = sorted_times[starts[some] + (counts[some] - 1) // 2]
    high = sorted_times[starts[some] + counts[some] // 2]
    out = np.full(chips, NEVER, np.int64)
    out[some] = low + (high - low) // 2
    return out
