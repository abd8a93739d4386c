"""Where the sun stood when a photo was taken."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CIVIL_TWILIGHT_DEG = -6.0
"""The sun's elevation at which it is night for a camera: civil twilight ends."""

_J2000 = pd.Timestamp("2000-01-01T12:00", tz="UTC")
_DAY_S = 86_400.0


def sun_elevation(lon: Any, lat: Any, taken: pd.Series) -> NDArray[np.float64]:
    """The elevation of the sun's centre in degrees above the horizon, without refraction, (N,); NaN without a time.

    Meeus, Astronomical Algorithms (2nd ed.), ch. 25 (low accuracy), 13 and 12, as NOAA's solar calculator uses them:
    right to 0.01 degrees between 1900 and 2100.

    Args:
        lon: degrees east, (N,).
        lat: degrees north, (N,).
        taken: times, UTC, (N,).
    """
    days = np.asarray((taken - _J2000).dt.total_seconds(), np.float64) / _DAY_S
    ascension, declination = _sun(days / 36_525)
    hour_angle = np.radians(_sidereal_deg(days) + np.asarray(lon, np.float64)) - ascension
    lat = np.radians(np.asarray(lat, np.float64))
    sine = np.sin(lat) * np.sin(declination) + np.cos(lat) * np.cos(declination) * np.cos(hour_angle)
    found: NDArray[np.float64] = np.degrees(np.arcsin(np.clip(sine, -1, 1)))
    return found


def _sun(century: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascension and declination of the sun in radians, by Julian centuries since 2000 (Meeus, 25.2 to 25.9)."""
    mean_longitude = 280.46646 + century * (36_000.76983 + 0.0003032 * century)
    anomaly = np.radians(357.52911 + century * (35_999.05029 - 0.0001537 * century))
    centre = (
        (1.914602 - century * (0.004817 + 0.000014 * century)) * np.sin(anomaly)
        + (0.019993 - 0.000101 * century) * np.sin(2 * anomaly)
        + 0.000289 * np.sin(3 * anomaly)
    )
    node = np.radians(125.04 - 1934.136 * century)
    longitude = np.radians(mean_longitude + centre - 0.00569 - 0.00478 * np.sin(node))
    obliquity = np.radians(23.4392911 - 0.0130042 * century + 0.00256 * np.cos(node))
    ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    return ascension, np.arcsin(np.sin(obliquity) * np.sin(longitude))


def _sidereal_deg(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean sidereal time at Greenwich in degrees, by days since 2000-01-01T12:00 (Meeus, 12.4)."""
    return np.mod(280.46061837 + 360.98564736629 * days, 360)
