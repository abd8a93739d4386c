import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geograft.errors import MissingShard, UnreadableTable
from geograft.pairs import windows
from geograft.pairs.blocks import Blocks
from geograft.pairs.cutting.shards import shard_paths
from geograft.pairs.dataset import iter_chips, load_pairs
from geograft.pairs.materialise import materialise
from geograft.pairs.windows import machine_memory, part_of, pixel_memory

SMALL_GB = 16 * 4 * 32 * 32 / 1e9
"""Room for sixteen of the 60 chips: an epoch has eight windows, of which two fit."""


def dealt(pairs, **more):
    return [batch.chips.tolist() for batch in pairs.batches(4, **({"seed": 1, "epoch": 2} | more))]


def counted(pairs, monkeypatch):
    """The rows of each block that is read from now on."""
    read = []
    kept = Blocks._read_block

    def noted(self, block, rows, *rest):
        read.append((block, len(rows)))
        return kept(self, block, rows, *rest)

    monkeypatch.setattr(Blocks, "_read_block", noted)
    return read


def test_windows_give_every_chip_once_and_batches_of_one_size(narrow):
    pairs = load_pairs(narrow, memory_gb=SMALL_GB)
    assert not pairs.source.in_memory
    assert pairs.windows == 8
    batches = dealt(pairs)
    assert len(batches) == pairs.steps(4) == 15
    assert sorted(itertools.chain(*batches)) == list(range(60))
    assert {len(batch) for batch in batches} == {4}
    assert batches == dealt(load_pairs(narrow, memory_gb=SMALL_GB))
    assert batches != dealt(pairs, epoch=3)
    assert {len(batch.chips) for batch in pairs.batches(7, seed=0, epoch=0)} == {6, 7}


def test_batches_do_not_depend_on_where_the_pixels_are(narrow):
    windowed, held = load_pairs(narrow, memory_gb=SMALL_GB), load_pairs(narrow, windows=8)
    assert held.source.in_memory
    assert dealt(held) == dealt(windowed)
    assert dealt(load_pairs(narrow, memory_gb=SMALL_GB, windows=1)) == dealt(load_pairs(narrow))


def test_windowed_pixels_are_those_in_memory_and_each_block_is_read_about_once(narrow, monkeypatch):
    windowed, held = load_pairs(narrow, memory_gb=SMALL_GB), load_pairs(narrow)
    whole = held.chips
    read = counted(windowed, monkeypatch)
    for batch in windowed.batches(4, seed=0, epoch=0):
        assert (windowed.pixels(batch.chips) == whole[batch.chips]).all()
    assert sum(rows for _, rows in read) == 60
    assert len(read) <= 15 + 8, "a block at the border of two windows is read for both"


def test_a_loop_may_be_some_batches_ahead(narrow, monkeypatch):
    windowed, held = load_pairs(narrow, memory_gb=SMALL_GB), load_pairs(narrow)
    whole = held.chips
    read = counted(windowed, monkeypatch)
    batches = windowed.batches(2, seed=0, epoch=0)
    before = next(batches)
    for batch in batches:
        assert (windowed.pixels(before.chips) == whole[before.chips]).all()
        before = batch
    assert sum(rows for _, rows in read) == 60


def test_a_thread_that_is_late_gets_the_right_pixels(narrow):
    windowed, held = load_pairs(narrow, memory_gb=SMALL_GB), load_pairs(narrow)
    whole = held.chips
    late = []
    with ThreadPoolExecutor(3) as pool:
        for epoch in range(3):
            batches = windowed.batches(2, seed=0, epoch=epoch)
            late += [(batch.chips, pool.submit(windowed.pixels, batch.chips)) for batch in batches]
    assert len(late) == 3 * 30
    assert all((pixels.result() == whole[chips]).all() for chips, pixels in late)


def test_two_epochs_may_be_read_at_once(narrow):
    windowed, held = load_pairs(narrow, memory_gb=SMALL_GB), load_pairs(narrow)
    whole = held.chips
    both = zip(windowed.batches(4, seed=0, epoch=0), windowed.batches(4, seed=0, epoch=1), strict=True)
    for one, other in both:
        assert (windowed.pixels(one.chips) == whole[one.chips]).all()
        assert (windowed.pixels(other.chips) == whole[other.chips]).all()


@pytest.mark.parametrize("memory", [None, SMALL_GB])
@pytest.mark.parametrize("skip", [0, 1, 2, 7, 14, 15, 99])
def test_an_epoch_goes_on_after_skipped_batches(narrow, memory, skip):
    pairs = load_pairs(narrow, memory_gb=memory)
    assert dealt(pairs, skip=skip) == dealt(pairs)[skip:]


def test_what_only_skipped_batches_need_is_not_read(narrow, monkeypatch):
    pairs = load_pairs(narrow, memory_gb=SMALL_GB)
    read = counted(pairs, monkeypatch)
    for batch in pairs.batches(4, seed=1, epoch=2, skip=11):
        pairs.pixels(batch.chips)
    assert sum(rows for _, rows in read) == 16


