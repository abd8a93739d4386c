import os
import signal
import subprocess
import sys
import time

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from geograft.errors import BadSetting, DiskFull, MissingInput, NoPairs, OutputExists, UnreadableTable
from geograft.pairs import materialise as stage
from geograft.pairs.cutting import shards
from geograft.pairs.cutting.shards import shard_paths
from geograft.pairs.dataset import load_pairs
from geograft.pairs.embeddings import read_embeddings
from geograft.pairs.materialise import materialise
from geograft.pairs.publishing.checksums import sha256_of
from geograft.pairs.vectors import scratch
from geograft.tables import read_manifest

SLOW_RUN = """
import sys, time
from pathlib import Path
from geograft.pairs import materialise
from geograft.pairs.cutting import chips as cutting
from geograft.pairs.cutting import output

def slowed(module, name, seconds):
    work = getattr(module, name)
    def slow(*given, **more):
        time.sleep(seconds)
        return work(*given, **more)
    setattr(module, name, slow)

slowed(cutting, "cut", 0.03)
slowed(output, "_pair_rows", 0.1)
materialise.materialise(Path(sys.argv[1]), workers=1)
"""


def digests(folder):
    """The SHA-256 of every file by its path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def times(paths):
    return [path.stat().st_mtime_ns for path in paths]


# --- what comes out ---------------------------------------------------------------------------------------


def test_every_planned_chip_is_in_the_tables_and_in_one_shard(grid_plan):
    out = grid_plan(30)
    summary = materialise(out, workers=1)
    chips = gpd.read_parquet(out / "chips.parquet")
    planned = gpd.read_parquet(out / "plan" / "chips.parquet")
    assert chips["chip_id"].tolist() == planned["chip_id"].tolist()
    assert chips.crs.to_epsg() == 4326
    assert chips.geometry.geom_equals(planned.geometry).all()
    assert [len(pq.read_table(path)) for path in shard_paths(out)] == [8, 8, 8, 6]
    assert (summary.chips, summary.pairs, summary.photos) == (30, 60, 31)
    assert summary.splits == {"test": 7, "train": 16, "validation": 7}
    assert summary.chips_dropped == {"split-buffer": 3}
    assert summary.skipped == {"no-scene": 2}
    assert gpd.read_parquet(out / "photos.parquet")["photo_id"].tolist() == [f"p{row:05d}" for row in range(31)]


def test_pairs_tell_the_days_between_scene_and_photo(grid_plan):
    out = grid_plan(10)
    materialise(out, workers=1)
    pairs = pd.read_parquet(out / "pairs.parquet")
    assert pairs["time_gap_days"].tolist() == pytest.approx([0.5 + row // 2 / 24 for row in range(20)])
    assert pairs["heading_deg"].isna().tolist() == [False, True] * 10
    assert pairs.columns.tolist() == [
        "chip_id", "photo_id", "col", "row", "accuracy_m", "heading_deg", "time_gap_days",
    ]  # fmt: skip


@pytest.fixture
def patchy(make_ground, make_scene, make_plan):
    """A plan in which one chip is cloudy and one hangs over the scene's edge."""
    scenes = make_ground(200, dates=("2024-06-01", "2024-07-01"))
    clouds = np.zeros((1, 200, 200), np.uint8)
    clouds[0, :40, :40] = 1
    for date in ("2024-06-01", "2024-07-01"):
        make_scene(f"scenes/world-1m_{date}_clouds.tif", size=200, pixels=clouds, descriptions=None)
    june, july = sorted(gpd.read_parquet(scenes)["scene_id"])
    chips = [
        {"right": 0, "photos": ["only-cloudy", "shared"]},
        {"right": 60, "photos": ["shared", "kept"]},
        {"right": 190, "photos": ["only-off", "kept"]},
        {"right": 100, "down": 60, "stacks": [(0.0, [june])], "photos": ["june"]},
        {"right": 100, "down": 60, "stacks": [(0.0, [july])], "photos": ["july"]},
    ]
    return make_plan(scenes, chips, shard=3)


def test_what_is_left_out_is_counted_by_reason(patchy):
    summary = materialise(patchy, workers=1)
    assert summary.chips_dropped == {"cloudy": 1, "nodata": 1, "split-buffer": 3}
    assert summary.skipped == {"cloudy": 1, "no-scene": 2, "nodata": 1}
    assert (summary.chips, summary.photos) == (3, 4)
    photos = gpd.read_parquet(patchy / "photos.parquet")["photo_id"].tolist()
    assert photos == ["july", "june", "kept", "shared"]
    assert set(pd.read_parquet(patchy / "pairs.parquet")["photo_id"]) == set(photos)
    about = read_manifest(shard_paths(patchy)[0])
    assert about.counts == {"done": 1, "skipped": {"cloudy": 1, "nodata": 1}, "failed": {}}


