"""What distinguishes one kind of thing from another in a photo: windows, leaves, stalks, panes, panels, strata.

Each detail is one function that repaints the pixels of some materials; `_DETAILS` says which. Coordinates are
metres, so details shrink with the distance as they should.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from geograft.world.classes import BY_NAME
from geograft.world.daylight import Flags, Floats, Ints, noise
from geograft.world.materials import INDEX

if TYPE_CHECKING:
    from geograft.world.paint import Print

_TOP, _SIDE = 0, 256
_GRASSLAND = BY_NAME["grassland"].id
_RAILWAY = BY_NAME["railway"].id
_HOUSES, _BLOCKS, _HALLS = (BY_NAME[name].id for name in ("houses", "apartment blocks", "warehouses"))
_LEAVES = ("broadleaf light", "broadleaf", "broadleaf dark", "conifer light", "conifer dark")
_ROOFS = ("red tile roof", "brown tile roof", "slate roof", "white roof", "gravel roof", "metal roof", "concrete")
_WHEAT = ("golden wheat", "pale wheat", "ripening wheat")
_RAPE = ("rapeseed", "thin rapeseed")


def add_details(sheet: Print) -> None:
    """Repaint every pixel whose material has a detail of its own."""
    picture = sheet.picture
    kinds = _KINDS.take((picture.side * np.int64(_SIDE) + picture.material).ravel())
    kinds[picture.sky.ravel()] = 0
    present = np.bincount(kinds, minlength=len(_DETAILS) + 1)
    for number, (_, paint) in enumerate(_DETAILS, start=1):
        if present[number]:
            paint(sheet, np.flatnonzero(kinds == number))


# --- tools ------------------------------------------------------------------------------------------------


def _wave(values: Floats, period: float, duty: float) -> Floats:
    """1 within the first `duty` of every period, else 0."""
    phase = values * np.float32(1 / period)
    phase -= np.floor(phase)
    return (phase < duty).astype(np.float32)


def _hash(first: Floats, second: Floats) -> Floats:
    """A number in 0..1 that differs from cell to cell."""
    mixed = first.astype(np.int64) * 73856093 ^ second.astype(np.int64) * 19349663
    return ((mixed * 0x2545F491) >> 13 & 1023).astype(np.float32) / 1023


def _facing(sheet: Print, pixels: Ints) -> tuple[Floats, Floats]:
    """How brightly the sun lights upright faces, and a coordinate along them in metres."""
    surface, size = sheet.scenery.open, sheet.scenery.size
    cells = sheet.at("cells", pixels)
    last = size * size - 1
    gx = surface.take(np.minimum(cells + 1, last)) - surface.take(np.maximum(cells - 1, 0))
    gy = surface.take(np.minimum(cells + size, last)) - surface.take(np.maximum(cells - size, 0))
    length = np.hypot(gx, gy) + 1e-3
    owner = sheet.owner.take(pixels)
    sun = sheet.light.direction[owner]
    lit = -(gx * sun[:, 0] + gy * sun[:, 1]) / length
    along = np.where(np.abs(gx) > np.abs(gy), sheet.at("y", pixels), sheet.at("x", pixels))
    clear = 1 - 0.6 * sheet.light.clouds[owner]
    return 0.84 + 0.22 * clear * lit, along


# --- buildings --------------------------------------------------------------------------------------------


def _facade(sheet: Print, pixels: Ints) -> None:
    """Upright faces of buildings, by the kind of building."""
    lit, along = _facing(sheet, pixels)
    sheet.scale(pixels, lit)
    cover, above = sheet.at("cover", pixels), sheet.at("above", pixels)
    height = sheet.scenery.height.take(sheet.at("cells", pixels))
    for kind, paint in ((_HOUSES, _house), (_BLOCKS, _block), (_HALLS, _hall)):
        own = np.flatnonzero(cover == kind)
        if len(own):
            paint(sheet, pixels[own], along[own], above[own], height[own])


def _panes(sheet: Print, pixels: Ints, along: Floats, above: Floats, shape: tuple[float, float, float]) -> None:
    """Windows in rows, white frames around dark glass; `shape` is (spacing, storey, share of the width)."""
    spacing, storey, width = shape
    u, v = along / spacing, above / storey
    across, up = u - np.floor(u) - 0.5, v - np.floor(v)
    visible = np.clip(26 / sheet.at("depth", pixels), 0.25, 1)
    frame = (np.abs(across) < width / 2 + 0.06) & (up > 0.26) & (up < 0.84)
    glass = (np.abs(across) < width / 2) & (up > 0.32) & (up < 0.78)
    sheet.mix(pixels, (0.93, 0.93, 0.91), 0.7 * frame * visible)
    shine = _hash(np.floor(u), np.floor(v))
    sheet.mix(pixels, (0.16, 0.20, 0.27), 0.9 * glass * visible)
    sheet.mix(pixels, (0.62, 0.72, 0.82), 0.7 * (glass & (shine > 0.7)) * visible)


def _house(sheet: Print, pixels: Ints, along: Floats, above: Floats, height: Floats) -> None:
    """Plaster of several tints, few windows, a door here and there."""
    tint = _hash(sheet.at("x", pixels) / 24, sheet.at("y", pixels) / 24)
    sheet.mix(pixels, (0.72, 0.36, 0.26), 0.75 * (tint > 0.8))
    sheet.mix(pixels, (0.96, 0.94, 0.90), 0.7 * (tint < 0.35))
    wall = np.flatnonzero(above < np.minimum(height + 0.2, 6.0))
    _panes(sheet, pixels[wall], along[wall], above[wall], (3.0, 2.8, 0.36))
    door = _wave(along, 9.0, 0.12) * (above < 2.1)
    sheet.mix(pixels, (0.32, 0.20, 0.14), door)


def _block(sheet: Print, pixels: Ints, along: Floats, above: Floats, height: Floats) -> None:
    """A grid of windows, with the line of a balcony at each storey."""
    wall = np.flatnonzero(above < height - 0.6)
    _panes(sheet, pixels[wall], along[wall], above[wall], (2.6, 3.0, 0.5))
    visible = np.clip(40 / sheet.at("depth", pixels), 0.3, 1)
    sheet.mix(pixels, (0.90, 0.88, 0.84), 0.8 * visible * (1 - _wave(above, 3.0, 0.88)))
    sheet.mix(pixels, (0.45, 0.30, 0.26), 0.5 * visible * _wave(along, 15.6, 0.12))


def _hall(sheet: Print, pixels: Ints, along: Floats, above: Floats, height: Floats) -> None:
    """Corrugated sheet without windows, dark gates, and a coloured band under the roof."""
    visible = np.clip(20 / sheet.at("depth", pixels), 0.15, 1)
    sheet.scale(pixels, 1 - 0.16 * visible * _wave(along, 0.9, 0.5))
    gate = _wave(along, 11.0, 0.34) * (above < 4.0)
    sheet.mix(pixels, (0.30, 0.32, 0.35), 0.9 * gate)
    sheet.mix(pixels, (0.72, 0.74, 0.76), 0.5 * gate * _wave(above, 0.6, 0.25))
    sheet.mix(pixels, (0.14, 0.34, 0.62), 0.85 * ((above > height - 1.4) & (above > 2)))


def _glasshouse(sheet: Print, pixels: Ints) -> None:
    """Panes in white frames, with the green of the plants behind."""
    lit, along = _facing(sheet, pixels)
    sheet.scale(pixels, lit)
    above, depth = sheet.at("above", pixels), sheet.at("depth", pixels)
    side = sheet.at("side", pixels)
    plants = np.where(side, np.clip(1.6 - above, 0, 1), 0.15)
    sheet.mix(pixels, (0.25, 0.48, 0.22), 0.75 * plants)
    visible = np.clip(22 / depth, 0.2, 1)
    second = np.where(side, above, sheet.at("x", pixels))
    bars = np.maximum(_wave(along, 1.6, 0.2), _wave(second, 1.5, 0.16))
    sheet.mix(pixels, (0.97, 0.98, 0.98), 0.9 * visible * bars)


def _panel(sheet: Print, pixels: Ints) -> None:
    """Dark blue cells in pale frames, above a gap where the ground shows."""
    above, depth = sheet.at("above", pixels), sheet.at("depth", pixels)
    x, y = sheet.at("x", pixels), sheet.at("y", pixels)
    visible = np.clip(14 / depth, 0.12, 1)
    bars = np.maximum(_wave(x + 0.6 * y, 1.0, 0.14), _wave(above, 0.6, 0.16))
    sheet.mix(pixels, (0.66, 0.70, 0.76), 0.75 * visible * bars)
    shine = noise(x * 0.4, y * 0.4 + above, slope=1.0)
    sheet.mix(pixels, (0.36, 0.48, 0.78), np.clip(0.18 + 0.3 * shine, 0, 0.5))
    under = sheet.at("side", pixels) & (above < 0.55)
    sheet.mix(pixels, (0.20, 0.22, 0.13), 0.85 * under)


# --- plants -----------------------------------------------------------------------------------------------


def _foliage(sheet: Print, pixels: Ints) -> None:
    """Leaves in clumps of light and dark, trunks below, dapples of sky between the crowns."""
    x, y, above = sheet.at("x", pixels), sheet.at("y", pixels), sheet.at("above", pixels)
    depth = sheet.at("depth", pixels)
    coarse = noise((x + y) * 1.7, above * 2.2 + x, slope=0.7)
    fine = noise((x - y) * 9, above * 9 + y) * sheet.near.take(pixels)
    sheet.scale(pixels, np.clip(1 + 0.42 * coarse + 0.4 * fine, 0.35, 1.8))
    canopy = sheet.at("canopy", pixels)
    side = sheet.at("side", pixels)
    high = sheet.scenery.height.take(sheet.at("cells", pixels)) > 3.5
    trunk = side & ~canopy & high & ((above < 2.4 + coarse) | (_is_among(sheet, pixels) & (above < 3.2)))
    gap = trunk & (_wave(x * 0.8 + y * 1.1, 1.5, 0.6) > 0) & ~_is_among(sheet, pixels)
    bark = 0.85 + 0.3 * noise((x + y) * 12, above * 1.5)
    for channel, value in enumerate((0.33, 0.27, 0.20)):
        colour = sheet.colour[channel]
        colour[pixels[trunk]] = value * bark[trunk]
    sheet.mix(pixels, (0.08, 0.11, 0.05), 0.8 * gap)
    sky_gap = canopy & (fine + coarse > 0.75)
    sheet.mix(pixels, (0.86, 0.92, 0.90), 0.75 * sky_gap)
    sheet.scale(pixels, np.where(canopy, 0.75 + 0.1 * np.clip(depth / 10, 0, 1), 1))


def _is_among(sheet: Print, pixels: Ints) -> Flags:
    """Whether the photo of each pixel was taken among trees."""
    return np.full(len(pixels), sheet.picture.among_trees)


def _grass(sheet: Print, pixels: Ints) -> None:
    """Blades near the camera, clumps farther off."""
    x, y, near = sheet.at("x", pixels), sheet.at("y", pixels), sheet.near.take(pixels)
    sheet.scale(pixels, 1 + 0.30 * near * near * noise(x * 23, y * 7) + 0.10 * noise(x * 0.5, y * 0.5, slope=1.0))


def _meadow(sheet: Print, pixels: Ints) -> None:
    """Grass with flowers."""
    _grass(sheet, pixels)
    x, y = sheet.at("x", pixels), sheet.at("y", pixels)
    flower = (noise(x * 9, y * 9) > 0.86) & (sheet.at("cover", pixels) == _GRASSLAND)
    sheet.mix(pixels, (0.95, 0.93, 0.78), 0.6 * sheet.near.take(pixels) * flower)


def _wheat(sheet: Print, pixels: Ints) -> None:
    """Upright stalks near the camera, and the tracks of the tractor."""
    x, y, near = sheet.at("x", pixels), sheet.at("y", pixels), sheet.near.take(pixels)
    stalks = noise(x * 37 + y * 11, sheet.at("above", pixels) * 3 + y * 5)
    sheet.scale(pixels, 1 + 0.38 * near * stalks)
    track = _wave(x * 0.9 + y * 0.43, 15.0, 0.05) * ~sheet.at("side", pixels)
    sheet.mix(pixels, (0.47, 0.37, 0.22), 0.7 * track)


def _rape(sheet: Print, pixels: Ints) -> None:
    """Yellow flowers over green."""
    x, y, near = sheet.at("x", pixels), sheet.at("y", pixels), sheet.near.take(pixels)
    green = noise(x * 17, y * 17 + sheet.at("above", pixels) * 9) > 0.35
    sheet.mix(pixels, (0.40, 0.50, 0.12), 0.55 * near * green)


def _vine(sheet: Print, pixels: Ints) -> None:
    """Leaves on wires, grapes, and a post every few metres."""
    x, y, above = sheet.at("x", pixels), sheet.at("y", pixels), sheet.at("above", pixels)
    near = sheet.near.take(pixels)
    leaf = noise((x + y) * 13, above * 13 + x)
    sheet.scale(pixels, np.clip(1.05 + 0.6 * near * leaf, 0.4, 1.8))
    side = sheet.at("side", pixels)
    sheet.mix(pixels, (0.42, 0.30, 0.20), 0.8 * (side & (above < 0.5)))
    sheet.mix(pixels, (0.33, 0.16, 0.36), 0.8 * near * (side & (above < 0.95) & (above > 0.5) & (leaf > 0.5)))
    sheet.mix(pixels, (0.70, 0.62, 0.50), 0.8 * side * _wave(x + y, 6.0, 0.06))


# --- ground -----------------------------------------------------------------------------------------------


def _sand(sheet: Print, pixels: Ints) -> None:
    """Ripples and footprints."""
    x, y, near = sheet.at("x", pixels), sheet.at("y", pixels), sheet.near.take(pixels)
    bend = 0.5 * noise(x * 0.8, y * 0.8, slope=1.2)
    ripple = np.sin((x * 0.35 + y + bend) * np.float32(9)) * near
    sheet.scale(pixels, 1 + 0.06 * ripple + 0.10 * near * noise(x * 6, y * 6, slope=0.8))


def _asphalt(sheet: Print, pixels: Ints) -> None:
    """Grain, patches and tyre marks."""
    x, y, near = sheet.at("x", pixels), sheet.at("y", pixels), sheet.near.take(pixels)
    sheet.scale(pixels, 1 + 0.16 * near * noise(x * 19, y * 19) + 0.07 * noise(x * 0.7, y * 0.7, slope=1.0))


def _ballast(sheet: Print, pixels: Ints) -> None:
    """Broken stone, each piece lit differently."""
    x, y, near = sheet.at("x", pixels), sheet.at("y", pixels), sheet.near.take(pixels)
    sheet.scale(pixels, 1 + 0.55 * near * noise(x * 13, y * 13))


def _track(sheet: Print, pixels: Ints) -> None:
    """Ballast, or rails; dark sleepers across the line where one stands on a railway."""
    _ballast(sheet, pixels)
    along = _along(sheet, pixels)
    visible = np.clip(10 / sheet.at("depth", pixels), 0, 1) * (sheet.at("cover", pixels) == _RAILWAY)
    sheet.mix(pixels, (0.20, 0.15, 0.12), 0.85 * visible * _wave(along, 1.1, 0.42))
    steel = sheet.at("material", pixels) == INDEX["rail"]
    sheet.mix(pixels, (0.74, 0.74, 0.77), 0.85 * steel)


def _along(sheet: Print, pixels: Ints) -> Floats:
    """Metres along the line that each photo's pixels lie on: the main axis of their places."""
    owner, count = sheet.owner.take(pixels), sheet.picture.count
    x, y = sheet.at("x", pixels), sheet.at("y", pixels)
    near = (sheet.at("depth", pixels) < 25).astype(np.float32)
    weight = np.bincount(owner, near, count) + 1e-6
    cx, cy = (v - (np.bincount(owner, near * v, count) / weight)[owner] for v in (x, y))
    xx, xy, yy = (np.bincount(owner, near * a * b, count) for a, b in ((cx, cx), (cx, cy), (cy, cy)))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    result: Floats = (cx * np.cos(angle)[owner] + cy * np.sin(angle)[owner]).astype(np.float32)
    return result


