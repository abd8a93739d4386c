"""How pairs are made, and what came of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geograft.errors import BadSetting
from geograft.pairs.grid import Grid
from geograft.pairs.planning.split import SplitSettings, check_fractions


@dataclass(frozen=True)
class PairSettings:
    """How pairs are made.

    Attributes:
        chip_size: pixels along a chip's side.
        gsd: metres a pixel; the sensor's where None.
        max_photos: photos a chip at most, by a fair draw.
        seed: of the visiting order, the draw and the split.
        max_overlap: the largest share of its ground that a chip may have in common with another of its zone; a photo
            that lies in no chip and would open one beyond it is left out.
        time_bin_days: photos of one place are divided into bins of so many days, at least one, each with a scene of
            its own time; one chip a place where None.
        max_gap_days: the largest distance in time between a chip's photos and its scene; any where None.
        density_cap: chips at most in each square of `density_km`, by a fair draw, so that dense cities do not
            outweigh the rest of the globe; any where None.
        density_km: side of these squares in kilometres.
        split: "blocks" of ground, "place" (the photo table's column, such as a walk), "scene" (whole scenes), or
            "none" for training only.
        fractions: shares of chips for train, validation and test.
        block_m: side of a block in metres; eight chips where None.
        buffer_m: least distance between chips of different splits; half a chip where None, 0 by place.
        max_cloud: the largest share of a footprint under clouds.
        sensor: of which scenes chips are cut; may be None where the scene tables have one sensor only.
        indoor_teacher: teacher whose text side tells indoor photos, which are left out; None keeps them.
        indoor_margin: a photo is indoor where its similarity to the indoor prompts exceeds that to the outdoor
            ones by more than this.
        encoding: of the chips' pixels in the shards: "lossless", or "jpeg" (quality 95, bands of 8 bits only).
        shard_mb: size of a shard in megabytes, before compression: what a killed run loses at most.
    """

    chip_size: int = 64
    gsd: float | None = None
    max_photos: int = 25
    seed: int = 0
    max_overlap: float = 1.0
    time_bin_days: float | None = None
    max_gap_days: float | None = None
    density_cap: int | None = None
    density_km: float = 100.0
    split: str | None = "blocks"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    block_m: float | None = None
    buffer_m: float | None = None
    max_cloud: float = 0.01
    sensor: str | None = None
    indoor_teacher: str | None = None
    indoor_margin: float = 0.0
    encoding: str = "lossless"
    shard_mb: int = 256

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if any(count is not None and count < 1 for count in (self.max_photos, self.shard_mb, self.density_cap)):
            raise BadSetting("max_photos, shard_mb and density_cap must be at least 1.")
        if not 0 <= self.max_cloud <= 1 or not 0 <= self.max_overlap <= 1:
            raise BadSetting(
                f"max_cloud and max_overlap are shares from 0 to 1, not {self.max_cloud}, {self.max_overlap}."
            )
        if self.seed < 0:
            raise BadSetting(f"seed must be 0 or more, not {self.seed}.")
        if any(length is not None and not length > 0 for length in (self.max_gap_days, self.density_km)):
            raise BadSetting("max_gap_days and density_km must be above 0.")
        if self.time_bin_days is not None and not self.time_bin_days >= 1:
            raise BadSetting(f"time_bin_days must be at least 1, a chip's name says its day, not {self.time_bin_days}.")
        if self.encoding not in {"lossless", "jpeg"}:
            raise BadSetting(f"encoding is lossless or jpeg, not {self.encoding!r}.")
        self.division(Grid(self.chip_size, 1.0 if self.gsd is None else self.gsd))

    def division(self, grid: Grid) -> SplitSettings:
        """The split's settings for chips of a grid."""
        by = None if self.split in {None, "none"} else self.split
        buffer = 0.0 if by == "place" else grid.extent / 2
        return SplitSettings(
            by=by,
            fractions=check_fractions(self.fractions),
            block_m=8 * grid.extent if self.block_m is None else self.block_m,
            buffer_m=buffer if self.buffer_m is None else self.buffer_m,
            seed=self.seed,
        )


@dataclass(frozen=True)
class PairSummary:
    """What came of a run.

    Attributes:
        folder: where the pairs are.
        sensor: of the chips.
        chips: number of chips.
        photos: number of photos in them.
        pairs: number of (chip, photo) pairs.
        splits: chips a split.
        skipped: photos left out, by reason.
        chips_dropped: planned chips left out, by reason.
    """

    folder: Path
    sensor: str
    chips: int
    photos: int
    pairs: int
    splits: Mapping[str, int]
    skipped: Mapping[str, int]
    chips_dropped: Mapping[str, int]


@dataclass
class Tally:
    """Photos and chips left out so far, by reason, and what the manifest tells beside."""

    photos: Counter[str] = field(default_factory=Counter)
    chips: Counter[str] = field(default_factory=Counter)
    about: dict[str, Any] = field(default_factory=dict)


def reasons(counts: Mapping[str, int]) -> str:
    """Counts by reason, for people."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()) if count) or "no rows"
