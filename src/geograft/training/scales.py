"""One encoder of several sensors as the loop's task: each batch is of one sensor, and sensors take turns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geograft.errors import BadSetting
from geograft.models.multi import MultiEncoder
from geograft.training.loop import Found, Share, Task


class Turn(NamedTuple):
    """A batch of one sensor, or what was prepared of it.

    Attributes:
        sensor: whose.
        inner: as that sensor's own task has it.
    """

    sensor: str
    inner: Any


class ScalesTask:
    """Trains an encoder of several sensors on the pairs of each.

    Every sensor has a task of its own, which deals, augments and compares as if it were alone; its model is a
    `SensorView` of the whole. An epoch takes every batch of every sensor once, in a seeded order.

    Args:
        model: the encoder.
        tasks: sensor to its task.
        seed: of the order.

    Raises:
        BadSetting: there is no task, or they count different things.
        ModelMismatch: the encoder does not know a sensor.
    """

    def __init__(self, model: MultiEncoder, tasks: Mapping[str, Task], *, seed: int = 0) -> None:
        units = {task.unit for task in tasks.values()}
        if len(units) != 1:
            raise BadSetting(f"An encoder of several sensors needs tasks that count the same, not {sorted(units)}.")
        for sensor in tasks:
            model.settings.stem(sensor)
        self.encoder, self.tasks, self.seed = model, dict(tasks), seed
        self.unit = units.pop()
        self.steps = sum(task.steps for task in tasks.values())

    @property
    def model(self) -> MultiEncoder:
        """The encoder."""
        return self.encoder

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Which task each batch of an epoch is of, (steps,)."""
        turns = np.repeat(np.arange(len(self.tasks)), [task.steps for task in self.tasks.values()])
        return np.random.default_rng([self.seed, epoch, 3]).permutation(turns)

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[Turn]:
        """The batches of an epoch; those that are skipped are skipped by their own tasks."""
        order = self.order(epoch)
        gone = np.bincount(order[:skip], minlength=len(self.tasks)).tolist()
        names = list(self.tasks)
        dealt = [task.batches(epoch, skip=done) for task, done in zip(self.tasks.values(), gone, strict=True)]
        for number in order[skip:].tolist():
            yield Turn(names[number], next(dealt[number]))

    def members(self, batch: Turn) -> Sequence[str]:
        """The chips' ids."""
        return self.tasks[batch.sensor].members(batch.inner)

    def prepare(self, batch: Turn, share: Share) -> Turn:
        """The batch as its own task prepares it."""
        return Turn(batch.sensor, self.tasks[batch.sensor].prepare(batch.inner, share))

    def rows(self, prepared: Turn) -> int:
        """How many chips are encoded."""
        return self.tasks[prepared.sensor].rows(prepared.inner)

    def encode(self, model: Any, prepared: Turn, rows: slice) -> Found:  # noqa: ARG002 - the view has its weights
        """What the sensor's view of the encoder finds for some rows."""
        task = self.tasks[prepared.sensor]
        return task.encode(task.model, prepared.inner, rows)

    def compare(self, found: Any, prepared: Turn) -> Tensor:
        """The loss of the sensor's own task."""
        return self.tasks[prepared.sensor].compare(found, prepared.inner)

    def validate(self, model: Any) -> dict[str, float]:  # noqa: ARG002 - the views have its weights
        """Figures of every sensor, as `<sensor>/<figure>`, and the mean over sensors of those that all have.

        So the epoch that is kept has the lowest mean of the sensors' `val_loss`.
        """
        found = {name: task.validate(task.model) for name, task in self.tasks.items()}
        common = set.intersection(*(set(figures) for figures in found.values()))
        means = {
            key: float(np.mean([figures[key] for figures in found.values()]))
            for key in next(iter(found.values()))
            if key in common
        }
        return means | {f"{name}/{key}": value for name, figures in found.items() for key, value in figures.items()}