def _rock(sheet: Print, pixels: Ints) -> None:
    """Strata on faces, rubble on the floor, cracks on both."""
    x, y, above = sheet.at("x", pixels), sheet.at("y", pixels), sheet.at("above", pixels)
    z = above + sheet.scenery.ground.take(sheet.at("cells", pixels))
    side = sheet.at("side", pixels)
    strata = noise(z * 1.6, z * 0.01 + x * 0.02, slope=0.3)
    crack = noise((x + y) * 1.1, y + z * 0.6, slope=0.8)
    rubble = noise(x * 5, y * 5) * sheet.near.take(pixels)
    shade = np.where(side, 0.86 + 0.32 * strata + 0.25 * crack, 1 + 0.3 * rubble + 0.15 * crack)
    sheet.scale(pixels, np.clip(shade, 0.35, 1.6))
    sheet.mix(pixels, (0.16, 0.14, 0.12), 0.6 * (crack > 0.75))


def _planks(sheet: Print, pixels: Ints) -> None:
    """Boards with dark gaps."""
    x, y = sheet.at("x", pixels), sheet.at("y", pixels)
    visible = np.clip(9 / sheet.at("depth", pixels), 0.1, 1)
    sheet.mix(pixels, (0.20, 0.14, 0.10), 0.7 * visible * _wave(x + 0.5 * y, 0.5, 0.2))


