"""What a training will take, before it is begun: memory, time, and the slices that fit.

Everything is measured on the task itself: what a few rows leave in memory between the forward and the backward pass,
and how long a few steps take. The model is left as it was.
"""

import contextlib
import copy
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geograft.errors import EmptySplit
from geograft.training.cached import backward
from geograft.training.devices import Share, named_memory, precision
from geograft.training.loop import LoopSettings, Task
from geograft.training.schedule import freeze_layers, make_optimiser

_ROWS = (2, 4)
"""Rows of the two slices whose difference says what one more row takes."""

_SPARE = 0.85
"""The share of the free memory that is planned with; the rest is for buffers of the kernels and fragments."""

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a training will take on one device. Sizes are in bytes.

    Attributes:
        device: "cpu" or the GPU's name.
        parameters: numbers that the model holds.
        trained: numbers that learn.
        weights: the model, and its moving average where there is one.
        optimiser: gradients and AdamW's two moments.
        row: what one row (a chip) keeps until the backward pass.
        rows: of the largest batch that was looked at.
        whole: memory of a step that encodes all these rows at once.
        step: memory of a step with the settings' own chunk.
        free: memory that the device has free now.
        fits: whether `step` fits.
        chunk: the largest slice that fits; None where the whole batch does; 0 where not even one row does.
        seconds: one step, with the settings' own chunk.
        steps: of an epoch.
        epochs: of the run.
        hours: the whole run, without validation.
    """

    device: str
    parameters: int
    trained: int
    weights: int
    optimiser: int
    row: int
    rows: int
    whole: int
    step: int
    free: int
    fits: bool
    chunk: int | None
    seconds: float
    steps: int
    epochs: int
    hours: float

    def lines(self) -> list[str]:
        """The estimate for people."""
        learning = "" if self.trained == self.parameters else f", {_count(self.trained)} of which learn"
        standing = f"{_size(self.weights)}, and {_size(self.optimiser)} to learn"
        epochs = f"{self.epochs} epochs of {self.steps} steps of {self.seconds:.2g} s"
        return [
            f"device  {self.device}, {_size(self.free)} of memory free",
            f"model   {_count(self.parameters)} parameters{learning}: {standing}",
            f"batch   {self.rows} chips of {_size(self.row)}: {_size(self.whole)} where all are encoded at once",
            f"step    {_size(self.step)} with these settings: {self._advice()}",
            f"time    {epochs}: {_duration(self.hours)}, without validation",
        ]

    def _advice(self) -> str:
        """Whether a step fits, and what would."""
        if self.fits:
            return "fits"
        return f"does not fit, set chunk: {self.chunk}" if self.chunk else "not one chip fits, take a smaller encoder"


def _size(count: float) -> str:
    """Bytes in the unit that people count them in."""
    unit, factor = next(((unit, factor) for unit, factor in (("GB", 1e9), ("MB", 1e6)) if count >= factor), ("kB", 1e3))
    return f"{count / factor:,.3g} {unit}" if count < 1000 * factor else f"{count / factor:,.0f} {unit}"


def _count(count: int) -> str:
    """A large number in short."""
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:,}"


def _duration(hours: float) -> str:
    """Hours, or minutes where they are few."""
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:.2g} minutes"


def estimate(task: Task, settings: LoopSettings, *, steps: int = 3) -> Estimate:
    """Measure what training a task will take.

    Args:
        task: as for `fit`; nothing is written, and its model ends as it was.
        settings: as for `fit`.
        steps: how many steps are timed, after one that warms up.

    Raises:
        EmptySplit: the task has no batches.
        OutOfMemory: not even the few rows that are measured fit.
    """
    batches = list(itertools.islice(task.batches(0), steps + 1))
    if not batches:
        raise EmptySplit("There is nothing to train on, so nothing to estimate: use more photos or other fractions.")
    with _as_it_was(task.model):
        freeze_layers(task.model, settings.freeze)
        task.model.train()
        device = next(task.model.parameters()).device
        prepared = task.prepare(batches[0], Share())
        with named_memory(max(_ROWS), chunk=settings.chunk, bf16=settings.bf16):
            row, fixed = _activations(task, prepared, settings)
        seconds = _seconds(task, settings, batches, _that_fits(task, settings, prepared, row, fixed, device))
        return _put_together(task, settings, task.rows(prepared), (row, fixed), seconds, device)


def _put_together(
    task: Task, settings: LoopSettings, rows: int, kept: tuple[int, int], seconds: float, device: torch.device
) -> Estimate:
    """The figures side by side."""
    row, fixed = kept
    weights, optimiser = _standing(task.model, settings)
    free = free_memory(device) + _bytes(task.model)  # the model is there already
    step = weights + optimiser + fixed + row * min(rows, settings.chunk or rows)
    whole = weights + optimiser + fixed + row * rows
    fitting = int((free * _SPARE - weights - optimiser - fixed) // max(row, 1))
    return Estimate(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        parameters=sum(value.numel() for value in task.model.parameters()),
        trained=sum(value.numel() for value in task.model.parameters() if value.requires_grad),
        weights=weights,
        optimiser=optimiser,
        row=row,
        rows=rows,
        whole=whole,
        step=step,
        free=free,
        fits=step <= free * _SPARE,
        chunk=None if fitting >= rows else max(0, fitting),
        seconds=seconds,
        steps=task.steps,
        epochs=settings.epochs,
        hours=round(seconds * task.steps * settings.epochs / 3600, 4),
    )


def _standing(model: nn.Module, settings: LoopSettings) -> tuple[int, int]:
    """Bytes of weights with their average, and of gradients with AdamW's moments."""
    trained = sum(value.nbytes for value in model.parameters() if value.requires_grad)
    return _bytes(model) * (2 if settings.ema else 1), 3 * trained


