"""From a photo table and a scene table to a plan: which chips to cut of which scenes, and which photos lie in each.

The stages, each counted in the manifest: photos without a position are left out (`intake`), indoor ones where a teacher
is named (`indoor`); the rest are covered by chips on the UTM grid, zone by zone (`coverage`), where scenes hold a whole
chip (`survey`, `stacks`); chips are thinned where they are dense and divided by place (`choice`).

No scene is opened to plan. The plan depends on the rows of the tables, not on their order, nor on the engine, the
number of workers, or on how often a run was killed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from geograft.engine import open_engine
from geograft.errors import EmptyTable, NoPairs, SceneTooSmall
from geograft.models.teacher import Teacher, load_teacher
from geograft.pairs.materialise import materialise
from geograft.pairs.planning.choice import Dealing, choose
from geograft.pairs.planning.coverage import cover_zones
from geograft.pairs.planning.draft import Draft
from geograft.pairs.planning.inputs import as_paths
from geograft.pairs.planning.job import Job, read_job, without_indoor
from geograft.pairs.planning.plan_files import shard_starts, write_chips, write_pairs, write_scenes
from geograft.pairs.planning.record import Planned, is_planned, plan_digest, plan_folder, read_summary, write_record
from geograft.pairs.planning.split import count_by_split
from geograft.pairs.settings import PairSettings, PairSummary
from geograft.tables import remove_leftovers, track

__all__ = ["PairSettings", "PairSummary", "make_pairs", "plan_pairs"]


def make_pairs(
    photos: Path | Sequence[Path],
    scenes: Path | Sequence[Path],
    out: Path,
    *,
    settings: PairSettings | None = None,
    teacher: Teacher | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> PairSummary:
    """Plan pairs and materialise them: both stages in one call; see `plan_pairs` and `materialise`.

    The teacher finds indoor photos only; the shards hold no embeddings.
    """
    plan_pairs(photos, scenes, out, settings=settings, teacher=teacher, engine=engine, workers=workers)
    return materialise(out, engine=engine, workers=workers)


def plan_pairs(
    photos: Path | Sequence[Path],
    scenes: Path | Sequence[Path],
    out: Path,
    *,
    settings: PairSettings | None = None,
    teacher: Teacher | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> PairSummary:
    """Plan which chips to cut, with the photos taken inside them, split by place.

    Args:
        photos: photo tables (see `sources.photos`); regions may lie far apart.
        scenes: scene tables (see `sources.scenes`).
        out: folder of pairs; the plan goes to its folder `plan`. A run that was killed goes on where it stopped; one
            that is done is not done again.
        settings: how; the defaults where None.
        teacher: finds indoor photos; the one that `settings.indoor_teacher` names where None.
        engine: where zones are planned (see `engine.open_engine`).
        workers: zones at once.

    Returns:
        Counts of what is planned and what was left out.

    Raises:
        MissingInput, MissingColumns, UnreadableTable: a table is absent, damaged or lacks columns.
        EmptyTable: no photos, or none that may be used.
        UnknownSensor, BadSetting: the scenes' sensor is unknown, or one of several must be chosen.
        SceneTooSmall: no scene can hold a chip.
        NoPairs: no photo lies on any scene.
        OutputExists: `out` holds pairs of other tables or settings.
        DiskFull: what was written stays, to go on from.
    """
    out, settings = Path(out), settings or PairSettings()
    if teacher is None and settings.indoor_teacher is not None:
        teacher = load_teacher(settings.indoor_teacher)
    job = read_job(as_paths(photos), as_paths(scenes), out, settings)
    digest = plan_digest(job.photos, job.scenes, settings, teacher.fingerprint if teacher else "")
    if not is_planned(out, digest):
        remove_leftovers(job.folder)
        with _nothing_stays_of_no_plan(out):
            _plan(job if teacher is None else without_indoor(job, out, teacher), digest, engine, workers)
    shutil.rmtree(job.work, ignore_errors=True)
    return read_summary(out, job.folder)


def _plan(job: Job, digest: str, engine: str, workers: int | None) -> None:
    """Make the plan and write it."""
    with open_engine(engine, workers=workers) as running:
        zones = cover_zones(job, running)
    with ThreadPoolExecutor(1) as pool:  # tables are read again while chips are chosen
        dealing = Dealing(job, pool)
        draft = choose(job, sorted(map(int, zones)), dealing)
    with dealing.done() as dealt:
        counts = _write(draft, job, lambda path: dealt.write(path, draft.paired[dealing.photos]))
    splits = count_by_split(draft.chips["split"].to_numpy())
    planned = Planned(digest, job.sensor.name, job.grid, job.inputs, counts, splits, zones)
    write_record(job.folder, planned, job.settings, job.tally)


@contextmanager
def _nothing_stays_of_no_plan(out: Path) -> Iterator[None]:
    """Remove a plan's folder, and `out` where it holds nothing else, when there turns out to be nothing to plan."""
    try:
        yield
    except (EmptyTable, NoPairs, SceneTooSmall):
        shutil.rmtree(plan_folder(out), ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()
        raise


def _write(draft: Draft, job: Job, write_photos: Callable[[Path], None]) -> dict[str, int]:
    """Write the plan's tables, side by side; gives what they count."""
    names = draft.names(job.grid, job.settings.time_bin_days)
    starts = shard_starts(draft, max(1, job.settings.shard_mb * 2**20 // _chip_bytes(job)))
    scenes = write_scenes(job.folder / "scenes.parquet", job.scenes, draft)
    ids = job.scenes["scene_id"].tolist()
    tables = (
        (write_photos, job.folder / "photos.parquet"),
        (write_pairs, job.folder / "pairs.parquet", draft, names, job.photos, starts),
        (write_chips, job.folder / "chips.parquet", draft, names, job.grid, starts, ids),
    )
    with ThreadPoolExecutor(len(tables)) as pool:
        writing: list[Future[None]] = [pool.submit(*table) for table in tables]
        for done in track(as_completed(writing), "Writing tables", len(tables)):
            done.result()
    return {
        "chips": len(draft.chips),
        "pairs": len(draft.pairs),
        "photos": int(draft.paired.sum()),
        "shards": len(starts) - 1,
        "scenes": scenes,
    }


def _chip_bytes(job: Job) -> int:
    """The size of a chip's pixels."""
    return int(len(job.sensor.bands) * job.grid.size**2 * np.dtype(job.sensor.dtype).itemsize)
