"""Chips as another pass of the satellite might have seen them, with the photos' places moved along.

Seen from above no direction is special: a chip may be mirrored and turned by quarter turns, eight ways in all, as
long as the photos' places in it move too.
"""

import torch
from torch import Tensor

JITTER = 0.1
"""Standard deviation of gain and shift of each band, in units of the band's own standard deviation."""


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
    ways = torch.randint(8, (len(chips),), generator=draw).to(chips.device)
    return turn(chips, ways), turn_positions(positions, ways[owner], chips.shape[-1])


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


def jitter_bands(chips: Tensor, draw: torch.Generator, *, strength: float = JITTER) -> Tensor:
    """Each band of each chip a little brighter or darker, steeper or flatter: other light, other air.

    Args:
        chips: normalised values, (N, C, S, S).
        draw: the source of randomness.
        strength: standard deviation of gain and shift.
    """
    noise = torch.randn(2, *chips.shape[:2], 1, 1, generator=draw).to(chips.device) * strength
    return chips * (1 + noise[0]) + noise[1]


def _bit(ways: Tensor, bit: int) -> Tensor:
    return (ways >> bit) % 2 == 1
