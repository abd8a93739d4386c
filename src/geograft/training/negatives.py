"""Which photos a chip must not take for negatives.

In a contrastive loss every photo of the batch that is not a chip's own counts against it. Some of them are wrong
against: a photo taken across the street shows the chip's own ground, and a photo of another wheat field shows what the
chip shows. The masks here leave such photos out of a row's partition (`geograft.training.partition`):

| mask | hides from a row |
|---|---|
| `SameGroup` | the columns of its own group, such as all photos of its chip |
| `Near` | the columns within so many metres |
| `Alike` | the photos that look like one of its own to the teacher |
| `hide_any` | what any of several masks hides |
| `spare` | nothing of a list: positives stay in the partition whatever else is hidden |
| `Transposed` | the same relation seen from the columns |

Masks are computed tile by tile and never stored whole. A photo that lies in two chips of a batch occurs twice; `Alike`
hides the other copy at any threshold below 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geograft.errors import BadSetting
from geograft.training.partition import ALL, Hidden

_EARTH_M = 6_371_008.8  # mean radius
_SCRATCH = 2**21  # numbers of a mask's intermediate results at a time


class Owned(NamedTuple):
    """Which photos are a row's own: pairs of a row and a photo, ascending by row.

    Attributes:
        row: (K,).
        photo: (K,), columns.
    """

    row: Tensor
    photo: Tensor

    def of(self, start: int, stop: int) -> "Owned":
        """The pairs of some rows."""
        first, last = torch.searchsorted(self.row, self.row.new_tensor([start, stop])).tolist()
        return Owned(self.row[first:last], self.photo[first:last])


def own_photos(owner: Tensor, mine: Tensor | None = None) -> Owned:
    """The photos of chips.

    Args:
        owner: the chip of the batch that each photo belongs to, (P,).
        mine: the chips of the batch that the rows are, (n,), each once; all in order where None.
    """
    if mine is None:
        row, photo = torch.sort(owner, stable=True)
        return Owned(row, photo)
    chips, row_of = torch.sort(mine)
    place = torch.searchsorted(chips, owner).clamp_(max=max(0, len(chips) - 1))
    found = (chips[place] == owner).nonzero()[:, 0] if len(chips) else owner.new_zeros(0)
    row, order = torch.sort(row_of[place[found]], stable=True)
    return Owned(row, found[order])


@dataclass(frozen=True, eq=False)
class SameGroup:
    """Hides the columns of a row's own group.

    Attributes:
        row_group: (R,), any integers.
        column_group: (P,).
    """

    row_group: Tensor
    column_group: Tensor

    def mask(self, start: int, stop: int, columns: slice = ALL) -> Tensor | None:
        """True where the groups are the same."""
        return self.row_group[start:stop, None] == self.column_group[None, columns]


@dataclass(frozen=True, eq=False)
class Near:
    """Hides the columns within a distance, whoever owns them.

    Distances are chords between points of the unit sphere, from differences and not from dot products, in double
    precision: exact to a micrometre, at any distance, across the antimeridian and at the poles.

    Attributes:
        row_places: unit vectors, (R, 3); see `on_sphere`. A row or column without a position (NaN) hides nothing.
        column_places: (P, 3).
        metres: great-circle distance on a sphere of the Earth's mean radius (within 0.6 % of the ellipsoid's).
    """

    row_places: Tensor
    column_places: Tensor
    metres: float

    def mask(self, start: int, stop: int, columns: slice = ALL) -> Tensor | None:
        """True within the distance."""
        rows, others = self.row_places[start:stop].double(), self.column_places[columns].double()
        found = rows.new_empty((len(rows), len(others)), dtype=torch.bool)
        for part in _parts(len(rows), len(others)):
            chords = torch.cdist(rows[part], others, compute_mode="donot_use_mm_for_euclid_dist")
            torch.le(chords, _chord(self.metres), out=found[part])
        return found


@dataclass(frozen=True, eq=False)
class Alike:
    """Hides the photos that look like one of a row's own photos to the teacher: likely false negatives.

    The row's own photos are alike to themselves; `spare` them.

    Attributes:
        photos: unit teacher embeddings of the columns, (P, D).
        own: the photos of each row.
        threshold: cosine above which a photo is hidden.
    """

    photos: Tensor
    own: Owned
    threshold: float

    def mask(self, start: int, stop: int, columns: slice = ALL) -> Tensor | None:
        """True where a photo is alike."""
        others, own = self.photos[columns].float(), self.own.of(start, stop)
        found = others.new_zeros((stop - start, len(others)), dtype=torch.bool)
        for part in _parts(len(own.row), len(others)):
            with torch.no_grad(), torch.autocast(others.device.type, enabled=False):
                alike = self.photos[own.photo[part]].float() @ others.T > self.threshold
            found.index_add_(0, own.row[part] - start, alike)
        return found


@dataclass(frozen=True, eq=False)
class Transposed:
    """What columns must not see of the rows, where `hidden` says what rows must not see of the columns.

    Attributes:
        hidden: the mask of the rows.
        rows: how many there are.
    """

    hidden: Hidden
    rows: int

    def mask(self, start: int, stop: int, columns: slice = ALL) -> Tensor | None:
        """The mask of these columns against rows."""
        first, last, _ = columns.indices(self.rows)
        found = self.hidden.mask(first, last, slice(start, stop))
        return None if found is None else found.T


@dataclass(frozen=True, eq=False)
class _AnyOf:
    """Hides what any of the masks hides."""

    masks: tuple[Hidden, ...]

    def mask(self, start: int, stop: int, columns: slice = ALL) -> Tensor | None:
        """True where any is."""
        found = None
        for hidden in self.masks:
            mask = hidden.mask(start, stop, columns)
            if mask is not None:
                found = mask if found is None else found | mask
        return found


@dataclass(frozen=True, eq=False)
class _Spared:
    """Hides what a mask hides, except some pairs."""

    hidden: Hidden
    kept: Owned
    columns: int

    def mask(self, start: int, stop: int, columns: slice = ALL) -> Tensor | None:
        """The mask with False at the kept pairs."""
        found = self.hidden.mask(start, stop, columns)
        if found is None:
            return None
        kept = self.kept.of(start, stop)
        first, last, _ = columns.indices(self.columns)
        inside = (kept.photo >= first) & (kept.photo < last)
        places = kept.row[inside] - start, kept.photo[inside] - first
        return found.index_put(places, found.new_zeros(()))


def hide_any(*masks: Hidden | None) -> Hidden | None:
    """What any of some masks hides; None where there are none."""
    some = tuple(mask for mask in masks if mask is not None)
    return _AnyOf(some) if len(some) > 1 else next(iter(some), None)


def spare(hidden: Hidden | None, kept: Owned, columns: int) -> Hidden | None:
    """A mask that never hides some pairs, such as a row's positives, of `columns` columns."""
    return None if hidden is None else _Spared(hidden, kept, columns)


