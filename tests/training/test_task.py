"""Pairs as the loop's task: what one process prepares, several prepare together; several train as one does."""

import dataclasses
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geograft.errors import BadSetting, MixedSensors
from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.models.teacher import load_teacher
from geograft.pairs.dataset import load_pairs
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.mix import PairMix
from geograft.pairs.tags import embed_tags
from geograft.training.augment import draw_ways, turn
from geograft.training.loop import Share
from geograft.training.losses import LossVariant
from geograft.training.settings import TrainingSettings
from geograft.training.task import PairTask

SCRIPT = Path(__file__).with_name("together.py")
together = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(scope="module")
def teacher(tiny_teacher):
    return load_teacher(str(tiny_teacher.folder))


@pytest.fixture(scope="module")
def read(teacher):
    """Reads a split of a folder with what the teacher makes of it."""

    def load(folder, split="train", **options):
        embed_photos(folder, teacher)
        if options.get("tags"):
            embed_tags(folder, teacher)
        return load_pairs(folder, split=split, teacher=teacher.fingerprint, **options)

    return load


def make_task(learn, check=None, *, level="joint", **options):
    levels = ("image", "pixel") if level == "joint" else (level,)
    first = learn.sets[0] if isinstance(learn, PairMix) else learn
    size = first.shape[-1]
    torch.manual_seed(0)
    shape = EncoderSettings(first.sensor.bands, 16, size, size // 4, width=32, depth=1, heads=2)
    watch, share = options.pop("watch", None), options.pop("share", Share())
    settings = TrainingSettings(**({"batch": 4, "level": level} | options))
    return PairTask(SatelliteEncoder(shape), levels, learn, check, settings, watch=watch, share=share)


# --- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_skipped_batches_leave_the_others_as_they_are(read, pairs, skip):
    task = make_task(read(pairs))
    whole, tail = ([task.prepare(batch, Share()) for batch in task.batches(3, skip=gone)] for gone in (0, skip))
    assert len(whole) == task.steps == 3
    assert len(tail) == 3 - skip
    for one, other in zip(whole[skip:], tail, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_every_chip_comes_once_an_epoch_by_its_name(read, pairs):
    learn = read(pairs)
    task = make_task(learn)
    named = [chip for batch in task.batches(1) for chip in task.members(batch)]
    assert sorted(named) == sorted(learn.chip_ids)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_shares_put_together_are_the_whole_batch(read, tagged_pairs, world):
    task = make_task(read(tagged_pairs, tags=True), tags=0.5, light=1.0)
    for batch in task.batches(0):
        whole = task.prepare(batch, Share())
        parts = [task.prepare(batch, Share(rank, world)) for rank in range(world)]
        for name in ("chips", "mine", "taken", "positions", "error", "headings"):
            joined = torch.cat([getattr(part, name) for part in parts])
            torch.testing.assert_close(joined, getattr(whole, name), rtol=0, atol=0, equal_nan=True)
        for name in ("total", "photos", "owner", "centres", "tags", "tagged"):
            for part in parts:
                torch.testing.assert_close(getattr(part, name), getattr(whole, name), rtol=0, atol=0)
        assert [part.shared for part in parts] == [True] * world
        assert not whole.shared


def test_light_changes_pixels_and_nothing_else(read, pairs):
    plain, lit = (make_task(read(pairs), jitter=0.0, light=light) for light in (0.0, 1.0))
    batch = next(plain.batches(0))
    one, other = plain.prepare(batch, Share()), lit.prepare(batch, Share())
    assert not torch.equal(one.chips, other.chips)
    assert torch.equal(one.positions, other.positions)


def test_chips_are_turned_with_their_photos_and_differ_from_epoch_to_epoch(read, pairs):
    learn = read(pairs)
    task = make_task(learn, jitter=0.0)
    batch = next(task.batches(0))
    prepared = task.prepare(batch, Share())
    plain = torch.from_numpy(learn.sensor.normalise(learn.pixels(batch.mixed.batch.chips)))
    ways = draw_ways(len(plain), torch.Generator().manual_seed(batch.seed))
    torch.testing.assert_close(prepared.chips, turn(plain, ways))
    for photo, place in enumerate(prepared.positions.tolist()):
        chip = int(prepared.owner[photo])
        row, column = (min(63, int(value)) for value in batch.mixed.batch.positions[photo])
        marked = torch.zeros(1, 1, 64, 64)
        marked[0, 0, row, column] = 1
        found = turn(marked, ways[[chip]])[0, 0].nonzero()[0].tolist()
        assert np.abs(np.array(found) + 0.5 - place).max() <= 0.5 + 1e-4
    assert len({step.seed for epoch in (0, 1) for step in task.batches(epoch)}) == 6


def test_several_sets_of_one_sensor_take_turns(read, pairs):
    learn, more = read(pairs), read(pairs, split="validation")
    task = make_task(PairMix((learn, more)))
    named = [chip for batch in task.batches(0) for chip in task.members(batch)]
    assert sorted(named) == sorted([*learn.chip_ids, *more.chip_ids])
    losses = []
    for batch in task.batches(0):
        prepared = task.prepare(batch, Share())
        losses.append(task.compare(task.encode(task.model, prepared, slice(None)), prepared))
    assert torch.isfinite(torch.stack(losses)).all()


def test_sets_of_several_sensors_or_scales_are_refused(read, pairs, coarse_pairs):
    fine, coarse = read(pairs), read(coarse_pairs)
    with pytest.raises(MixedSensors, match=r"world-10m at 10 m \(8 px\), world-1m at 1 m \(64 px\).*several sensors"):
        make_task(PairMix((fine, coarse)))
    with pytest.raises(MixedSensors, match=r"world-1m at 1 m \(64 px\), world-1m at 2 m .*same gsd and chip_size"):
        make_task(fine, dataclasses.replace(fine, gsd=2.0))


def test_both_ways_needs_a_chip_for_each_process(read, pairs):
    task = make_task(read(pairs), variant=LossVariant(both_ways=1.0))
    batch = next(task.batches(0))
    assert task.rows(task.prepare(batch, Share(2, 3))) == 1
    with pytest.raises(BadSetting, match="a batch has 3 for 4"):
        task.prepare(batch, Share(3, 4))


def test_a_process_reads_its_own_pixels_ahead_and_no_others(read, pairs, monkeypatch):
    learn = read(pairs, memory_gb=1e-4)
    assert learn.windows > 1
    shares = []
    monkeypatch.setattr(PairMix, "batches", lambda *_, share, **__: shares.append(share) or iter(()))
    make_task(learn, share=Share(1, 2)).batches(0)
    assert shares == [Share(1, 2)]


# --- validation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["image", "pixel", "joint"])
def test_validation_is_the_mean_loss_of_plain_batches_and_the_recall_of_chips(read, pairs, level):
    check = read(pairs, split="validation")
    task = make_task(read(pairs), check, level=level)
    task.model.eval()
    with torch.inference_mode():
        figures = task.validate(task.model)
        chips = torch.from_numpy(check.sensor.normalise(check.chips))
        both = dict(zip(("image", "pixel"), task.model.both(chips), strict=True))
        found = [both[one] for one in task.levels]
        losses = []
        for batch in check.batches(4, seed=0, epoch=0):
            prepared = task._tensors(check, batch, Share())
            losses.append(float(task.objective([value[torch.from_numpy(batch.chips)] for value in found], prepared)))
    photos = torch.from_numpy(np.asarray(check.embeddings, np.float32))
    scores = (photos @ found[0].flatten(2)).amax(-1).T if found[0].ndim == 4 else photos @ found[0].T
    own = scores.gather(1, torch.from_numpy(check.owner)[:, None])
    ranks = (scores >= own).sum(1).numpy()
    assert figures["val_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert figures["median_rank"] == pytest.approx(np.median(ranks) / len(check))
    assert figures["recall_10pc"] == pytest.approx((ranks <= max(1, 0.1 * len(check))).mean())
    assert set(figures) == {"val_loss", "recall_1pc", "recall_10pc", "median_rank"}


def test_what_is_watched_is_reported_with_and_without_validation_pairs(read, pairs):
    learn, check = read(pairs), read(pairs, split="validation")
    for some in (None, check):
        task = make_task(learn, some, watch=lambda _: {"val_miou": 0.25})
        with torch.inference_mode():
            assert task.validate(task.model)["val_miou"] == 0.25
    assert make_task(learn).validate(None) == {}


# --- several processes --------------------------------------------------------------------------------------


def test_two_processes_of_torchrun_end_with_the_weights_of_one(tagged_pairs, tiny_teacher, tmp_path):
    given = [str(tagged_pairs), str(tiny_teacher.folder)]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    ended = subprocess.run(
        [sys.executable, *command, str(tmp_path / "two")], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    together.main(*given, str(tmp_path / "one"))
    one, two = (
        torch.load(tmp_path / name / "training" / "joint" / "last.pt", weights_only=True) for name in ("one", "two")
    )
    furthest = max(float((one["model"][key] - two["model"][key]).abs().max()) for key in one["model"])
    assert furthest < 1e-5
    for mine, other in zip(one["progress"]["history"]["epochs"], two["progress"]["history"]["epochs"], strict=True):
        assert mine == pytest.approx(other, rel=1e-4)
