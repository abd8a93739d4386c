"""Chips as another pass of the satellite might have seen them, with the photos' places and headings moved along.

Seen from above no direction is special: a chip may be mirrored and turned by quarter turns, eight ways in all, as
long as the photos' places in it, and the ways that cameras looked, move too. Light, air and calibration differ from
pass to pass: each band may be a little brighter or darker.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geograft.errors import BadSetting
from geograft.sensors import Sensor

JITTER = 0.1
"""Standard deviation of gain and shift of each band, in units of the band's own standard deviation."""


# --- turns ------------------------------------------------------------------------------------------------


class Views(NamedTuple):
    """Chips with what lies in them.

    Attributes:
        chips: (N, C, S, S).
        positions: row and column of each photo, px, (P, 2).
        headings: degrees clockwise from north, which is up; NaN where unknown, (P,).
    """

    chips: Tensor
    positions: Tensor
    headings: Tensor


def turn_chips(chips: Tensor, owner: Tensor, positions: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each chip turned and mirrored one of the eight ways, at random.

    Args:
        chips: (N, C, S, S).
        owner: the chip of each photo, (P,).
        positions: row and column of each photo, px from the chip's top left corner, (P, 2).
        draw: the source of randomness.

    Returns:
        Chips and positions, the same shapes: a photo stands on the same ground as before.
    """
    ways = draw_ways(len(chips), draw).to(chips.device)
    return turn(chips, ways), turn_positions(positions, ways[owner], chips.shape[-1])


def turn_views(views: Views, owner: Tensor, draw: torch.Generator) -> Views:
    """As `turn_chips`, by the same draw, with the photos' headings: a photo looks at the same ground as before.

    Args:
        views: chips with their photos' positions and headings.
        owner: the chip of each photo, (P,).
        draw: the source of randomness.
    """
    ways = draw_ways(len(views.chips), draw).to(views.chips.device)
    size = views.chips.shape[-1]
    return Views(
        turn(views.chips, ways),
        turn_positions(views.positions, ways[owner], size),
        turn_headings(views.headings, ways[owner]),
    )


def draw_ways(count: int, draw: torch.Generator) -> Tensor:
    """One of the eight ways for each chip, (N,), values in [0, 8)."""
    return torch.randint(8, (count,), generator=draw)


def turn(chips: Tensor, ways: Tensor) -> Tensor:
    """Each chip turned its way: bit 0 swaps rows and columns, bit 1 then flips the rows, bit 2 the columns.

    Args:
        chips: (N, C, S, S).
        ways: (N,), values in [0, 8).
    """
    turned = torch.where(_bit(ways, 0)[:, None, None, None], chips.transpose(-1, -2), chips)
    turned = torch.where(_bit(ways, 1)[:, None, None, None], turned.flip(-2), turned)
    return torch.where(_bit(ways, 2)[:, None, None, None], turned.flip(-1), turned)


def turn_positions(positions: Tensor, ways: Tensor, size: float) -> Tensor:
    """Where places of a chip lie after `turn`.

    Args:
        positions: row and column, px, (P, 2).
        ways: the way of each place's chip, (P,).
        size: the chips' width and height, px.
    """
    turned = torch.where(_bit(ways, 0)[:, None], positions.flip(-1), positions)
    flips = torch.stack([_bit(ways, 1), _bit(ways, 2)], dim=1)
    return torch.where(flips, size - turned, turned)


def turn_headings(headings: Tensor, ways: Tensor) -> Tensor:
    """Where cameras look after `turn`.

    A chip's columns run east and its rows south, so a heading h looks along (row, column) = (-cos h, sin h). To swap
    the two gives the heading 270 - h; to flip the rows 180 - h; to flip the columns -h.

    Args:
        headings: degrees clockwise from north, NaN where unknown, (P,).
        ways: the way of each photo's chip, (P,).

    Returns:
        Degrees in [0, 360), NaN where unknown.
    """
    turned = torch.where(_bit(ways, 0), 270 - headings, headings)
    turned = torch.where(_bit(ways, 1), 180 - turned, turned)
    turned = torch.where(_bit(ways, 2), -turned, turned)
    turned = turned.remainder(360)
    return torch.where(turned == 360, torch.zeros_like(turned), turned)


def _bit(ways: Tensor, bit: int) -> Tensor:
    return (ways >> bit) % 2 == 1


# --- shifts -----------------------------------------------------------------------------------------------


def shift_chips(
    chips: Tensor, owner: Tensor, positions: Tensor, size: int, draw: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A square of each chip, at random, that is a little smaller: nothing is padded, so chips must be larger.

    One photo of each chip, drawn at random, stays inside, so that no chip is left without any.

    Args:
        chips: (N, C, S, S).
        owner: the chip of each photo, (P,); every chip has one.
        positions: row and column of each photo, px, (P, 2).
        size: side of the squares, px, at most S.
        draw: the source of randomness.

    Returns:
        Squares (N, C, size, size), positions in them (P, 2), and whether each photo is inside (P,).

    Raises:
        BadSetting: the squares are larger than the chips.
    """
    room = chips.shape[-1] - size
    if size < 1 or room < 0:
        raise BadSetting(f"Squares of {size} px do not fit chips of {chips.shape[-1]} px: ask for smaller ones.")
    kept = positions[_one_each(owner, len(chips), draw)].to(positions.device)
    least = (kept - size).floor().long().add(1).clamp(0, room)
    most = torch.maximum(kept.floor().long().clamp(0, room), least)
    corner = least + (torch.rand(kept.shape, generator=draw).to(kept.device) * (most - least + 1)).long()
    corner = torch.minimum(corner, most)
    along = corner[..., None] + torch.arange(size, device=chips.device)
    rows, columns = along[:, 0, None, :, None], along[:, 1, None, None, :]
    number = torch.arange(len(chips), device=chips.device)[:, None, None, None]
    band = torch.arange(chips.shape[1], device=chips.device)[None, :, None, None]
    moved = positions - corner[owner].to(positions.dtype)
    return chips[number, band, rows, columns], moved, ((moved >= 0) & (moved < size)).all(dim=1)


def _one_each(owner: Tensor, chips: int, draw: torch.Generator) -> Tensor:
    """A photo of each chip, at random, by row, (N,)."""
    lot = torch.rand(len(owner), generator=draw).to(owner.device)
    order = torch.argsort(owner.double() + lot.double() * 0.999)
    return order[torch.searchsorted(owner[order].contiguous(), torch.arange(chips, device=owner.device))]


# --- light ------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """Some chips of a batch: draws are made for the whole, so that they do not depend on how it is divided.

    Attributes:
        size: chips of the batch.
        rows: those that are given.
    """

    size: int
    rows: slice = slice(None)

    def noise(self, draw: torch.Generator, kinds: int, bands: int) -> Tensor:
        """Standard normal numbers of the given chips, (kinds, n, bands)."""
        return torch.randn(kinds, self.size, bands, generator=draw)[:, self.rows]


def jitter_bands(chips: Tensor, draw: torch.Generator, *, strength: float = JITTER, part: Part | None = None) -> Tensor:
    """Each band of each chip a little brighter or darker, steeper or flatter: other light, other air.

    Args:
        chips: normalised values, (N, C, S, S).
        draw: the source of randomness.
        strength: standard deviation of gain and shift.
        part: which chips of a batch these are; all where None.
    """
    noise = (part or Part(len(chips))).noise(draw, 2, chips.shape[1]).to(chips.device)[..., None, None] * strength
    return chips * (1 + noise[0]) + noise[1]


@dataclass(frozen=True)
class Light:
    """How much a sensor's values vary from pass to pass, as standard deviations.

    Attributes:
        light: of a gain that all bands share: sun, season, exposure.
        band: of a gain that each band has besides: air, calibration, white balance.
        offset: of what is added to each band, in the sensor's physical units: haze, path radiance.
    """

    light: float
    band: float
    offset: float

    def __post_init__(self) -> None:
        """Refuse negative strengths."""
        if min(self.light, self.band, self.offset) < 0:
            raise BadSetting("Strengths of jitter are standard deviations: give none below 0.")


LIGHTS = {
    "brightness": Light(light=0.10, band=0.05, offset=0.02),
    "reflectance": Light(light=0.05, band=0.05, offset=0.005),
}
"""Strengths by kind of sensor.

`reflectance` is corrected for sun and air. What is left is about the accuracy that Sentinel-2's and Landsat's surface
reflectance are specified to, 0.05 ρ + 0.005 (Vermote et al., Remote Sensing of Environment 185, 2016), and as much
again of light, by which fields and roofs differ with the angle of the sun. `brightness`, pictures of 8 bits, is not
corrected: exposure, haze and white balance add to it.
"""


def light_of(sensor: Sensor) -> Light:
    """The strengths for a sensor: those of reflectance, or of brightness where its files have 8 bits."""
    return LIGHTS["brightness" if sensor.dtype == "uint8" else "reflectance"]


def jitter_light(
    chips: Tensor,
    sensor: Sensor,
    draw: torch.Generator,
    *,
    light: Light | None = None,
    strength: float = 1.0,
    part: Part | None = None,
) -> Tensor:
    """Chips in other light: physical values times a gain plus an offset, drawn for each chip and band.

    Args:
        chips: values that the sensor normalised, (N, C, S, S); C are its bands.
        sensor: gives mean and standard deviation of each band, and whether it marks missing pixels.
        draw: the source of randomness.
        light: strengths; those of the sensor's kind where None.
        strength: factor on all of them.
        part: which chips of a batch these are; all where None.

    Returns:
        Normalised values; pixels that are 0 in all bands, as missing ones are, stay so where the sensor has such.
    """
    light = light or light_of(sensor)
    part, bands = part or Part(len(chips)), chips.shape[1]
    shared = part.noise(draw, 1, 1)[0] * light.light
    own, offset = part.noise(draw, 2, bands) * torch.tensor([light.band, light.offset])[:, None, None]
    gain, offset = (shared + own) * strength, offset * strength
    mean, std = torch.tensor(sensor.mean), torch.tensor(sensor.std)
    gain, shift = (each[..., None, None].to(chips) for each in (gain, (gain * mean + offset) / std))
    changed: Tensor = chips * (1 + gain) + shift
    if sensor.nodata is None:
        return changed
    return torch.where((chips == 0).all(dim=1, keepdim=True), chips, changed)
