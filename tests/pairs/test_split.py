import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.errors import BadSetting
from geograft.pairs.grid import corners
from geograft.pairs.split import SplitSettings, blocks, divide, near_other_split

SIDE = 64


def settings_of(**changes):
    base = {"by": "blocks", "fractions": (0.6, 0.2, 0.2), "block_m": 256, "buffer_m": 32, "seed": 0}
    return SplitSettings(**(base | changes))


def chips_at(right, down, epsg=32632):
    right, down = np.asarray(right, float), np.asarray(down, float)
    ids = [f"c{row:04d}" for row in range(len(right))]
    return pd.DataFrame({
        "chip_id": ids, "epsg": epsg, "left": 500_000 + right, "top": 5_000_000 - down, "gsd": 1.0, "size": SIDE,
    })  # fmt: skip


def tables(right, down, **columns):
    """One photo a chip, in its centre."""
    chips = chips_at(right, down)
    pairs = pd.DataFrame({"chip_id": chips["chip_id"], "photo": range(len(chips)), "col": 32.0, "row": 32.0})
    photos = pd.DataFrame({"user": None, "taken": None, "place": None} | columns, index=range(len(chips)))
    return chips, pairs, photos


def least_gap(chips):
    """The smallest distance in metres between footprints of different splits (one zone)."""
    left, top = chips["left"].to_numpy(), chips["top"].to_numpy()
    shapes = shapely.box(left, top - SIDE, left + SIDE, top)
    gaps = shapely.distance(shapes[:, None], shapes[None])
    across = chips["split"].to_numpy()[:, None] != chips["split"].to_numpy()[None]
    return gaps[across].min(initial=np.inf)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), min_size=1, max_size=120),
    st.integers(0, 50),
    st.sampled_from([0, 32, 100]),
)
def test_chips_of_different_splits_are_never_nearer_than_the_buffer(points, seed, buffer_m):
    right, down = np.array(points).T
    division = divide(*tables(right, down), settings_of(seed=seed, buffer_m=buffer_m))
    assert least_gap(division.chips) >= buffer_m - 0.5
    assert len(division.chips) + sum(division.dropped.values()) == len(points)
    assert set(division.pairs["chip_id"]) == set(division.chips["chip_id"])


def test_chips_inside_the_buffer_are_dropped_and_counted():
    rng = np.random.default_rng(0)
    division = divide(*tables(*rng.uniform(0, 2000, (2, 400))), settings_of())
    assert division.dropped["split-buffer"] > 10
    assert division.lost["split-buffer"] == division.dropped["split-buffer"]
    assert set(division.chips["split"]) == {"train", "validation", "test"}


def test_training_gives_way_to_validation_and_both_to_test():
    chips = chips_at([0, 70, 140, 600], [0, 0, 0, 0]).assign(split=["train", "validation", "test", "train"])
    assert near_other_split(chips, 32).tolist() == [False, True, False, False]
    chips = chips.assign(split=["train", "validation", "train", "train"])
    assert near_other_split(chips, 32).tolist() == [True, False, True, False]


def test_the_fractions_are_met_over_many_blocks():
    rng = np.random.default_rng(1)
    division = divide(*tables(*rng.uniform(0, 20_000, (2, 3000))), settings_of(fractions=(0.5, 0.3, 0.2), buffer_m=0))
    assigned = division.chips["split"].value_counts(normalize=True)
    assert assigned["validation"] == pytest.approx(0.3, abs=0.05)
    assert assigned["test"] == pytest.approx(0.2, abs=0.05)


def test_a_split_of_share_zero_stays_empty():
    rng = np.random.default_rng(1)
    division = divide(*tables(*rng.uniform(0, 5000, (2, 300))), settings_of(fractions=(0.9, 0.1, 0.0)))
    assert set(division.chips["split"]) == {"train", "validation"}


def test_another_seed_divides_otherwise_and_the_order_of_rows_does_not():
    rng = np.random.default_rng(2)
    chips, pairs, photos = tables(*rng.uniform(0, 3000, (2, 200)))
    first = divide(chips, pairs, photos, settings_of()).chips.set_index("chip_id")["split"]
    again = divide(chips.iloc[::-1].reset_index(drop=True), pairs, photos, settings_of()).chips.set_index("chip_id")[
        "split"
    ]
    other = divide(chips, pairs, photos, settings_of(seed=1)).chips.set_index("chip_id")["split"]
    assert first.to_dict() == again.to_dict()
    assert first.to_dict() != other.to_dict()


