"""Whether another backend gives the vectors of the model, and how fast it is: measured, never assumed."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geograft.errors import ExportFailed
from geograft.models.inference.eager import Backend
from geograft.models.satellite import Encoder, Level

SAFE = 0.999
"""The cosine that 99 of 100 vectors must keep for a backend to stand for the model."""

_BROKEN = {"float": 0.999, "int8": 0.9}
"""Median cosines below which a graph is taken for broken."""

PROBES = 11
"""Chips that a backend is tried on; an odd number, so that no batch has the length that was traced."""


@dataclass(frozen=True)
class Parity:
    """How near the vectors of a backend are to those of the model in float32.

    Attributes:
        cosine_min: of the farthest vector.
        cosine_low: of the hundredth part that is farthest.
        cosine_median: of the middle.
        max_difference: largest difference of a number of unit vectors.
        vectors: how many were compared: chips, and patches at the levels that have them.
    """

    cosine_min: float
    cosine_low: float
    cosine_median: float
    max_difference: float
    vectors: int

    @property
    def safe(self) -> bool:
        """Whether tables of both may be mixed."""
        return self.cosine_low >= SAFE


def compare(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Parity:
    """The parity of unit vectors, row by row, (M, D) each."""
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1) * np.linalg.norm(found.astype(np.float64), axis=1)
    cosines = (expected.astype(np.float64) * found).sum(axis=1) / lengths
    cosines = np.where(np.isfinite(cosines), cosines, -1.0)
    low, median = np.quantile(cosines, (0.01, 0.5))
    differences = np.nan_to_num(np.abs(expected - found), nan=2.0)
    return Parity(
        cosine_min=float(cosines.min()),
        cosine_low=float(low),
        cosine_median=float(median),
        max_difference=float(differences.max()),
        vectors=len(cosines),
    )


def measure_parity(
    encoders: Mapping[Level, Encoder], reference: Backend, candidate: Backend, chips: NDArray[np.float32]
) -> Parity:
    """The parity of two backends of a model in all that it can be asked for.

    Raises:
        ExportFailed: the candidate gives vectors of another number or length.
    """
    expected = _vectors(encoders, reference, chips)
    try:
        found = _vectors(encoders, candidate, chips)
    except (ValueError, RuntimeError) as error:
        raise ExportFailed(f"The graphs of {candidate.name} do not run ({str(error).splitlines()[0]}).") from error
    if found.shape != expected.shape:
        raise ExportFailed(f"{candidate.name} gives vectors of the shape {found.shape} instead of {expected.shape}.")
    return compare(expected, found)


def check_parity(parity: Parity, name: str) -> None:
    """Refuse a backend that does not give the model's vectors.

    Args:
        parity: what was measured.
        name: the backend's.

    Raises:
        ExportFailed: the median cosine is below 0.999, of int8 below 0.9.
    """
    int8 = name.endswith("int8")
    if parity.cosine_median < _BROKEN["int8" if int8 else "float"]:
        advice = "calibrate it on chips of the kind that will be embedded" if int8 else "use the backend torch"
        raise ExportFailed(
            f"{name} gives other vectors than the model (median cosine {parity.cosine_median:.4f}): {advice}."
        )


def rates(encoders: Mapping[Level, Encoder], backends: tuple[Backend, ...], chips: NDArray[np.float32]) -> list[float]:
    """Chips a second of backends, medians of three runs that take turns, after one that warms up."""
    seconds: list[list[float]] = [[] for _ in backends]
    for _ in range(4):
        for backend, taken in zip(backends, seconds, strict=True):
            start = time.perf_counter()
            if "image" in encoders:
                backend.embed(chips)
            else:
                backend.tokens(chips, level="pixel")
            taken.append(time.perf_counter() - start)
    return [round(len(chips) / statistics.median(taken[1:]), 1) for taken in seconds]


def probe_chips(encoders: Mapping[Level, Encoder], count: int = PROBES) -> NDArray[np.float32]:
    """Normalised chips of no place, for want of real ones: soft shapes with noise, the same each time."""
    settings = next(iter(encoders.values())).settings
    rng = np.random.default_rng(0)
    bands, size = len(settings.bands), settings.image_size
    coarse = rng.normal(size=(count, bands, 4, 4)).repeat(-(-size // 4), axis=2).repeat(-(-size // 4), axis=3)
    return (coarse[..., :size, :size] + 0.3 * rng.normal(size=(count, bands, size, size))).astype(np.float32)


def _vectors(encoders: Mapping[Level, Encoder], backend: Backend, chips: NDArray[np.float32]) -> NDArray[np.float32]:
    """All vectors that a model can be asked for, one a row."""
    found = [backend.embed(chips)] if "image" in encoders else []
    for level in encoders:
        maps = backend.tokens(chips, level=level)
        found.append(np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1]))
    return np.concatenate(found)
