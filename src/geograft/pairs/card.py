"""The dataset card of a folder of pairs, in the form that the Hugging Face Hub reads."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from geograft.pairs.leakage import Leakage, leakage, save_leakage
from geograft.pairs.publishing.facts import NO_LICENCE, Facts, facts_of
from geograft.pairs.publishing.figures import write_histogram, write_map
from geograft.pairs.publishing.folder import PairFolder, open_folder
from geograft.pairs.publishing.page import lead, render
from geograft.pairs.publishing.provenance import commands
from geograft.tables import atomic

_HUB_LICENCES = frozenset({
    "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "pddl", "gfdl",
})  # fmt: skip
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip
_PICTURES = {"map": "map.png", "photos": "photos-a-chip.png", "gaps": "time-gaps.png", "accuracy": "accuracy.png"}


@dataclass(frozen=True)
class CardSettings:
    """What a card says that the pairs themselves do not know.

    Attributes:
        title: the dataset's name; the folder's where None.
        description: a paragraph in Markdown, written as it is.
        imagery_licence: under which licence the chips' imagery may be passed on, in words.
        form: how the pixels lie: "shards", or the form of an export ("parquet", "webdataset", "images").
        private: a sentence on what was taken out for the sake of people's privacy.
    """

    title: str | None = None
    description: str = ""
    imagery_licence: str | None = None
    form: str = "shards"
    private: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a card is written from.

    Attributes:
        folder: the pairs.
        facts: counted.
        leaks: looked for.
        settings: what the writer adds.
    """

    folder: PairFolder
    facts: Facts
    leaks: Leakage
    settings: CardSettings = field(default_factory=CardSettings)


def write_card(folder: str | Path, *, settings: CardSettings | None = None) -> Path:
    """Write README.md, its pictures in `card/`, and leakage.json into a folder of pairs.

    The card has the Hub's YAML header, counts by split, a map, licences, histograms, what each stage left out, the
    leakage report and how to read the files. The same pairs give the same bytes: it holds no date of its own.

    Returns:
        The path of README.md.

    Raises:
        MissingInput: the folder holds no pairs.
        MissingColumns, UnreadableTable, EmptyTable: a table is damaged or empty.
    """
    tables = open_folder(folder)
    leaks = leakage(tables)
    evidence = Evidence(tables, facts_of(tables), leaks, settings or CardSettings())
    save_leakage(leaks, tables.tables / "leakage.json")
    return write_card_of(evidence, tables.root)


def write_card_of(evidence: Evidence, out: Path) -> Path:
    """Write README.md and its pictures in `card/` into a folder."""
    facts = evidence.facts
    write_map(facts.chips, out / "card" / _PICTURES["map"])
    for name, histogram in (("photos", facts.photos_a_chip), ("gaps", facts.gap_days), ("accuracy", facts.accuracy_m)):
        write_histogram(histogram, out / "card" / _PICTURES[name])
    path = out / "README.md"
    with atomic(path) as temporary:
        temporary.write_text(card(evidence), encoding="utf-8")
    return path


def card(evidence: Evidence) -> str:
    """The card as Markdown with a YAML header."""
    folder, facts, settings = evidence.folder, evidence.facts, evidence.settings
    title = settings.title or folder.root.absolute().name
    last = next((stage for stage in reversed(facts.stages) if stage.settings), None)
    return render(
        "card.md.j2",
        escape=False,
        header=yaml.safe_dump(header(facts, title, settings.form), sort_keys=False, allow_unicode=True),
        title=title,
        lead=lead(folder, facts),
        description=settings.description.strip(),
        facts=facts,
        extent=_extent(facts),
        pictures={name: f"card/{file}" for name, file in _PICTURES.items()},
        split_text=_split_text(folder),
        leak_text=_leak_text(facts, evidence.leaks),
        leak_rows=list(_leak_rows(evidence.leaks)),
        imagery_licence=settings.imagery_licence,
        private=settings.private,
        photos_a_chip=facts.photos_a_chip,
        gap_days=facts.gap_days,
        accuracy=facts.accuracy_m,
        commands=commands(facts.stages),
        settings_text=yaml.safe_dump(dict(last.settings), sort_keys=False, allow_unicode=True) if last else "",
        versions=last.versions if last else {},
        form=settings.form,
        planned=folder.planned,
    )