def test_none_puts_everything_into_training():
    division = divide(*tables([0, 70], [0, 0]), settings_of(by=None))
    assert division.chips["split"].tolist() == ["train", "train"]
    assert not division.dropped


def test_by_place_the_photos_of_a_walk_stay_together():
    walks = np.repeat([f"walk {number}" for number in range(30)], 4)
    right = np.arange(120) * 40 + np.repeat(np.arange(30) * 500, 4)
    division = divide(*tables(right, np.zeros(120), place=walks), settings_of(by="place", buffer_m=0))
    split = division.chips.set_index("chip_id")["split"].reindex(division.pairs["chip_id"]).to_numpy()
    assert pd.Series(split).groupby(walks[division.pairs["photo"]]).nunique().max() == 1
    assert set(split) == {"train", "validation", "test"}
    assert not division.dropped


def test_a_chip_that_mixes_walks_keeps_the_photos_of_its_split_only():
    chips = chips_at([0, 1000, 2000], [0, 0, 0])
    pairs = pd.DataFrame({"chip_id": ["c0000", "c0000", "c0001", "c0002"], "photo": [0, 1, 2, 3]})
    photos = pd.DataFrame({"user": None, "taken": None, "place": ["a", "b", "a", "b"]}, index=range(4))
    division = divide(chips, pairs, photos, settings_of(by="place", fractions=(0.5, 0.0, 0.5), buffer_m=0))
    splits = division.chips.set_index("chip_id")["split"]
    assert splits["c0000"] == "test"
    owner = "a" if splits["c0001"] == "test" else "b"
    kept = division.pairs.loc[division.pairs["chip_id"] == "c0000", "photo"].tolist()
    assert photos["place"].iloc[kept].tolist() == [owner]
    assert division.lost == {"mixed-places": 1}


def test_photos_of_a_user_s_minute_that_spans_splits_are_left_out():
    rng = np.random.default_rng(4)
    right, down = rng.uniform(0, 3000, (2, 150))
    chips, pairs, photos = tables(right, down, user="one", taken=pd.Timestamp("2024-06-01T12:00:10", tz="UTC"))
    assert divide(chips, pairs, photos, settings_of()).chips.empty
    photos["user"] = [f"user {row}" for row in range(150)]
    division = divide(chips, pairs, photos, settings_of())
    assert len(division.chips) > 100
    assert "user-minute-across-splits" not in division.lost


@settings(max_examples=60, deadline=None)
@given(st.floats(-179.9, 179.9), st.floats(-80, 80), st.sampled_from([500.0, 20_000.0]))
def test_blocks_are_about_as_wide_as_they_are_high(lon, lat, block_m):
    step = np.degrees(block_m / 6_371_008.8)
    east = step / np.cos(np.radians(lat))
    here = blocks(np.array([lon]), np.array([lat]), block_m)
    assert here != blocks(np.array([lon]), np.array([lat + 1.01 * step]), block_m)
    assert here != blocks(np.array([lon + 1.2 * east]), np.array([lat]), block_m)


def test_a_footprint_across_zones_keeps_its_distance_too():
    west = chips_at([223_000 - 64], [0], epsg=32631)
    lon, lat = corners(west)[0].mean(axis=0)
    from geograft.pairs.grid import to_crs

    east, north = to_crs(32632).transform(lon, lat)
    both = pd.concat([west, chips_at([east - 500_000], [5_000_000 - north], epsg=32632)], ignore_index=True)
    assert near_other_split(both.assign(split=["train", "test"]), 0).tolist() == [True, False]


@pytest.mark.parametrize(
    "changes", [{"fractions": (0.5, 0.5, 0.5)}, {"fractions": (1.2, -0.2, 0.0)}, {"by": "walk"}, {"block_m": 0}]
)
def test_settings_that_are_no_division_are_refused(changes):
    with pytest.raises(BadSetting):
        settings_of(**changes)