def _bytes(model: nn.Module) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


def _activations(task: Task, prepared: Any, settings: LoopSettings) -> tuple[int, int]:
    """Bytes that one row keeps until the backward pass, and bytes that any slice keeps."""
    most = task.rows(prepared)
    few, more = (min(count, most) for count in _ROWS)
    first, second = (_kept(task, prepared, count, settings) for count in (few, more))
    row = (second - first) // (more - few) if more > few else first // max(few, 1)
    return max(1, row), max(0, first - row * few)


def _kept(task: Task, prepared: Any, rows: int, settings: LoopSettings) -> int:
    """Bytes of all that autograd keeps of some rows beside the weights, each storage once."""
    weights = {value.untyped_storage().data_ptr() for value in task.model.state_dict().values()}
    kept: dict[int, int] = {}

    def count(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    device = next(task.model.parameters()).device
    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value), precision(device, bf16=settings.bf16):
        found = task.encode(task.model, prepared, slice(0, rows))
    del found
    return sum(kept.values())


def _that_fits(
    task: Task, settings: LoopSettings, prepared: Any, row: int, fixed: int, device: torch.device
) -> int | None:
    """The slices to time with: the settings' own, or smaller ones where these do not fit."""
    room = free_memory(device) * _SPARE - sum(_standing(task.model, settings)) - fixed
    fitting = max(1, int(room // row))
    wanted = settings.chunk or task.rows(prepared)
    return settings.chunk if wanted <= fitting else fitting


def _seconds(task: Task, settings: LoopSettings, batches: list[Any], chunk: int | None) -> float:
    """The median time of a step, reading included; the first one warms up where there are more."""
    optimiser = make_optimiser(
        task.model, lr=settings.lr, weight_decay=settings.weight_decay, layer_decay=settings.layer_decay
    )
    device = next(task.model.parameters()).device
    times = []
    for batch in batches:
        started = time.perf_counter()
        _step(task, settings, batch, optimiser, chunk)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times[1:] or times), 4)


def _step(task: Task, settings: LoopSettings, batch: Any, optimiser: Any, chunk: int | None) -> None:
    """One step, as the loop does it."""
    prepared = task.prepare(batch, Share())
    device = next(task.model.parameters()).device

    def encode(rows: slice) -> Any:
        with precision(device, bf16=settings.bf16):
            return task.encode(task.model, prepared, rows)

    def compare(found: Any) -> Tensor:
        with precision(device, bf16=settings.bf16):
            return task.compare(found, prepared)

    optimiser.zero_grad(set_to_none=True)
    with named_memory(task.rows(prepared), chunk=chunk, bf16=settings.bf16):
        backward(encode, compare, task.rows(prepared), chunk=chunk, device=device)
    nn.utils.clip_grad_norm_(task.model.parameters(), settings.clip)
    optimiser.step()


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """A block after which a model has the weights, the mode and the frozen layers that it had."""
    weights, training = copy.deepcopy(model.state_dict()), model.training
    learns = {name: value.requires_grad for name, value in model.named_parameters()}
    random = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random)
        model.load_state_dict(weights)
        model.train(training)
        model.zero_grad(set_to_none=True)
        for name, value in model.named_parameters():
            value.requires_grad_(learns[name])


def free_memory(device: torch.device) -> int:
    """Bytes that a device has free: of a GPU, or of this machine within its container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return min(psutil.virtual_memory().available, *_limits())


def _limits() -> list[int]:
    """What a container may still take, where it is limited."""
    import psutil

    used = psutil.Process(os.getpid()).memory_info().rss
    texts = [path.read_text().strip() for path in _CGROUP if path.is_file()]
    return [max(0, int(text) - used) for text in texts if text.isdigit()] or [psutil.virtual_memory().total]
