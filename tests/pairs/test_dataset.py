import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from geograft.errors import BadSetting, EmptySplit, MissingInput, MissingShard, MixedSensors, UnreadableTable
from geograft.pairs.cutting.shards import shard_paths
from geograft.pairs.dataset import iter_chips, load_pairs, torchgeo_sample
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.encoding import decode
from geograft.pairs.materialise import materialise
from geograft.raster import open_scene, read


@pytest.fixture
def folder(many_chips):
    """60 chips of 32 m in four shards, thrown over 400 m."""
    return many_chips


def test_a_split_holds_its_chips_only(folder):
    everything = load_pairs(folder)
    parts = [load_pairs(folder, split=name) for name in ("train", "validation", "test")]
    assert sorted(chip for part in parts for chip in part.chip_ids) == sorted(everything.chip_ids)
    assert set(parts[0].table["split"]) == {"train"}
    assert everything.chips.shape == (len(everything), 4, 32, 32)
    assert everything.sensor.name == "world-1m"
    assert everything.gsd == 1.0


def test_owner_positions_and_ids_belong_together(folder):
    pairs = load_pairs(folder)
    assert (np.diff(pairs.owner) >= 0).all()
    assert np.bincount(pairs.owner).tolist() == pairs.table["photos"].tolist()
    assert len(pairs.positions) == len(pairs.photo_ids) == len(pairs.accuracy) == len(pairs.owner)
    assert ((pairs.positions >= 0) & (pairs.positions < 32)).all()


def test_an_epoch_visits_every_chip_once_with_all_its_photos(folder):
    pairs = load_pairs(folder)
    batches = list(pairs.batches(10, seed=0, epoch=0))
    assert sorted(np.concatenate([batch.chips for batch in batches])) == list(range(len(pairs)))
    assert sorted(np.concatenate([batch.photos for batch in batches])) == list(range(len(pairs.owner)))
    sizes = {len(batch.chips) for batch in batches}
    assert max(sizes) <= 10
    assert max(sizes) - min(sizes) <= 1


def test_owners_count_inside_the_batch(folder):
    pairs = load_pairs(folder)
    for batch in pairs.batches(7, seed=1, epoch=2):
        assert (batch.chips[batch.owner] == pairs.owner[batch.photos]).all()
        assert (batch.positions == pairs.positions[batch.photos]).all()
        assert set(batch.owner) == set(range(len(batch.chips)))


def test_epochs_and_seeds_shuffle_otherwise_and_repeat_exactly(folder):
    pairs = load_pairs(folder)

    def first(**which):
        return next(pairs.batches(10, **which)).chips.tolist()

    assert first(seed=0, epoch=0) == first(seed=0, epoch=0)
    assert first(seed=0, epoch=0) != first(seed=0, epoch=1)
    assert first(seed=0, epoch=0) != first(seed=1, epoch=0)


def test_overlaps_are_those_of_the_footprints(folder):
    pairs = load_pairs(folder)
    left, top = pairs.table["left"].to_numpy(), pairs.table["top"].to_numpy()
    for chip, others in enumerate(pairs.overlaps):
        near = (np.abs(left - left[chip]) < 32) & (np.abs(top - top[chip]) < 32)
        near[chip] = False
        shared = (32 - np.abs(left - left[chip])) * (32 - np.abs(top - top[chip]))
        expected = np.flatnonzero(near & (shared > 2))
        assert set(expected) <= set(others.tolist()) <= set(np.flatnonzero(near))
    assert sum(map(len, pairs.overlaps)) > 50


def test_chips_that_overlap_go_into_different_batches(folder):
    pairs = load_pairs(folder)
    for batch in pairs.batches(12, seed=0, epoch=0):
        for chip in batch.chips:
            assert not set(pairs.overlaps[chip].tolist()) & set(batch.chips.tolist())


def test_a_selection_keeps_chips_and_photos_together(folder):
    pairs = load_pairs(folder)
    some = pairs.select(np.array([5, 2]))
    assert some.chip_ids.tolist() == pairs.chip_ids[[5, 2]].tolist()
    assert some.table["chip_id"].tolist() == some.chip_ids.tolist()
    assert some.photo_ids[some.owner == 1].tolist() == pairs.photo_ids[pairs.owner == 2].tolist()
    assert (some.chips[0] == pairs.chips[5]).all()


