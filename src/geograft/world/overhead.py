"""The view from above: a 1 m camera in four bands, and a 10 m satellite in five, some of its days cloudy."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geograft.world.light import Sun, sun_of, sunlight
from geograft.world.materials import Palette, palette, season_of
from geograft.world.movables import with_movables
from geograft.world.noise import fractal, nodes, upsample
from geograft.world.terrain import Land

Floats = NDArray[np.float32]

BANDS_1M = (0, 1, 2, 3)
"""Palette columns of the 1 m bands: red, green, blue, near infrared."""
BANDS_10M = (2, 1, 0, 3, 4)
"""Palette columns of the 10 m bands: blue, green, red, near infrared, short-wave infrared."""
PATH_1M = (0.004, 0.008, 0.014, 0.001)
"""Light that the air adds in the 1 m bands, in units of reflectance."""
WHITE_1M = (0.62, 0.62, 0.62, 0.80)
"""Reflectance that saturates the 1 m bands."""
GAMMA = 0.62
"""Exponent of the 1 m camera's response, which spreads dark surfaces over more of its 256 levels."""
TILE = 1024
"""Side of the repeating texture, metres."""
STRIP = 250
"""Rows worked on at a time, so that intermediate arrays stay in the processor's cache."""


@dataclass(frozen=True)
class _View:
    """A land on one date, lit and textured, ready to be looked at by strips of rows."""

    land: Land
    light: Floats
    palette: Palette
    grain: Floats
    mottle: Floats
    drift: Floats

    def strips(self, rows: int) -> Iterator[tuple[slice, NDArray[np.uint8], Floats]]:
        """Rows, their materials, and the factor (light times texture) on their reflectance."""
        for top in range(0, rows, STRIP):
            part = slice(top, min(top + STRIP, rows))
            material = self.land.material[part]
            factor = np.ones(material.shape, np.float32)
            for column, tile in enumerate((self.grain, self.mottle)):
                factor += self.palette.texture[:, column][material] * _tiled(tile, part, self.land.size)
            factor += self.palette.texture[:, 2][material] * self.drift[part]
            factor *= self.light[part]
            yield part, material, factor


def _tiled(tile: Floats, part: slice, size: int) -> Floats:
    """Rows of a tile that repeats over the region."""
    rows = tile[np.arange(part.start, part.stop) % TILE]
    return np.tile(rows, (1, -(-size // TILE)))[:, :size]


def _view(land: Land, taken: datetime) -> tuple[_View, Sun]:
    lon, lat = land.centre
    sun = sun_of(lon, lat, taken)
    peopled = with_movables(land, taken)
    rng = np.random.default_rng([land.seed, land.size, 7])
    grain = rng.standard_normal((TILE, TILE), np.float32)
    mottle = gaussian_filter(rng.standard_normal((TILE, TILE), np.float32), 2.0, mode="wrap")
    drift = upsample(fractal(rng, nodes(land.size), 16, 3, 0.7), land.size)
    light = sunlight(peopled.ground, peopled.height, sun)
    return _View(peopled, light, palette(season_of(taken)), grain, mottle / mottle.std(), drift), sun


def render_1m(land: Land, taken: datetime) -> NDArray[np.uint8]:
    """What the 1 m camera sees: red, green, blue, near infrared as brightness.

    Brightness is 255 * (reflectance / WHITE_1M) ** GAMMA with the air's light added and a little noise.

    Args:
        land: the region.
        taken: when, UTC; sets the sun, the season, and which boats, planes and cars are there.

    Returns:
        (4, size, size) uint8.
    """
    view, _ = _view(land, taken)
    noise = np.random.default_rng([land.seed, taken.toordinal(), 1]).standard_normal((TILE, TILE), np.float32)
    image = np.empty((4, land.size, land.size), np.uint8)
    for part, material, factor in view.strips(land.size):
        speck = _tiled(noise, part, land.size)
        for number, band in enumerate(BANDS_1M):
            image[number, part] = _expose(view.palette.top[:, band][material] * factor, number, speck)
            speck = np.roll(speck, 331, axis=1)
    return image


def _expose(reflectance: Floats, band: int, speck: Floats) -> NDArray[np.uint8]:
    """Reflectance to brightness 0..255, through a table of 4,096 steps."""
    steps = np.linspace(0, 1, 4096, dtype=np.float32)
    table = 255 * np.clip((steps + PATH_1M[band]) / WHITE_1M[band], 0, 1) ** GAMMA
    level = table[np.clip(reflectance * 4095, 0, 4095).astype(np.int16)]
    return np.asarray(np.clip(level + 1.6 * speck + 0.5, 0, 255), np.uint8)


def render_10m(land: Land, taken: datetime, clouds: bool) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """What the 10 m satellite sees: blue, green, red, near infrared, short-wave infrared.

    Args:
        land: the region; rows and columns beyond a multiple of 10 m are left out.
        taken: when, UTC.
        clouds: whether clouds drift over the region.

    Returns:
        Digital numbers (5, size // 10, size // 10) uint16, (reflectance + 0.1) * 10000, never the nodata value 0;
        and the cloud mask (size // 10, size // 10) uint8, 1 under clouds and in their shadows.
    """
    view, sun = _view(land, taken)
    count = land.size // 10
    image = np.empty((5, count, count), np.float32)
    for part, material, factor in view.strips(count * 10):
        rows = slice(part.start // 10, part.stop // 10)
        for number, band in enumerate(BANDS_10M):
            image[number, rows] = _mean10(view.palette.top[:, band][material] * factor, count)
    rng = np.random.default_rng([land.seed, taken.toordinal(), 10])
    mask = _cloud_over(image, sun, rng) if clouds else np.zeros((count, count), np.uint8)
    image += 0.0018 * rng.standard_normal(image.shape, np.float32)
    return np.clip((image + 0.1) * 10_000 + 0.5, 1, 65_535).astype(np.uint16), mask


def _mean10(pixels: Floats, count: int) -> Floats:
    """Means of 10 × 10 blocks."""
    rows = pixels[:, : count * 10].reshape(-1, 10, count * 10).sum(1)
    return np.asarray(rows.reshape(len(rows), count, 10).sum(2) / 100, np.float32)


def _cloud_over(image: Floats, sun: Sun, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lay clouds and their shadows over 10 m reflectance, in place; returns their mask."""
    count = image.shape[1]
    field = fractal(rng, count, 90, 6, 0.55)
    edge = np.quantile(field, 1 - rng.uniform(0.08, 0.25))
    opacity = np.clip((field - edge) * 2.2, 0, 1)
    x, y = sun.towards()
    away = 110 / np.tan(np.radians(sun.elevation))
    shadow = gaussian_filter(np.roll(opacity, (round(-y * away), round(-x * away)), (0, 1)), 1.0)
    image *= 1 - 0.55 * shadow * (1 - opacity)
    white = np.array([0.62, 0.60, 0.59, 0.62, 0.48], np.float32)[:, None, None]
    image += (opacity * (white * (0.75 + 0.12 * field) - image)).astype(np.float32)
    return np.asarray((opacity > 0.05) | (shadow > 0.15), np.uint8)
