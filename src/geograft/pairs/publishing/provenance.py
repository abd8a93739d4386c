"""What each stage left out on the way to a folder of pairs, by the manifests that it was made through."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geograft.errors import GeograftError
from geograft.pairs.publishing.folder import PairFolder
from geograft.tables import Manifest, manifest_path, read_manifest


@dataclass(frozen=True)
class Stage:
    """One stage's count.

    Attributes:
        name: the command's name, such as "photos".
        what: what it counts: "photos", "scenes" or "chips".
        done: rows that it passed on.
        skipped: rows left out, by reason.
        failed: rows that could not be done, by reason.
        inputs: paths that it read, by name.
        settings: its settings.
        versions: of Python and the libraries.
        output: name of the table or folder that it wrote.
    """

    name: str
    what: str
    done: int
    skipped: Mapping[str, int]
    failed: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    output: str = ""


def stages(folder: PairFolder) -> list[Stage]:
    """The stages that led to a folder of pairs, first to last; those whose manifest is gone are absent."""
    found: dict[Path, tuple[str, Manifest]] = {}
    _collect(folder.tables, found)
    if folder.tables != folder.root / "plan":
        _collect(folder.root / "plan", found)
    everything = [stage for output, manifest in found.values() for stage in _stages_of(manifest, output)]
    return sorted(_own(_merged(everything)), key=_rank)


def _own(everything: list[Stage]) -> list[Stage]:
    """Stages with what they left out themselves: materialising counts what the plan left out once more."""
    planned = {stage.what: stage.skipped for stage in everything if stage.name == "pairs plan"}
    return [
        replace(stage, skipped=_without(stage.skipped, planned[stage.what]))
        if stage.name == "pairs materialise" and stage.what in planned
        else stage
        for stage in everything
    ]


def _without(counts: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Counts less others, those above zero."""
    left = {reason: count - other.get(reason, 0) for reason, count in counts.items()}
    return {reason: count for reason, count in left.items() if count > 0}


def _collect(output: Path, found: dict[Path, tuple[str, Manifest]]) -> None:
    """Read the manifest of an output and, through its inputs, those before it."""
    path = manifest_path(output)
    if path in found or not path.is_file():
        return
    try:
        manifest = read_manifest(path)
    except (GeograftError, OSError):
        return
    whole = output.absolute()
    name = whole.parent.name if whole.name == "plan" else whole.name
    found[path] = (f"{name}/" if output.is_dir() else name, manifest)
    for text in _paths(manifest.inputs):
        for base in (Path(), path.parent, path.parent.parent):
            if (base / text).exists():
                _collect(base / text, found)
                break


def _paths(inputs: Any) -> Iterator[str]:
    """All texts of a manifest's inputs."""
    if isinstance(inputs, str):
        yield inputs
    elif isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _paths(value)
    elif isinstance(inputs, (list, tuple)):
        for value in inputs:
            yield from _paths(value)


def _stages_of(manifest: Manifest, output: str) -> Iterator[Stage]:
    """The counts that a manifest holds: of its rows, and of planned chips where it dropped some."""
    counts = manifest.counts if isinstance(manifest.counts, Mapping) else {}
    settings = manifest.settings if isinstance(manifest.settings, Mapping) else {}
    what = "scenes" if manifest.stage == "scenes" else "photos"
    yield Stage(
        manifest.stage, what, int(counts.get("done", 0)), _counts(counts.get("skipped")), _counts(counts.get("failed")),
        manifest.inputs, settings, manifest.versions, output,
    )  # fmt: skip
    dropped = _counts(manifest.extra.get("chips_dropped"))
    if dropped:
        yield Stage(manifest.stage, "chips", int(manifest.extra.get("chips", 0)), dropped)


def _counts(values: Any) -> dict[str, int]:
    """Counts by reason, whole numbers only."""
    items = values.items() if isinstance(values, Mapping) else ()
    return {str(reason): int(count) for reason, count in items if isinstance(count, (int, float))}


def _merged(everything: list[Stage]) -> list[Stage]:
    """Stages of one name, such as the photo tables of several regions, as one."""
    merged: dict[tuple[str, str], Stage] = {}
    for stage in everything:
        key = (stage.name, stage.what)
        if key not in merged:
            merged[key] = stage
            continue
        before = merged[key]
        merged[key] = Stage(
            stage.name, stage.what, before.done + stage.done, _added(before.skipped, stage.skipped),
            _added(before.failed, stage.failed), before.inputs, before.settings, before.versions, before.output,
        )  # fmt: skip
    return list(merged.values())


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Two counts together."""
    return {reason: one.get(reason, 0) + other.get(reason, 0) for reason in sorted({*one, *other})}


def _rank(stage: Stage) -> tuple[int, str, str]:
    """Where a stage comes in the flow."""
    order = ("photos", "fetch", "scenes", "pairs plan", "pairs materialise", "pairs")
    return (order.index(stage.name) if stage.name in order else len(order), stage.name, stage.what)


def commands(found: list[Stage]) -> list[str]:
    """The stages as the commands that a reader would type, with file names only."""
    lines = []
    for stage in found:
        if stage.what == "chips":
            continue
        materialised = stage.name == "pairs materialise"
        inputs = [] if materialised else sorted({Path(text).name for text in _paths(stage.inputs)})
        lines.append(" ".join(["geograft", stage.name, *map(shlex.quote, filter(None, [*inputs, stage.output]))]))
    return lines
