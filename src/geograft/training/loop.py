"""One loop for everything that is trained here: epochs, schedule, validation, log, exact resume.

All randomness comes from (seed, epoch, step), and checkpoints are written after every epoch and every few minutes,
whole or not at all. So a run that was killed anywhere and started again repeats some minutes at most, and ends with
the very weights of an unbroken run (same machine, same number of threads and processes).
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from geograft.errors import BadSetting, GeograftError, TrainingDiverged, UnreadableTable
from geograft.training.ahead import ahead
from geograft.training.cached import Found, backward
from geograft.training.devices import Devices, Share, alone, named_memory, plain_attention, precision
from geograft.training.keeping import History, Keeper, Progress, check_finite, restore
from geograft.training.log import Journal, Meter
from geograft.training.protocol import Task
from geograft.training.schedule import Average, freeze_layers, make_optimiser, set_rate, warmup_cosine

__all__ = ["Found", "History", "LoopSettings", "Share", "Task", "alone", "fit", "plain_attention", "precision"]

_NOT_IDENTITY = frozenset({"chunk", "bf16", "save_minutes", "save_steps", "ahead", "tensorboard"})
"""Settings that may differ when a run is resumed: they change how it is computed, not what."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long, how hard, and in how much memory.

    Attributes:
        epochs: passes over the data.
        lr: highest learning rate.
        weight_decay: AdamW's, on matrices only.
        warmup: the share of all steps over which the learning rate rises.
        clip: gradients are scaled down to this norm.
        seed: of everything random.
        bf16: compute in bfloat16 where the network allows; weights and losses stay float32.
        chunk: rows that a process encodes at once; the whole of its share where None. Smaller ones need less memory
            and one more forward pass, and give the same gradient (see `geograft.training.cached`).
        ema: share of the weights' moving average kept at a step, such as 0.999; the average is then what is validated
            and kept as the best. 0 keeps none.
        layer_decay: what the learning rate is multiplied by from one transformer block to the one below.
        freeze: the embeddings and so many of the first transformer blocks stay as they are.
        save_minutes: minutes between two checkpoints inside an epoch.
        save_steps: steps between two checkpoints inside an epoch; None goes by the minutes alone.
        ahead: read and prepare the next batch in a thread while this one is learnt; None does so where there is a GPU.
        tensorboard: draw curves for TensorBoard beside the log.
    """

    epochs: int = 20
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False
    chunk: int | None = None
    ema: float = 0.0
    layer_decay: float = 1.0
    freeze: int = 0
    save_minutes: float = 10.0
    save_steps: int | None = None
    ahead: bool | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        if self.epochs < 1 or self.lr <= 0 or not 0 <= self.warmup < 1 or self.weight_decay < 0 or self.clip <= 0:
            raise BadSetting(
                "Training needs epochs >= 1, lr > 0, 0 <= warmup < 1, weight_decay >= 0 and clip > 0, but got "
                f"{self.epochs}, {self.lr}, {self.warmup}, {self.weight_decay} and {self.clip}."
            )
        if self.seed < 0 or not 0 <= self.ema < 1 or not 0 < self.layer_decay <= 1 or self.freeze < 0:
            raise BadSetting("Training needs seed >= 0, 0 <= ema < 1, 0 < layer_decay <= 1 and freeze >= 0.")
        if any(value is not None and value < 1 for value in (self.chunk, self.save_steps)) or self.save_minutes <= 0:
            raise BadSetting("Training needs chunk and save_steps of at least 1 (or none), and save_minutes > 0.")

    def identity(self) -> dict[str, Any]:
        """The settings that a resumed run must share."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in _NOT_IDENTITY}


def fit(task: Task, folder: Path, settings: LoopSettings, *, identity: dict[str, Any], resume: bool = True) -> History:
    """Train a task's model; at the end it holds the weights of the best epoch.

    Writes into `folder`: `last.pt` (weights, optimiser, history: what a resumed run needs), `best.pt` (weights) and
    `log.jsonl` (a line every few steps and one every epoch). Where several processes train together all of them call
    this, the first one alone validates and writes, and all get the same result.

    Args:
        task: model, batches, loss and validation.
        folder: of the checkpoints; made where missing.
        settings: how long and how hard.
        identity: what makes this run this run (inputs and settings); a checkpoint of another one is refused.
        resume: go on from `last.pt` where there is one, rather than start anew.

    Raises:
        OutputExists: the folder holds the checkpoint of a run with other inputs or settings.
        CheckpointMismatch: a checkpoint is damaged, or weights to start from are not finite.
        TrainingDiverged: the loss or a gradient of a step is not finite; the sentence names what the batch held.
        UnreadableTable: a batch cannot be read; the run goes on from that step once it can.
        OutOfMemory: a step does not fit into memory; the sentence names settings that need less.
        DiskFull: a checkpoint could not be written; the one before is untouched.
        BadSetting: `freeze` or `layer_decay` do not fit the model.
    """
    run = _Run(task, folder, settings, {**identity, **settings.identity()}, resume=resume)
    with run:
        while run.progress.epoch < settings.epochs:
            run.epoch()
    task.model.load_state_dict(run.devices.from_main(run.keeper.best))
    task.model.eval()
    return run.progress.history


