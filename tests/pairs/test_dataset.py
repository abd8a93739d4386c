import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.errors import BadSetting, EmptySplit, MissingInput, UnreadableTable
from geograft.pairs.cutting.shards import shard_paths
from geograft.pairs.dataset import _spread, iter_chips, load_pairs, torchgeo_sample
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.encoding import decode
from geograft.pairs.materialise import materialise
from geograft.raster import open_scene, read


@pytest.fixture
def folder(make_ground, make_plan, tmp_path):
    """60 chips of 32 m in four shards, thrown over 400 m."""
    places = np.random.default_rng(0).integers(0, 368, (60, 2)).tolist()
    plan = make_plan(make_ground(400), [{"right": x, "down": y} for x, y in places], name="pairs", shard=16)
    materialise(plan, workers=1)
    return plan


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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_chips_are_dealt_evenly_whatever_overlaps(count, size, seed):
    rng = np.random.default_rng(seed)
    touching = np.triu(rng.random((count, count)) < rng.random(), 1)
    overlaps = [np.flatnonzero(row) for row in touching | touching.T]
    dealt = _spread(rng.permutation(count), overlaps, size)
    assert sorted(np.concatenate(dealt)) == list(range(count))
    assert max(map(len, dealt)) <= size
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_chip_that_overlaps_all_others_takes_no_one_s_place():
    overlaps = [np.arange(1, 10), *[np.array([0])] * 9]
    dealt = _spread(np.arange(10), overlaps, 6)
    assert [len(batch) for batch in dealt] == [5, 5]


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
    shard_paths(folder)[0].unlink()
    with pytest.raises(UnreadableTable, match="lacks the pixels of 16 chips"):
        load_pairs(folder)


def test_a_batch_without_chips_is_refused(folder):
    with pytest.raises(BadSetting):
        next(load_pairs(folder).batches(0, seed=0, epoch=0))


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
