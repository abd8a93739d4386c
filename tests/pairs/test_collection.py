import hashlib
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pystac
import pytest

from geograft.pairs.collection import slug, write_collection
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.sensors import get_sensor
from geograft.tables import read_table, write_table

SMALL = PairSettings(chip_size=32, block_m=96, buffer_m=16, fractions=(0.6, 0.2, 0.2))


@pytest.fixture
def pairs(scattered, make_ground, tmp_path):
    make_pairs(scattered(300), make_ground(400), tmp_path / "pairs", settings=SMALL, workers=1)
    return tmp_path / "pairs"


def validated(path):
    """The collection, proven against the core schema that pystac carries; extensions' schemas lie on the web."""
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    pystac.Collection.from_dict(content | {"stac_extensions": []}).validate()
    return pystac.Collection.from_file(str(path))


def test_the_collection_is_valid_and_says_where_and_when(pairs):
    collection = validated(write_collection(pairs, title="Towns of the north"))
    chips = read_table(pairs / "chips.parquet")
    west, south, east, north = collection.extent.spatial.bboxes[0]
    bounds = chips.total_bounds
    assert west <= bounds[0] < bounds[2] <= east
    assert south <= bounds[1] < bounds[3] <= north
    assert east - west < 1.5 * (bounds[2] - bounds[0])
    assert collection.extent.temporal.intervals[0][0].date().isoformat() == "2024-06-01"
    assert collection.id == "Towns-of-the-north"
    assert collection.license == "CC-BY-4.0"


def test_the_summaries_hold_gsd_and_bands(pairs):
    summaries = validated(write_collection(pairs)).summaries.to_dict()
    assert summaries["gsd"] == [1.0]
    assert [band["name"] for band in summaries["bands"]] == list(get_sensor("world-1m").bands)
    assert summaries["bands"][3]["eo:common_name"] == "nir"
    assert summaries["proj:code"] == ["EPSG:32632"]


def test_every_asset_is_there_with_size_checksum_and_rows(pairs):
    assets = validated(write_collection(pairs)).assets
    assert {"chips", "pairs", "photos", "items", "part-00000"} <= set(assets)
    for asset in assets.values():
        path = pairs / asset.href
        assert asset.extra_fields["file:size"] == path.stat().st_size
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
        assert asset.extra_fields["table:row_count"] == pq.read_metadata(path).num_rows


def test_items_are_the_chips(pairs):
    write_collection(pairs)
    items, chips = read_table(pairs / "items.parquet"), read_table(pairs / "chips.parquet")
    assert items["id"].tolist() == chips["chip_id"].tolist()
    assert (items.geometry.to_wkb() == chips.geometry.to_wkb()).all()
    assert (items["datetime"] == chips["taken"]).all()
    assert items["geograft:split"].tolist() == chips["split"].tolist()
    box = pd.DataFrame(items["bbox"].tolist())
    assert np.allclose(box, chips.geometry.bounds)
    assert {row["pixels"]["href"] for row in items["assets"]} == {"./shards/part-00000.parquet"}


def test_an_item_of_the_table_is_a_valid_stac_item(pairs):
    write_collection(pairs)
    row = read_table(pairs / "items.parquet").iloc[0]
    item = pystac.Item(
        row["id"], row.geometry.__geo_interface__, list(row["bbox"].values()), row["datetime"].to_pydatetime(),
        {"gsd": row["gsd"], "proj:code": row["proj:code"]},
    )  # fmt: skip
    item.add_asset("pixels", pystac.Asset(row["assets"]["pixels"]["href"], media_type=row["assets"]["pixels"]["type"]))
    item.validate()


def test_undated_scenes_leave_the_time_open(pairs):
    chips, photos = read_table(pairs / "chips.parquet"), read_table(pairs / "photos.parquet")
    write_table(chips.assign(taken=pd.Series(pd.NaT, chips.index, "datetime64[us, UTC]")), pairs / "chips.parquet")
    write_table(photos.assign(taken=pd.Series(pd.NaT, photos.index, "datetime64[us, UTC]")), pairs / "photos.parquet")
    content = json.loads(write_collection(pairs).read_text())
    assert content["extent"]["temporal"]["interval"] == [[None, None]]


def test_a_box_across_the_antimeridian_has_its_west_beyond_its_east(make_photos, make_ground, tmp_path):
    from geograft.raster.grids import to_crs

    east, north = to_crs(32660).transform(180.0, -17.0)
    corner = (round(east) - 200, round(north) + 200)
    right, down = np.random.default_rng(0).uniform(60, 340, (2, 40))
    photos = make_photos(right, down, epsg=32660, corner=corner)
    settings = PairSettings(chip_size=32, split="none")
    make_pairs(photos, make_ground(400, corner=corner, crs=32660), tmp_path / "out", settings=settings, workers=1)
    west, _, east, _ = validated(write_collection(tmp_path / "out")).extent.spatial.bboxes[0]
    assert 179.9 < west <= 180
    assert -180 <= east < -179.9


def test_the_same_pairs_give_the_same_collection(pairs):
    first = write_collection(pairs).read_bytes(), (pairs / "items.parquet").read_bytes()
    assert (write_collection(pairs).read_bytes(), (pairs / "items.parquet").read_bytes()) == first


def test_a_plan_is_a_collection_without_shards(pairs):
    collection = validated(write_collection(pairs / "plan"))
    assert set(collection.assets) == {"chips", "pairs", "photos", "items"}


def test_ids_hold_no_odd_characters():
    assert slug("Wälder & Städte / 2024") == "W-lder-St-dte-2024"
    assert slug("//") == "pairs"