def test_embeddings_stand_beside_their_photos(grid_plan, make_pictures, teacher, tmp_path):
    colours = [tuple(colour) for colour in np.random.default_rng(0).integers(0, 255, (31, 3)).tolist()]
    uris = make_pictures(colours)
    (tmp_path / "pictures" / "0007.png").write_bytes(b"broken")
    out = grid_plan(30, uris=uris)
    materialise(out, workers=1)
    embed_photos(out, teacher)
    pairs = load_pairs(out, split="train", teacher=teacher.fingerprint)
    assert "p00007" not in pairs.photo_ids
    assert set(pairs.owner) == set(range(len(pairs)))
    expected = np.array([colours[int(name[1:])] for name in pairs.photo_ids], float) + 1
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert pairs.embeddings.dtype == np.float16
    assert pairs.embeddings == pytest.approx(expected, abs=1e-3)


def test_what_is_absent_is_named(folder, tmp_path):
    with pytest.raises(EmptySplit, match="holds no chips"):
        load_pairs(folder, split="holiday")
    with pytest.raises(MissingInput, match="embed the photos"):
        load_pairs(folder, teacher="0000")
    with pytest.raises(MissingInput):
        load_pairs(tmp_path / "nowhere")


def test_a_shard_that_is_absent_or_damaged_is_named(folder):
    first, second, *_, last = shard_paths(folder)
    first.rename(first.with_suffix(".away"))
    with pytest.raises(MissingShard, match=r"lacks the pixels of 16 chips \(part-00000.parquet absent\)"):
        load_pairs(folder)
    first.with_suffix(".away").rename(first)
    last.rename(last.with_suffix(".away"))
    with pytest.raises(MissingShard, match=r"12 chips \(no shard after part-00002.parquet\).*materialise"):
        load_pairs(folder)
    last.with_suffix(".away").rename(last)
    second.write_bytes(second.read_bytes()[:-30])
    with pytest.raises(UnreadableTable, match=r"part-00001\.parquet is not a whole shard"):
        load_pairs(folder)


def test_chips_of_several_sensors_or_sizes_are_refused(folder):
    table = pd.read_parquet(folder / "chips.parquet")
    for change in ({"sensor": "naip"}, {"size": 64}, {"gsd": 0.5}):
        mixed = table.copy()
        for name, value in change.items():
            mixed.loc[mixed.index[:3], name] = value
        mixed.to_parquet(folder / "chips.parquet")
        with pytest.raises(MixedSensors, match="one folder of pairs a sensor"):
            load_pairs(folder)
    table.to_parquet(folder / "chips.parquet")
    path = shard_paths(folder)[2]
    shard = pq.read_table(path)
    pq.write_table(shard.replace_schema_metadata({**shard.schema.metadata, b"shape": b"[4, 64, 64]"}), path)
    with pytest.raises(MixedSensors, match=r"part-00002.parquet holds chips of the shape \[4, 64, 64\]"):
        load_pairs(folder)


def test_what_cannot_be_dealt_is_refused(folder):
    pairs = load_pairs(folder)
    with pytest.raises(BadSetting):
        next(pairs.batches(0, seed=0, epoch=0))
    with pytest.raises(BadSetting, match="count from 0"):
        next(pairs.batches(4, seed=0, epoch=0, share=(2, 2)))
    with pytest.raises(BadSetting, match="memory"):
        load_pairs(folder, memory_gb=0)
    with pytest.raises(BadSetting, match="window"):
        load_pairs(folder, windows=0)
    with pytest.raises(BadSetting, match="teacher"):
        load_pairs(folder, tags=True)


def test_headings_stand_beside_their_photos(folder):
    pairs = load_pairs(folder)
    first = pairs.positions[:, 1] == 3.5
    assert pairs.heading.dtype == np.float32
    assert (pairs.heading[first] == 90).all()
    assert np.isnan(pairs.heading[~first]).all()
    table = pd.read_parquet(folder / "pairs.parquet")
    table.drop(columns="heading_deg").to_parquet(folder / "pairs.parquet")
    assert np.isnan(load_pairs(folder).heading).all()


def test_centres_are_the_middles_of_the_footprints(folder):
    pairs = load_pairs(folder)
    bounds = np.radians(pairs.table.geometry.bounds.to_numpy())
    lon, lat = bounds[:, [0, 2]].mean(axis=1), bounds[:, [1, 3]].mean(axis=1)
    expected = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    assert pairs.centres == pytest.approx(expected, abs=1e-8)
    some = pairs.select(np.array([7, 3]))
    assert (some.centres == pairs.centres[[7, 3]]).all()


