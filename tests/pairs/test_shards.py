import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from geograft.errors import DiskFull, UnreadableTable
from geograft.pairs import shards
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.pairs.shards import read_pixels, shard_metadata, shard_paths
from geograft.tables import read_table

SETTINGS = PairSettings(chip_size=32, block_m=96, fractions=(0.6, 0.2, 0.2), shard_chips=8)

SLOW_RUN = """
import sys, time
from pathlib import Path
from geograft.pairs import shards
from geograft.pairs.plan import make_pairs
from tests_settings import SETTINGS

cut = shards.cut
def slow(*given):
    time.sleep(0.02)
    return cut(*given)
shards.cut = slow
make_pairs(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), settings=SETTINGS)
"""


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_when(ready, command, environment):
    """Start a program, and kill -9 it as soon as `ready` holds."""
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, "the program ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def test_a_killed_run_resumes_to_the_same_bytes(scattered, make_ground, tmp_path):
    photos, scenes = scattered(200), make_ground(400)
    make_pairs(photos, scenes, tmp_path / "whole", settings=SETTINGS)
    (tmp_path / "tests_settings.py").write_text(
        f"from geograft.pairs.plan import PairSettings\nSETTINGS = {SETTINGS!r}\n"
    )
    out = tmp_path / "killed"
    command = [sys.executable, "-c", SLOW_RUN, str(photos), str(scenes), str(out)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    kill_when(lambda: len(shard_paths(out)) >= 2, command, environment)
    survived = {path: path.stat().st_mtime_ns for path in shard_paths(out)}
    assert not (out / "manifest.json").exists()
    assert 2 <= len(survived) < len(shard_paths(tmp_path / "whole"))
    (out / "shards" / ".part-00003.dead.part.parquet").write_bytes(b"half")
    make_pairs(photos, scenes, out, settings=SETTINGS)
    assert contents(out) == contents(tmp_path / "whole")
    assert survived.items() <= {path: path.stat().st_mtime_ns for path in shard_paths(out)}.items()


def test_a_full_disk_leaves_whole_shards_to_go_on_from(scattered, make_ground, tmp_path, monkeypatch):
    photos, scenes = scattered(200), make_ground(400)
    monkeypatch.setattr(shards, "pq", FullDisk(3))
    with pytest.raises(DiskFull, match="run again"):
        make_pairs(photos, scenes, tmp_path / "out", settings=SETTINGS)
    assert sorted(path.name for path in (tmp_path / "out" / "shards").iterdir()) == [
        f"part-{row:05d}.parquet" for row in range(3)
    ]
    monkeypatch.undo()
    make_pairs(photos, scenes, tmp_path / "out", settings=SETTINGS)
    make_pairs(photos, scenes, tmp_path / "whole", settings=SETTINGS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class FullDisk:
    """pyarrow.parquet on a disk with room for some files."""

    def __init__(self, room):
        self.room = room

    def write_table(self, *given, **options):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        self.room -= 1
        return pq.write_table(*given, **options)

    def __getattr__(self, name):
        return getattr(pq, name)


def test_shards_hold_every_chip_once_with_its_native_bytes(scattered, make_ground, tmp_path):
    make_pairs(scattered(200), make_ground(400), tmp_path / "out", settings=SETTINGS)
    chips = read_table(tmp_path / "out" / "chips.parquet")
    paths = shard_paths(tmp_path / "out")
    ids = [chip for path in paths for chip in pq.read_table(path)["chip_id"].to_pylist()]
    assert set(chips["chip_id"]) == set(ids)
    assert len(ids) == len(set(ids)) > 50
    about = shard_metadata(paths[0])
    assert (about["shape"], about["dtype"], about["sensor"]) == ("[4, 32, 32]", "uint8", "world-1m")
    raw = pq.read_table(paths[0])["pixels"][0].as_py()
    found, pixels = read_pixels(paths[0], frozenset(ids))
    assert found == pq.read_table(paths[0])["chip_id"].to_pylist()
    assert pixels[0].tobytes() == raw
    assert len(raw) == 4 * 32 * 32


def test_sixteen_bit_pixels_keep_their_values(make_photos, make_scene, tmp_path):
    from affine import Affine

    from geograft.sources.scenes import read_scenes

    pixels = np.random.default_rng(0).integers(1000, 60_000, (5, 40, 40)).astype(np.uint16)
    make_scene("ten/a.tif", sensor="world-10m", pixels=pixels, transform=Affine(10, 0, 500_000, 0, -10, 5_000_000))
    read_scenes(tmp_path / "ten", tmp_path / "ten.parquet", sensor="world-10m")
    photos = make_photos([200.0], [200.0])
    make_pairs(photos, tmp_path / "ten.parquet", tmp_path / "out", settings=PairSettings(chip_size=32, split="none"))
    found, chips = read_pixels(
        shard_paths(tmp_path / "out")[0], frozenset(read_table(tmp_path / "out" / "chips.parquet")["chip_id"])
    )
    assert len(found) == 1
    assert chips.dtype == np.uint16
    assert (chips[0] == pixels[:, 4:36, 4:36]).all()


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 not whole")
    with pytest.raises(UnreadableTable, match=r"part-00000\.parquet"):
        shard_metadata(tmp_path / "part-00000.parquet")


def test_a_shard_damaged_inside_is_named(scattered, make_ground, tmp_path):
    make_pairs(scattered(60, 200), make_ground(200), tmp_path / "out", settings=SETTINGS)
    path = shard_paths(tmp_path / "out")[0]
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = bytes(len(content) - footer - 4)
    path.write_bytes(content)
    assert shard_metadata(path)
    with pytest.raises(UnreadableTable, match="damaged"):
        read_pixels(path, frozenset({"any"}))


def test_a_shard_that_was_removed_is_cut_again(scattered, make_ground, tmp_path):
    tables = scattered(60, 200), make_ground(200)
    make_pairs(*tables, tmp_path / "out", settings=SETTINGS)
    before = contents(tmp_path / "out")
    shard_paths(tmp_path / "out")[0].unlink()
    make_pairs(*tables, tmp_path / "out", settings=SETTINGS)
    assert contents(tmp_path / "out") == before


def test_finished_pairs_with_a_shard_cut_short_are_not_called_done(scattered, make_ground, tmp_path):
    tables = scattered(60, 200), make_ground(200)
    make_pairs(*tables, tmp_path / "out", settings=SETTINGS)
    path = shard_paths(tmp_path / "out")[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableTable, match="remove it and run again"):
        make_pairs(*tables, tmp_path / "out", settings=SETTINGS)
