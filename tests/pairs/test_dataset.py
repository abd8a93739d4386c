import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.errors import BadSetting, EmptySplit, MissingInput, UnreadableTable
from geograft.pairs.dataset import _spread, load_pairs
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.pairs.shards import shard_paths


@pytest.fixture
def folder(scattered, make_ground, tmp_path):
    settings = PairSettings(chip_size=32, block_m=96, buffer_m=16, fractions=(0.6, 0.2, 0.2), shard_chips=16)
    make_pairs(scattered(300), make_ground(400), tmp_path / "pairs", settings=settings)
    return tmp_path / "pairs"


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


def test_embeddings_stand_beside_their_photos(make_photos, make_ground, make_pictures, teacher, tmp_path):
    rng = np.random.default_rng(0)
    colours = [tuple(colour) for colour in rng.integers(0, 255, (40, 3)).tolist()]
    uris = make_pictures(colours)
    (tmp_path / "pictures" / "0007.png").write_bytes(b"broken")
    photos = make_photos(*rng.uniform(50, 350, (2, 40)), uri=uris)
    make_pairs(photos, make_ground(400), tmp_path / "out", settings=PairSettings(chip_size=32, split="none"))
    embed_photos(tmp_path / "out", teacher)
    pairs = load_pairs(tmp_path / "out", split="train", teacher=teacher.fingerprint)
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
