"""Where work runs: processes of this machine, or a Ray cluster, behind one small interface.

A stage cuts its work into tasks that write files of their own, whole or not at all, and return a small result. So a
task may run anywhere that sees the same paths, may be run twice, and a task whose worker or node died is run again.
Results come in the order of the items, whatever the engine and the number of workers.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from joblib.externals.loky import ProcessPoolExecutor

from geograft.errors import BadSetting, EngineFailed, GeograftError, MissingExtra

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Tasks a worker that are handed out before their turn: no worker waits, and results do not pile up."""

RETRIES = 8
"""How often Ray runs a task again whose worker or node died."""


class Engine(Protocol):
    """Runs tasks.

    Attributes:
        workers: how many tasks run at once.
    """

    workers: int

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The results of a function of each item, in order.

        Args:
            function: of a module, so that another process finds it; it may be run again for the same item.
            items: what it is called with; each must be picklable.

        Raises:
            EngineFailed: a worker died again and again.
            Exception: what the function raised.
        """
        ...

    def __enter__(self) -> Self:
        """The engine, to be closed at the end of the block."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the workers back."""
        ...


def open_engine(name: str = "local", *, workers: int | None = None) -> Engine:
    """An engine by its name.

    Args:
        name: `local`; `ray` for a Ray of this machine, or the cluster that `RAY_ADDRESS` names; `ray:HOST:PORT` for
            the cluster that `ray start --head --port PORT` began.
        workers: tasks at once; as many as there are cores (of the cluster, with Ray) where None.

    Raises:
        BadSetting: no engine has that name, or workers is below 1.
        MissingExtra: Ray is asked for and not installed.
        EngineFailed: the cluster does not answer.
    """
    if workers is not None and workers < 1:
        raise BadSetting(f"An engine needs at least one worker, not {workers}.")
    kind, _, address = name.partition(":")
    if kind == "local" and not address:
        return LocalEngine(workers)
    if kind == "ray":
        return RayEngine(address or None, workers)
    raise BadSetting(f"No engine is called {name!r}: use local, ray, or ray:HOST:PORT.")


def cores() -> int:
    """The cores that this process may use, or as many as the environment's GEOGRAFT_WORKERS says.

    Raises:
        BadSetting: it says no number above 0.
    """
    if wanted := os.environ.get("GEOGRAFT_WORKERS"):
        if not wanted.isdecimal() or not int(wanted):
            raise BadSetting(f"GEOGRAFT_WORKERS must be a number above 0, not {wanted!r}.")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Processes of this machine; none beside this one with one worker.

    Processes start afresh, since GDAL does not survive a fork, and do not run the user's script again, so a script
    needs no guard around its main part.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or cores()
        self._pool: Any = None

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """See `Engine.map`."""
        if self.workers == 1:
            yield from map(function, items)
            return
        pool = self._pool = self._pool or ProcessPoolExecutor(self.workers)
        try:
            yield from _in_order(lambda item: pool.submit(function, item), lambda task: task.result(), items, self)
        except BrokenProcessPool as error:
            raise EngineFailed(
                "A worker process was ended from outside, most often for lack of memory: use fewer workers, run again."
            ) from error

    def __enter__(self) -> Self:
        """See `Engine`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the processes, which would keep their memory."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None


class RayEngine:
    """Tasks on a Ray cluster; a task of a node that died runs again on another."""

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._ray = _import_ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            _connect(self._ray, address, workers)
        self.workers = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """See `Engine.map`."""
        task = self._ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        yield from _in_order(task.remote, self._result, items, self)

    def _result(self, reference: Any) -> Any:
        """A task's result, or the error that the function raised."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, GeograftError):
                raise cause from error
            raise
        except self._ray.exceptions.RayError as error:
            raise EngineFailed(f"The cluster lost a task {RETRIES} times ({_first_line(error)}): run again.") from error

    def __enter__(self) -> Self:
        """See `Engine`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the cluster, or end the Ray that was begun here."""
        if self._started:
            self._ray.shutdown()


def _in_order(
    submit: Callable[[Any], Any], result: Callable[[Any], Any], items: Iterable[Any], engine: Engine
) -> Iterator[Any]:
    """Results in the order of the items, with some tasks ahead of the one that is waited for."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > AHEAD * engine.workers:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def _import_ray() -> Any:
    """Ray, quiet and without its usage report."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("The engine `ray` needs Ray: pip install 'geograft[ray]'.") from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    """Join a cluster, or begin one on this machine."""
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineFailed(
            f"No Ray cluster answers at {address or 'this machine'} ({_first_line(error)}): begin one with "
            "`ray start --head`; set RAY_AUTH_MODE=token where it asks for a token; or use --engine local."
        ) from error


def _first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
