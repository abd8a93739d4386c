import pytest

from geograft.errors import OutputExists
from geograft.world.leftovers import PARTS, clear

OURS = {
    "scenes/.world-10m_2022-06-24.1a2b3c4d.part.tif": "",
    "scenes/world-1m_2022-06-24.tif": "",
    "photos/w12-000001.jpg": "",
    "truth/classes.tif.aux.xml": "",
    "photos.csv": "id,file\nw12-000001,photos/w12-000001.jpg\n",
    "manifest.json": '{"stage": "world"}',
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_what_a_killed_run_left_goes_and_the_rest_stays(tmp_path):
    write(tmp_path, {**OURS, "notes.txt": "mine"})
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("photos/IMG_1.jpg", ""),
        ("photos/2024/w12-000001.jpg", ""),
        ("scenes/naip.tif", ""),
        ("photos.csv", "id,lat\n1,2\n"),
        ("manifest.json", '{"stage": "pairs"}'),
        ("manifest.json", "[]"),
        ("truth", ""),
    ],
)
def test_a_file_of_someone_else_stops_everything(tmp_path, name, text):
    kept = {other: words for other, words in OURS.items() if other.split("/")[0] != name}
    write(tmp_path, {**kept, name: text})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputExists, match="name another folder"):
        clear(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_new_folder_is_made(tmp_path):
    clear(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert not [name for name in PARTS if (tmp_path / "a" / "b" / name).exists()]
