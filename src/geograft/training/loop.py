"""One loop for everything that is trained here: epochs, schedule, validation, log, exact resume.

All randomness comes from (seed, epoch), and a checkpoint is written after every epoch, whole or not at all. So a
run that was killed anywhere and started again repeats at most one epoch, and ends with the very weights of an
unbroken run (same machine, same number of threads).
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from geograft.errors import BadSetting, CheckpointMismatch, OutputExists, TrainingDiverged
from geograft.tables import atomic
from geograft.training.log import Journal, Meter
from geograft.training.schedule import make_optimiser, set_rate, warmup_cosine

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long and how hard.

    Attributes:
        epochs: passes over the data.
        lr: highest learning rate.
        weight_decay: AdamW's, on matrices only.
        warmup: the share of all steps over which the learning rate rises.
        clip: gradients are scaled down to this norm.
        seed: of everything random.
        bf16: compute in bfloat16 where the network allows; weights and losses stay float32.
    """

    epochs: int = 20
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        if self.epochs < 1 or self.lr <= 0 or not 0 <= self.warmup < 1 or self.weight_decay < 0 or self.clip <= 0:
            raise BadSetting(
                "Training needs epochs >= 1, lr > 0, 0 <= warmup < 1, weight_decay >= 0 and clip > 0, but got "
                f"{self.epochs}, {self.lr}, {self.warmup}, {self.weight_decay} and {self.clip}."
            )


class Share(NamedTuple):
    """Which part of every batch a process encodes.

    Attributes:
        rank: of the process, from 0.
        world: number of processes that train together.
    """

    rank: int = 0
    world: int = 1

    def of(self, count: int) -> slice:
        """The rows of this process among `count`; processes differ by one row at most, and may have none."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)


Found = Tensor | tuple[Tensor, ...]
"""What an encoder gives for some rows of a batch: one tensor or several, each with a row a chip."""


class Task(Protocol):
    """What the loop trains.

    Every process deals the same batches and encodes a share of each batch's rows. Its loss is the share of its rows in
    the loss of the batch: the losses of all processes *add up* to what one process alone would compute.

    Attributes:
        unit: what is counted in the progress bar ("chips").
        steps: batches of an epoch.
    """

    unit: str
    steps: int

    @property
    def model(self) -> nn.Module:
        """What is optimised."""

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[Any]:
        """The batches of an epoch, the same ones in every process and whenever they are asked for again.

        Args:
            epoch: from 0.
            skip: batches to leave out at the beginning, without reading what they hold.
        """

    def members(self, batch: Any) -> Sequence[str]:
        """The ids of what a batch holds."""

    def prepare(self, batch: Any, share: Share) -> Any:
        """The batch as tensors on the model's device: the rows of a share, and all that they are compared with."""

    def rows(self, prepared: Any) -> int:
        """How many rows of a prepared batch are encoded here."""

    def encode(self, model: nn.Module, prepared: Any, rows: slice) -> Found:
        """The model's answer to some rows, with gradient.

        Rows must not depend on each other, so that a batch may be encoded in slices. All weights are used here.
        """

    def compare(self, found: Any, prepared: Any) -> Tensor:
        """This share of the batch's loss, a scalar, from what `encode` found for all rows of the share."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures after an epoch; the epoch with the lowest `val_loss` (else `loss`) is the best."""


def alone(share: Share, what: str) -> None:
    """Refuse more than one process for a task whose loss cannot be shared.

    Raises:
        BadSetting: there are several processes.
    """
    if share.world > 1:
        raise BadSetting(f"{what} is trained by one process, not by {share.world}: start it without torchrun or Ray.")


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


