"""The colours of what a photo sees: materials, fine detail near the camera, facades, water, light, haze and sky.

The camera says what every pixel sees (`Picture`); a `Brush` paints all pixels with their material's colours and
grain and then each kind of thing with its own detail: windows on facades, sleepers under rails, stalks, waves.
Pixels are flat arrays, (P,) with P = S * N * S; colours are (3, P).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geograft.world.daylight import noise, noise_field, sky
from geograft.world.details import add_details
from geograft.world.materials import INDEX, MATERIALS, palette

if TYPE_CHECKING:
    from geograft.world.camera import Scenery
    from geograft.world.daylight import Flags, Floats, Ints, Light

Bytes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """What every pixel of a batch of photos sees; arrays are (S, N * S), rows from the bottom up.

    Attributes:
        cover, material: class and material, uint8; class 0 is the sky.
        cells: flat index into the land.
        x, y: place, m (= px of the land); depth: distance along the view, m; above: height above ground, m.
        slopes: tangent of the height above the horizon.
        side: whether an upright face is seen rather than a top.
        sky: whether nothing is hit.
        canopy: whether crowns are seen from below.
        among_trees: whether the photos of this batch are taken inside a forest.
        dx, dy, eye, eye_x, eye_y: the columns' direction, elevation and place of the eye, (N * S,).
    """

    cover: Bytes
    material: Bytes
    cells: Ints
    x: Floats
    y: Floats
    depth: Floats
    above: Floats
    slopes: Floats
    side: Flags
    sky: Flags
    canopy: Flags
    dx: Floats
    dy: Floats
    eye: Floats
    eye_x: Floats
    eye_y: Floats
    among_trees: bool

    @property
    def size(self) -> int:
        """Side of the pictures, px."""
        return int(self.cover.shape[0])

    @property
    def count(self) -> int:
        """The number of photos."""
        return int(self.cover.shape[1] // self.size)

    def owner(self) -> Ints:
        """The photo of each column, (N * S,)."""
        return np.repeat(np.arange(self.count), self.size)

    def shares(self) -> Floats:
        """The share of each class in each photo, (N, 256)."""
        keys = self.cover + (self.owner() * 256)
        counts = np.bincount(keys.ravel(), minlength=self.count * 256).reshape(self.count, 256)
        return (counts / self.size**2).astype(np.float32)


@dataclass
class Print:
    """A photo being painted: flat views of what is seen, and the colours so far.

    Attributes:
        picture: what is seen.
        colour: (3, P) float32, display values.
        light, owner: light of the photos, and the photo of each pixel, (P,).
        near: 1 beside the camera, falling to 0 far off, where detail is finer than a pixel, (P,).
        scenery: the land.
    """

    picture: Picture
    colour: Floats
    light: Light
    owner: Ints
    near: Floats
    scenery: Scenery

    def at(self, name: str, pixels: Ints) -> NDArray[Any]:
        """A field of the picture at some pixels."""
        return getattr(self.picture, name).ravel().take(pixels)  # type: ignore[no-any-return]

    def scale(self, pixels: Ints, factor: NDArray[Any]) -> None:
        """Brighten or darken some pixels."""
        for channel in self.colour:
            channel[pixels] *= factor

    def mix(self, pixels: Ints, rgb: tuple[float, float, float], share: NDArray[Any] | float) -> None:
        """Blend some pixels towards a colour by a share."""
        for channel, value in zip(self.colour, rgb, strict=True):
            old = channel.take(pixels)
            channel[pixels] = old + share * (np.float32(value) - old)


_SEASONS = (1.0, 0.25, 0.0, 0.45)  # how wintry winter, spring, summer and autumn look
_WATERS = ("deep water", "shallow water", "river water")
WET = np.array([material.name in _WATERS for material in MATERIALS] + [False] * (256 - len(MATERIALS)))
"""Whether a material is water, (256,) bool."""
RIVER_WATER = INDEX["river water"]


def _display(reflectance: Floats) -> Floats:
    """Reflectance as a camera shows it."""
    shown: Floats = np.clip(2.1 * reflectance, 0, 1) ** np.float32(0.56)
    return shown


def _looks() -> tuple[Floats, Floats]:
    """Display colours, (3, 4 * 512) by season, side and material, and the strength of the grain, (256,).

    Leaves turn on their sides as they do from above; what keeps its colour from above keeps it on its sides.
    """
    looks = np.zeros((4, 2, 256, 3), np.float32)
    count = len(MATERIALS)
    summer = _display(palette(0.0).top[:, :3])
    for season, wintry in enumerate(_SEASONS):
        looks[season, 0, :count] = _display(palette(wintry).top[:, :3])
        turned = (looks[season, 0, :count] + 0.02) / (summer + 0.02)
        looks[season, 1, :count] = np.clip(palette(wintry).side * turned, 0, 1)
    strength = np.zeros(256, np.float32)
    strength[:count] = 0.04 + 1.3 * palette(0.0).texture[:, 0]
    return np.ascontiguousarray(looks.reshape(-1, 3).T), strength


class Brush:
    """Paints pictures of one land."""

    def __init__(self, scenery: Scenery) -> None:
        self._scenery = scenery
        self._palette, self._strength = _looks()

    def paint(self, picture: Picture, light: Light) -> Bytes:
        """The photos, (N, S, S, 3) uint8, first row at the top."""
        sheet = self._base(picture, light)
        add_details(sheet)
        _illuminate(sheet)
        _sky(sheet)
        return _develop(sheet)

    def _base(self, picture: Picture, light: Light) -> Print:
        """A sheet with the colours and the grain of the materials."""
        owner = np.broadcast_to(picture.owner(), picture.cover.shape)
        keys = (picture.side * np.int64(256) + picture.material) + light.season[picture.owner()] * 512
        colour = self._palette.take(keys.ravel(), axis=1)
        near = 1 / (1 + (0.06 * picture.depth.ravel()))
        grain = _grain(picture)
        grain *= self._strength.take(picture.material.ravel())
        grain += 1
        colour *= grain
        return Print(picture, colour, light, owner.ravel(), near, self._scenery)


def _grain(picture: Picture) -> Floats:
    """Noise that clings to the ground and to upright faces, finer near the camera, (P,)."""
    v = picture.y + picture.side * picture.above
    fine = noise(picture.x * 11, v * 11)
    fine *= 1 / (1 + 0.05 * picture.depth)
    coarse = noise(picture.x * 1.3, v * 1.3, slope=0.8)
    coarse += fine
    return coarse.ravel()


def _illuminate(sheet: Print) -> None:
    """Sunlight on everything, the sky mirrored in water, and haze with the distance."""
    light, picture = sheet.light, sheet.picture
    shape = (3, picture.size, -1)
    colour = sheet.colour.reshape(shape)
    colour *= _columns(light.sun, picture)
    _reflect(sheet)
    haze = picture.depth * -np.repeat(light.haze, picture.size)
    haze = 1 - np.exp(haze, out=haze)
    colour += haze * (_columns(light.horizon, picture) - colour)


def _columns(values: Floats, picture: Picture) -> Floats:
    """One colour a photo as one a column, (3, 1, N * S), to meet (3, S, N * S)."""
    return np.repeat(values.T, picture.size, axis=1)[:, None]


def _reflect(sheet: Print) -> None:
    """Mirror the sky in water, the more the flatter one looks on it."""
    pixels = np.flatnonzero(WET[sheet.picture.material.ravel()] & ~sheet.picture.sky.ravel())
    slope = np.maximum(-sheet.at("slopes", pixels), 0)
    x, y, near = sheet.at("x", pixels), sheet.at("y", pixels), sheet.near.take(pixels)
    ripple = noise(x * 3.1, y * 3.1, slope=0.6) * near + 0.5 * noise(x * 0.9, y * 0.9, slope=0.8)
    river = sheet.at("material", pixels) == RIVER_WATER
    share = np.clip(0.72 - 1.35 * slope + 0.22 * ripple, 0.04, 0.85) * np.where(river, np.float32(0.55), 1)
    bearing = sheet.picture.dx.take(pixels % len(sheet.picture.dx))
    mirrored = sky(slope, bearing, sheet.light, sheet.owner.take(pixels))
    for channel, above in zip(sheet.colour, mirrored, strict=True):
        old = channel.take(pixels)
        channel[pixels] = old + share * (0.92 * above - old)


def _sky(sheet: Print) -> None:
    """The sky where nothing is hit."""
    pixels = np.flatnonzero(sheet.picture.sky)
    bearing = sheet.picture.dx.take(pixels % len(sheet.picture.dx))
    sheet.colour[:, pixels] = sky(sheet.at("slopes", pixels), bearing, sheet.light, sheet.owner.take(pixels))


def _develop(sheet: Print) -> Bytes:
    """Exposure, sensor noise and rounding: (N, S, S, 3) uint8, first row at the top."""
    picture, light = sheet.picture, sheet.light
    colour = sheet.colour.reshape(3, picture.size, -1)
    colour *= _columns(light.exposure, picture)
    rows, columns = np.ogrid[: picture.size, : colour.shape[2]]
    first = np.repeat(light.offset[:, 0] * 512 + light.offset[:, 1], picture.size) + columns % picture.size
    speckle = noise_field(0.0).take((first + rows * 509) % 512**2)
    colour += speckle * np.repeat(light.grain, picture.size)
    colour *= 255
    np.clip(colour, 0, 255, out=colour)
    pixels = colour.astype(np.uint8).reshape(3, picture.size, picture.count, picture.size)
    return np.ascontiguousarray(pixels[:, ::-1].transpose(2, 1, 3, 0))
