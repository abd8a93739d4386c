"""Which photos may be used, before any model looks at them: each one left out has a reason.

Photos stream through in batches. What a filter must remember of the kept ones (ids, bytes, places, users) is a few
hashes each, so that ten million photos need some hundred megabytes. The result is the same for every batch size.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.hashing import Hashes
from geograft.sources.judging.caps import Caps
from geograft.sources.judging.cells import place_cells
from geograft.sources.judging.centroids import on_centroid, on_whole_degrees
from geograft.sources.judging.daylight import CIVIL_TWILIGHT_DEG, sun_elevation
from geograft.sources.judging.doubles import Doubles, Flags, user_hashes
from geograft.sources.judging.hashes import id_hashes
from geograft.sources.licences import FREE_LICENCES, licence_name, licence_names

__all__ = ["FREE_LICENCES", "Filter", "FilterSettings", "id_hashes"]

PANORAMA_RATIO = 2.0
"""Width by height from which a photo is a panorama."""

PANORAMA_FOV_DEG = 150.0
"""Horizontal field of view beyond which a photo is a panorama."""

_MAX_BITS = 32


@dataclass(frozen=True)
class FilterSettings:
    """Which photos are left out.

    Attributes:
        max_accuracy_m: the largest stated error of a position; photos that state none are kept.
        since: the first day (ISO date or time, UTC) that counts; photos without a time are then left out.
        until: the day from which on photos do not count.
        licences: allowed licences in any spelling; all where None. Photos that state none are kept.
        max_per_user: photos a user; those without a user are not counted.
        max_per_place: photos a place.
        place_m: side of a place in metres.
        night: keep photos taken while the sun was more than 6 degrees below the horizon; those without a time
            are kept in any case.
        panoramas: keep photos twice as wide as high, of a field of view beyond 150 degrees, or called panoramas.
        centroids: keep photos within 100 m of a country's centroid, or at whole degrees on both axes.
        perceptual: leave out local photos whose 64-bit perceptual hash differs from a kept neighbour's (1 km) by
            this many bits or fewer.
    """

    max_accuracy_m: float | None = None
    since: date | str | None = None
    until: date | str | None = None
    licences: tuple[str, ...] | None = FREE_LICENCES
    max_per_user: int | None = None
    max_per_place: int | None = None
    place_m: float = 100.0
    night: bool = True
    panoramas: bool = True
    centroids: bool = False
    perceptual: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            BadSetting: a setting is out of its range; the sentence says which.
        """
        if self.max_accuracy_m is not None and not self.max_accuracy_m > 0:
            raise BadSetting(f"max_accuracy_m is a distance above 0 in metres, not {self.max_accuracy_m}.")
        for name in ("max_per_user", "max_per_place"):
            if (most := getattr(self, name)) is not None and most < 1:
                raise BadSetting(f"{name} is at least 1, not {most}; leave it out for no cap.")
        if not (math.isfinite(self.place_m) and 1 <= self.place_m <= 1_000_000):
            raise BadSetting(f"place_m is between 1 and 1,000,000 metres, not {self.place_m}.")
        if self.perceptual is not None and not 0 <= self.perceptual <= _MAX_BITS:
            raise BadSetting(f"perceptual is a number of bits from 0 to {_MAX_BITS}, not {self.perceptual}.")
        since, until = _moment("since", self.since), _moment("until", self.until)
        if since is not None and until is not None and since >= until:
            raise BadSetting(f"since ({self.since}) must lie before until ({self.until}).")


def _moment(name: str, text: date | str | None) -> pd.Timestamp | None:
    """A setting's moment, UTC."""
    if text is None:
        return None
    try:
        moment = pd.Timestamp(text)
    except (ValueError, OverflowError) as error:
        raise BadSetting(f"{name} is an ISO date such as 2024-01-31, not {text!r}.") from error
    if moment is pd.NaT:
        raise BadSetting(f"{name} is an ISO date such as 2024-01-31, not {text!r}.")
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")


