"""Smooth random fields: the raw material of hills, woods, towns and textures."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CELL = 4
"""Metres between the nodes of coarse grids; node i lies at pixel coordinate i * CELL."""


def nodes(size: int) -> int:
    """How many coarse nodes span `size` metres, both ends included."""
    return -(-size // CELL) + 1


def _weights(count: int, knots: float) -> Floats:
    """Cubic B-spline weights of `count` samples over `knots` intervals, (count, ceil(knots) + 4)."""
    position = np.linspace(0.0, knots, count)
    base = position.astype(int)
    t = position - base
    shapes = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((count, int(np.ceil(knots)) + 4), np.float32)
    for shift, shape in enumerate(shapes):
        weights[np.arange(count), base + shift] = shape / 6
    return weights


def spline_noise(rng: np.random.Generator, count: int, scale: float) -> Floats:
    """One octave of smooth noise, (count, count), with knots every `scale` samples."""
    weights = _weights(count, max(0.5, count / scale))
    knots = rng.standard_normal((weights.shape[1], weights.shape[1]), np.float32)
    return np.asarray(weights @ knots @ weights.T, np.float32)


def fractal(rng: np.random.Generator, count: int, scale: float, octaves: int = 4, gain: float = 0.5) -> Floats:
    """Layered noise, (count, count), of mean 0 and standard deviation 1.

    Args:
        rng: where the randomness comes from.
        count: samples a side.
        scale: knots of the coarsest octave are this many samples apart; each further octave halves it.
        octaves: number of layers.
        gain: amplitude of a layer, relative to the one before.
    """
    field = np.zeros((count, count), np.float32)
    for octave in range(octaves):
        field += gain**octave * spline_noise(rng, count, max(2.0, scale / 2**octave))
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def upsample(grid: Floats, size: int) -> Floats:
    """A coarse grid brought to 1 m by linear interpolation, (size, size)."""
    t = (np.arange(CELL, dtype=np.float32) / CELL)[None, None, :]
    wide = grid[:, :-1, None] + t * np.diff(grid, axis=1)[:, :, None]
    wide = wide.reshape(len(grid), -1)[:, :size]
    fine = np.empty(((len(grid) - 1) * CELL, wide.shape[1]), np.float32)
    rise = np.diff(wide, axis=0) / np.float32(CELL)
    for step in range(CELL):
        np.multiply(rise, np.float32(step), out=fine[step::CELL])
        fine[step::CELL] += wide[:-1]
    return fine[:size]
