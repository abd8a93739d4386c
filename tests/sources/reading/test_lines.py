import bz2
import gzip

import pytest

from geograft.errors import UnreadableTable
from geograft.sources.reading import lines
from geograft.sources.reading.lines import blocks


@pytest.fixture
def small(monkeypatch):
    """Chunks of 64 bytes and lines of at most 100, so that few bytes cross every border."""
    monkeypatch.setattr(lines, "CHUNK", 64)
    monkeypatch.setattr(lines, "LONGEST", 100)


def read(path, **options):
    found = list(blocks(path, **options))
    return b"".join(block.data for block in found), sum(block.broken for block in found)


def test_all_lines_come_back_in_whole_blocks(tmp_path, small):
    text = "".join(f"{n},Küste {n}\n" for n in range(200)).encode()
    path = tmp_path / "a.csv"
    path.write_bytes(text)
    found = list(blocks(path))
    assert b"".join(block.data for block in found) == text
    assert len(found) > 20
    assert all(block.data.endswith(b"\n") for block in found if block.data)


def test_the_last_line_needs_no_end(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\nb")
    assert read(path) == (b"a\nb\n", 0)


@pytest.mark.parametrize("length", [101, 1000, 130])
def test_a_line_that_is_too_long_is_left_out_wherever_the_borders_fall(tmp_path, small, length):
    path = tmp_path / "a.csv"
    for before in range(0, 70, 7):
        path.write_bytes(b"b" * before + b"\n" + b"x" * length + b"\nlast\n")
        assert read(path) == (b"b" * before + b"\nlast\n" if before else b"last\n", 1) or before == 0
        data, broken = read(path)
        assert (data.strip(b"b\n"), broken) == (b"last", 1)


def test_lines_with_nul_bytes_are_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\nb\0c\nd\n")
    assert read(path) == (b"a\nd\n", 1)


def test_a_quoted_line_end_ends_no_record(tmp_path, small):
    record = b'1,"two\nlines",' + b"z" * 20 + b"\n"
    path = tmp_path / "a.csv"
    path.write_bytes(record * 30)
    found = [block.data for block in blocks(path)]
    assert b"".join(found) == record * 30
    assert all(data.count(b'"') % 2 == 0 for data in found)


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path, small):
    path = tmp_path / "a.csv"
    path.write_bytes(b'1,"open\n' + b"2,fine\n" * 100)
    found = list(blocks(path))
    assert b"".join(block.data for block in found).count(b"2,fine") == 100
    assert max(len(block.data) for block in found) < 400


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_files_are_unpacked_and_told_when_cut_short(tmp_path, suffix, pack):
    path = tmp_path / f"a.csv{suffix}"
    packed = pack(b"a,b\n" * 5000)
    path.write_bytes(packed)
    assert read(path) == (b"a,b\n" * 5000, 0)
    path.write_bytes(packed[:-10])
    with pytest.raises(UnreadableTable, match="cut short or damaged"):
        read(path)
    path.write_bytes(b"no such thing")
    with pytest.raises(UnreadableTable, match="cut short or damaged"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_byte_order_marks_do_not_matter(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes("Küste\n".encode(encoding))
    assert read(path) == ("Küste\n".encode(), 0)


def test_another_encoding_is_named_or_read_when_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("Küste\n".encode("latin-1"))
    with pytest.raises(UnreadableTable, match="encoding: latin-1"):
        read(path)
    assert read(path, encoding="latin-1") == ("Küste\n".encode(), 0)
    with pytest.raises(UnreadableTable, match="klingon"):
        read(path, encoding="klingon")


@pytest.mark.parametrize(
    ("content", "advice"),
    [("file,lat,lon\n".encode("utf-16"), "encoding: utf-16"), (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "no text")],
)
def test_what_is_no_utf_8_is_told_for_what_it_is(tmp_path, content, advice):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UnreadableTable, match=advice):
        read(path)