def test_processes_deal_the_same_batches_and_read_their_shares(narrow, monkeypatch):
    pairs = load_pairs(narrow, memory_gb=SMALL_GB)
    read = counted(pairs, monkeypatch)
    for rank in range(3):
        before = len(read)
        for batch in pairs.batches(6, seed=1, epoch=2, share=(rank, 3)):
            pairs.pixels(batch.chips[2 * rank : 2 * rank + 2])
        assert sum(rows for _, rows in read[before:]) == 20
    assert dealt(pairs, share=(2, 3)) == dealt(pairs)


def test_pixels_out_of_turn_are_read_from_the_shards(narrow):
    windowed, held = load_pairs(narrow, memory_gb=SMALL_GB), load_pairs(narrow)
    rows = np.array([59, 0, 31, 0])
    assert (windowed.pixels(rows) == held.pixels(rows)).all()
    assert windowed.chips.shape == windowed.shape == held.chips.shape
    assert windowed.chips.dtype == held.chips.dtype
    assert len(windowed.chips) == 60
    for key in (5, -1, slice(3, 9), rows, np.arange(60) % 7 == 0):
        assert (windowed.chips[key] == held.chips[key]).all()
    assert (np.asarray(windowed.chips) == held.chips).all()
    some = windowed.select(np.array([8, 1]))
    assert some.source.in_memory
    assert (some.chips == held.chips[[8, 1]]).all()


def test_a_shard_that_goes_or_changes_in_mid_epoch_is_named(narrow):
    pairs = load_pairs(narrow, memory_gb=SMALL_GB)
    last = shard_paths(narrow)[-1]
    content = last.read_bytes()
    batches = pairs.batches(4, seed=0, epoch=0)
    next(batches)
    last.unlink()
    with pytest.raises(MissingShard, match=r"part-00003\.parquet is gone: put it back"):
        list(batches)
    last.write_bytes(content[:200] + bytes(2000) + content[2200:])
    with pytest.raises(UnreadableTable, match=r"part-00003\.parquet is damaged .*: remove it and run"):
        pairs.pixels(np.arange(60))
    pq.write_table(pq.read_table(shard_paths(narrow)[0]).slice(0, 12), last, row_group_size=4)
    with pytest.raises(UnreadableTable, match=r"part-00003\.parquet holds other chips than when it was opened"):
        pairs.pixels(np.arange(60))


def test_a_chip_of_too_few_bytes_is_named(narrow):
    pairs = load_pairs(narrow)
    path = shard_paths(narrow)[1]
    table = pq.read_table(path)
    pixels = [value[:-5] if row == 2 else value for row, value in enumerate(table["pixels"].to_pylist())]
    table = table.set_column(table.column_names.index("pixels"), "pixels", pa.array(pixels, pa.binary()))
    pq.write_table(table, path, row_group_size=4)
    with pytest.raises(UnreadableTable, match=r"part-00001\.parquet: The pixels of a chip are damaged"):
        pairs.pixels(np.arange(60))


def test_an_epoch_that_is_left_lets_its_windows_go(narrow):
    pairs = load_pairs(narrow, memory_gb=SMALL_GB)
    batches = pairs.batches(4, seed=0, epoch=0)
    next(batches)
    assert pairs.source._runs
    batches.close()
    assert not pairs.source._runs
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("windows")]


def test_jpegs_are_read_in_windows_too(grid_plan):
    out = grid_plan(24, encoding="jpeg")
    materialise(out, workers=1)
    held = {chip.chip_id: chip.pixels for chip in iter_chips(out)}
    pairs = load_pairs(out, memory_gb=SMALL_GB / 2)
    for batch in pairs.batches(5, seed=0, epoch=0):
        for chip, pixels in zip(batch.chips, pairs.pixels(batch.chips), strict=True):
            assert (pixels == held[pairs.chip_ids[chip]]).all()


# --- memory -----------------------------------------------------------------------------------------------


def test_memory_is_what_is_said_or_a_share_of_the_machine_s(monkeypatch):
    assert pixel_memory(2.5) == 2_500_000_000
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    whole = pixel_memory()
    assert whole == int(0.4 * machine_memory())
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert pixel_memory() == pytest.approx(whole / 4, abs=1)


def test_a_container_s_limit_counts(monkeypatch, tmp_path):
    limit, none = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    limit.write_text("1000000\n")
    none.write_text("max\n")
    monkeypatch.setattr(windows, "_CGROUPS", (str(limit), str(none)))
    assert machine_memory() == 1_000_000


def test_processes_share_rows_evenly():
    for count in range(12):
        parts = [part_of(count, (rank, 3)) for rank in range(3)]
        assert [row for part in parts for row in range(count)[part]] == list(range(count))
        assert max(sizes := [part.stop - part.start for part in parts]) - min(sizes) <= 1
