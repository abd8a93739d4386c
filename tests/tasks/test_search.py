"""Embedding tables and exact search over them."""

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image

from geograft.errors import (
    BadQuery,
    BadSetting,
    EmptyTable,
    MissingColumns,
    MissingInput,
    ModelMismatch,
    UnreadableScene,
)
from geograft.tables import read_manifest, read_table, write_table
from geograft.tasks.embed import embed, read_embeddings
from geograft.tasks.search import rank_scores, search


@pytest.fixture
def table(model, make_scene, tmp_path):
    embed(make_scene(), tmp_path / "chips.parquet", model=model)
    return tmp_path / "chips.parquet"


def quarter_of(hit):
    """Which quarter of a 64 pixel scene a hit lies in, from its footprint in EPSG:4326."""
    row, column = (int(part) for part in hit["chip_id"].split("-")[-2:])
    return 2 * (row >= 32) + (column >= 32)


@pytest.mark.parametrize(("word", "quarter"), [("red", 0), ("green", 1), ("blue", 2), ("grey", 3)])
def test_a_word_finds_the_chips_that_look_like_it(model, table, word, quarter):
    hits = search(table, word, model=model, k=4)
    assert [quarter_of(hit) for _, hit in hits.iterrows()] == [quarter] * 4
    assert hits["rank"].tolist() == [1, 2, 3, 4]
    assert (np.diff(hits["score"]) <= 0).all()
    assert hits.crs.to_epsg() == 4326


def test_a_scene_is_searched_without_a_table(model, table, make_scene):
    direct = search(make_scene(), "blue", model=model, k=5)
    assert direct["chip_id"].tolist() == search(table, "blue", model=model, k=5)["chip_id"].tolist()


def test_a_photo_finds_what_it_shows(model, table, tmp_path):
    Image.new("RGB", (40, 30), (20, 20, 200)).save(tmp_path / "sea.jpg", quality=95)
    assert quarter_of(search(table, tmp_path / "sea.jpg", model=model, k=1).iloc[0]) == 2


def test_a_chip_finds_its_like(model, table):
    chip = np.full((3, 16, 16), 120, np.uint8)
    hit = search(table, chip, model=model, k=1).iloc[0]
    assert quarter_of(hit) == 3
    assert hit["score"] == pytest.approx(1, abs=1e-3)


def test_the_best_phrasing_counts(model, table):
    hits = search(table, "red, blue", model=model, k=8)
    assert {quarter_of(hit) for _, hit in hits.iterrows()} == {0, 2}


def test_more_hits_than_chips_gives_all_chips(model, table):
    assert len(search(table, "red", model=model, k=1000)) == 16


def test_footprints_lie_where_the_scene_does(table):
    rows = read_embeddings(table)
    metres = rows.to_crs(32633).total_bounds
    np.testing.assert_allclose(metres, [5e5, 5e6 - 64, 5e5 + 64, 5e6], atol=0.01)


def test_another_models_table_is_refused(make_model, table):
    with pytest.raises(ModelMismatch, match="embeddings of model"):
        search(table, "red", model=make_model(seed=1))


def test_embeddings_of_another_length_are_refused():
    with pytest.raises(ModelMismatch, match="24 values"):
        rank_scores(np.zeros((3, 24), np.float16), np.zeros((1, 8), np.float32))


def test_a_sheet_shows_the_hits(model, table, tmp_path):
    search(table, "green", model=model, k=3, sheet=tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    greens = (np.abs(sheet.astype(int) - (20, 200, 20)).max(axis=1) < 3).sum()
    assert greens == 3 * 128 * 128


def test_a_table_counts_what_it_did(model, table):
    counts = read_manifest(table).counts
    assert counts == {"done": 16, "skipped": {}, "failed": {}}
    assert set(read_table(table)["model"]) == {model.fingerprint}


def test_a_scene_table_is_embedded_and_bad_scenes_are_counted(model, make_scene, tmp_path):
    good, small = make_scene(), make_scene(size=8, name="small.tif")
    (tmp_path / "broken.tif").write_bytes(b"no raster")
    scenes = {"scene_id": ["a", "b", "c"], "uri": [str(good), str(tmp_path / "broken.tif"), str(small)]}
    write_table(gpd.pd.DataFrame({**scenes, "sensor": "rgb"}), tmp_path / "scenes.parquet")
    summary = embed(tmp_path / "scenes.parquet", tmp_path / "chips.parquet", model=model)
    assert summary.done == 16
    assert summary.failed == {"unreadable-scene": 1}
    assert summary.skipped == {"scene-too-small": 1}


def test_chips_mostly_without_data_are_left_out(model, write_scene, tmp_path):
    pixels = np.full((3, 64, 64), 120, np.uint8)
    pixels[:, :32] = 0
    summary = embed(write_scene("half.tif", pixels, nodata=0), tmp_path / "chips.parquet", model=model)
    assert summary.done == 8
    assert summary.skipped == {"mostly-nodata": 8}


def test_a_scene_without_any_data_is_said(model, write_scene, tmp_path):
    scene = write_scene("empty.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    with pytest.raises(EmptyTable, match="mostly-nodata"):
        embed(scene, tmp_path / "chips.parquet", model=model)
    assert not (tmp_path / "chips.parquet").exists()


def test_a_table_that_holds_no_embeddings_is_refused(tmp_path):
    write_table(gpd.pd.DataFrame({"chip_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(MissingColumns, match="embedding"):
        read_embeddings(tmp_path / "other.parquet")


def test_wrong_use_is_named(model, table, tmp_path):
    with pytest.raises(BadSetting, match="at least 1"):
        search(table, "red", model=model, k=0)
    with pytest.raises(BadQuery):
        search(table, "", model=model)
    with pytest.raises(MissingInput):
        search(tmp_path / "absent.tif", "red", model=model)
    with pytest.raises(BadSetting, match="stride"):
        embed(table, tmp_path / "out.parquet", model=model, stride=0)


def test_a_scene_cut_short_is_counted_among_others_and_named_alone(model, make_scene, write_scene, tmp_path):
    (tmp_path / "scenes").mkdir()
    whole, short = make_scene(name="scenes/whole.tif"), tmp_path / "scenes" / "short.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 600, 600), np.uint8)
    content = write_scene("large.tif", pixels).read_bytes()
    short.write_bytes(content[: len(content) // 2])
    found = embed(tmp_path / "scenes", tmp_path / "chips.parquet", model=model)
    assert (found.done, found.failed) == (16, {"unreadable-scene": 1})
    assert set(read_table(tmp_path / "chips.parquet")["uri"]) == {str(whole)}
    with pytest.raises(UnreadableScene):
        embed(short, tmp_path / "short.parquet", model=model)


def test_a_sheet_of_no_picture_format_is_refused(model, table, tmp_path):
    with pytest.raises(BadSetting, match=r"\.png"):
        search(table, "red", model=model, k=1, sheet=tmp_path / "sheet.xyz")
