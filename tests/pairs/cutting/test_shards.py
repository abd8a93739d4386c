import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from affine import Affine

from geograft.errors import UnreadableTable
from geograft.pairs.cutting import shards
from geograft.pairs.cutting.shards import read_pixels, row_groups, shard_metadata, shard_paths
from geograft.pairs.encoding import decode
from geograft.pairs.materialise import materialise
from geograft.pairs.publishing.checksums import sha256_of
from geograft.sources.scenes import read_scenes
from geograft.tables import read_manifest


def test_shards_hold_every_chip_with_its_native_bytes(grid_plan):
    out = grid_plan(20)
    materialise(out, workers=1)
    path = shard_paths(out)[0]
    about = shard_metadata(path)
    assert (about["format"], about["shape"], about["dtype"]) == ("geograft-shard-1", "[4, 32, 32]", "uint8")
    assert (about["sensor"], about["encoding"]) == ("world-1m", "lossless")
    assert json.loads(about["bands"]) == ["red", "green", "blue", "nir"]
    table = pq.read_table(path)
    ids, pixels = read_pixels(path, frozenset(table["chip_id"].to_pylist()))
    assert ids == table["chip_id"].to_pylist()
    assert [each.as_py() for each in table["pixels"]] == [chip.tobytes() for chip in pixels]
    assert len(ids) == 8


def test_a_row_tells_all_of_a_chip_and_its_photos(grid_plan):
    out = grid_plan(20)
    materialise(out, workers=1)
    row = pq.read_table(shard_paths(out)[1]).drop_columns(["pixels"]).to_pylist()[0]
    scene = "out-scenes/world-1m_2024-06-01"
    assert row | {"photos": None} == {
        "chip_id": "chip-0008", "split": "train", "epsg": 32632, "left": 500_028.0, "top": 4_999_972.0, "gsd": 1.0,
        "size": 32, "sensor": "world-1m", "scene_id": row["scene_id"], "scene_ids": [row["scene_id"]],
        "taken": pd.Timestamp("2024-06-01", tz="UTC"), "cloud_share": 0.0, "photos": None,
    }  # fmt: skip
    assert row["scene_id"].endswith(scene.split("/")[1])
    assert row["photos"][1] == {
        "photo_id": "p00009", "col": 4.5, "row": 4.25, "accuracy_m": 8.0, "heading_deg": None,
        "time_gap_days": pytest.approx(0.5 + 8 / 24), "embedding": None,
    }  # fmt: skip


def test_a_shard_s_manifest_tells_its_counts_and_its_digest(grid_plan):
    out = grid_plan(20)
    materialise(out, workers=1)
    for path, count in zip(shard_paths(out), (8, 8, 4), strict=True):
        manifest = read_manifest(path)
        assert manifest.counts == {"done": count, "skipped": {}, "failed": {}}
        assert manifest.extra["sha256"] == sha256_of(path)
        assert manifest.extra["bytes"] == path.stat().st_size


def test_row_groups_stay_small_for_readers_of_streams(grid_plan, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_BYTES", 3 * 4 * 32 * 32)
    out = grid_plan(20, shard=20)
    materialise(out, workers=1)
    (path,) = shard_paths(out)
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [3] * 6 + [2]
    assert [len(group) for group in row_groups(path, ["chip_id"])] == [3] * 6 + [2]
    assert file.read()["chip_id"].to_pylist() == [f"chip-{row:04d}" for row in range(20)]


def test_sixteen_bit_pixels_keep_their_values(make_scene, make_plan, tmp_path):
    pixels = np.random.default_rng(0).integers(1000, 60_000, (5, 40, 40)).astype(np.uint16)
    make_scene("ten/a.tif", sensor="world-10m", pixels=pixels, transform=Affine(10, 0, 500_000, 0, -10, 5_000_000))
    read_scenes(tmp_path / "ten", tmp_path / "ten.parquet", sensor="world-10m")
    out = make_plan(tmp_path / "ten.parquet", [{"right": 40, "down": 40}], gsd=10.0)
    materialise(out, workers=1)
    _, chips = read_pixels(shard_paths(out)[0], frozenset(["chip-0000"]))
    assert chips.dtype == np.uint16
    assert (chips[0] == pixels[:, 4:36, 4:36]).all()


def test_jpeg_pixels_are_close_and_smaller(make_scene, make_plan, tmp_path):
    rows, columns = np.mgrid[:128, :128]
    pixels = np.stack([rows, columns, (rows + columns) // 2, 255 - rows])
    pixels = pixels + np.random.default_rng(0).integers(-3, 4, pixels.shape)
    make_scene("smooth/a.tif", pixels=pixels.clip(1, 255))
    read_scenes(tmp_path / "smooth", tmp_path / "smooth.parquet", sensor="world-1m")
    sizes = {}
    for encoding in ("lossless", "jpeg"):
        out = make_plan(tmp_path / "smooth.parquet", [{}], name=encoding, size=128, encoding=encoding)
        materialise(out, workers=1)
        path = shard_paths(out)[0]
        _, chips = read_pixels(path, frozenset(["chip-0000"]))
        assert np.abs(chips[0].astype(int) - pixels).mean() < 3
        content = pq.read_table(path)["pixels"][0].as_py()
        assert (decode(content, shard_metadata(path)) == chips[0]).all()
        sizes[encoding] = path.stat().st_size
    assert sizes["jpeg"] < 0.8 * sizes["lossless"]


def test_only_the_wanted_chips_are_decoded(grid_plan):
    out = grid_plan(8)
    materialise(out, workers=1)
    (path,) = shard_paths(out)
    ids, pixels = read_pixels(path, frozenset(["chip-0002", "chip-0005", "elsewhere"]))
    assert ids == ["chip-0002", "chip-0005"]
    assert len(pixels) == 2
    assert read_pixels(path, frozenset())[1].shape == (0, 4, 32, 32)


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 not whole")
    with pytest.raises(UnreadableTable, match=r"part-00000\.parquet"):
        shard_metadata(tmp_path / "part-00000.parquet")


def test_a_shard_damaged_inside_is_named(grid_plan):
    out = grid_plan(8)
    materialise(out, workers=1)
    path = shard_paths(out)[0]
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = bytes(len(content) - footer - 4)
    path.write_bytes(content)
    assert shard_metadata(path)
    with pytest.raises(UnreadableTable, match="damaged"):
        read_pixels(path, frozenset({"any"}))
