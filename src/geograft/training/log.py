"""What a training run tells: a JSONL file for programs, a progress bar for people."""

import json
import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from geograft.errors import MissingExtra

logger = logging.getLogger(__name__)


class Journal:
    """A JSONL file of records, and TensorBoard's curves of the same figures where wanted.

    Args:
        path: of the file.
        keep: records of whole epochs before this one stay, and of steps before `steps`; what a killed run wrote of
            later ones goes.
        steps: steps that the run has done.
        tensorboard: draw curves into the folder `tensorboard` beside the file.

    Raises:
        MissingExtra: curves are wanted and TensorBoard is not installed.
    """

    def __init__(self, path: Path, *, keep: int = 0, steps: int = 0, tensorboard: bool = False) -> None:
        self._path = path
        self._board = _board(path.parent / "tensorboard", steps) if tensorboard else None
        kept = [line for line in _lines(path) if _stays(line, keep, steps)]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, record: dict[str, Any], *, step: int) -> None:
        """Append a record of what was measured at a step; floats are rounded to 6 digits."""
        plain = {key: round(value, 6) if isinstance(value, float) else value for key, value in record.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")
        if self._board is not None:
            group = "step" if "step" in record else "epoch"
            for key, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{group}/{key}", value, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()


def _stays(line: dict[str, Any], epochs: int, steps: int) -> bool:
    """Whether a record tells of something that a resumed run will not do again."""
    return bool(line["step"] < steps if "step" in line else line.get("epoch", 0) < epochs)


def _board(folder: Path, steps: int) -> Any:
    """TensorBoard's writer; curves that reach beyond the steps done are cut there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("Curves need TensorBoard: pip install 'geograft[tensorboard]'.") from error
    return SummaryWriter(str(folder), purge_step=steps or None)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of one epoch each, in order; a last line that a kill cut short is left out."""
    return [line for line in _lines(path) if "step" not in line]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


class Meter:
    """A progress bar on stderr with the loss, the speed and the time left; silent where stderr is no terminal.

    Args:
        unit: what is counted a second ("chips").
        epochs: of the run.
        steps: of an epoch.
        done: steps already done.
        shown: whether to draw and to log; one process of many does.
    """

    def __init__(self, unit: str, epochs: int, steps: int, *, done: int = 0, shown: bool = True) -> None:
        self._unit, self._epochs, self._count, self._shown = unit, epochs, done // max(steps, 1), shown
        self._loss = self._seen = 0.0
        self._started = time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            disable=not (shown and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task(self._title(), total=epochs * steps, completed=done, note="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()

    def step(self, loss: float, count: int) -> float:
        """Count one step of `count` units; the speed so far, in units a second."""
        self._seen += count
        self._loss = 0.9 * self._loss + 0.1 * loss if self._loss else loss
        speed = self._seen / (time.perf_counter() - self._started)
        note = f"loss {self._loss:.3f} · {speed:.0f} {self._unit}/s"
        self._bar.update(self._task, advance=1, note=note)
        return speed

    def epoch(self, record: dict[str, float]) -> None:
        """Say what an epoch came to."""
        self._count += 1
        figures = "  ".join(f"{name} {value:.4g}" for name, value in record.items())
        if self._shown:
            logger.info("epoch %d of %d: %s", self._count, self._epochs, figures)
        self._bar.update(self._task, description=self._title())

    def _title(self) -> str:
        return f"Training, epoch {min(self._count + 1, self._epochs)} of {self._epochs}"
