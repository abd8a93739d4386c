"""Arrays in files: what the tasks of one machine or cluster hand each other, whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geograft.tables import atomic


def save_arrays(path: Path, **columns: Any) -> None:
    """Write arrays by name."""
    with atomic(path) as temporary:
        np.savez(temporary, **columns)


@contextmanager
def load_arrays(path: Path) -> Iterator[Any]:
    """The arrays of a file, each read when it is asked for."""
    with np.load(path, allow_pickle=False) as file:
        yield file