def on_sphere(lon: Tensor, lat: Tensor) -> Tensor:
    """Positions in degrees as unit vectors, (N, 3) float64."""
    lon, lat = torch.deg2rad(lon.double()), torch.deg2rad(lat.double())
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=1)


@dataclass(frozen=True)
class NegativeSettings:
    """Which photos of other chips are no negatives. The defaults hide none: Eq. 1 and Eq. 2 as published.

    Attributes:
        min_distance_m: photos nearer than this are hidden, in metres; 0 hides none.
        max_similarity: photos whose teacher embedding has a larger cosine with one of the row's own are hidden, in
            (-1, 1]; 1 hides none.
    """

    min_distance_m: float = 0.0
    max_similarity: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.min_distance_m >= 0:
            raise BadSetting(f"min_distance_m is {self.min_distance_m}: give metres, 0 or more.")
        if not -1 < self.max_similarity <= 1:
            raise BadSetting(f"max_similarity is {self.max_similarity}: give a cosine above -1, at most 1.")

    def for_chips(
        self,
        photos: Tensor,
        owner: Tensor,
        *,
        mine: Tensor | None = None,
        chip_places: Tensor | None = None,
        photo_places: Tensor | None = None,
    ) -> Hidden | None:
        """What chips must not see of the photos of a batch (the rows of Eq. 1).

        Args:
            photos: unit teacher embeddings of the whole batch, (P, D).
            owner: the chip of the batch that each photo belongs to, (P,).
            mine: the chips of the batch that the rows are, (n,); all where None.
            chip_places: unit-sphere positions of the chips of the whole batch, (N, 3).
            photo_places: of the photos, (P, 3); those of their chips where None.

        Raises:
            BadSetting: a distance is set, and there are no places.
        """
        near = None
        if self.min_distance_m:
            places = _given(chip_places)
            columns = places[owner] if photo_places is None else photo_places
            near = Near(places if mine is None else places[mine], columns, self.min_distance_m)
        return hide_any(near, self._alike(photos, own_photos(owner, mine)))

    def for_photos(
        self, photos: Tensor, *, mine: Tensor | None = None, photo_places: Tensor | None = None
    ) -> Hidden | None:
        """What the patches of photos must not see of the photos of a batch (the rows of Eq. 2).

        Args:
            photos: unit teacher embeddings of the whole batch, (P, D).
            mine: the photos of the batch that the rows are, (Q,); all where None.
            photo_places: unit-sphere positions of the photos of the whole batch, (P, 3).

        Raises:
            BadSetting: a distance is set, and there are no places.
        """
        rows = torch.arange(len(photos), device=photos.device) if mine is None else mine
        near = None
        if self.min_distance_m:
            places = _given(photo_places)
            near = Near(places[rows], places, self.min_distance_m)
        return hide_any(near, self._alike(photos, Owned(torch.arange(len(rows), device=rows.device), rows)))

    def _alike(self, photos: Tensor, own: Owned) -> Alike | None:
        """The mask by similarity, where it is set."""
        return Alike(photos, own, self.max_similarity) if self.max_similarity < 1 else None


def _given(places: Tensor | None) -> Tensor:
    """Places that were asked for."""
    if places is None:
        raise BadSetting("min_distance_m needs the places of chips or photos: give them, or set it to 0.")
    return places


def _chord(metres: float) -> float:
    """The chord of a great-circle distance on the unit sphere; the diameter at half the circumference and beyond."""
    angle = torch.tensor(min(metres / _EARTH_M, torch.pi), dtype=torch.float64)
    return float(2 * torch.sin(angle / 2))


def _parts(rows: int, columns: int) -> Iterator[slice]:
    """Chunks of rows such that a matrix of each against the columns stays small."""
    step = max(1, _SCRATCH // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