# --- streams ----------------------------------------------------------------------------------------------


def test_a_stream_gives_what_loading_gives(folder):
    pairs = load_pairs(folder, split="train")
    streamed = {chip.chip_id: chip for chip in iter_chips(folder, "train")}
    assert set(streamed) == set(pairs.chip_ids)
    for row in range(len(pairs)):
        chip = streamed[pairs.chip_ids[row]]
        assert (chip.pixels == pairs.chips[row]).all()
        assert [photo["photo_id"] for photo in chip.photos] == pairs.photo_ids[pairs.owner == row].tolist()
        assert [(photo["row"], photo["col"]) for photo in chip.photos] == [
            tuple(place) for place in pairs.positions[pairs.owner == row].tolist()
        ]


def test_readers_share_the_shards(folder):
    everything = [chip.chip_id for chip in iter_chips(folder)]
    parts = [[chip.chip_id for chip in iter_chips(folder, part=(number, 3))] for number in range(3)]
    assert sorted(chip for some in parts for chip in some) == sorted(everything)
    assert all(parts)
    with pytest.raises(BadSetting):
        next(iter_chips(folder, part=(3, 3)))
    with pytest.raises(MissingInput, match="materialise"):
        next(iter_chips(folder / "nowhere"))


def test_a_chip_s_pixels_are_those_of_its_scene_at_its_geobox(folder, tmp_path):
    scene = open_scene(tmp_path / "scenes" / "world-1m_2024-06-01.tif")
    chip = next(iter_chips(folder))
    assert (chip.pixels == read(scene, chip.geobox).pixels).all()
    assert chip.taken.isoformat() == "2024-06-01T00:00:00+00:00"
    assert chip.embeddings.shape == (0, 0)


def test_duckdb_reads_the_shards(folder):
    found = duckdb.sql(f"select chip_id, len(photos) photos, photos[1].col col from '{folder}/shards/*.parquet'").df()
    chips = pd.read_parquet(folder / "chips.parquet", columns=["chip_id", "photos"])
    assert found.set_index("chip_id")["photos"].to_dict() == chips.set_index("chip_id")["photos"].to_dict()
    assert (found["col"] == 3.5).all()
    ((gap,),) = duckdb.sql(
        f"select max(photo.time_gap_days) from '{folder}/shards/*.parquet', unnest(photos) as _(photo)"
    ).fetchall()
    assert gap == pytest.approx(0.5 + 59 / 24)


def test_hugging_face_streams_the_shards(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    from datasets import load_dataset

    files = [str(path) for path in shard_paths(folder)]
    rows = list(load_dataset("parquet", data_files=files, streaming=True, split="train"))
    expected = {chip.chip_id: chip for chip in iter_chips(folder)}
    assert {row["chip_id"] for row in rows} == set(expected)
    about = {"shape": "[4, 32, 32]", "dtype": "uint8", "encoding": "lossless"}
    for row in rows:
        assert (decode(row["pixels"], about) == expected[row["chip_id"]].pixels).all()
        assert len(row["photos"]) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_ray_data_reads_the_shards(folder):
    ray = pytest.importorskip("ray")
    from geograft.engine import RayEngine

    with RayEngine(workers=1):
        table = ray.data.read_parquet(str(folder / "shards"), file_extensions=["parquet"])
        assert table.count() == 60
        rows = table.select_columns(["chip_id", "pixels"]).take(3)
    expected = {chip.chip_id: chip.pixels.tobytes() for chip in iter_chips(folder)}
    assert all(expected[row["chip_id"]] == row["pixels"] for row in rows)


def test_a_chip_is_a_sample_of_torchgeo(folder):
    import torch
    from pyproj import CRS

    chip = next(iter_chips(folder))
    sample = torchgeo_sample(chip)
    assert set(sample) == {"image", "crs", "bounds", "transform"}
    assert sample["image"].dtype == torch.float32
    assert (sample["image"].numpy() == chip.pixels).all()
    assert sample["crs"] == CRS.from_epsg(32632)
    left, right, step, bottom, top, _, start, stop, _ = sample["bounds"].tolist()
    assert (right - left, top - bottom, step) == (32, 32, 1)
    assert start == stop == chip.taken.timestamp()
    assert sample["transform"].tolist() == [1, 0, left, 0, -1, top, 0, 0, 1]
