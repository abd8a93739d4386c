"""Sunlight on the land: where the sun stands, how steeply it meets each surface, what lies in shadow."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LOWEST = 14.0
"""The sun is never taken to stand lower than this, degrees: scenes of the night would be black."""
SKY = 0.34
"""Share of the light on flat open ground that comes from the sky rather than from the sun."""
DOUBLINGS = 7
"""Shadows reach 2 ** DOUBLINGS metres."""


@dataclass(frozen=True)
class Sun:
    """Where the sun stands.

    Attributes:
        azimuth: degrees clockwise from north.
        elevation: degrees above the horizon.
    """

    azimuth: float
    elevation: float

    def towards(self) -> tuple[float, float]:
        """Unit vector on the ground towards the sun in pixel axes (x east, y south)."""
        angle = np.radians(self.azimuth)
        return float(np.sin(angle)), float(-np.cos(angle))


def sun_of(lon: float, lat: float, taken: datetime) -> Sun:
    """The sun at a place and time (UTC), from the declination of the day and the hour angle; good to 1°.

    Raises nothing: at night the sun is put LOWEST degrees above the horizon.
    """
    day = taken.timetuple().tm_yday
    declination = np.radians(-23.44 * np.cos(2 * np.pi * (day + 10) / 365.25))
    hour = np.radians(15 * (taken.hour + taken.minute / 60 + lon / 15 - 12))
    phi = np.radians(lat)
    up = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    east = -np.cos(declination) * np.sin(hour)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(hour)
    elevation = np.degrees(np.arcsin(np.clip(up, -1, 1)))
    return Sun(float(np.degrees(np.arctan2(east, north)) % 360), float(max(elevation, LOWEST)))


def horizon(surface: Floats, sun: Sun) -> Floats:
    """Height of the shadow's upper edge over each pixel, in the surface's metres; at least the surface itself.

    The march towards the sun doubles its stride: each round looks 1, 2, 4, ... metres further at what the
    rounds before have gathered, so 128 m cost seven passes instead of 128.
    """
    x, y = sun.towards()
    slope = np.tan(np.radians(sun.elevation))
    shade = surface.copy()
    for doubling in range(DOUBLINGS):
        dx, dy = round(2**doubling * x), round(2**doubling * y)
        drop = np.float32(np.hypot(dx, dy) * slope)
        here, there = _overlap(surface.shape[0], dy), _overlap(surface.shape[1], dx)
        source = shade[here[1], there[1]] - drop
        np.maximum(shade[here[0], there[0]], source, out=shade[here[0], there[0]])
    return shade


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Slices (target, source) such that source lies `shift` further."""
    if shift >= 0:
        return slice(0, max(0, length - shift)), slice(min(shift, length), length)
    return slice(min(-shift, length), length), slice(0, max(0, length + shift))


def sunlight(ground: Floats, height: Floats, sun: Sun) -> Floats:
    """Light on each pixel relative to flat open ground, about 0.3 in shadow to 1.5 on slopes that face the sun.

    Args:
        ground: bare elevation, metres, 1 m pixels.
        height: height above ground, metres.
        sun: where the sun stands.
    """
    surface = ground + height
    light = horizon(surface, sun)
    light -= surface
    np.clip(light * np.float32(1.4), 0, 1, out=light)
    np.subtract(1, light, out=light)
    light *= _incidence(surface, sun)
    light *= np.float32(1 - SKY)
    light += np.float32(SKY)
    return light


def _incidence(surface: Floats, sun: Sun) -> Floats:
    """Cosine between the sun and each surface's normal, over that of flat ground; slopes are capped at 50°."""
    x, y = sun.towards()
    lean = np.float32(1 / np.tan(np.radians(sun.elevation)))
    facing = np.zeros_like(surface)
    steep = np.ones_like(surface)
    for axis, part in ((1, x), (0, y)):
        fall = _slope(surface, axis)
        steep += fall * fall
        fall *= np.float32(part)
        facing -= fall
    facing *= lean
    facing += 1
    facing /= np.sqrt(steep)
    return np.clip(facing, 0, 1.75, out=facing)


def _slope(surface: Floats, axis: int) -> Floats:
    """Rise per metre along an axis (central differences), capped."""
    rise = np.zeros_like(surface)
    inner = (slice(1, -1), slice(None)) if axis == 0 else (slice(None), slice(1, -1))
    ahead = (slice(2, None), slice(None)) if axis == 0 else (slice(None), slice(2, None))
    behind = (slice(None, -2), slice(None)) if axis == 0 else (slice(None), slice(None, -2))
    np.subtract(surface[ahead], surface[behind], out=rise[inner])
    rise *= np.float32(0.5)
    return np.clip(rise, -1.2, 1.2, out=rise)