def test_time_bins_of_one_place_that_fall_back_to_one_scene_are_kept_once(patchy_bins):
    summary = materialise(patchy_bins, workers=1)
    assert summary.chips_dropped["repeated-pixels"] == 1
    assert summary.skipped["repeated-pixels"] == 1
    assert gpd.read_parquet(patchy_bins / "chips.parquet")["chip_id"].tolist() == ["chip-0000", "chip-0002"]
    pairs = load_pairs(patchy_bins)
    assert not (pairs.chips[0] == pairs.chips[1]).all()


@pytest.fixture
def patchy_bins(make_ground, make_plan):
    """Three time bins of one place, the first two of one scene."""
    scenes = make_ground(100, dates=("2024-06-01", "2024-07-01"))
    june, july = sorted(gpd.read_parquet(scenes)["scene_id"])
    bins = [[(0.0, [june])], [(20.0, [june]), (30.0, [july])], [(0.0, [july])]]
    return make_plan(scenes, [{"stacks": stacks, "photos": [f"bin-{row}"]} for row, stacks in enumerate(bins)])


def test_no_chip_at_all_is_named(make_ground, make_plan):
    out = make_plan(make_ground(100), [{"right": 90}, {"right": 95}])
    with pytest.raises(NoPairs, match="2 nodata"):
        materialise(out, workers=1)


def test_a_shard_of_which_no_chip_could_be_cut_is_empty(make_ground, make_plan):
    out = make_plan(make_ground(100), [{"right": 90}, {"right": 95}, {"right": 0}], shard=2)
    assert materialise(out, workers=1).chips == 1
    assert [len(pq.read_table(path)) for path in shard_paths(out)] == [0, 1]
    assert len(load_pairs(out)) == 1


# --- the same bytes ---------------------------------------------------------------------------------------


def test_workers_and_engines_write_the_same_bytes(grid_plan):
    pytest.importorskip("ray")
    out = grid_plan(30)
    found = []
    for engine, workers in (("local", 1), ("local", 2), ("ray", 1)):
        materialise(out, engine=engine, workers=workers)
        found.append(digests(out))
        for path in [*(out / "shards").iterdir(), *out.glob("*.parquet"), out / "manifest.json"]:
            path.unlink()
    assert found[0] == found[1] == found[2]


@pytest.fixture(scope="module")
def killed():
    """Start the program and kill -9 it as soon as a folder is in some state."""

    def run(out, ready):
        command = [sys.executable, "-c", SLOW_RUN, str(out)]
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            deadline = time.monotonic() + 120
            while not ready(out) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            assert process.poll() is None, "the program ended before it could be killed"
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()

    return run


