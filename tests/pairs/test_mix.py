import shutil

import numpy as np
import pytest

from geograft.errors import BadSetting
from geograft.pairs.dataset import load_pairs
from geograft.pairs.materialise import materialise
from geograft.pairs.mix import PairMix, load_mix


@pytest.fixture
def folders(narrow, grid_plan, kept_once, tmp_path):
    """Pairs of 60 and of 24 chips; made once, and copied for each test."""
    if not (kept_once / "other").is_dir():
        other = grid_plan(24, name="made")
        materialise(other, workers=1)
        other.rename(kept_once / "other")
    shutil.copytree(kept_once / "other", tmp_path / "other")
    return [narrow, tmp_path / "other"]


@pytest.fixture
def mix(folders):
    return PairMix([load_pairs(folder) for folder in folders])


def dealt(mix, **more):
    return [(one.set, one.batch.chips.tolist()) for one in mix.batches(5, **({"seed": 1, "epoch": 2} | more))]


def test_every_chip_of_every_set_comes_once_an_epoch(mix):
    batches = dealt(mix)
    assert len(mix) == 84
    assert len(batches) == mix.steps(5) == 12 + 5
    for number, pairs in enumerate(mix.sets):
        chips = [chip for which, some in batches if which == number for chip in some]
        assert sorted(chips) == list(range(len(pairs)))


def test_a_set_s_batches_are_those_that_it_deals_alone(mix):
    batches = dealt(mix)
    for number, pairs in enumerate(mix.sets):
        alone = [batch.chips.tolist() for batch in pairs.batches(5, seed=1, epoch=2)]
        assert [some for which, some in batches if which == number] == alone


def test_sets_take_turns_in_an_order_of_seed_and_epoch(mix):
    first = mix.order(5, seed=0, epoch=0).tolist()
    assert first == mix.order(5, seed=0, epoch=0).tolist()
    assert first != sorted(first)
    assert len({tuple(mix.order(5, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("skip", [0, 1, 6, 16, 17, 40])
def test_a_mix_goes_on_after_skipped_batches(mix, skip):
    assert dealt(mix, skip=skip) == dealt(mix)[skip:]


def test_pixels_are_those_of_the_batch_s_set(mix):
    for one in mix.batches(5, seed=0, epoch=0):
        whole = mix.sets[one.set].chips[one.batch.chips]
        assert (mix.pixels(one) == whole).all()
        assert (mix.pixels(one, slice(1, 3)) == whole[1:3]).all()


def test_sets_share_the_memory_by_their_pixels(folders):
    whole = 84 * 4 * 32 * 32
    held = load_mix(folders, memory_gb=whole / 1e9)
    assert [pairs.source.in_memory for pairs in held.sets] == [True, True]
    windowed = load_mix(folders, memory_gb=whole / 2e9, split="train")
    assert sum(pairs.source.budget for pairs in windowed.sets) <= whole / 2
    windowed = load_mix(folders, memory_gb=whole / 4e9)
    assert [pairs.source.in_memory for pairs in windowed.sets] == [False, False]
    assert dealt(windowed) == dealt(load_mix(folders, windows=[pairs.windows for pairs in windowed.sets]))
    plain = [load_pairs(folder).chips for folder in folders]
    for one in windowed.batches(5, seed=0, epoch=0):
        assert (windowed.pixels(one) == plain[one.set][one.batch.chips]).all()


def test_a_mix_of_nothing_is_refused(folders):
    with pytest.raises(BadSetting, match="at least one"):
        load_mix([])
    with pytest.raises(BadSetting, match="2 folders need as many windows, not 1"):
        load_mix(folders, windows=[4])


def test_a_mix_of_one_set_is_that_set(folders):
    alone = load_pairs(folders[1])
    batches = [one.batch.chips for one in PairMix((alone,)).batches(7, seed=3, epoch=0)]
    expected = [batch.chips for batch in alone.batches(7, seed=3, epoch=0)]
    assert all(np.array_equal(one, other) for one, other in zip(batches, expected, strict=True))
