"""From a plan to pairs with pixels: every planned chip cut and written into shards, then the tables of what came of it.

A shard is one task of the engine. Whole shards are never written again, so a run that was killed goes on where it
stopped, and ends with the same bytes whatever the engine and the number of workers.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from geograft.engine import open_engine
from geograft.errors import NoPairs, OutputExists, UnreachableScene
from geograft.models.teacher import Teacher, load_teacher
from geograft.pairs.card import write_card
from geograft.pairs.collection import write_collection
from geograft.pairs.cutting.output import Made, write_tables
from geograft.pairs.cutting.planned import PlanFolder
from geograft.pairs.cutting.shards import ShardTask, is_whole, shard_paths, write_shard
from geograft.pairs.embeddings import embed_photos, embeddings_path
from geograft.pairs.encoding import check_encoding
from geograft.pairs.planning.record import read_summary
from geograft.pairs.planning.split import SPLITS
from geograft.pairs.settings import PairSummary, reasons
from geograft.pairs.vectors import pack, unpack
from geograft.tables import Manifest, read_manifest, track, write_manifest

logger = logging.getLogger(__name__)

STAGE = "pairs materialise"
TABLES = ("chips.parquet", "pairs.parquet", "photos.parquet")
RECORDS = ("manifest.json", "README.md", "collection.json")


def materialise(
    out: Path, *, teacher: Teacher | str | None = None, engine: str = "local", workers: int | None = None
) -> PairSummary:
    """Cut the chips of a plan and write them with their photos.

    Args:
        out: the folder of pairs, with its `plan/`; gets shards/, chips.parquet, pairs.parquet, photos.parquet,
            manifest.json, a data set card (README.md) and a STAC collection (collection.json). A run that was
            killed goes on where it stopped, a shard that was removed or damaged is cut again, and what is done is
            not done again.
        teacher: embeds the photos first, and every photo in a shard carries its embedding; none do where None.
        engine: where shards are written; see `open_engine`.
        workers: shards at once; as many as there are cores where None.

    Returns:
        Counts of what was made and what was left out, by the plan or here.

    Raises:
        MissingInput: there is no plan.
        UnreadableTable: a table of the plan is damaged.
        BadSetting: the plan's encoding cannot hold its sensor.
        OutputExists: the folder holds shards of another plan or teacher.
        EmptyTable: a teacher is given, and no photo can be read.
        UnreachableScene: a scene's server does not answer; all other shards are written, and stay.
        NoPairs: no chip could be cut.
        EngineFailed: workers died again and again.
        DiskFull: whole shards stay, to go on from.
    """
    plan = PlanFolder(Path(out))
    check_encoding(plan.encoding, plan.sensor, plan.size)
    found = load_teacher(teacher) if isinstance(teacher, str) else teacher
    tasks = [ShardTask(plan.out, number, found.fingerprint if found else "") for number in range(plan.shards)]
    _refuse_others(plan, tasks)
    _remove_leftovers(plan.out)
    missing = _missing(plan, tasks)
    if not missing and _is_finished(plan):
        return read_summary(plan.out, plan.out)
    if found:
        _embed(plan.out, found, needed=bool(missing))
    _write_shards(missing, engine, workers)
    embeddings = embeddings_path(plan.out, found.fingerprint) if found else None
    made = write_tables(plan, [task.path for task in tasks], embeddings)
    if not made.chips:
        raise NoPairs(
            f"No chip could be cut ({reasons(made.dropped)}): give scenes of other dates, or raise max_cloud."
        )
    if found:
        unpack(plan.out, found.fingerprint)
    _write_record(plan, made, found)
    write_card(plan.out)
    write_collection(plan.out)
    return read_summary(plan.out, plan.out)


def _refuse_others(plan: PlanFolder, tasks: list[ShardTask]) -> None:
    """Refuse a folder that holds pairs of another plan."""
    path = plan.out / "manifest.json"
    if path.is_file() and read_manifest(path).extra.get("plan") != plan.digest:
        raise OutputExists(f"{plan.out} holds pairs of another plan: name another folder or remove them.")
    wanted = {task.path for task in tasks}
    if extra := [path for path in shard_paths(plan.out) if path not in wanted]:
        raise OutputExists(f"{extra[0]} is no shard of this plan: name another folder, or remove {extra[0].parent}.")


def _missing(plan: PlanFolder, tasks: list[ShardTask]) -> list[ShardTask]:
    """The shards that are not there whole."""
    missing = [task for task in tasks if not is_whole(task, plan.digest)]
    if len(missing) < len(tasks):
        logger.info("%d of %d shards are there already", len(tasks) - len(missing), len(tasks))
    return missing


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed run left half written."""
    for leftover in (*out.glob(".*.part.*"), *(out / "shards").glob(".*.part.*")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_finished(plan: PlanFolder) -> bool:
    """Whether the tables of all shards are written, and what is said of them."""
    return all((plan.out / name).is_file() for name in (*TABLES, *RECORDS))


def _embed(out: Path, teacher: Teacher, *, needed: bool) -> None:
    """Embed the plan's photos, and lay their embeddings out for the shards."""
    table = embed_photos(out, teacher)
    if needed:
        pack([table], out, teacher.fingerprint)


def _write_shards(tasks: list[ShardTask], engine: str, workers: int | None) -> None:
    """Have an engine write shards; a manifest of tables that would not be theirs goes first."""
    if not tasks:
        return
    (tasks[0].out / "manifest.json").unlink(missing_ok=True)
    with open_engine(engine, workers=workers) as running:
        results = track(running.map(write_shard, tasks), "Writing shards", len(tasks))
        left = [problem for problem in results if problem]
    if left:
        raise UnreachableScene(f"{len(left)} of {len(tasks)} shards wait for a server: run again. {left[0]}")


def _write_record(plan: PlanFolder, made: Made, teacher: Teacher | None) -> None:
    """Say what was planned, and what came of it."""
    planned = plan.manifest
    about: dict[str, Any] = {
        **planned.extra,
        "encoding": plan.encoding,
        "shards": plan.shards,
        "chips": made.chips,
        "pairs": made.pairs,
        "splits": {name: made.splits[name] for name in SPLITS},
        "chips_dropped": _sum(planned.extra.get("chips_dropped", {}), made.dropped),
        "scenes_used": len(made.scenes),
    }
    if teacher:
        about["teacher"] = {"name": teacher.name, "fingerprint": teacher.fingerprint, "dim": teacher.dim}
    failed = {"unreadable-photo": made.unreadable} if made.unreadable else {}
    skipped = _sum(planned.counts.get("skipped", {}), made.lost)
    counts = {"done": made.photos, "skipped": skipped, "failed": failed}
    manifest = Manifest(STAGE, planned.inputs, planned.settings, counts, extra=about)
    write_manifest(plan.out / "manifest.json", manifest)


def _sum(*counts: Any) -> dict[str, int]:
    """Counts above zero by reason, added up, in alphabetical order."""
    names = sorted({name for each in counts for name in each})
    total = {name: sum(int(each.get(name, 0)) for each in counts) for name in names}
    return {name: count for name, count in total.items() if count}
