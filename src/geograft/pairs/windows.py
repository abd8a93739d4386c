"""Pixels of chips in memory, or read from the shards window by window, the next while the present one is used.

A window is a part of an epoch whose chips are mixed. Its pixels are in memory while its batches are dealt; a thread
reads those of the next meanwhile, so that two windows are held at most.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.pairs.blocks import Blocks

Ints = NDArray[np.int64]

MEMORY_SHARE = 0.4
"""Share of the machine's memory that pixels may take where nothing is said."""

LAG = 4
"""Batches of a window after which the one before it is let go: a loop may prepare some batches ahead."""

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def pixel_memory(memory_gb: float | None = None) -> int:
    """Bytes that pixels may take.

    Args:
        memory_gb: so many gigabytes; `MEMORY_SHARE` of the machine's memory (or of the container's limit) where None,
            divided by the training processes on this machine (`LOCAL_WORLD_SIZE`).

    Raises:
        BadSetting: it is not above 0.
    """
    if memory_gb is not None:
        if not memory_gb > 0:
            raise BadSetting(f"Pixels need some memory, not {memory_gb} GB: leave memory_gb out to use what there is.")
        return int(memory_gb * 1e9)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return int(MEMORY_SHARE * machine_memory() / max(1, processes))


def machine_memory() -> int:
    """Bytes of memory that this process may hope for: the machine's, or its container's limit."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        found = [8 * 2**30]
    for path in map(Path, _CGROUPS):
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        found += [int(text)] if text.isdigit() else []
    return min(found)


@dataclass(frozen=True)
class Window:
    """Pixels of some chips.

    Attributes:
        batches: the batches of chips that they are of, by row of the pair set.
        rows: chips, ascending, (n,).
        pixels: of these, (n, C, S, S).
        memory: the array that `pixels` are the first part of.
    """

    batches: list[Ints]
    rows: Ints
    pixels: NDArray[Any]
    memory: NDArray[Any]

    def find(self, rows: Ints) -> Ints:
        """The place of each row among these pixels, -1 where it has none, (m,)."""
        if not len(self.rows):
            return np.full(len(rows), -1)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[at] == rows, at, -1)


class Pixels:
    """The pixels of chips, wherever they are.

    Threads may read at once.

    Args:
        blocks: where all chips of a folder lie.
        places: of the chips meant, in the sequence of the shards, (N,).
        budget: bytes of pixels that may be held.
        windows: parts of an epoch; as few as fit the budget, two at a time, where None.

    Attributes:
        windows: parts of an epoch.
        in_memory: whether all pixels are held once they were asked for.
    """

    def __init__(self, blocks: Blocks, places: Ints, budget: int, windows: int | None = None) -> None:
        if windows is not None and windows < 1:
            raise BadSetting(f"An epoch has at least one window, not {windows}.")
        self.blocks, self.places, self.budget = blocks, places, budget
        fits = self.nbytes <= budget
        self.windows = windows or (1 if fits else -(-2 * self.nbytes // max(1, budget)))
        self.in_memory = fits or self.windows == 1
        self._lock = threading.Lock()
        self._all: NDArray[Any] | None = None
        self._runs: list[list[Window]] = []

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Chips, bands, rows and columns."""
        return (len(self.places), *self.blocks.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape)) * self.blocks.dtype.itemsize

    def take(self, rows: Ints) -> "Pixels":
        """The pixels of some chips, given by row; those in memory are not read again."""
        found = Pixels(self.blocks, self.places[rows], self.budget)
        with self._lock:
            if self._all is not None:
                found._all = self._all[rows]
        return found

    def everything(self) -> NDArray[Any]:
        """All pixels, (N, C, S, S), kept where they fit."""
        with self._lock:
            if self._all is not None:
                return self._all
            found = self.blocks.read(self.places)
            if self.in_memory:
                self._all = found
            return found

    def read(self, rows: Ints) -> NDArray[Any]:
        """Pixels of some chips, (n, C, S, S): from memory, else from the shards.

        Raises:
            MissingShard: a shard is gone.
            UnreadableTable: a shard is damaged.
        """
        if self.in_memory:
            return np.asarray(self.everything()[rows])
        out, missing = self._from_windows(rows)
        if missing.any():
            out[missing] = self.blocks.read(self.places[rows[missing]])
        return out

    def _from_windows(self, rows: Ints) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of the chips that a window holds, and which of the rows none does.

        No window is let go meanwhile: its memory takes the pixels of another.
        """
        with self._lock:
            held = [window for run in self._runs for window in run]
            found = [window.find(rows) for window in held]
            for window, at in zip(held, found, strict=True):
                if (at >= 0).all():
                    return window.pixels[at], np.zeros(len(rows), np.bool_)
            out = np.empty((len(rows), *self.blocks.shape), self.blocks.dtype)
            missing = np.ones(len(rows), np.bool_)
            for window, at in zip(held, found, strict=True):
                out[at >= 0], missing[at >= 0] = window.pixels[at[at >= 0]], False
            return out, missing

    def windowed(
        self, deal: Callable[[int], list[Ints]], first: int, count: int, share: tuple[int, int]
    ) -> Iterator[list[Ints]]:
        """The batches of windows, one window's after another's, with pixels at hand while they are used.

        Args:
            deal: gives the batches of a window.
            first: the window to start with.
            count: the number of windows.
            share: (rank, world): of each batch the pixels of this part are read.

        Yields:
            Some batches at a time. The window before is let go, and the next one is read, when the second part of
            a window's batches is asked for.
        """
        held: list[Window] = []
        spare: list[NDArray[Any]] = []
        with self._reader(held, lambda number, stop: self._load(deal(number), share, spare, stop)) as read:
            ahead = read(first)
            for number in range(first, count):
                held.append(ahead.result())
                batches = held[-1].batches
                turn = min(LAG, len(batches) // 2)
                yield batches[:turn]
                self._let_go(held, spare)
                if number + 1 < count:
                    ahead = read(number + 1)
                yield batches[turn:]

    def _let_go(self, held: list[Window], spare: list[NDArray[Any]]) -> None:
        """Let all windows but the last go; their memory is used again, since fresh memory costs as much as reading."""
        with self._lock:
            spare[:] = [window.memory for window in held[:-1]]
            del held[:-1]

    def _load(
        self, batches: list[Ints], share: tuple[int, int], spare: list[NDArray[Any]], stop: Callable[[], bool]
    ) -> Window:
        """Read the pixels of a share of some batches, into spare memory where it is large enough."""
        mine = [chips[part_of(len(chips), share)] for chips in batches]
        rows = np.sort(np.concatenate([np.empty(0, np.int64), *mine]))
        memory = spare.pop() if spare else None
        if memory is None or len(memory) < len(rows):
            memory = np.empty((len(rows), *self.blocks.shape), self.blocks.dtype)
        pixels = self.blocks.read(self.places[rows], out=memory[: len(rows)], stopped=stop)
        return Window(batches, rows, pixels, memory)

    @contextmanager
    def _reader(
        self, held: list[Window], load: Callable[[int, Callable[[], bool]], Window]
    ) -> Iterator[Callable[[int], "Future[Window]"]]:
        """A thread that loads windows; it stops, and the windows held are let go, when the block ends."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(1, "windows")
        with self._lock:
            self._runs.append(held)
        try:
            yield lambda number: pool.submit(load, number, stop.is_set)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            with self._lock:
                self._runs[:] = [run for run in self._runs if run is not held]


def part_of(count: int, share: tuple[int, int]) -> slice:
    """The rows of one of several processes among `count`; processes differ by one row at most."""
    rank, world = share
    return slice(rank * count // world, (rank + 1) * count // world)


class ChipPixels:
    """Pixels that do not fit into memory, indexed like an array (N, C, S, S): what is asked for is read.

    Args:
        pixels: where they are.
    """

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.shape = pixels.shape
        self.ndim = len(self.shape)
        self.dtype = pixels.blocks.dtype

    def __len__(self) -> int:
        """The number of chips."""
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Pixels of a chip, or of some, by number, slice, rows or mask."""
        chosen = np.arange(len(self))[rows]
        found = self._pixels.read(np.atleast_1d(chosen))
        return found[0] if np.ndim(chosen) == 0 else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All pixels, read into memory."""
        found = self._pixels.everything()
        return found if dtype is None else found.astype(dtype)
