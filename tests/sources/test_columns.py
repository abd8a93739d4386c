import numpy as np
import pandas as pd
import pytest

from geograft.errors import BadSetting, EmptyTable, MissingColumns, MissingInput, UnreadableTable
from geograft.sources.columns import SYNONYMS, numbers, read_csv, rename, times


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "photos.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_and_byte_order_marks_do_not_matter(tmp_path, mark, encoding):
    path = write(tmp_path, f"file{mark}lat{mark}lon\nKüste.jpg{mark}1{mark}2\n", encoding)
    table = rename(read_csv(path), {}, path)
    assert table[["file", "lat", "lon"]].to_numpy().tolist() == [["Küste.jpg", "1", "2"]]


def test_another_encoding_is_named_or_read_when_told(tmp_path):
    path = write(tmp_path, "file,lat,lon\nKüste.jpg,1,2\n", "latin-1")
    with pytest.raises(UnreadableTable, match="encoding: latin-1"):
        read_csv(path)
    assert read_csv(path, "latin-1").file.tolist() == ["Küste.jpg"]
    with pytest.raises(UnreadableTable, match="klingon"):
        read_csv(path, "klingon")


@pytest.mark.parametrize(("text", "error"), [("", EmptyTable), ("file,lat,lon\n", EmptyTable)])
def test_an_empty_table_is_named(tmp_path, text, error):
    with pytest.raises(error):
        read_csv(write(tmp_path, text))


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(MissingInput):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(UnreadableTable):
        read_csv(write(tmp_path, "a,b\n1,2\n1,2,3,4\n"))


@pytest.mark.parametrize("field", SYNONYMS)
def test_every_synonym_is_accepted_whatever_its_case_and_spaces(tmp_path, field):
    base = {"file": "a.jpg", "lat": "1", "lon": "2"}
    for name in SYNONYMS[field]:
        plain = pd.DataFrame([{k: v for k, v in base.items() if k != field} | {name.replace("_", " ").title(): "7"}])
        assert rename(plain, {}, tmp_path)[field].tolist() == ["7"]


def test_missing_columns_are_named_with_what_there_is_and_what_is_accepted(tmp_path):
    with pytest.raises(MissingColumns, match=r"lon \(lon, lng, long.*it has file, breite, lat"):
        rename(pd.DataFrame({"file": ["a"], "breite": ["1"], "lat": ["1"]}), {}, tmp_path)


def test_a_mapping_says_which_column_is_which(tmp_path):
    table = pd.DataFrame({"bild": ["a"], "lat": ["1"], "lon": ["2"], "accuracy": ["16"]})
    found = rename(table, {"file": "bild", "accuracy_m": ""}, tmp_path)
    assert found.file.tolist() == ["a"]
    assert found.accuracy_m.isna().all()
    with pytest.raises(MissingColumns, match="foto"):
        rename(table, {"file": "foto"}, tmp_path)


def test_numbers_come_with_points_or_commas():
    found = numbers(pd.Series(["-33.5", "151,25", "1e2", "north", None, "inf", ""]))
    assert np.array_equal(found, [-33.5, 151.25, 100, np.nan, np.nan, np.nan, np.nan], equal_nan=True)


def test_times_come_in_the_forms_that_sites_write():
    cells = ["2024-07-01T10:30:00+02:00", "2024-07-01 08:30:00", "2024:07:01 08:30:00", "1719822600", "1719822600000"]
    found = times(pd.Series([*cells, "2024-07-01", "yesterday", None]))
    assert (found[:5] == pd.Timestamp("2024-07-01 08:30", tz="UTC")).all()
    assert found[5] == pd.Timestamp("2024-07-01", tz="UTC")
    assert found[6:].isna().all()


@pytest.mark.parametrize(
    ("content", "advice"),
    [("file,lat,lon\n".encode("utf-16"), "encoding: utf-16"), (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "no text")],
)
def test_what_is_no_utf_8_is_told_for_what_it_is(tmp_path, content, advice):
    path = tmp_path / "photos.csv"
    path.write_bytes(content)
    with pytest.raises(UnreadableTable, match=advice):
        read_csv(path)


def test_a_mapping_of_a_field_that_photos_do_not_have_is_refused(tmp_path):
    table = pd.DataFrame({"file": ["a.jpg"], "lat": ["1"], "lon": ["2"]})
    with pytest.raises(BadSetting, match="latitute"):
        rename(table, {"latitute": "lat"}, tmp_path / "photos.csv")