class _Run:
    """A training under way."""

    def __init__(
        self, task: Task, folder: Path, settings: LoopSettings, identity: dict[str, Any], *, resume: bool
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.task, self.settings, self.devices = task, settings, Devices()
        freeze_layers(task.model, settings.freeze)
        self.wrapped = self.devices.wrap(task.model)
        self.optimiser = make_optimiser(
            task.model, lr=settings.lr, weight_decay=settings.weight_decay, layer_decay=settings.layer_decay
        )
        self.average = Average(task.model, settings.ema) if settings.ema else None
        self.keeper = Keeper(folder, identity, every=settings.save_minutes, steps=settings.save_steps)
        self.progress = self._begin(resume=resume)
        self.step = self.progress.epoch * task.steps + self.progress.batches
        self.journal = self._journal(folder)
        self.meter = Meter(task.unit, settings.epochs, task.steps, done=self.step, shown=self.devices.main)
        self.clock = time.perf_counter()

    def __enter__(self) -> None:
        self.meter.__enter__()

    def __exit__(self, *error: object) -> None:
        self.meter.__exit__(None, None, None)
        if self.journal is not None:
            self.journal.close()

    def _begin(self, *, resume: bool) -> Progress:
        """How far the run has come already, with its state put back."""
        state = self.devices.from_main(self.keeper.read) if resume else None
        if state is None:
            check_finite(self.task.model)
            return Progress()
        return restore(state, self.task.model, self.optimiser, self.average)

    def _journal(self, folder: Path) -> Journal | None:
        if not self.devices.main:
            return None
        board = self.settings.tensorboard
        return Journal(folder / "log.jsonl", keep=self.progress.epoch, steps=self.step, tensorboard=board)

    def epoch(self) -> None:
        """Train the rest of an epoch, validate, keep."""
        self.task.model.train()
        batches = self.task.batches(self.progress.epoch, skip=self.progress.batches)
        works = self._works(batches)
        while self.progress.batches < self.task.steps:
            self._one(works)
        record = {"loss": self.progress.total / self.task.steps, **self.devices.from_main(self._validate)}
        self._tick()
        best = self.progress.end_epoch(record)
        self.devices.from_main(lambda: self._keep(best=best))
        if self.journal is not None:
            seconds = round(self.progress.history.seconds, 1)
            self.journal.write({"epoch": self.progress.epoch - 1, **record, "seconds": seconds}, step=self.step)
        self.meter.epoch(record)

    def _works(self, batches: Iterator[Any]) -> Iterator["_Work"]:
        """Batches as tensors, one ahead where wanted."""
        wanted = self.devices.device.type == "cuda" if self.settings.ahead is None else self.settings.ahead
        return ahead(lambda: self._work(next(batches))) if wanted else map(self._work, batches)

    def _one(self, works: Iterator["_Work"]) -> None:
        """One step: read, learn, tell, and keep where that is due."""
        _sow(self.settings.seed, self.progress.epoch, self.progress.batches, self.devices.share.rank)
        work = self._read(works)
        rate = self.settings.lr * warmup_cosine(self.step, self.settings.epochs * self.task.steps, self.settings.warmup)
        set_rate(self.optimiser, rate)
        with named_memory(work.rows, chunk=self.settings.chunk, bf16=self.settings.bf16):
            loss = self._learn(work)
        speed = self.meter.step(loss, len(work.members))
        if self.journal is not None and self.step % 10 == 0:
            line = {"epoch": self.progress.epoch, "step": self.step, "loss": loss, "lr": rate}
            self.journal.write({**line, f"{self.task.unit}_per_s": speed}, step=self.step)
        self.progress.batches, self.progress.total, self.step = (
            self.progress.batches + 1,
            self.progress.total + loss,
            self.step + 1,
        )
        if self.devices.main and self.progress.batches < self.task.steps and self.keeper.due(self.progress.batches):
            self._save()

    def _read(self, works: Iterator["_Work"]) -> "_Work":
        """The next batch as tensors. Where it cannot be had, what is done so far is kept first."""
        try:
            return next(works)
        except (GeograftError, OSError) as error:
            self._save_if_main()
            if isinstance(error, GeograftError):
                raise
            raise UnreadableTable(
                f"The batch of step {self.step} cannot be read ({error}): put the file back, or make it again, and "
                "run again to go on from this step."
            ) from error

    def _work(self, batch: Any) -> "_Work":
        """What this process does for a batch; one without rows of its own does the first row's work for nothing."""
        prepared = self.task.prepare(batch, self.devices.share)
        rows = self.task.rows(prepared)
        if not rows:
            prepared = self.task.prepare(batch, Share())
        return _Work(self.task.members(batch), prepared, rows)

    def _learn(self, work: "_Work") -> float:
        """One step of the optimiser; the loss of the whole batch."""
        task, devices = self.task, self.devices
        self.optimiser.zero_grad(set_to_none=True)
        own = backward(
            lambda rows: self.wrapped(lambda: self._encode(work, rows)),
            lambda found: self._compare(found, work),
            work.rows or 1,
            chunk=self.settings.chunk,
            scale=devices.share.world,
            apart=lambda: devices.apart(self.wrapped),
            device=devices.device,
        )
        norm = nn.utils.clip_grad_norm_(task.model.parameters(), self.settings.clip)
        loss, size = torch.stack([devices.total(own).double(), norm.double()]).tolist()
        if not np.isfinite(loss) or not np.isfinite(size):
            raise TrainingDiverged(_diverged(loss, self.step, work.members))
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.step)
        return float(loss)

    def _encode(self, work: "_Work", rows: slice) -> Found:
        """What the model finds for some rows."""
        with precision(self.devices.device, bf16=self.settings.bf16):
            return self.task.encode(self.task.model, work.prepared, rows)

    def _compare(self, found: Any, work: "_Work") -> Tensor:
        """The loss of what was found; zero for work done for nothing."""
        if not work.rows:
            return sum(
                (value.sum() * 0 for value in (found if isinstance(found, tuple) else (found,))),
                torch.zeros((), device=self.devices.device),
            )
        with precision(self.devices.device, bf16=self.settings.bf16):
            return self.task.compare(found, work.prepared)

    def _validate(self) -> dict[str, float]:
        """Figures of the weights that would be kept."""
        self.task.model.eval()
        with self.average.applied() if self.average is not None else contextlib.nullcontext():  # noqa: SIM117
            with torch.inference_mode(), precision(self.devices.device, bf16=self.settings.bf16):
                return self.task.validate(self.task.model)

    def _keep(self, *, best: bool) -> None:
        """Write the last checkpoint, and before it the best one where this epoch is the best so far."""
        if best:
            self.keeper.save_best(self.task.model.state_dict() if self.average is None else self.average.weights)
        self._save()

    def _save(self) -> None:
        self._tick()
        self.keeper.save(self.task.model, self.optimiser, self.average, self.progress)

    def _save_if_main(self) -> None:
        if self.devices.main:
            self._save()

    def _tick(self) -> None:
        """Count the seconds since the last count."""
        now = time.perf_counter()
        self.progress.history.seconds += now - self.clock
        self.clock = now


class _Work(NamedTuple):
    """A process's part of a step: the batch's ids, its tensors, and how many rows of them are this process's own."""

    members: Sequence[str]
    prepared: Any
    rows: int


def _sow(seed: int, epoch: int, batch: int, rank: int) -> None:
    """Seed torch for a step, so that what it draws does not depend on what was drawn before."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, batch, rank]).generate_state(1, np.uint64)[0]))


def _diverged(loss: float, step: int, members: Sequence[str]) -> str:
    """What to say of a loss or a gradient that is not finite."""
    shown = ", ".join(map(str, members[:16])) + (f" and {len(members) - 16} more" if len(members) > 16 else "")
    what = f"The gradient of a loss of {loss:.4g} is not finite" if np.isfinite(loss) else f"The loss is {loss}"
    return (
        f"{what} at step {step}. The batch held {shown}. Look at their pixels, or lower lr; "
        "run again to go on from the last checkpoint."
    )