def fit(task: Task, folder: Path, settings: LoopSettings, *, identity: dict[str, Any], resume: bool = True) -> History:
    """Train a task's model; at the end it holds the weights of the best epoch.

    Writes into `folder`: `last.pt` (weights, optimiser, history: what a resumed run needs), `best.pt` (weights) and
    `log.jsonl` (a line every few steps and one every epoch).

    Args:
        task: model, batches, loss and validation.
        folder: of the checkpoints; made where missing.
        settings: how long and how hard.
        identity: what makes this run this run (inputs and settings); a checkpoint of another one is refused.
        resume: go on from `last.pt` where there is one, rather than start anew.

    Raises:
        OutputExists: the folder holds the checkpoint of a run with other inputs or settings.
        TrainingDiverged: the loss of a step is not finite; the sentence names what the batch held.
        DiskFull: a checkpoint could not be written; the one before is untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = make_optimiser(task.model, lr=settings.lr, weight_decay=settings.weight_decay)
    identity = {**identity, **dataclasses.asdict(settings)}
    history = _restore(folder, task.model, optimiser, identity) if resume else History()
    journal = Journal(folder / "log.jsonl", keep=len(history.epochs))
    with Meter(task.unit, settings.epochs, task.steps, done=len(history.epochs)) as meter:
        for epoch in range(len(history.epochs), settings.epochs):
            started = time.perf_counter()
            record = _epoch(task, optimiser, settings, epoch, meter, journal)
            history.epochs.append(record)
            history.seconds += time.perf_counter() - started
            _keep(folder, task.model, optimiser, history, identity)
            journal.write({"epoch": epoch, **record, "seconds": round(history.seconds, 1)})
            meter.epoch(record)
    task.model.load_state_dict(_read(folder / "best.pt")["model"])
    task.model.eval()
    return history


def _epoch(
    task: Task, optimiser: AdamW, settings: LoopSettings, epoch: int, meter: Meter, journal: Journal
) -> dict[str, float]:
    """Train one epoch; the mean training loss with the figures of its validation."""
    torch.manual_seed(settings.seed * 100_003 + epoch)
    task.model.train()
    total, steps = 0.0, settings.epochs * task.steps
    for at, batch in enumerate(task.batches(epoch)):
        step = epoch * task.steps + at
        rate = settings.lr * warmup_cosine(step, steps, settings.warmup)
        set_rate(optimiser, rate)
        members = task.members(batch)
        loss = _step(task, batch, optimiser, settings, step)
        total += loss
        speed = meter.step(loss, len(members))
        if step % 10 == 0:
            journal.write({"epoch": epoch, "step": step, "loss": loss, "lr": rate, f"{task.unit}_per_s": speed})
    task.model.eval()
    with torch.inference_mode(), precision(bf16=settings.bf16):
        figures = task.validate(task.model)
    return {"loss": total / task.steps, **figures}


def _step(task: Task, batch: Any, optimiser: AdamW, settings: LoopSettings, step: int) -> float:
    """One step of the optimiser; the loss."""
    with precision(bf16=settings.bf16):
        prepared = task.prepare(batch, Share())
        loss = task.compare(task.encode(task.model, prepared, slice(0, task.rows(prepared))), prepared)
    value = loss.item()
    if not torch.isfinite(loss):
        members = task.members(batch)
        shown = ", ".join(map(str, members[:16])) + (f" and {len(members) - 16} more" if len(members) > 16 else "")
        raise TrainingDiverged(
            f"The loss is {value} at step {step}. The batch held {shown}. Look at their pixels, or lower lr; "
            "run again to go on from the last epoch."
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(task.model.parameters(), settings.clip)
    optimiser.step()
    return value


@contextlib.contextmanager
def precision(*, bf16: bool) -> Iterator[None]:
    """Compute in bfloat16 where the network allows."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
        yield


def plain_attention(model: Any) -> None:
    """Let a transformers model on a CPU write attention out as matrix products.

    For the few dozen tokens of small photos and chips that trains 1.4 to 1.9 times as fast as the fused kernel.

    Args:
        model: of transformers; on a CUDA machine it keeps the fused kernel.
    """
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")


# --- checkpoints ------------------------------------------------------------------------------------------


def _keep(folder: Path, model: nn.Module, optimiser: AdamW, history: History, identity: dict[str, Any]) -> None:
    """Write the last checkpoint, and the best one where this epoch is the best so far.

    The best one goes first: a kill between the two repeats the epoch and writes the same best again.
    """
    losses = [record.get("val_loss", record["loss"]) for record in history.epochs]
    history.best_epoch = min(range(len(losses)), key=losses.__getitem__)
    if history.best_epoch == len(losses) - 1:
        _write(folder / "best.pt", {"model": model.state_dict()})
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": dataclasses.asdict(history),
        "identity": identity,
    }
    _write(folder / "last.pt", state)


def _restore(folder: Path, model: nn.Module, optimiser: AdamW, identity: dict[str, Any]) -> History:
    """Put the last checkpoint's state into model and optimiser; an empty history where there is none."""
    path = folder / "last.pt"
    if not path.is_file():
        return History()
    state = _read(path)
    other = {key for key in identity if state["identity"].get(key) != identity[key]}
    if other:
        raise OutputExists(
            f"{path} belongs to a run with another {', '.join(sorted(other))}: choose another output folder, "
            "or set `resume: false` in a --config file to start anew there."
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    logger.info("resumed %s after epoch %d", folder, len(state["history"]["epochs"]))
    return History(**state["history"])


def _write(path: Path, state: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        torch.save(state, temporary)


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint, read without running anything that it holds."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except Exception as error:
        raise CheckpointMismatch(f"{path} is damaged ({error}): delete it to start anew.") from error
