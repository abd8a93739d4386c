"""What a rendered map itself says of a chip, read off its colours: weak truth, for evaluation only.

The tiles are 4UMaps' topographic rendering of OpenStreetMap. Hill shading darkens a colour and keeps its hue, so a
pixel is compared by its colour over its brightest band. Land that nobody has mapped stays blank, whatever grows
there: a forest without forest colour counts as a miss, which bounds every figure made of this.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Colour = tuple[int, int, int]

PALETTE: dict[str, Colour] = {
    "forest": (208, 216, 192),
    "water": (178, 208, 210),
    "beach": (250, 250, 190),
    "residential": (220, 212, 184),
    "blank": (236, 230, 228),
}
"""The flat colours in full light; areas of other colours (parks, works, roads) are none of these."""

CLASSES = ("forest", "water", "beach", "built-up")

SHARES = {"forest": 0.5, "water": 0.25, "beach": 0.05, "built-up": 0.25}
"""The share of a chip from which it counts for a class; beaches are narrow."""

_NEAR = 0.045
_DARKEST = 70
_STREET = 250
_ROAD = 9
"""Pixels: yellow roads are narrower, beaches wider."""


def class_shares(chips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of each chip that shows each class's colours.

    Built-up is the colour of residential land and the white of streets; beach is sand wider than a yellow road.

    Args:
        chips: map tiles, red, green and blue, (N, 3, S, S).

    Returns:
        (N, 4) in the order of `CLASSES`, values 0 to 1.
    """
    return np.array([_shares(chip) for chip in chips]).reshape(-1, len(CLASSES))


def relevant(chips: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each chip counts for each class, (N, 4) in the order of `CLASSES`."""
    return class_shares(chips) >= np.array([SHARES[name] for name in CLASSES])


def nearest_colour(chip: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The palette's colour of each pixel of a chip (3, S, S), as its place in `PALETTE`; -1 for none, (S, S)."""
    values = chip.transpose(1, 2, 0).astype(np.float64)
    brightest = values.max(axis=-1)
    hues = values / np.maximum(brightest, 1)[..., None]
    flat = np.array(list(PALETTE.values()), np.float64)
    flat /= flat.max(axis=1, keepdims=True)
    distance = np.linalg.norm(hues[..., None, :] - flat, axis=-1)
    nearest = distance.argmin(axis=-1)
    unclear = (distance.min(axis=-1) > _NEAR) | (brightest < _DARKEST) | _white(chip)
    return np.where(unclear, -1, nearest)


def _shares(chip: NDArray[np.uint8]) -> list[float]:
    colour = nearest_colour(chip)
    names = list(PALETTE)
    found = {name: colour == names.index(name) for name in names}
    sand = ndimage.binary_opening(found["beach"], np.ones((_ROAD, _ROAD), np.bool_))
    built = found["residential"] | _white(chip)
    return [float(mask.mean()) for mask in (found["forest"], found["water"], sand, built)]


def _white(chip: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The white of streets (and of the edges of lettering)."""
    return np.asarray(chip.min(axis=0) >= _STREET)
