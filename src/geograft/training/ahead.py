"""The next batch is read and prepared while this one is learnt."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(produce: Callable[[], T]) -> Iterator[T]:
    """What a function gives again and again, made one call ahead in a thread.

    Args:
        produce: called by one thread at a time, in order; `StopIteration` ends the iteration.

    Raises:
        Exception: what the function raised, when its turn comes.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(produce)
        while True:
            try:
                found = waiting.result()
            except StopIteration:
                return
            waiting = pool.submit(produce)
            yield found
