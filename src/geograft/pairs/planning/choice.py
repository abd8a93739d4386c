"""Which of the covered chips are cut: those with a scene in time, thinned where they are dense, divided by place."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import geopandas as gpd
import numpy as np

from geograft.errors import NoPairs, SceneTooSmall
from geograft.pairs.planning.dividing import divide
from geograft.pairs.planning.draft import Draft, Sieve, density_cap, gather
from geograft.pairs.planning.job import Job
from geograft.pairs.planning.photo_rows import Dealt
from geograft.pairs.planning.split import SPLITS, count_by_split
from geograft.pairs.settings import PairSettings, Tally

logger = logging.getLogger(__name__)


class Dealing:
    """The photo tables' rows, put in the order of the visit by a thread of its own once it is known which may be used.

    Args:
        job: names the tables.
        pool: runs the thread.
    """

    def __init__(self, job: Job, pool: ThreadPoolExecutor) -> None:
        self._job, self._pool = job, pool

    def begin(self, photos: Any) -> None:
        """Deal some photos, by number."""
        job, self.photos = self._job, photos
        self._dealt = self._pool.submit(Dealt, job.inputs["photos"], job.photos.row[photos], job.work / "photos")

    def done(self) -> Dealt:
        """The dealt rows."""
        return self._dealt.result()


def choose(job: Job, zones: Sequence[int], dealing: Dealing) -> Draft:
    """The chips to cut, with their split."""
    settings = job.settings
    draft = gather(job.work, zones, len(job.photos), job.tally)
    if draft.chips.empty:
        _explain(job)
    dealing.begin(np.flatnonzero(draft.paired))
    served = np.zeros(len(draft.chips), np.bool_)
    served[draft.stacks.chip] = True
    draft = _sieved(draft, served, "no-scene-in-time", job.tally)
    if draft.chips.empty:
        raise NoPairs("No chip has a scene within max_gap_days of its photos: give scenes of other dates, or raise it.")
    if settings.density_cap is not None:
        names = draft.names(job.grid, settings.time_bin_days)
        keep = density_cap(draft, names, settings.density_cap, settings.density_km, settings.seed)
        draft = _sieved(draft, keep, "density-cap", job.tally)
    draft = divide(draft, job.photos, job.scenes, job.grid, settings.division(job.grid), job.tally)
    if draft.chips.empty:
        raise NoPairs("No chip is left between the splits: use larger blocks, a smaller buffer_m, or more ground.")
    _note_empty_splits(draft, settings)
    return draft


def _sieved(draft: Draft, keep: Any, reason: str, tally: Tally) -> Draft:
    """Some chips, the others counted under a reason."""
    sieve = Sieve(draft, tally)
    sieve.keep_chips(keep, reason)
    return sieve.result()


def _note_empty_splits(draft: Draft, settings: PairSettings) -> None:
    """Say in the log which wanted splits hold no chip."""
    if settings.split in {None, "none"}:
        return
    found = count_by_split(draft.chips["split"].to_numpy())
    empty = [name for name, share in zip(SPLITS, settings.fractions, strict=True) if share > 0 and not found[name]]
    if empty:
        logger.warning("No chip fell to %s: use smaller blocks, more ground or other fractions.", " and ".join(empty))


def _explain(job: Job) -> None:
    """Say why there is no chip at all."""
    lon, lat = job.photos.lon, job.photos.lat
    span = ", ".join(f"{value:.4f}" for value in (lon.min(), lat.min(), lon.max(), lat.max()))
    bounds = ", ".join(f"{value:.4f}" for value in job.scenes.total_bounds)
    where = f"Photos span {span}, scenes {bounds} (west, south, east, north)"
    if not job.tally.photos["scene-edge"]:
        raise NoPairs(
            f"No photo lies on any scene. {where}: give scenes of the photos' region, and check that lon and lat are "
            "not swapped."
        )
    widest = _widest(job.scenes)
    if widest < job.grid.extent * 0.999:
        raise SceneTooSmall(
            f"A chip of {job.grid.size} px at {job.grid.gsd:g} m is {job.grid.extent:g} m wide, but the largest scene "
            f"is {widest:.0f} m: choose a smaller chip size or gsd."
        )
    raise NoPairs(
        f"No chip of {job.grid.extent:g} m centred on a photo lies wholly on scenes. {where}: choose a smaller chip "
        "size or gsd."
    )


def _widest(scenes: gpd.GeoDataFrame) -> float:
    """The shorter side of the largest scene in metres; infinite where the table does not say."""
    if not {"width", "height", "gsd"} <= set(scenes.columns):
        return np.inf
    return float((scenes[["width", "height"]].min(axis=1) * scenes["gsd"]).max())
