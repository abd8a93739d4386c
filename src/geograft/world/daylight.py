"""Light for photos: sun, sky, clouds, haze, exposure and sensor noise, and the noise fields that give grain.

Colours are display values in 0..1, not radiance: photos are made for eyes and for encoders trained on JPEGs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from geograft.world.camera import Poses

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]
Flags: TypeAlias = NDArray[np.bool_]
Times: TypeAlias = NDArray[np.datetime64]

_SIDE = 512  # of the noise fields, a power of two


@cache
def noise_field(slope: float) -> Floats:
    """A tileable field of noise, flat (512 * 512,), zero mean, about +-1, with spectrum f**-slope (0 is white)."""
    rng = np.random.default_rng([7, round(slope * 10)])
    frequency = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(_SIDE) * _SIDE]))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((_SIDE, _SIDE))) / frequency**slope
    spectrum[0, 0] = 0
    field = np.fft.ifft2(spectrum).real
    clipped: Floats = np.clip(field / (2 * field.std()), -1.3, 1.3).astype(np.float32).ravel()
    return clipped


def noise(u: Floats, v: Floats, *, slope: float = 0.0) -> Floats:
    """Noise at positions in cells of its field, nearest cell, repeating every 512."""
    cells = v.astype(np.int32)
    cells &= _SIDE - 1
    cells *= _SIDE
    cells += u.astype(np.int32) & (_SIDE - 1)
    return noise_field(slope).take(cells)


@dataclass(frozen=True)
class Light:
    """What differs from photo to photo in light, for N photos.

    Attributes:
        sun: colour of what the sun and the sky light together, (N, 3).
        direction: unit vector towards the sun in the plane, (N, 2) east and south.
        height: height of the sun, sine, (N,).
        zenith, horizon: colours of the clear sky, (N, 3).
        clouds: share of the sky under cloud, 0..1, (N,).
        haze: extinction per metre, (N,).
        season: row of the seasonal palettes, 0 to 3, (N,) int.
        exposure: gain of each channel, (N, 3).
        grain: standard deviation of the sensor's noise, (N,).
        offset: shift of the noise fields, (N, 2).
    """

    sun: Floats
    direction: Floats
    height: Floats
    zenith: Floats
    horizon: Floats
    clouds: Floats
    haze: Floats
    season: Ints
    exposure: Floats
    grain: Floats
    offset: Ints

    def __getitem__(self, index: Ints) -> Light:
        """The light of some photos."""
        return Light(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @staticmethod
    def draw(poses: Poses, seed: int) -> Light:
        """The light of some poses: the hour decides the sun, the seed clouds, exposure and noise."""
        count = len(poses)
        rng = np.random.default_rng([seed, 0xCA3E])
        clouds = np.clip(rng.beta(0.8, 1.0, count), 0, 1)
        gain = np.exp(rng.normal(0, 0.10, (count, 1)) + rng.normal(0, 0.025, (count, 3)))
        grain, offset = rng.gamma(2, 0.006, count), rng.integers(0, _SIDE, (count, 2))
        day = np.clip((poses.hour - 5.0) / 15.0, 0, 1).astype(np.float64)
        height = np.clip(np.sin(np.pi * day), 0.08, 1)
        angle = np.pi * (poses.hour - 12.0) / 12.0
        sun, zenith, horizon = _skylight(height, clouds)
        values = {
            "sun": sun, "direction": np.stack([-np.sin(angle), np.cos(angle)], 1),
            "height": height, "zenith": zenith, "horizon": horizon, "clouds": clouds,
            "haze": poses.haze / 1000, "exposure": gain, "grain": grain,
        }  # fmt: skip
        arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
        return Light(**arrays, offset=offset, season=season_index(poses.season))


def season_index(day: Floats) -> Ints:
    """The season of days of the year: 0 winter, 1 spring, 2 summer, 3 autumn."""
    return ((np.asarray(day).astype(np.int64) % 365 + 31) // 91) % 4


def _skylight(height: Floats, clouds: Floats) -> tuple[Floats, Floats, Floats]:
    """Colours of sunlight, zenith and horizon, (N, 3) each."""
    low = np.clip(1.15 - 2.2 * height, 0, 1)[:, None]
    grey = (0.65 * clouds)[:, None]
    sun = _mix(_mix((1.04, 1.02, 0.98), (1.0, 0.80, 0.62), low), (0.90, 0.92, 0.95), grey)
    zenith = _mix(_mix((0.27, 0.50, 0.84), (0.34, 0.40, 0.58), low), (0.66, 0.69, 0.74), grey)
    horizon = _mix(_mix((0.74, 0.85, 0.94), (0.98, 0.74, 0.52), low), (0.82, 0.83, 0.85), grey)
    bright = 0.72 + 0.28 * np.clip(2.5 * height, 0, 1)[:, None]
    return sun * bright, zenith * bright, horizon * bright


def _mix(first: object, second: object, share: Floats) -> Floats:
    """A blend of two colours, (N, 3)."""
    mixed: Floats = np.asarray(first) * (1 - share) + np.asarray(second) * share
    return mixed


def sky(slopes: Floats, bearing: Floats, light: Light, owner: Ints) -> Floats:
    """The sky's colours at some pixels, (3, P).

    Args:
        slopes: tangent of the height above the horizon, (P,).
        bearing: a coordinate that turns with the heading, (P,).
        light: of the photos.
        owner: the photo of each pixel, (P,).
    """
    up = np.clip(slopes * 1.6, 0, 1)
    cloud = noise(bearing * 60 + light.offset[owner, 0], 90 / (slopes + 0.25) + light.offset[owner, 1], slope=1.4)
    cover = np.clip((cloud + 1.6 * light.clouds[owner] - 0.9) * 1.8, 0, 0.9)
    result = np.empty((3, len(slopes)), np.float32)
    for channel, white in enumerate((0.95, 0.95, 0.96)):
        clear = light.horizon[owner, channel]
        clear = clear + up * (light.zenith[owner, channel] - clear)
        lit = white * np.clip(light.sun[owner, channel], 0, 1) * (1 - 0.22 * light.clouds[owner])
        result[channel] = clear + cover * (lit - clear)
    return result