class Filter:
    """Judges photos batch by batch; one object a run.

    A photo is left out for the first reason of: `licence-not-free`, `inaccurate-geotag`, `no-date`, `before-since`,
    `after-until`, `country-centroid`, `rounded-position`, `night`, `panorama`, `duplicate-id`, `duplicate-content`,
    `duplicate`, `near-duplicate`. Of doubled photos the first that was kept stays.

    Args:
        settings: which filters apply.
    """

    def __init__(self, settings: FilterSettings) -> None:
        self._settings = settings
        self._licences = None if settings.licences is None else frozenset(map(licence_name, settings.licences))
        self._since, self._until = _moment("since", settings.since), _moment("until", settings.until)
        self._doubles = Doubles(settings.perceptual)
        self._caps = Caps(settings.max_per_user, settings.max_per_place)
        self._drawn: tuple[Hashes, dict[str, int]] | None = None

    def reasons(self, photos: pd.DataFrame) -> pd.Series:
        """Why each photo is left out, by row; "" where it is kept, and remembered.

        Args:
            photos: photo_id, lon, lat, accuracy_m, fov_deg, taken (UTC), user, licence, uri, width, height, digest
                (None where unknown); `panorama` (true, false) where known. Positions are valid.
        """
        found = np.full(len(photos), "", object)
        for reason, flags in self._judgements(photos):
            found[flags & (found == "")] = reason
        self._refuse_doubles(photos, found)
        return pd.Series(found, index=photos.index)

    def capped(self) -> Hashes:
        """After the last batch: the hashes (`id_hashes`) of the kept photos that the caps leave out, sorted, (M,)."""
        return self._draw()[0]

    def cap_counts(self) -> dict[str, int]:
        """After the last batch: how many kept photos the caps leave out, by reason (`user-cap`, `place-cap`)."""
        return dict(self._draw()[1])

    def _draw(self) -> tuple[Hashes, dict[str, int]]:
        """The draw, made once; what photos were seen is forgotten, which makes room for it."""
        if self._drawn is None:
            self._doubles = Doubles()
            self._drawn = self._caps.draw()
        return self._drawn

    # --- one photo on its own -----------------------------------------------------------------------------

    def _judgements(self, photos: pd.DataFrame) -> Iterator[tuple[str, Flags]]:
        """The reasons that a photo gives by itself, and whose they are, (N,), in order."""
        settings = self._settings
        if self._licences is not None:
            yield "licence-not-free", _unfree(photos["licence"], self._licences)
        if settings.max_accuracy_m is not None:
            yield "inaccurate-geotag", _numbers(photos["accuracy_m"]) > settings.max_accuracy_m
        yield from self._dates(photos["taken"])
        if not settings.centroids:
            yield "country-centroid", on_centroid(photos["lon"], photos["lat"])
            yield "rounded-position", on_whole_degrees(photos["lon"], photos["lat"])
        if not settings.night:
            yield "night", sun_elevation(photos["lon"], photos["lat"], photos["taken"]) < CIVIL_TWILIGHT_DEG
        if not settings.panoramas:
            yield "panorama", _panoramas(photos)

    def _dates(self, taken: pd.Series) -> Iterator[tuple[str, Flags]]:
        """Photos outside the span of time, or of unknown time where there is a span."""
        if self._since is not None or self._until is not None:
            yield "no-date", np.asarray(taken.isna(), np.bool_)
        if self._since is not None:
            yield "before-since", np.asarray(taken < self._since, np.bool_)
        if self._until is not None:
            yield "after-until", np.asarray(taken >= self._until, np.bool_)

    def _refuse_doubles(self, photos: pd.DataFrame, found: NDArray[np.object_]) -> None:
        """Write the reasons of doubled photos into `found`, and remember the kept ones for the caps."""
        rows = np.flatnonzero(found == "")
        if not len(rows):
            return
        photos = photos.iloc[rows]
        ids, users = id_hashes(photos["photo_id"]), user_hashes(photos["user"])
        found[rows] = self._doubles.reasons(photos, ids, users)
        if self._settings.max_per_user is not None or self._settings.max_per_place is not None:
            kept = found[rows] == ""
            places = place_cells(photos["lon"], photos["lat"], self._settings.place_m)
            self._caps.add(ids[kept], users[kept], places[kept])


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    """A column as floats, NaN where missing, (N,)."""
    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan))


def _unfree(licences: pd.Series, allowed: frozenset[str]) -> Flags:
    """Photos that state a licence and offer none of the allowed."""
    codes, stated = pd.factorize(licences)
    free = np.array([not text.strip() or not allowed.isdisjoint(licence_names(text)) for text in stated] + [True])
    return np.asarray(~free[codes], np.bool_)


def _panoramas(photos: pd.DataFrame) -> Flags:
    """Photos that are panoramas by their shape, their field of view, or their source's word."""
    wide = _numbers(photos["width"]) >= PANORAMA_RATIO * _numbers(photos["height"])
    called = photos["panorama"].eq(True).fillna(False) if "panorama" in photos else False
    return np.asarray(wide | (_numbers(photos["fov_deg"]) > PANORAMA_FOV_DEG) | called, np.bool_)
