"""The whole loop by its commands, on a small region whose truth is gone before training begins."""

import json
import shutil
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from geograft.cli import main

SETTINGS = "epochs: 2\nbatch: 64\n"


def geograft(*arguments: object) -> dict:
    """The JSON result of a command, run in this process; its exit code must be 0."""
    import contextlib
    import io

    out = io.StringIO()
    before = sys.argv
    sys.argv = ["geograft", *(str(argument) for argument in arguments), "--json"]
    try:
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
            main()
    finally:
        sys.argv = before
    assert not stop.value.code
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with region, tables, pairs and a model, all made by commands, with the truth deleted early."""
    folder = tmp_path_factory.mktemp("loop")
    geograft("world", folder / "region", "--seed", 401, "--size", 640, "--photos", 500)
    shutil.rmtree(folder / "region" / "truth")
    geograft("photos", folder / "region" / "photos.csv", folder / "photos.parquet")
    geograft("scenes", folder / "region" / "scenes", folder / "scenes.parquet", "--sensor", "world-1m")
    geograft("pairs", "plan", folder / "photos.parquet", folder / "scenes.parquet", folder / "pairs")
    geograft("pairs", "materialise", folder / "pairs")
    (folder / "train.yaml").write_text(SETTINGS)
    geograft("train", folder / "pairs", folder / "model", "--config", folder / "train.yaml")
    return folder


def scene_of(work: Path) -> Path:
    return min((work / "region" / "scenes").glob("world-1m_*.tif"))


def test_a_model_is_trained_without_any_truth(work):
    assert not (work / "region" / "truth").exists()
    about = geograft("info", work / "model")
    assert about["levels"] == ["image", "pixel"]
    assert about["bands"] == ["red", "green", "blue", "nir"]
    assert (work / "model" / "model.safetensors").is_file()


def test_dirty_photos_are_counted_not_hidden(work):
    skipped = json.loads((work / "photos.manifest.json").read_text())["counts"]["skipped"]
    assert sum(skipped.values()) > 0
    assert all(count > 0 for count in skipped.values())


def test_pairs_are_looked_at_and_published(work):
    page = Path(geograft("pairs", "inspect", work / "pairs", "--count", 6)["page"])
    assert page.stat().st_size > 50_000
    shown = geograft("pairs", "export", work / "pairs", work / "release", "--form", "webdataset", "--strip-private")
    assert shown["chips"] == geograft("pairs", "materialise", work / "pairs")["chips"]
    assert {"README.md", "collection.json", "leakage.json", "train"} <= {
        path.name for path in (work / "release").iterdir()
    }
    assert not any(shown["leaks"].values())


def test_running_a_finished_training_again_changes_nothing(work):
    before = (work / "model" / "model.safetensors").read_bytes()
    geograft("train", work / "pairs", work / "model", "--config", work / "train.yaml")
    assert (work / "model" / "model.safetensors").read_bytes() == before


def test_words_find_chips_on_the_map(work):
    geograft("embed", scene_of(work), work / "chips.parquet", "--model", work / "model")
    found = geograft(
        "search", work / "chips.parquet", "forest, trees", "--model", work / "model", "-k", 5,
        "--out", work / "hits.geojson", "--sheet", work / "hits.png",
    )  # fmt: skip
    scores = [row["score"] for row in found["rows"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 5
    hits = gpd.read_file(work / "hits.geojson")
    with rasterio.open(scene_of(work)) as scene:
        left, bottom, right, top = scene.bounds
        here = hits.to_crs(scene.crs).total_bounds
    assert left - 1 <= here[0] <= here[2] <= right + 1
    assert bottom - 1 <= here[1] <= here[3] <= top + 1
    assert (work / "hits.png").stat().st_size > 1000


def test_a_map_has_the_scene_s_grid_colours_and_names(work):
    classes = "water, lake, river; forest, trees; houses, homes; wheat field"
    geograft("segment", scene_of(work), "--classes", classes, "--out", work / "map.tif", "--model", work / "model")
    with rasterio.open(work / "map.tif") as result, rasterio.open(scene_of(work)) as scene:
        assert result.crs == scene.crs
        assert result.transform == scene.transform
        assert result.shape == scene.shape
        labels = result.read(1)
        colours = result.colormap(1)
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 4}
    assert len({colours[value] for value in range(1, 5)}) == 4


def test_chips_are_classified(work):
    result = geograft("classify", scene_of(work), "--classes", "water; forest; houses", "--model", work / "model")
    assert result["chips"] == 100
    assert sum(result["by class"].values()) == 100
