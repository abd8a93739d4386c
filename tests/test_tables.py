import errno
import io
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from geograft.errors import BadSetting, DiskFull, MissingColumns, MissingInput, UnreadableTable, UnwritableOutput
from geograft.tables import (
    Manifest,
    atomic,
    check_output,
    is_disk_full,
    manifest_path,
    read_manifest,
    read_table,
    track,
    write_manifest,
    write_table,
)


def points():
    return gpd.GeoDataFrame({"id": ["a", "b"]}, geometry=gpd.points_from_xy([1, 2], [3, 4]), crs="EPSG:4326")


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new folder" / "out.txt"
    with atomic(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_earlier_file_and_no_trace(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("earlier")

    def interrupted():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_can_be_written_atomically(tmp_path):
    with atomic(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
    assert (tmp_path / "model" / "config.json").read_text() == "{}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    def overflow():
        with atomic(tmp_path / "out.bin") as temporary:
            temporary.write_bytes(b"begun")
            Path("/dev/full").write_bytes(b"more")

    with pytest.raises(DiskFull, match="free some space"):
        overflow()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_from_the_words_of_libraries_without_errno():
    error = RuntimeError("I/O error: No space left on device (os error 28)")
    wrapped = ValueError("cannot write")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_disk_full(error)
    assert is_disk_full(wrapped)
    assert not is_disk_full(OSError(errno.EACCES, "no permission"))


def test_a_table_comes_back_with_its_geometry_and_compression(tmp_path):
    path = write_table(points(), tmp_path / "points.parquet")
    found = read_table(path)
    assert isinstance(found, gpd.GeoDataFrame)
    assert found.crs.to_epsg() == 4326
    assert found.geometry.x.tolist() == [1, 2]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_columns_without_geometry_come_back_as_a_plain_table(tmp_path):
    path = write_table(points(), tmp_path / "points.parquet")
    found = read_table(path, columns=["id"])
    assert not isinstance(found, gpd.GeoDataFrame)
    assert found.columns.tolist() == ["id"]


def test_the_row_index_is_not_written(tmp_path):
    path = write_table(pd.DataFrame({"id": [1, 2]}, index=[7, 9]), tmp_path / "t.parquet")
    assert pq.read_schema(path).names == ["id"]


def test_missing_and_damaged_tables_are_named(tmp_path):
    with pytest.raises(MissingInput):
        read_table(tmp_path / "none.parquet")
    path = write_table(points(), tmp_path / "points.parquet")
    with pytest.raises(MissingColumns, match=r"heading.*it has id, geometry"):
        read_table(path, columns=["id", "heading"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableTable):
        read_table(path)


@dataclass(frozen=True)
class Settings:
    folder: Path = Path("a/b")
    kinds: tuple[str, ...] = ("x",)
    allowed: frozenset[str] = frozenset({"b", "a"})


def test_a_manifest_comes_back_and_holds_only_plain_json(tmp_path):
    counts = {"done": np.int64(3), "skipped": {"no-gps": 1}, "failed": {}}
    path = write_manifest(tmp_path, Manifest("photos", {"source": Path("p")}, Settings(), counts))
    found = read_manifest(tmp_path)
    assert path == tmp_path / "manifest.json"
    assert json.loads(path.read_text())["settings"] == {"folder": "a/b", "kinds": ["x"], "allowed": ["a", "b"]}
    assert found.counts == {"done": 3, "skipped": {"no-gps": 1}, "failed": {}}
    assert found.versions["geograft"]


def test_two_tables_of_one_folder_keep_their_own_manifests(tmp_path):
    assert manifest_path(tmp_path / "photos.parquet") == tmp_path / "photos.manifest.json"
    assert manifest_path(tmp_path / "new") == tmp_path / "new" / "manifest.json"
    assert manifest_path(tmp_path / "mine.json") == tmp_path / "mine.json"


def test_a_missing_or_broken_manifest_is_named(tmp_path):
    with pytest.raises(MissingInput):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UnreadableTable):
        read_manifest(tmp_path)


def test_progress_is_silent_where_nobody_watches(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="geograft"):
        assert list(track(iter("abc"), "Counting letters")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert caplog.messages == ["Counting letters: 3"]


def test_progress_is_drawn_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track([1, 2], "Counting numbers")) == [1, 2]
    assert "Counting numbers" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()


def test_a_place_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("mine")
    for path, advice in (("file/below.txt", "a folder is needed"), ("folder", "name a file")):
        with pytest.raises(UnwritableOutput, match=advice), atomic(tmp_path / path) as temporary:
            temporary.write_text("new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "inside"]


def test_a_full_disk_is_told_even_where_the_library_says_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr("geograft.tables.shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DiskFull), atomic(tmp_path / "out.pt"):
        raise RuntimeError("unexpected pos 1055424 vs 1055312")
    with pytest.raises(BadSetting), atomic(tmp_path / "out.pt"):
        raise BadSetting("an error with a name keeps it")
    assert not list(tmp_path.iterdir())


def test_outputs_are_checked_before_work_goes_into_them(tmp_path):
    given = tmp_path / "scene.tif"
    given.write_text("mine")
    check_output(tmp_path / "new" / "map.tif", (".tif",), inputs=[given])
    for path, error in ((given, UnwritableOutput), (tmp_path, UnwritableOutput), (given / "map.tif", UnwritableOutput),
                        (tmp_path / "map.jpg", BadSetting)):  # fmt: skip
        with pytest.raises(error, match="Cannot write"):
            check_output(path, (".tif",), inputs=[given])
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]
