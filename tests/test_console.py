import json
from dataclasses import dataclass

import geopandas as gpd
import pytest
import typer
from shapely import Point

from geograft.console import failed_rows, show, show_table, write_vector
from geograft.errors import BadSetting


@dataclass(frozen=True)
class Came:
    done: int
    failed: dict[str, int]
    share: float = float("nan")


def hits() -> gpd.GeoDataFrame:
    rows = {"rank": [1, 2], "score": [0.5, 0.25], "chip_id": ["a", "b"], "uri": ["x", "y"]}
    return gpd.GeoDataFrame(rows, geometry=[Point(1, 2), Point(3, 4)], crs=4326)


def test_json_is_one_object_without_not_a_number(capsys):
    show(Came(3, {}), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"done": 3, "failed": {}, "share": None}


def test_people_see_names_and_values(capsys):
    show({"chips found": 3, "out": None, "share": 0.25}, as_json=False)
    assert capsys.readouterr().out.split("\n")[:2] == ["chips found  3", "share        0.25"]


def test_failed_rows_make_exit_code_1():
    with pytest.raises(typer.Exit) as stop:
        show(Came(3, {"unreadable-scene": 2}), as_json=True)
    assert stop.value.exit_code == 1


@pytest.mark.parametrize(
    ("values", "count"),
    [({}, 0), ({"failed": 2}, 2), ({"failed": {"a": 1, "b": 2}}, 3), ({"counts": {"failed": {"a": 4}}}, 4), ([], 0)],
)
def test_failures_are_counted_wherever_a_result_names_them(values, count):
    assert failed_rows(values) == count


def test_a_table_s_rows_are_plain_json(capsys):
    show_table(hits(), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert [row["chip_id"] for row in shown["rows"]] == ["a", "b"]
    assert "geometry" not in shown["rows"][0]


@pytest.mark.parametrize("name", ["hits.geojson", "hits.gpkg", "hits.parquet"])
def test_hits_are_written_in_the_format_of_their_name(tmp_path, name):
    write_vector(hits(), tmp_path / name)
    read = gpd.read_parquet if name.endswith("parquet") else gpd.read_file
    found = read(tmp_path / name)
    assert found["chip_id"].tolist() == ["a", "b"]
    assert found.geometry.x.tolist() == [1, 3]


def test_another_suffix_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(BadSetting, match="geojson"):
        write_vector(hits(), tmp_path / "hits.docx")
    assert not list(tmp_path.iterdir())
