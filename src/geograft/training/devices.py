"""Where training computes: a CPU, a GPU, or many processes that each encode a share of every batch.

Started by `torchrun`, by Ray or by `accelerate launch`, the processes find each other through the environment that
these set (nccl between GPUs, gloo between CPUs). Started plainly there is one process and nothing is exchanged.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from geograft.errors import BadSetting, GeograftError, OutOfMemory

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FULL_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: the first one validates and writes meanwhile."""


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


def alone(share: Share, what: str) -> None:
    """Refuse more than one process for a task whose loss cannot be shared.

    Raises:
        BadSetting: there are several processes.
    """
    if share.world > 1:
        raise BadSetting(f"{what} is trained by one process, not by {share.world}: start it without torchrun or Ray.")


class Devices:
    """This process's device, and what the processes that train together do together.

    Attributes:
        device: where this process computes: its own GPU, or the CPU.
        share: this process among all.
    """

    def __init__(self) -> None:
        self._accelerator = _accelerator()
        self.device: torch.device = self._accelerator.device
        self.share = Share(self._accelerator.process_index, self._accelerator.num_processes)

    @property
    def main(self) -> bool:
        """Whether this is the process that validates, writes files and talks to people."""
        return self.share.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """A module that runs `work()` when called with it, and makes the gradients of all processes meet afterwards.

        All processes start from the weights of the first. Gradients are averaged, so a loss that is a share of a sum
        is multiplied by the number of processes first.

        Args:
            model: whose weights `work` uses; it is moved to the device.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # its successor is torch 2.13's
            return self._accelerator.prepare_model(_Through(model))  # type: ignore[no-any-return]

    def apart(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[None]:
        """A block in which gradients add up here and meet nobody's."""
        return self._accelerator.no_sync(wrapped)  # type: ignore[no-any-return]

    def total(self, value: Tensor) -> Tensor:
        """The sum of a scalar over all processes."""
        if self.share.world == 1:
            return value
        return self._accelerator.reduce(value.detach().clone(), reduction="sum")  # type: ignore[no-any-return]

    def from_main(self, function: Callable[[], T]) -> T:
        """What a function gives in the first process, in all of them; the others wait.

        Raises:
            Exception: what it raised there, in all of them.
        """
        if self.share.world == 1:
            return function()
        found = self._broadcast(_outcome(function) if self.main else None)
        if isinstance(found, _Failure):
            raise found.error
        return found  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """A block that the first process runs before all others, such as one that writes what they read."""
        with self._accelerator.main_process_first():
            yield

    def _broadcast(self, value: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]


class _Through(nn.Module):
    """Runs any work with a model inside `forward`, where the gradients' exchange is prepared."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], T]) -> T:
        """What the work gives."""
        return work()


class _Failure(NamedTuple):
    """An error on its way to the other processes."""

    error: Exception


def _outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except GeograftError as error:
        return _Failure(error)
    except Exception as error:
        logger.exception("the first process failed")
        return _Failure(RuntimeError(f"{type(error).__name__} in the first process: {error}"))


def _accelerator() -> Any:
    """Accelerate's view of the processes, with precision left to the loop."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    cpu = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
    # processes may encode different numbers of slices, so nothing may be exchanged in a forward pass
    handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)]
    if "LOCAL_RANK" in os.environ or torch.distributed.is_initialized():
        handlers.append(InitProcessGroupKwargs(backend="gloo" if cpu else "nccl", timeout=PATIENCE))
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers)


@contextlib.contextmanager
def precision(device: torch.device, *, bf16: bool) -> Iterator[None]:
    """Compute in bfloat16 where the network allows."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        yield


@contextlib.contextmanager
def named_memory(rows: int, *, chunk: int | None, bf16: bool) -> Iterator[None]:
    """Call memory that a step filled up by its name, and say what would need less.

    Raises:
        OutOfMemory: the block ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        full = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not full and not any(text in str(error).lower() for text in _FULL_MEMORY):
            raise
        now = min(chunk or rows, rows)
        raise OutOfMemory(
            f"A step does not fit into memory: {rows} rows, {now} encoded at once. Set chunk: {max(1, now // 2)} "
            f"(the same result in more time){'' if bf16 else ', bf16: true'} or a smaller batch, "
            "and run again to go on from the last checkpoint."
        ) from error


def plain_attention(model: Any) -> None:
    """Let a transformers model on a CPU write attention out as matrix products.

    For the few dozen tokens of small photos and chips that trains 1.4 to 1.9 times as fast as the fused kernel.

    Args:
        model: of transformers; on a CUDA machine it keeps the fused kernel.
    """
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")
