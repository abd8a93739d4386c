"""Fetching photos by their addresses: polite to servers, resumable after a kill, every address accounted for.

A journal takes what came of each photo as it happens; the tables are written from it at the end. So a run that was
killed loses seconds, a finished photo is never asked for again, and both ways end in the same tables.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from geograft.sources.fetching.crew import Crew
from geograft.sources.fetching.fetched import Addresses, files_here, read_addresses, status_table, write_photos
from geograft.sources.fetching.journal import Journal
from geograft.sources.fetching.settings import FetchSettings
from geograft.tables import Manifest, track, write_manifest, write_table

__all__ = ["FetchSettings", "FetchSummary", "fetch_photos"]


@dataclass(frozen=True)
class FetchSummary:
    """What came of fetching.

    Attributes:
        photos: the table of the photos that are here now.
        rows: photos in it.
        done: addresses fetched, in this run or before.
        skipped: addresses that need no fetching or were left for another run, by reason.
        failed: addresses that gave no photo, by reason.
    """

    photos: Path
    rows: int
    done: int
    skipped: dict[str, int]
    failed: dict[str, int]


def fetch_photos(photos: str | Path, out: str | Path, *, settings: FetchSettings | None = None) -> FetchSummary:
    """Download the photos of a photo table, and write a table of the local files.

    Writes `photos.parquet` (the rows whose photo is here, with local paths and sizes), `status.parquet` (what came of
    each address), `manifest.json`, the photos below `photos/`, and `journal.jsonl`, by which a run that was
    stopped goes on.

    Args:
        photos: a photo table; addresses are http(s), local paths stay as they are.
        out: a folder.
        settings: see `FetchSettings`.

    Raises:
        MissingInput: there is no such table.
        MissingColumns: it has no photo_id or uri.
        UnreadableTable: it is damaged.
        OutputExists: the folder holds photos of another size or quality.
        UnwritableOutput: nothing can be written there, or another run does.
        DiskFull: the disk filled up; run again once there is space.
    """
    settings = settings or FetchSettings()
    photos, out = Path(photos).absolute(), Path(out).absolute()
    addresses = read_addresses(photos)
    about = {"stage": "fetch", "max_side": settings.max_side, "quality": settings.quality}
    with Journal(out / "journal.jsonl", about) as journal:
        _fetch_missing(addresses, out, journal, settings)
        outcomes = journal.outcomes()
    status = status_table(addresses, outcomes)
    rows = write_photos(photos, out, addresses, status)
    write_table(status.drop(columns=["key", "size", "width", "height"]), out / "status.parquet")
    summary = _summary(addresses, status, out, rows)
    counts = {"done": summary.done, "skipped": summary.skipped, "failed": summary.failed}
    write_manifest(out / "manifest.json", Manifest("fetch", {"photos": photos}, settings, counts))
    return summary


def _fetch_missing(addresses: Addresses, out: Path, journal: Journal, settings: FetchSettings) -> None:
    """Fetch what is not here, and write down what came of it."""
    todo = _todo(addresses, journal.outcomes(), files_here(out), retry_failed=settings.retry_failed)
    with Crew(todo, out, settings) as crew:
        for outcome in track(crew.outcomes(), "Fetching photos", len(todo)):
            journal.append(outcome)


def _todo(addresses: Addresses, outcomes: pd.DataFrame, here: dict[str, int], *, retry_failed: bool) -> pd.DataFrame:
    """The addresses to ask: all but those that are skipped, whose file is whole, or that failed before."""
    table = addresses.table
    done = outcomes[outcomes["status"] == "done"]
    whole = done["key"].map(here).astype("Int64") == done["size"]
    finished = set(done["key"][whole.fillna(value=False)])
    if not retry_failed:
        finished |= set(outcomes["key"][outcomes["status"] == "failed"])
    return table[(table["reason"] == "") & ~table["key"].isin(finished)]


def _summary(addresses: Addresses, status: pd.DataFrame, out: Path, rows: int) -> FetchSummary:
    """The counts of a status table."""
    counts = {kind: _counts(status["reason"][status["status"] == kind]) for kind in ("skipped", "failed")}
    if missing := int(np.count_nonzero(addresses.owner < 0)):
        counts["skipped"]["no-uri"] = missing
    done = int((status["status"] == "done").sum())
    return FetchSummary(out / "photos.parquet", rows, done, counts["skipped"], counts["failed"])


def _counts(reasons: pd.Series) -> dict[str, int]:
    """How many of each reason, by name."""
    return {str(reason): int(count) for reason, count in reasons.value_counts().sort_index().items()}
