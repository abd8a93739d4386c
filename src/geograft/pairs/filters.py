"""Which photos may be used: licence, accuracy, duplicates, positions; each refusal has a reason."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FREE_LICENCES = ("cc0", "cc-by", "cc-by-sa", "public-domain", "us-gov", "no-known-copyright")
"""Licences that allow any use, in the words of `licence_name`."""

_WORDS = {
    "attribution": "by",
    "sharealike": "sa",
    "noncommercial": "nc",
    "noderivs": "nd",
    "noderivatives": "nd",
    "zero": "cc0",
    "pdm": "public-domain",
    "pd": "public-domain",
    "publicdomain": "public-domain",
    "creativecommons": "cc",
}
_NOISE = frozenset({
    "https", "http", "www", "org", "com", "licenses", "license", "licence", "licensed", "deed", "legalcode",
    "international", "generic", "unported", "universal", "mark", "dedication", "work", "works", "the", "under",
    "and", "a", "on", "en",
})  # fmt: skip
_PHRASES = (
    (re.compile(r"share[\s-]+alike"), "sharealike"),
    (re.compile(r"non[\s-]+commercial"), "noncommercial"),
    (re.compile(r"no[\s-]+deriv"), "noderiv"),
    (re.compile(r"creative[\s-]+commons"), "creativecommons"),
    (re.compile(r"public[\s-]+domain"), "publicdomain"),
    (re.compile(r"(united states|u\.?s\.?)[\s-]+gov\w*"), "us-gov"),
    (re.compile(r"no[\s-]+known[\s-]+copyright([\s-]+restrictions?)?"), "no-known-copyright"),
)


def licence_name(text: str) -> str:
    """A licence in one spelling: lower case, without version and country, such as `cc-by-sa`.

    Names, short codes and addresses of Creative Commons' licences come out the same:
    `CC BY-SA 3.0`, `Attribution-ShareAlike License` and
    `https://creativecommons.org/licenses/by-sa/3.0/` are all `cc-by-sa`.
    """
    text = text.lower().strip()
    for pattern, word in _PHRASES:
        text = pattern.sub(word, text)
    for whole in ("us-gov", "no-known-copyright"):
        if whole in text:
            return whole
    words = [_WORDS.get(word, word) for word in re.findall(r"[a-z]+0?", text)]
    words = [word for word in dict.fromkeys(words) if word not in _NOISE]
    for whole in ("cc0", "public-domain"):
        if whole in words and not {"nc", "nd"} & set(words):
            return whole
    parts = [word for word in words if len(word) > 2 and word != "cc"]
    terms = [word for word in words if word in {"by", "nc", "nd", "sa"}]
    return "-".join(parts or (["cc", *terms] if terms else words))


@dataclass(frozen=True)
class Refusal:
    """Photos that one filter refuses.

    Attributes:
        reason: in kebab case, as the manifest counts it.
        rows: True where a photo is refused, (N,).
    """

    reason: str
    rows: pd.Series


def keep_usable(
    photos: pd.DataFrame, *, licences: Sequence[str] | None, max_accuracy_m: float | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The photos that may be used, and how many were refused for which reason.

    A photo that several filters would refuse counts for the first: position, licence, accuracy, duplicates.

    Args:
        photos: photo_id, lon, lat, accuracy_m, taken, user, licence; sorted by photo_id.
        licences: allowed names (see `licence_name`); all where None. A photo that states none is kept.
        max_accuracy_m: the largest stated geotag error; a photo that states none is kept.

    Returns:
        The photos kept, in order, and the counts by reason.
    """
    counts: dict[str, int] = {}
    for refuse in _refusals(licences, max_accuracy_m):
        refusal = refuse(photos)
        if refusal.rows.any():
            counts[refusal.reason] = int(refusal.rows.sum())
            photos = photos[~refusal.rows]
    return photos.reset_index(drop=True), counts


def _refusals(
    licences: Sequence[str] | None, max_accuracy_m: float | None
) -> Iterator[Callable[[pd.DataFrame], Refusal]]:
    """The filters that the settings ask for, in order."""
    yield bad_position
    if licences is not None:
        names = frozenset(licence_name(name) for name in licences)
        yield lambda photos: unfree(photos, names)
    if max_accuracy_m is not None:
        limit = max_accuracy_m
        yield lambda photos: inaccurate(photos, limit)
    yield repeated_id
    yield duplicate


def bad_position(photos: pd.DataFrame) -> Refusal:
    """Photos without a position, or beyond the UTM grid (84 degrees)."""
    lon, lat = photos["lon"], photos["lat"]
    return Refusal("bad-position", ~(lon.abs().le(180) & lat.abs().le(84)))


def unfree(photos: pd.DataFrame, names: frozenset[str]) -> Refusal:
    """Photos whose stated licence is not among the allowed."""
    stated = photos["licence"].dropna().astype(str)
    stated = stated[stated.str.strip() != ""]
    free = {text: licence_name(text) in names for text in stated.unique()}
    refused = pd.Series(False, index=photos.index)
    refused.loc[stated.index] = ~stated.map(free).astype(bool)
    return Refusal("licence-not-free", refused)


def inaccurate(photos: pd.DataFrame, limit: float) -> Refusal:
    """Photos whose stated geotag error is beyond a limit in metres."""
    return Refusal("inaccurate-geotag", pd.to_numeric(photos["accuracy_m"], errors="coerce") > limit)


def repeated_id(photos: pd.DataFrame) -> Refusal:
    """Rows whose id an earlier row has."""
    return Refusal("duplicate-id", photos["photo_id"].duplicated())


def duplicate(photos: pd.DataFrame) -> Refusal:
    """Photos of the same user at the same place (1 m) in the same minute as one with a smaller id.

    A photo without time is never taken for a duplicate; photos without a user count as one user's.
    """
    key = pd.DataFrame(
        {
            "user": photos["user"].astype(object).where(photos["user"].notna(), ""),
            "minute": minutes(photos),
            "lon": np.rint(photos["lon"] * 1e5),
            "lat": np.rint(photos["lat"] * 1e5),
        }
    )
    return Refusal("duplicate", key.duplicated() & key["minute"].notna())


def minutes(photos: pd.DataFrame) -> pd.Series:
    """The minute in which each photo was taken (UTC), NaT where unknown."""
    return utc(photos["taken"]).dt.floor("min")


def seconds(times: pd.Series) -> NDArray[np.float64]:
    """Times as seconds since 1970 (UTC), NaN where unknown, (N,)."""
    return np.asarray((utc(times) - pd.Timestamp(0, tz="UTC")).dt.total_seconds(), np.float64)


def utc(times: pd.Series) -> pd.Series:
    """Times as UTC; what states no zone is taken as UTC, what is no time as NaT."""
    return pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")
