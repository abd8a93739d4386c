import numpy as np
import pandas as pd
import pytest

from geograft.errors import BadSetting, SceneTooSmall, UnknownSensor, UnreadableScene
from geograft.pairs.candidates import Boxes, open_scenes, rank
from geograft.pairs.grid import Grid, Places, to_crs
from geograft.tables import read_table


def boxes_at(offsets, extent=64.0):
    """Boxes by the metres right and down of the ground's corner, and their centres."""
    left, top = 500_000 + np.array(offsets, float)[:, 0], 5_000_000 - np.array(offsets, float)[:, 1]
    lon, lat = to_crs(32632).transform(left + extent / 2, top - extent / 2, direction="INVERSE")
    return Places(lon, lat), Boxes(np.full(len(left), 32632), left, top, extent)


def test_a_chip_must_lie_wholly_on_the_scene(make_ground):
    scenes = open_scenes(read_table(make_ground(400)), None)
    held = scenes.holding(*boxes_at([(0, 0), (336, 336), (-1, 0), (337, 0), (0, 337)]))
    assert held.to_numpy().tolist() == [[0, 0], [1, 0]]


def test_a_scene_in_another_zone_holds_chips_too(make_ground):
    far = to_crs(32631).transform(*to_crs(32632).transform(500_032, 4_999_968, direction="INVERSE"))
    corner = (round(far[0]) - 200, round(far[1]) + 200)
    scenes = open_scenes(read_table(make_ground(400, crs=32631, corner=corner)), None)
    centres, boxes = boxes_at([(0, 0), (400, 0)])
    assert scenes.holding(centres, boxes)["box"].tolist() == [0]


def test_points_on_and_off_the_scene_are_told(make_ground):
    scenes = open_scenes(read_table(make_ground(400)), None)
    centres, _ = boxes_at([(0, 0), (5000, 0)])
    assert scenes.on_any(centres).tolist() == [True, False]


def test_the_nearest_scene_in_time_comes_first():
    table = pd.DataFrame(
        {
            "scene_id": ["old", "new", "undated"],
            "taken": pd.to_datetime(["2018-06-01", "2024-06-01", None], utc=True),
            "cloud_share": [0.0, 0.5, 0.0],
        }
    )
    held = pd.DataFrame({"box": [0, 0, 0, 1, 1, 1], "scene": [0, 1, 2, 0, 1, 2]})
    middle = np.array([pd.Timestamp("2019-01-01", tz="UTC").timestamp(), np.nan, np.nan])
    ranked = rank(held, table, middle)
    assert ranked[0] == ["old", "new", "undated"]
    assert ranked[1] == ["old", "undated", "new"], "without times: fewer clouds, then the id"
    assert ranked[2] == [], "no scene holds it"


def test_a_chip_wider_than_every_scene_is_refused(make_ground):
    scenes = open_scenes(read_table(make_ground(100)), None)
    scenes.refuse_too_small(Grid(100, 1.0))
    with pytest.raises(SceneTooSmall, match="101 m wide"):
        scenes.refuse_too_small(Grid(101, 1.0))


def test_a_sensor_must_be_known_present_and_chosen(make_ground):
    table = read_table(make_ground(64))
    with pytest.raises(UnknownSensor):
        open_scenes(table.assign(sensor="sputnik"), None)
    with pytest.raises(BadSetting, match="No scene is of the sensor naip"):
        open_scenes(table, "naip")
    two = pd.concat([table, table.assign(scene_id="other", uri="other.tif", sensor="naip")], ignore_index=True)
    with pytest.raises(BadSetting, match="several sensors"):
        open_scenes(two, None)
    assert open_scenes(two, "world-1m").sensor.name == "world-1m"


def test_scenes_of_two_regions_that_share_an_id_stay_apart(make_ground):
    near, far = make_ground(64), make_ground(64, name="far", corner=(600_000, 5_000_000))
    table = pd.concat([read_table(near), read_table(far), read_table(near)], ignore_index=True)
    ids = list(open_scenes(table.assign(scene_id="same"), None).by_id)
    again = list(open_scenes(table.iloc[::-1].assign(scene_id="same"), None).by_id)
    assert len(ids) == len(set(ids)) == 2
    assert ids == again
    assert all(name.startswith("same@") for name in ids)


def test_scenes_that_are_gone_are_counted_and_all_gone_is_an_error(make_ground):
    table = read_table(make_ground(64))
    lost = table.assign(scene_id="lost", uri="/nowhere/lost.tif")
    both = open_scenes(pd.concat([table, lost], ignore_index=True), None)
    assert len(both.scenes) == 1
    assert both.skipped == {"unreadable-scene": 1}
    with pytest.raises(UnreadableScene, match=r"lost\.tif"):
        open_scenes(lost, None)
