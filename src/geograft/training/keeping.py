"""Checkpoints: what a killed run goes on from, whole or not at all, and the best weights so far."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from geograft.errors import CheckpointMismatch, OutputExists
from geograft.models.satellite import load_strictly
from geograft.tables import atomic, remove_leftovers
from geograft.training.schedule import Average

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class History:
    """What a run came to.

    Attributes:
        epochs: one record of figures an epoch.
        best_epoch: the epoch (0-based) whose weights are kept as the best.
        seconds: time spent, over all resumed parts.
    """

    epochs: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> dict[str, float]:
        """The figures of the best epoch."""
        return self.epochs[self.best_epoch]


@dataclasses.dataclass
class Progress:
    """How far a run has come.

    Attributes:
        history: the whole epochs.
        batches: done of the epoch after them.
        total: the sum of these batches' losses.
    """

    history: History = dataclasses.field(default_factory=History)
    batches: int = 0
    total: float = 0.0

    @property
    def epoch(self) -> int:
        """The epoch that is being done, from 0."""
        return len(self.history.epochs)

    def end_epoch(self, record: dict[str, float]) -> bool:
        """Take an epoch's figures down; whether it is the best so far."""
        self.history.epochs.append(record)
        losses = [figures.get("val_loss", figures["loss"]) for figures in self.history.epochs]
        self.history.best_epoch = min(range(len(losses)), key=losses.__getitem__)
        self.batches, self.total = 0, 0.0
        return self.history.best_epoch == len(losses) - 1


class Keeper:
    """The checkpoints of a run: `last.pt`, from which it goes on, and `best.pt`, the weights of the best epoch.

    Args:
        folder: of the checkpoints; made where missing.
        identity: what makes this run this run; a checkpoint of another one is refused.
        every: minutes between two checkpoints inside an epoch.
        steps: steps between two checkpoints inside an epoch, or None.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], *, every: float, steps: int | None) -> None:
        self._last, self._best = folder / "last.pt", folder / "best.pt"
        self._identity, self._every, self._steps = identity, every * 60, steps
        self._saved = time.monotonic()

    def due(self, batches: int) -> bool:
        """Whether a checkpoint should be written after so many batches of an epoch."""
        if self._steps is not None and batches % self._steps == 0:
            return True
        return time.monotonic() - self._saved >= self._every

    def read(self) -> dict[str, Any] | None:
        """What the last checkpoint holds, or None where there is none.

        Raises:
            OutputExists: it belongs to a run with other inputs or settings.
            CheckpointMismatch: it is damaged, or an older version wrote it.
        """
        remove_leftovers(self._last.parent)
        if not self._last.is_file():
            return None
        state = _read(self._last)
        if not {"identity", "progress", "model", "optimiser", "average"} <= state.keys():
            raise CheckpointMismatch(f"{self._last} was written by another version: delete it to start anew.")
        other = {key for key in self._identity if state["identity"].get(key) != self._identity[key]}
        if other:
            raise OutputExists(
                f"{self._last} belongs to a run with another {', '.join(sorted(other))}: choose another output "
                "folder, or set `resume: false` in a --config file to start anew there."
            )
        return state

    def save(self, model: nn.Module, optimiser: AdamW, average: Average | None, progress: Progress) -> None:
        """Write the last checkpoint; the one before stays until this one is whole.

        Raises:
            DiskFull: there is no room; the checkpoint before is untouched.
        """
        state = {
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": None if average is None else average.weights,
            "progress": dataclasses.asdict(progress),
            "identity": self._identity,
        }
        _write(self._last, state)
        self._saved = time.monotonic()

    def save_best(self, weights: dict[str, Tensor]) -> None:
        """Write the best weights. This goes before `save`: a kill between the two repeats the end of the epoch."""
        _write(self._best, {"model": weights})

    def best(self) -> dict[str, Tensor]:
        """The best weights."""
        return _read(self._best)["model"]  # type: ignore[no-any-return]


def restore(state: dict[str, Any], model: nn.Module, optimiser: AdamW, average: Average | None) -> Progress:
    """Put what a checkpoint holds into model, optimiser and average; how far it had come.

    Raises:
        CheckpointMismatch: the weights are of another model, or not finite.
    """
    load_strictly(model, state["model"], source="the checkpoint last.pt")
    try:
        optimiser.load_state_dict(state["optimiser"])
    except ValueError as error:
        raise CheckpointMismatch(f"The checkpoint last.pt optimises other weights ({error}): start anew.") from error
    if average is not None:
        average.load(state["average"])
    return Progress(**{**state["progress"], "history": History(**state["progress"]["history"])})


def check_finite(model: nn.Module) -> None:
    """Refuse to train weights that are not finite.

    Raises:
        CheckpointMismatch: some are not; the sentence names them.
    """
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointMismatch(
            f"The model to train has weights that are not finite: {', '.join(broken[:5])}. Start from other weights."
        )


def _write(path: Path, state: dict[str, Any]) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)  # a file without a name: the same state gives the same bytes


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint, read without running anything that it holds."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointMismatch(f"{path} is damaged ({error}): delete it to start anew.") from error
    return state if isinstance(state, dict) else {}
