"""The cover of all zones: each a task with files of its own, those that touch one after another."""

from collections.abc import Iterator, Sequence
from typing import Any

from geograft.engine import Engine
from geograft.hashing import hash_ids
from geograft.pairs.planning.arrays import save_arrays
from geograft.pairs.planning.covering import ZoneTask, plan_zone
from geograft.pairs.planning.draft import counts_by_zone
from geograft.pairs.planning.ground import Ground
from geograft.pairs.planning.job import Job
from geograft.pairs.planning.survey import COARSE
from geograft.pairs.planning.zones import by_zone, phases, touching
from geograft.tables import track


def cover_zones(job: Job, engine: Engine) -> dict[str, dict[str, int]]:
    """Plan all zones; gives what each holds."""
    zones = _deal(job)
    done = list(track(_zone_by_zone(zones, job, engine), "Planning zones", len(zones)))
    return counts_by_zone(sorted(done, key=lambda found: int(found["zone"])))


def _deal(job: Job) -> list[int]:
    """Write the photos of each zone, and the scenes under them, to files of its own."""
    photos, ground = job.photos, Ground.of(job.scenes)
    lot = hash_ids(photos.ids, f"draw {job.settings.seed}")
    zones = []
    for zone, rows, own in by_zone(photos.lon, photos.lat, 2 * job.grid.extent):
        task = ZoneTask(zone, job.work, job.grid, job.settings)
        zones.append(zone)
        if not task.photos.exists():
            lon, lat = photos.lon[rows], photos.lat[rows]
            ground.near(lon, lat, 2 * COARSE * job.grid.extent).save(task.scenes)
            columns = {"lon": lon, "lat": lat, "taken": photos.taken[rows], "lot": lot[rows]}
            save_arrays(task.photos, photo=rows, own=own, **columns)
    return zones


def _zone_by_zone(zones: Sequence[int], job: Job, engine: Engine) -> Iterator[dict[str, Any]]:
    """Plan zones that do not touch at once, and those that touch one after another."""
    before: set[int] = set()
    for phase in phases(zones):
        tasks = [
            ZoneTask(
                zone, job.work, job.grid, job.settings, tuple(other for other in touching(zone) if other in before)
            )
            for zone in phase
        ]
        yield from engine.map(plan_zone, sorted(tasks, key=lambda task: -task.photos.stat().st_size))
        before.update(phase)
