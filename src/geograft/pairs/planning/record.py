"""What a plan was made of: its claim on a folder, its manifest, its summary."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from geograft.errors import OutputExists
from geograft.hashing import hash_ids
from geograft.pairs.grid import Grid
from geograft.pairs.planning.intake import Photos
from geograft.pairs.settings import PairSettings, PairSummary, Tally
from geograft.tables import Manifest, atomic, read_manifest, write_manifest

PLAN_VERSION = 2
"""Raised when the same tables and settings would give another plan."""


def plan_digest(photos: Photos, scenes: gpd.GeoDataFrame, settings: PairSettings, teacher: str = "") -> str:
    """What a plan depends on, in 16 hex digits; `teacher` is the fingerprint of the one that finds indoor photos."""
    about = [PLAN_VERSION, asdict(settings), teacher, photos.addresses, photos.places]
    digest = hashlib.sha256(json.dumps(about, default=list).encode())
    for name in ("lon", "lat", "taken", "accuracy", "heading", "user", "place"):
        digest.update(np.ascontiguousarray(getattr(photos, name)).view(np.uint8).data)
    digest.update(hash_ids(photos.ids, "plan").tobytes())  # Arrow's own buffers end in bytes that mean nothing
    for name in sorted(set(scenes.columns) - {"geometry"}):
        digest.update(hash_ids(scenes[name].astype("string").fillna(""), name).tobytes())
    digest.update(b"".join(scenes.geometry.to_wkb()))
    return digest.hexdigest()[:16]


def plan_folder(out: Path) -> Path:
    """Where the plan of a folder of pairs lies."""
    return out / "plan"


def is_planned(out: Path, digest: str) -> bool:
    """Whether `out` holds this plan already; claims the folder for it where it is new.

    Raises:
        OutputExists: it holds another.
    """
    claim = plan_folder(out) / "claim.json"
    if claim.exists():
        if _claimed(claim) != digest:
            raise OutputExists(f"{out} holds pairs of other tables or settings: name another folder or remove it.")
        return (plan_folder(out) / "manifest.json").exists()
    if (out / "manifest.json").exists() or (out / "shards").exists():
        raise OutputExists(f"{out} is in use already: name another folder.")
    with atomic(claim) as temporary:
        temporary.write_text(json.dumps({"plan": digest}) + "\n", encoding="utf-8")
    return False


def _claimed(claim: Path) -> str | None:
    """The digest of the plan that a folder is for; None where the claim cannot be read."""
    try:
        return str(json.loads(claim.read_text(encoding="utf-8"))["plan"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Planned:
    """A finished plan, and what it was made of.

    Attributes:
        digest: see `plan_digest`.
        sensor: of the scenes.
        grid: the chips' size and sampling.
        inputs: photo and scene tables.
        counts: chips, pairs, photos, shards and scenes.
        splits: chips a split.
        zones: photos and chips of each UTM zone.
    """

    digest: str
    sensor: str
    grid: Grid
    inputs: Mapping[str, list[Path]]
    counts: Mapping[str, int]
    splits: Mapping[str, int]
    zones: Mapping[str, Mapping[str, int]]


def write_record(folder: Path, made: Planned, settings: PairSettings, tally: Tally) -> None:
    """Say what was read, how, and what came of it."""
    about: dict[str, Any] = {
        "plan": made.digest,
        "sensor": made.sensor,
        "gsd": made.grid.gsd,
        "split": asdict(settings.division(made.grid)),
        **{name: made.counts[name] for name in ("chips", "pairs", "shards", "scenes")},
        "splits": made.splits,
        "chips_dropped": above_zero(tally.chips),
        "zones": made.zones,
        **tally.about,
    }
    counts = {"done": made.counts["photos"], "skipped": above_zero(tally.photos), "failed": {}}
    write_manifest(folder, Manifest("pairs plan", made.inputs, settings, counts, extra=about))


def above_zero(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts above zero by reason, in alphabetical order."""
    return {reason: count for reason, count in sorted(counts.items()) if count}


def read_summary(out: Path, manifest: Path) -> PairSummary:
    """The summary of a plan or of finished pairs, by its manifest."""
    found = read_manifest(manifest)
    about = found.extra
    return PairSummary(
        folder=out,
        sensor=about["sensor"],
        chips=about["chips"],
        photos=found.counts["done"],
        pairs=about["pairs"],
        splits=about["splits"],
        skipped=found.counts["skipped"],
        chips_dropped=about["chips_dropped"],
    )
