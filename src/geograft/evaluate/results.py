"""Results of a card: every number with what is needed to redo it, as JSON and as tables."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from geograft.errors import UnreadableTable
from geograft.tables import atomic

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")

METRIC_NAMES = {
    "top1": "top-1",
    "balanced": "balanced",
    "map20": "mAP@20",
    "map100": "mAP@100",
    "miou": "mIoU",
    "pixel_accuracy": "pixel acc.",
    "recall": "recall",
    "ap100": "AP@100",
    "iou": "IoU",
}


@dataclass(frozen=True)
class Result:
    """One number.

    Attributes:
        method: what predicted.
        sensor: what it looked at.
        metric: key of the metric, for example "map100".
        value: the number, 0 to 1; NaN where nothing could be averaged.
        seed: the region, or another repetition's number.
        phrasing: "seen" or "held-out" words.
    """

    method: str
    sensor: str
    metric: str
    value: float
    seed: int
    phrasing: str = "seen"


@dataclass(frozen=True)
class ClassResult(Result):
    """One number of one class.

    Attributes:
        label: the class's name.
        count: how many chips or pixels of the truth have the class.
    """

    label: str = ""
    count: int = 0


@dataclass(frozen=True)
class Provenance:
    """What made a set of results.

    Attributes:
        models: fingerprint of every model, teacher and oracle, by role.
        settings: the card's settings as used.
        commit: git commit of the code, or "" outside a checkout.
        command: what was typed.
        machine: processor, cores and system.
        version: of the package.
    """

    models: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    commit: str = ""
    command: str = ""
    machine: str = ""
    version: str = ""


@dataclass(frozen=True)
class CardResult:
    """All numbers of one card.

    Attributes:
        card: the card's name.
        results: the numbers.
        classes: the numbers by class.
        provenance: what made them.
    """

    card: str
    results: tuple[Result, ...]
    classes: tuple[ClassResult, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def value(self, method: str, metric: str, *, sensor: str, phrasing: str = "seen") -> float:
        """Mean over seeds of one number; NaN where there is none."""
        chosen = (r.value for r in self.results if (r.method, r.metric, r.sensor) == (method, metric, sensor)
                  and r.phrasing == phrasing)  # fmt: skip
        return _mean(chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, NaN as None, as `--json` prints them."""
        whole = {"card": self.card, "results": [asdict(r) for r in self.results]}
        plain: dict[str, Any] = _plain(
            {**whole, "classes": [asdict(r) for r in self.classes], **asdict(self.provenance)}
        )
        return plain

    def write(self, path: str | Path) -> Path:
        """Write the JSON file."""
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        return Path(path)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the main table: methods by metrics, means over seeds, in per cent."""
        metrics = _unique(r.metric for r in self.results)
        header = ["sensor", "words", "method", *(METRIC_NAMES.get(m, m) for m in metrics)]
        lines = _unique((r.sensor, r.phrasing, r.method) for r in self.results)
        rows = [
            [*line, *(_percent(self.value(line[2], m, sensor=line[0], phrasing=line[1])) for m in metrics)]
            for line in lines
        ]
        return header, rows

    def class_rows(self, *, sensor: str, metric: str, phrasing: str = "seen") -> tuple[list[str], list[list[str]]]:
        """Header and rows of a table of classes by methods, means over seeds, in per cent."""
        chosen = [r for r in self.classes if (r.sensor, r.metric, r.phrasing) == (sensor, metric, phrasing)]
        methods, labels = _unique(r.method for r in chosen), _unique(r.label for r in chosen)
        rows = [
            [label, *(_percent(_mean(r.value for r in chosen if (r.label, r.method) == (label, m))) for m in methods)]
            for label in labels
        ]
        return ["class", *methods], rows

    def lines(self) -> list[str]:
        """The main table as aligned text, for terminals."""
        header, rows = self.rows()
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        return [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]
        ]

    def markdown(self) -> str:
        """The main table as Markdown."""
        return markdown_table(*self.rows())

    def rich_table(self) -> "Table":
        """The main table for `rich`."""
        return rich_table(*self.rows(), title=f"{self.card}, per cent, mean over seeds")


def read_results(path: str | Path) -> CardResult:
    """Results that `CardResult.write` wrote.

    Raises:
        UnreadableTable: the file is no results file.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return CardResult(
            card=values["card"],
            results=tuple(Result(**_floats(row)) for row in values["results"]),
            classes=tuple(ClassResult(**_floats(row)) for row in values.get("classes", [])),
            provenance=Provenance(**{name: values[name] for name in Provenance.__dataclass_fields__ if name in values}),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableTable(
            f"{path} is no file of results ({error}); make one with `geograft evaluate --json`"
        ) from error


def provenance(*, models: dict[str, str], settings: dict[str, Any]) -> Provenance:
    """What made the results of this process."""
    from geograft import __version__

    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return Provenance(models, settings, git_commit(), command, machine, __version__)


def git_commit() -> str:
    """Commit of the checkout that the package runs from, with "+" if files differ; "" outside a checkout."""
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    changed = commit and _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}+" if changed else commit


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rich_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> "Table":
    """A table for `rich`; the first three columns are text, the others numbers."""
    from rich.table import Table

    table = Table(title=title)
    for name in header:
        table.add_column(name, justify="left" if name in {"sensor", "words", "method", "class"} else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return fmean(known) if known else float("nan")


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{100 * value:.1f}"


def _floats(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "value": float("nan") if row["value"] is None else row["value"]}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and isnan(value) else value
