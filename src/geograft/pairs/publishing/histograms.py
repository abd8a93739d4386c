"""Counts of values in bins that people read at a glance, filled a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAP_DAYS = (-1825.0, -365.0, -90.0, -30.0, -7.0, -1.0, 1.0, 7.0, 30.0, 90.0, 365.0, 1825.0)
GAP_LABELS = ("> 5 y before", "1-5 y", "3-12 mo", "1-3 mo", "1-4 wk", "1-7 d", "same day", "1-7 d", "1-4 wk", "1-3 mo",
              "3-12 mo", "1-5 y", "> 5 y after")  # fmt: skip
ACCURACY_M = (3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0)
ACCURACY_LABELS = ("< 3 m", "3-5", "5-10", "10-20", "20-50", "50-100", "100-500", "≥ 500 m")
PHOTOS = (1.5, 2.5, 3.5, 5.5, 8.5, 12.5, 16.5, 20.5, 25.5)
PHOTO_LABELS = ("1", "2", "3", "4-5", "6-8", "9-12", "13-16", "17-20", "21-25", "> 25")

_SKETCH = 512


@dataclass
class Histogram:
    """Values by bin.

    Attributes:
        title: what is counted, for people.
        labels: of the bins.
        edges: between the bins, one fewer.
        counts: values in each bin.
        unknown: missing values.
    """

    title: str
    labels: Sequence[str]
    edges: Sequence[float]
    counts: NDArray[np.int64] = field(init=False)
    unknown: int = 0
    _fine: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start with empty bins."""
        self.counts = np.zeros(len(self.edges) + 1, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Count some values; NaN is unknown."""
        values = np.asarray(values, np.float64)
        known = values[~np.isnan(values)]
        self.unknown += len(values) - len(known)
        bins = np.searchsorted(self.edges, known, side="right")
        self.counts += np.bincount(bins, minlength=len(self.counts))
        keys, counts = np.unique(_fine_bin(known), return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self._fine[key] = self._fine.get(key, 0) + count

    @property
    def known(self) -> int:
        """How many values were there."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float | None:
        """The value below which a share of the known values lie, within half a percent; None without values."""
        if not self.known:
            return None
        keys = sorted(self._fine)
        reached = np.cumsum([self._fine[key] for key in keys])
        return _fine_value(keys[int(np.searchsorted(reached, share * self.known))])


def _fine_bin(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """A bin for each value, on a scale that is even near 0 and logarithmic beyond."""
    return np.rint(np.arcsinh(values) * _SKETCH / 2).astype(np.int64)


def _fine_value(key: int) -> float:
    """The middle of a fine bin."""
    return float(np.sinh(key * 2 / _SKETCH))
