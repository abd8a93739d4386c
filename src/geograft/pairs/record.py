"""What a folder of pairs was made of: its claim, its manifest, its summary."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd

from geograft.errors import OutputExists
from geograft.pairs.candidates import SceneSet
from geograft.pairs.grid import Grid
from geograft.pairs.settings import PairSettings, PairSummary, Tally
from geograft.pairs.shards import count_chips, shard_paths
from geograft.pairs.split import count_by_split
from geograft.tables import Manifest, atomic, read_manifest, write_manifest

PLAN_VERSION = 1
"""Raised when the same tables and settings would give another plan."""


@dataclass(frozen=True)
class Plan:
    """Chips to cut, with their candidates and split, and their pairs."""

    chips: pd.DataFrame
    pairs: pd.DataFrame
    photos: gpd.GeoDataFrame


def plan_digest(plan: Plan, scenes: SceneSet, settings: PairSettings) -> str:
    """What the output depends on, in 16 hex digits."""
    digest = hashlib.sha256(json.dumps([PLAN_VERSION, asdict(settings)], default=list).encode())
    photos = plan.photos.loc[:, ["photo_id", "lon", "lat", "uri"]].astype(str)
    used = scenes.table.loc[:, ["scene_id", "uri", "taken"]].astype(str)
    pairs = plan.pairs.astype({"chip_id": str})
    for table in (plan.chips.drop(columns="candidates"), pairs, photos, used):
        digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    digest.update(json.dumps(plan.chips["candidates"].tolist()).encode())
    return digest.hexdigest()[:16]


def is_done(out: Path, digest: str) -> bool:
    """Whether `out` holds these pairs already, all shards included; claims the folder for them where it is new.

    Raises:
        OutputExists: it holds others.
        UnreadableTable: a shard is damaged.
    """
    claim = out / "plan.json"
    if claim.exists():
        if _claimed(claim) != digest:
            raise OutputExists(f"{out} holds pairs of other tables or settings: name another folder or remove it.")
        return (out / "manifest.json").exists() and _has_all_pixels(out)
    if (out / "manifest.json").exists() or (out / "shards").exists():
        raise OutputExists(f"{out} is in use already: name another folder.")
    with atomic(claim) as temporary:
        temporary.write_text(json.dumps({"digest": digest}) + "\n", encoding="utf-8")
    return False


def _has_all_pixels(out: Path) -> bool:
    """Whether the shards of finished pairs hold every chip: one that was removed is cut again."""
    chips = int(read_manifest(out / "manifest.json").extra["chips"])
    return sum(count_chips(path) for path in shard_paths(out)) == chips


def _claimed(claim: Path) -> str | None:
    """The digest of the pairs that a folder is for; None where the claim cannot be read."""
    try:
        return str(json.loads(claim.read_text(encoding="utf-8"))["digest"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Made:
    """Finished pairs, and what they were made of."""

    chips: pd.DataFrame
    pairs: pd.DataFrame
    scenes: SceneSet
    grid: Grid
    inputs: dict[str, list[Path]]
    tally: Tally


def write_record(out: Path, made: Made, settings: PairSettings, digest: str) -> None:
    """Say what was read, how, and what came of it."""
    about = {
        "sensor": made.scenes.sensor.name,
        "gsd": made.grid.gsd,
        "plan": digest,
        "split": asdict(settings.division(made.grid)),
        "chips": len(made.chips),
        "pairs": len(made.pairs),
        "splits": count_by_split(made.chips),
        "chips_dropped": _sorted(made.tally.chips),
        "scenes": {"used": int(made.chips["scene_id"].nunique()), "skipped": made.scenes.skipped},
        **made.tally.about,
    }
    done = int(made.pairs["photo"].nunique())
    counts = {"done": done, "skipped": _sorted(made.tally.photos), "failed": {}}
    write_manifest(out / "manifest.json", Manifest("pairs", made.inputs, settings, counts, extra=about))


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts above zero by reason, in alphabetical order."""
    return {reason: count for reason, count in sorted(counts.items()) if count}


def read_summary(out: Path) -> PairSummary:
    """The summary of finished pairs."""
    manifest = read_manifest(out / "manifest.json")
    about = manifest.extra
    return PairSummary(
        folder=out,
        sensor=about["sensor"],
        chips=about["chips"],
        photos=manifest.counts["done"],
        pairs=about["pairs"],
        splits=about["splits"],
        skipped=manifest.counts["skipped"],
        chips_dropped=about["chips_dropped"],
    )