def _bodywork(sheet: Print, pixels: Ints) -> None:
    """Cars: wheels below, dark windows above."""
    above = sheet.at("above", pixels)
    side = sheet.at("side", pixels)
    x, y = sheet.at("x", pixels), sheet.at("y", pixels)
    sheet.mix(pixels, (0.05, 0.05, 0.06), 0.9 * (side & (above < 0.35) & (_wave(x + y, 2.4, 0.35) > 0)))
    sheet.mix(pixels, (0.14, 0.18, 0.22), 0.85 * (side & (above > 0.85) & (above < 1.35)))


def _hull(sheet: Print, pixels: Ints) -> None:
    """Boats: a coloured waterline and a row of portholes."""
    above, side = sheet.at("above", pixels), sheet.at("side", pixels)
    sheet.mix(pixels, (0.12, 0.22, 0.45), 0.85 * (side & (above < 0.4)))
    sheet.mix(pixels, (0.15, 0.2, 0.28), 0.8 * (side & (above > 1.1) & (above < 1.5)))


def _tower(sheet: Print, pixels: Ints) -> None:
    """Towers of wind turbines, round: darker towards one edge."""
    lit, _ = _facing(sheet, pixels)
    sheet.scale(pixels, lit)


def _keys(names: Iterable[str], *faces: int) -> list[int]:
    """Positions in the table of kinds for some materials, seen from above, from the side or both."""
    return [face + INDEX[name] for name in names for face in faces]