def header(facts: Facts, title: str, form: str) -> dict[str, Any]:
    """The YAML header of the card: licences, size, tasks and where each split's files lie."""
    return {
        "pretty_name": title,
        "license": hub_licences(facts.licences),
        "size_categories": [next((name for most, name in _SIZES if len(facts.chips.lon) < most), "n>1T")],
        "task_categories": ["image-feature-extraction", "zero-shot-image-classification"],
        "tags": ["geospatial", "remote-sensing", "earth-observation", "ground-photos", "graft", *facts.sensors],
        "configs": list(_configs(facts, form)),
    }


def _configs(facts: Facts, form: str) -> Iterator[dict[str, Any]]:
    """The parts that `load_dataset` finds."""
    patterns = {"parquet": "*.parquet", "webdataset": "*.tar", "images": "*/*"}
    if form in patterns:
        files = [{"split": name, "path": f"{folder_of(name)}/{patterns[form]}"} for name in facts.splits]
        yield {"config_name": "default", "data_files": files}
    else:
        files = [{"split": "everything", "path": "shards/part-*.parquet"}]
        yield {"config_name": "default", "data_files": files}
    for table in ("chips", "pairs", "photos"):
        yield {"config_name": table, "data_files": [{"split": "everything", "path": f"{table}.parquet"}]}


def folder_of(split: str) -> str:
    """The folder of a split in an export."""
    return {"validation": "val"}.get(split, re.sub(r"[^A-Za-z0-9_-]", "_", split))


def hub_licences(licences: Mapping[str, int]) -> list[str]:
    """Licences by the ids that the Hub knows, most photos first; "other" and "unknown" where it has none."""
    found = [_hub_licence(name) for name in licences]
    return list(dict.fromkeys(found)) or ["unknown"]


def _hub_licence(name: str) -> str:
    """One licence's id."""
    if name == NO_LICENCE:
        return "unknown"
    plain = {"cc0": "cc0-1.0", "cc0 1.0": "cc0-1.0"}.get(name, name.replace(" ", "-"))
    return plain if plain in _HUB_LICENCES else "other"


# --- sentences --------------------------------------------------------------------------------------------


def _extent(facts: Facts) -> str:
    """Bounds for people."""
    west, south, east, north = facts.chips.bounds
    return f"{west:.3f} to {east:.3f} ° east, {south:.3f} to {north:.3f} ° north"


def _split_text(folder: PairFolder) -> str:
    """How the chips were divided."""
    texts = {
        "blocks": "Blocks of ground go to one split each, and chips near another split's are dropped.",
        "place": "Whole places (such as walks or towns) go to one split each.",
        "scene": "Whole scenes go to one split each.",
    }
    about = folder.manifest.extra.get("split")
    items = about.items() if isinstance(about, dict) else ()
    details = ", ".join(f"{name} {value}" for name, value in items if name != "by")
    text = texts.get(folder.split_by or "", "All chips are for training; there is no held-out split.")
    return f"{text.rstrip('.')} ({details})." if details and folder.split_by else text


def _leak_text(facts: Facts, leaks: Leakage) -> str:
    """What the leakage report proves."""
    if len(facts.splits) < 2:
        return "With one split nothing can leak."
    near = f"The nearest photos of two splits are {leaks.nearest_m:,.1f} m apart."
    if leaks.none:
        return f"**Nothing leaks between the splits**, by the written tables{' and pixels' * leaks.pixels}. {near}"
    return f"**The splits leak**: see the counts below. {near}"


def _leak_rows(leaks: Leakage) -> Iterator[tuple[str, int, str]]:
    """What splits share, with a remark."""
    yield "ground (pairs of overlapping chips)", leaks.footprints, "a leak"
    yield "photos", leaks.photos, "a leak"
    yield "minutes of one user", leaks.user_minutes, "a leak"
    if leaks.pixels:
        yield "identical pixels", leaks.identical, "a leak"
        yield "chips of one colour", leaks.blank, "says nothing of a place"
    yield "scenes", leaks.scenes, "a leak" if leaks.split_by == "scene" else "other ground of the same scene"
    yield "places", leaks.places, "harmless where the split is by ground"
