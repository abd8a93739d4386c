"""Where a photo's content may lie in its chip: a distribution over patches instead of a point.

A geotag is off by metres, and a camera shows what stands before it, not what lies under it. Both are known: photos
state the radius of their error, and most the direction they look in. So the place v that photo j shows is

    v = x_j + e + d·u_j,     e ~ N(0, σ_j²),  d ~ Exp(reach),  u_j the unit vector of the heading,

with x_j the geotag, and each patch of the chip has the share π_j(p) = P(v in p) of it. The error is isotropic, so a
patch's share is a product of two differences of the normal distribution function, exact for any patch size: where
patches are much larger than the errors, it is 1 for the patch that contains the place, as in GRAFT's Eq. 2.
"""

import dataclasses
import math

import torch
from torch import Tensor

from geograft.errors import BadSetting

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the distance; the middles of five equal parts stand for the distribution."""

SIGMA_OF_RADIUS = 1 / math.sqrt(-2 * math.log(1 - 0.68))
"""Standard deviation along an axis over the radius that holds 68 % of a two-dimensional normal distribution."""


@dataclasses.dataclass(frozen=True)
class PlaceSettings:
    """What is believed of the places that photos show.

    Attributes:
        reach_m: mean distance from the camera to what it shows, metres; 0 for the ground that the camera stands on.
        least_error_m: errors that are stated smaller count as this; phones claim 3 m and less.
        unknown_error_m: the radius for photos that state none; the median of the set's stated ones where None, and 10 m
            where none states any.
        spread: standard deviation across and along of what is shown, as a share of its distance.
        doubt: the share of photos that may show any part of their chip.
    """

    reach_m: float = 6.0
    least_error_m: float = 4.5
    unknown_error_m: float | None = None
    spread: float = 0.35
    doubt: float = 0.02

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        unknown = self.unknown_error_m
        if self.reach_m < 0 or self.least_error_m <= 0 or self.spread < 0 or not 0 < self.doubt < 1:
            raise BadSetting(
                "Places need reach_m >= 0, least_error_m > 0, spread >= 0 and a doubt between 0 and 1, not "
                f"{self.reach_m}, {self.least_error_m}, {self.spread} and {self.doubt}."
            )
        if unknown is not None and unknown <= 0:
            raise BadSetting(f"unknown_error_m must be above 0, not {unknown}.")

    def error(self, accuracy: Tensor, usual: float) -> Tensor:
        """Standard deviation of geotags along an axis, metres, (P,).

        Args:
            accuracy: stated 68 % radii, metres, NaN where unknown, (P,).
            usual: the radius of those that state none.
        """
        radius = torch.nan_to_num(accuracy, nan=usual if self.unknown_error_m is None else self.unknown_error_m)
        return radius.clamp(min=self.least_error_m) * SIGMA_OF_RADIUS


def place_shares(
    positions: Tensor, error: Tensor, headings: Tensor, *, size: int, grid: int, gsd: float, settings: PlaceSettings
) -> Tensor:
    """How likely each patch of its chip is to hold what a photo shows.

    Args:
        positions: row and column of the geotags, px from the chip's top left corner, (P, 2).
        error: standard deviation of the geotags along an axis, metres, (P,).
        headings: degrees clockwise from the chip's top, NaN where unknown, (P,). Without one the content may lie on
            any side: the error then grows by the distance.
        size: the chip's width and height, px.
        grid: patches along one side.
        gsd: metres a pixel.
        settings: what is believed.

    Returns:
        Shares, (P, grid · grid), rows first; each photo's sum to 1, since its content is taken to lie in the chip.
    """
    middle, deviation = _normals(positions / (size / grid), error, headings, size / grid * gsd, settings)
    edges = torch.arange(grid + 1, device=positions.device, dtype=positions.dtype)
    below = torch.special.ndtr((edges - middle[..., None]) / deviation[..., None, None])
    rows, columns = below.diff(dim=-1).unbind(2)
    mass: Tensor = (rows[..., :, None] * columns[..., None, :]).mean(dim=1).flatten(1)
    total = mass.sum(dim=1, keepdim=True)
    inside = mass / total.clamp(min=1e-6)
    doubt = torch.where(total > 1e-6, settings.doubt, 1.0)
    shares: Tensor = (1 - doubt) * inside + doubt / (grid * grid)
    return shares


def _normals(
    place: Tensor, error: Tensor, headings: Tensor, patch_m: float, settings: PlaceSettings
) -> tuple[Tensor, Tensor]:
    """Middles (P, K, 2) and standard deviations (P, K) of the normal distributions of each photo, in patches."""
    shares = torch.tensor(QUANTILES, device=place.device, dtype=place.dtype)
    distance = -settings.reach_m * torch.log1p(-shares) if settings.reach_m else torch.zeros_like(shares[:1])
    known = ~torch.isnan(headings)
    angle = torch.deg2rad(torch.nan_to_num(headings))
    ahead = torch.stack([-torch.cos(angle), torch.sin(angle)], dim=1) * known[:, None]
    middle = place[:, None] + ahead[:, None] * (distance / patch_m)[None, :, None]
    across = torch.where(known[:, None], settings.spread * distance, settings.reach_m)
    return middle, torch.sqrt(error[:, None] ** 2 + across**2) / patch_m