MOMENTS = {
    "in the first shard": lambda out: (out / "shards").is_dir(),
    "between a shard and its manifest": lambda out: len(shard_paths(out)) >= 2,
    "in the tables": lambda out: len(list(out.glob(".chips.*.part.parquet"))) > 0,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_to_the_same_bytes(grid_plan, killed, moment):
    out = grid_plan(30)
    materialise(out, workers=1)
    whole = digests(out)
    for path in [*(out / "shards").iterdir(), *out.glob("*.parquet"), out / "manifest.json"]:
        path.unlink()
    (out / "shards").rmdir()
    killed(out, MOMENTS[moment])
    assert not (out / "manifest.json").exists()
    written = [path for path in shard_paths(out) if path.with_suffix(".manifest.json").exists()]
    before = times(written)
    materialise(out, workers=1)
    assert digests(out) == whole
    assert times(written) == before


def test_what_is_done_is_not_done_again(grid_plan, monkeypatch):
    out = grid_plan(20)
    first = materialise(out, workers=1)
    before = times(sorted(out.rglob("*")))
    monkeypatch.setattr(stage, "write_shard", None)
    monkeypatch.setattr(stage, "write_tables", None)
    assert materialise(out, workers=1) == first
    assert times(sorted(out.rglob("*"))) == before


def damage_inside(path):
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


HARMS = {
    "removed": lambda path: path.unlink(),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "damaged inside": damage_inside,
    "without its manifest": lambda path: path.with_suffix(".manifest.json").unlink(),
    "with a damaged manifest": lambda path: path.with_suffix(".manifest.json").write_text("{"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_shard_is_cut_again_and_the_others_are_not(grid_plan, harm):
    out = grid_plan(20)
    materialise(out, workers=1)
    whole = digests(out)
    first, second, third = shard_paths(out)
    before = times([first, third])
    HARMS[harm](second)
    materialise(out, workers=1)
    assert digests(out) == whole
    assert times([first, third]) == before


def test_tables_that_were_removed_are_written_again(grid_plan):
    out = grid_plan(20)
    materialise(out, workers=1)
    whole = digests(out)
    (out / "pairs.parquet").unlink()
    materialise(out, workers=1)
    assert digests(out) == whole


def test_a_full_disk_leaves_whole_shards_to_go_on_from(grid_plan, monkeypatch):
    out = grid_plan(30)
    write, room = shards._write_rows, iter([1, 1, 0])

    def full(*given):
        if not next(room):
            raise OSError(28, "No space left on device")
        write(*given)

    monkeypatch.setattr(shards, "_write_rows", full)
    with pytest.raises(DiskFull, match="run again"):
        materialise(out, workers=1)
    assert sorted(path.name for path in (out / "shards").iterdir()) == [
        "part-00000.manifest.json", "part-00000.parquet", "part-00001.manifest.json", "part-00001.parquet",
    ]  # fmt: skip
    monkeypatch.undo()
    assert materialise(out, workers=1).chips == 30


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_folder_without_a_plan_is_named(tmp_path, grid_plan):
    with pytest.raises(MissingInput, match="geograft pairs plan"):
        materialise(tmp_path / "nowhere")
    out = grid_plan(5)
    (out / "plan" / "pairs.parquet").unlink()
    with pytest.raises(MissingInput, match=r"pairs\.parquet"):
        materialise(out)


def test_a_damaged_plan_is_named(grid_plan):
    out = grid_plan(5)
    (out / "plan" / "chips.parquet").write_bytes(b"PAR1 not whole")
    with pytest.raises(UnreadableTable, match="make the plan again"):
        materialise(out)


def test_shards_of_another_plan_are_refused(grid_plan):
    out = grid_plan(20)
    materialise(out, workers=1)
    manifest = out / "plan" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0123456789abcdef", "fedcba9876543210"))
    with pytest.raises(OutputExists, match="another plan"):
        materialise(out, workers=1)
    (out / "manifest.json").unlink()
    with pytest.raises(OutputExists, match="another plan"):
        materialise(out, workers=1)
    for path in (out / "shards").glob("*.json"):
        path.unlink()
    with pytest.raises(OutputExists, match="another plan"):
        materialise(out, workers=1)


def test_shards_that_no_plan_has_are_refused(grid_plan):
    out = grid_plan(10)
    (out / "shards").mkdir()
    (out / "shards" / "part-00007.parquet").write_bytes(b"")
    with pytest.raises(OutputExists, match="part-00007"):
        materialise(out, workers=1)


def test_an_encoding_that_cannot_hold_the_sensor_is_refused(grid_plan, make_ground, make_plan):
    out = make_plan(make_ground(100, sensor="world-10m"), [{"right": 0}], encoding="jpeg")
    with pytest.raises(BadSetting, match="lossless"):
        materialise(out, workers=1)


# --- the teacher ------------------------------------------------------------------------------------------


@pytest.fixture
def pictured(grid_plan, make_pictures, tmp_path):
    """A plan whose 21 photos are there but for two."""
    colours = [tuple(colour) for colour in np.random.default_rng(0).integers(0, 255, (21, 3)).tolist()]
    uris = make_pictures(colours)
    (tmp_path / "pictures" / "0007.png").write_bytes(b"broken")
    (tmp_path / "pictures" / "0020.png").unlink()
    return grid_plan(20, uris=uris)


def test_every_photo_carries_its_embedding(pictured, teacher):
    materialise(pictured, teacher=teacher, workers=1)
    ids, matrix = read_embeddings(pictured / "teacher-c0105.parquet")
    known = dict(zip(ids, matrix.tolist(), strict=True))
    rows = [row for path in shard_paths(pictured) for row in pq.read_table(path)["photos"].to_pylist()]
    photos = [photo for row in rows for photo in row]
    assert len(photos) == 40
    assert all(photo["embedding"] == known.get(photo["photo_id"]) for photo in photos)
    assert {photo["photo_id"] for photo in photos if photo["embedding"] is None} == {"p00007", "p00020"}
    manifest = read_manifest(pictured)
    assert manifest.counts["failed"] == {"unreadable-photo": 2}
    assert manifest.extra["teacher"]["fingerprint"] == "c0105"
    assert not scratch(pictured, "c0105").exists()


def test_workers_write_the_same_bytes_with_a_teacher(pictured, teacher):
    materialise(pictured, teacher=teacher, workers=1)
    whole = digests(pictured)
    seen = teacher.seen
    for path in shard_paths(pictured):
        path.unlink()
    materialise(pictured, teacher=teacher, workers=2)
    assert digests(pictured) == whole
    assert teacher.seen == seen


def test_shards_without_embeddings_are_not_mixed_with_those_of_a_teacher(pictured, teacher):
    materialise(pictured, workers=1)
    with pytest.raises(OutputExists, match="another teacher, or with none"):
        materialise(pictured, teacher=teacher, workers=1)