_DETAILS: tuple[tuple[list[int], Callable[[Print, Ints], None]], ...] = (
    (_keys(_ROOFS, _SIDE), _facade),
    (_keys(("glass", "shaded glass"), _TOP, _SIDE), _glasshouse),
    (_keys(("solar panel",), _TOP, _SIDE), _panel),
    (_keys((*_LEAVES, "hedge"), _TOP, _SIDE), _foliage),
    (_keys(("mown grass", "mown stripe"), _TOP, _SIDE), _grass),
    (_keys(("lush grass", "dry grass"), _TOP, _SIDE), _meadow),
    (_keys(_WHEAT, _TOP, _SIDE), _wheat),
    (_keys(_RAPE, _TOP, _SIDE), _rape),
    (_keys(("vine",), _TOP, _SIDE), _vine),
    (_keys(("sand", "wet sand"), _TOP, _SIDE), _sand),
    (_keys(("asphalt", "old asphalt", "runway asphalt"), _TOP, _SIDE), _asphalt),
    (_keys(("ballast", "rail"), _TOP, _SIDE), _track),
    (_keys(("gravel", "paving", "bare soil", "vine soil"), _TOP, _SIDE), _ballast),
    (_keys(("grey rock", "ochre rock"), _TOP, _SIDE), _rock),
    (_keys(("wood",), _TOP), _planks),
    (_keys(("red car", "dark car", "silver car", "blue car"), _TOP, _SIDE), _bodywork),
    (_keys(("white hull",), _TOP, _SIDE), _hull),
    (_keys(("turbine white",), _SIDE), _tower),
)
"""Which materials, from which face, have which detail."""

_KINDS = np.zeros(512, np.uint8)
for _number, (_places, _) in enumerate(_DETAILS, start=1):
    _KINDS[_places] = _number
