import numpy as np
import pandas as pd
import pytest

from geograft.sources.judging.daylight import sun_elevation


def elevation(lon, lat, taken):
    return float(sun_elevation([lon], [lat], pd.Series(pd.to_datetime([taken], utc=True)))[0])


def test_the_sun_stands_where_the_national_renewable_energy_laboratory_computes_it():
    """Reda and Andreas, Solar Position Algorithm (NREL/TP-560-34302), table A5.1: 39.872046 degrees unrefracted."""
    assert elevation(-105.1786, 39.742476, "2003-10-17T19:30:30Z") == pytest.approx(39.872046, abs=0.01)


def test_the_declination_is_that_of_meeus_example():
    """Meeus, Astronomical Algorithms, example 25.a: -7.78507 degrees on 1992-10-13 0h, its elevation at the pole."""
    assert elevation(0, 90, "1992-10-13T00:00Z") == pytest.approx(-7.78507, abs=0.01)


@pytest.mark.parametrize(
    ("taken", "declination"),
    [
        ("2024-03-20T03:06Z", 0.0),
        ("2024-06-20T20:51Z", 23.44),
        ("2024-09-22T12:44Z", 0.0),
        ("2024-12-21T09:21Z", -23.44),
    ],
)
def test_equinoxes_and_solstices_fall_on_their_published_minutes(taken, declination):
    assert elevation(12, 90, taken) == pytest.approx(declination, abs=0.01)


@pytest.mark.parametrize(
    ("lon", "lat", "taken"),
    [
        (-0.1276, 51.5074, "2024-06-21T21:10:00Z"),  # London: civil twilight ends 22:09 BST
        (151.2093, -33.8688, "2024-12-21T18:11:00Z"),  # Sydney: it begins 05:11 AEDT on the 22nd
    ],
)
def test_civil_twilight_lies_where_almanacs_put_it(lon, lat, taken):
    assert elevation(lon, lat, taken) == pytest.approx(-6, abs=0.25)


def test_without_a_time_there_is_no_elevation():
    taken = pd.Series(pd.to_datetime(["2024-06-21T12:00Z", None], utc=True)).astype("datetime64[us, UTC]")
    assert np.isnan(sun_elevation([0, 0], [50, 50], taken)).tolist() == [False, True]
