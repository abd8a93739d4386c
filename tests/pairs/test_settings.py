from collections import Counter

import pytest

from geograft.errors import BadSetting
from geograft.pairs.grid import Grid
from geograft.pairs.settings import PairSettings, reasons


@pytest.mark.parametrize(
    "values",
    [
        {"split": "walk"},
        {"fractions": (0.5, 0.5, 0.5)},
        {"fractions": (0.9, 0.1)},
        {"block_m": 0.0},
        {"buffer_m": -1.0},
        {"chip_size": 0},
        {"gsd": 0.0},
        {"gsd": float("nan")},
        {"time_bin_days": 0.5},
        {"time_bin_days": float("nan")},
        {"density_km": 0.0},
        {"max_gap_days": float("nan")},
        {"max_cloud": float("nan")},
        {"max_overlap": -0.1},
        {"seed": -1},
    ],
)
def test_what_cannot_be_planned_is_refused_before_any_table_is_read(values):
    with pytest.raises(BadSetting):
        PairSettings(**values)


def test_blocks_are_eight_chips_and_the_buffer_half_a_chip_unless_given():
    division = PairSettings(seed=3).division(Grid(64, 2.0))
    assert (division.by, division.block_m, division.buffer_m, division.seed) == ("blocks", 1024, 64, 3)
    given = PairSettings(block_m=500.0, buffer_m=0.0).division(Grid(64, 2.0))
    assert (given.block_m, given.buffer_m) == (500, 0)
    assert PairSettings(split="place").division(Grid(64, 2.0)).buffer_m == 0
    assert PairSettings(split="scene").division(Grid(64, 2.0)).buffer_m == 64


@pytest.mark.parametrize("split", [None, "none"])
def test_no_split_is_named_in_two_ways(split):
    assert PairSettings(split=split).division(Grid(64, 1.0)).by is None


def test_reasons_are_told_by_name_without_those_that_nothing_fell_to():
    assert reasons(Counter({"no-scene": 2, "density-cap": 1, "cloudy": 0})) == "1 density-cap, 2 no-scene"
    assert reasons({}) == "no rows"
