import base64
import hashlib
import io
import json
import math
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geograft.errors import BadSetting, EmptySplit, MissingInput, UnwritableOutput
from geograft.pairs.inspect import inspect
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.pairs.publishing import page
from geograft.pairs.publishing.folder import open_folder
from geograft.pairs.publishing.page import markdown, mercator, number, share, spread
from geograft.pairs.publishing.provenance import stages
from geograft.pairs.publishing.sampling import thumbnail, web_address, wedge
from geograft.tables import Manifest, read_manifest, read_table, write_manifest, write_table

SMALL = PairSettings(chip_size=32, block_m=96, buffer_m=16, fractions=(0.6, 0.2, 0.2))
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</script><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.txt\x00\x07",
    "javascript:alert(1)",
)


class Page(HTMLParser):
    """Tags, attributes, links and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.data = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_data(self, data):
        self.data.append(data)

    def values(self, tag, name):
        return [value for of, called, value in self.attributes if (of, called) == (tag, name)]


@pytest.fixture
def pairs(scattered, make_ground, make_pictures, tmp_path):
    """Pairs whose photos are there, each of its own colour."""
    photos = scattered(200, uri=make_pictures([(row, 90, 255 - row) for row in range(200)]))
    make_pairs(photos, make_ground(400), tmp_path / "pairs", settings=SMALL, workers=1)
    return tmp_path / "pairs"


def shown(path):
    return Page(path.read_text(encoding="utf-8"))


def payload(path):
    text = re.search(r'id="chips">([^<]+)<', path.read_text(encoding="utf-8")).group(1)
    return json.loads(zlib.decompress(base64.b64decode(text)))


def change(path, **columns):
    write_table(read_table(path).assign(**columns), path)


def test_the_page_needs_nothing_from_outside(pairs):
    path = inspect(pairs)
    assert path == pairs / "inspect.html"
    found = shown(path)
    assert all(value.startswith("data:image/") for value in found.values("img", "src"))
    assert not found.values("script", "src") + found.values("link", "href")
    assert "http" not in path.read_text(encoding="utf-8").replace("http-equiv", "")
    assert path.stat().st_size < 3e6


def test_only_its_own_script_may_run(pairs):
    text = inspect(pairs).read_text(encoding="utf-8")
    policy = next(value for value in Page(text).values("meta", "content") if "default-src" in value)
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_map_holds_every_chip_where_it_is(pairs):
    held = payload(inspect(pairs))
    chips = read_table(pairs / "chips.parquet")
    assert held["ids"] == chips["chip_id"].tolist()
    assert held["total"] == len(chips)
    assert [held["splits"][code]["name"] for code in held["split"]] == chips["split"].tolist()
    assert held["photos"] == chips["photos"].tolist()
    x = np.cumsum(held["x"]) / 2**30 * 360 - 180
    assert np.allclose(x, chips.geometry.bounds[["minx", "maxx"]].mean(axis=1), atol=1e-6)


def test_a_large_map_is_a_fair_sample_that_holds_the_chips_shown(pairs, monkeypatch):
    monkeypatch.setattr(page, "MAP_CHIPS", 10)
    held = payload(inspect(pairs, count=4))
    assert held["total"] > len(held["ids"]) >= 10
    assert set(held["shown"]) <= set(held["ids"])


def test_chips_are_drawn_from_every_split_in_turn(pairs):
    found = shown(inspect(pairs, count=6))
    assert sorted(found.values("article", "data-split")) == sorted(["train", "validation", "test"] * 2)


def test_a_seed_draws_others_and_the_same_seed_the_same(pairs, tmp_path):
    first, again = (inspect(pairs, tmp_path / name, count=5).read_bytes() for name in ("a.html", "b.html"))
    other = shown(inspect(pairs, tmp_path / "c.html", count=5, seed=1))
    assert first == again
    assert other.values("article", "data-chip") != Page(first.decode()).values("article", "data-chip")


def test_one_split_can_be_asked_for(pairs):
    assert set(shown(inspect(pairs, split="test")).values("article", "data-split")) == {"test"}
    with pytest.raises(EmptySplit, match=r"no split 'exam'; it has train, validation, test"):
        inspect(pairs, split="exam")


def test_local_photos_are_embedded_and_upright(pairs):
    found = shown(inspect(pairs, count=3))
    jpegs = [value for value in found.values("img", "src") if value.startswith("data:image/jpeg")]
    photos = sum(
        read_table(pairs / "chips.parquet").set_index("chip_id").loc[found.values("article", "data-chip"), "photos"]
    )
    assert len(jpegs) == photos


def test_remote_photos_are_links_and_lost_ones_say_so(pairs):
    count = len(read_table(pairs / "photos.parquet"))
    uris = ["https://photos.example/a.jpg", "javascript:alert(1)", "/nowhere/b.jpg", "ftp://x/y.jpg", None]
    change(pairs / "photos.parquet", uri=(uris * count)[:count])
    path = inspect(pairs)
    found = shown(path)
    assert set(found.values("a", "href")) == {"https://photos.example/a.jpg"}
    assert set(found.values("a", "rel")) == {"noopener noreferrer nofollow"}
    assert "remote photo" in path.read_text(encoding="utf-8")
    assert "the photo is not on this machine" in path.read_text(encoding="utf-8")


def test_a_photo_that_is_none_is_told_of(pairs, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    change(pairs / "photos.parquet", uri=str(tmp_path / "notes.jpg"))
    assert "the photo cannot be read" in inspect(pairs).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_tables_is_never_markup(pairs, text):
    before = shown(inspect(pairs))
    names = dict.fromkeys(("user", "tags", "licence", "uri", "place", "source"), text)
    change(pairs / "photos.parquet", **names)
    chips = read_table(pairs / "chips.parquet")
    change(pairs / "chips.parquet", scene_id=text, scene_uri=text, split=chips["split"].replace("test", text))
    manifest = read_manifest(pairs)
    manifest.counts["skipped"][text] = 5
    write_manifest(pairs / "manifest.json", manifest)
    path = inspect(pairs)
    found = shown(path)
    assert found.tags.count("script") == before.tags.count("script") == 3
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert "x" not in found.values("img", "src")
    assert not [href for href in found.values("a", "href") if not href.startswith("https://")]
    assert text in payload(path)["scenes"]
    assert any(text.split("\x00")[0] in data for data in found.data)


def test_what_was_left_out_is_shown_by_reason(pairs):
    text = inspect(pairs).read_text(encoding="utf-8")
    for reason in read_manifest(pairs).counts["skipped"]:
        assert f"<span>{reason}</span>" in text


def test_a_leak_is_shown_as_an_alarm(pairs):
    assert "✓ Nothing leaks." in inspect(pairs).read_text(encoding="utf-8")
    chips = read_table(pairs / "chips.parquet")
    change(pairs / "chips.parquet", split=np.where(np.arange(len(chips)) % 2, "train", "test"))
    text = inspect(pairs).read_text(encoding="utf-8")
    assert "✗ Splits leak." in text
    assert "footprints shared" in text


def test_a_plan_shows_map_and_numbers_without_pixels(pairs):
    path = inspect(pairs / "plan")
    found = shown(path)
    assert "Planned: no pixels yet" in path.read_text(encoding="utf-8")
    assert len(payload(path)["ids"]) == len(read_table(pairs / "plan" / "chips.parquet"))
    assert not [src for src in found.values("img", "src") if src.startswith("data:image/png")]


def test_unknown_dates_accuracies_and_headings_are_said_to_be_unknown(pairs):
    empty = pd.Series(pd.NaT, read_table(pairs / "photos.parquet").index, "datetime64[us, UTC]")
    change(pairs / "photos.parquet", taken=empty, user=None, licence=None, accuracy_m=np.float32("nan"))
    change(pairs / "pairs.parquet", accuracy_m=np.float32("nan"), heading_deg=np.float32("nan"),
           time_gap_days=np.float32("nan"))  # fmt: skip
    text = inspect(pairs).read_text(encoding="utf-8")
    assert "undated" in text
    assert (
        "nan"
        not in re.sub(r"base64,[^\"]+", "", text).replace("finance", "").lower().split("<body>")[1].split("<script")[0]
    )


def test_bad_settings_and_places_are_named(pairs, tmp_path):
    with pytest.raises(BadSetting, match="0 to 500"):
        inspect(pairs, count=501)
    with pytest.raises(BadSetting, match=r"end in \.html"):
        inspect(pairs, tmp_path / "page.pdf")
    with pytest.raises(UnwritableOutput, match="is a folder"):
        inspect(pairs, tmp_path)
    with pytest.raises(MissingInput, match="holds no pairs"):
        inspect(tmp_path / "nowhere")


def test_no_chips_can_be_shown(pairs):
    assert not shown(inspect(pairs, count=0)).values("article", "data-chip")


@pytest.mark.parametrize(
    ("uri", "linked"),
    [
        ("https://a.example/p.jpg", True),
        ("http://a.example/p.jpg?x=1&y=2", True),
        ("javascript:alert(1)//https://a.example", False),
        ("data:text/html,<script>", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("https://a.example/\n<script>", False),
        ('https://a.example/"onclick="x', False),
        ("https://[broken", False),
        ("", False),
    ],
)
def test_only_plain_web_addresses_are_links(uri, linked):
    assert web_address(uri) == (uri if linked else "")


def test_a_wedge_points_where_the_photo_looks():
    path = wedge(10.0, 20.0, 90.0, 60.0, 4.0)
    x, y = map(float, re.match(r"M10\.00 20\.00L([\d.]+) ([\d.]+)A", path).groups())
    assert (x, y) == pytest.approx((10 + 4 * math.cos(math.radians(30)), 20 - 4 * math.sin(math.radians(30))), abs=0.01)
    assert wedge(10, 20, None, 60, 4) == wedge(10, 20, float("nan"), 60, 4) == ""


def test_thumbnails_are_upright_and_small(make_photo):
    path = make_photo(size=(1200, 600), tags={0x0112: 6})
    content = base64.b64decode(thumbnail(path).split(",")[1])
    with Image.open(io.BytesIO(content)) as image:
        assert image.height > image.width
        assert max(image.size) <= 300
        assert not image.getexif()


def test_mercator_agrees_with_known_positions():
    x, y = mercator(np.array([0.0, -180.0, 90.0]), np.array([0.0, 85.0511287798, -85.0511287798]))
    assert x.tolist() == [2**29, 0, 3 * 2**28]
    assert np.allclose(y / 2**30, [0.5, 0.0, 1.0], atol=1e-4)


def test_numbers_read_well():
    assert [number(value) for value in (None, 5, 1234567, 3.14159, 12345.6)] == [
        "–",
        "5",
        "1\u202f234\u202f567",
        "3.1",
        "12\u202f346",
    ]
    assert [share(*pair) for pair in ((1, 3), (1, 40), (0, 5), (1, 10**6), (0, 0))] == [
        "33 %",
        "2.5 %",
        "0 %",
        "< 0.1 %",
        "0 %",
    ]
    assert markdown("a|b\n[c](d) <e>") == r"a\|b \[c\](d) \<e\>"


def test_numbers_of_photos_at_one_place_stand_apart():
    found = spread([(10.0, 10.0)] * 9 + [(50.0, 50.0)], 64.0)
    assert found[0] == (10.0, 10.0)
    assert found[-1] == (50.0, 50.0)
    assert min(math.dist(one, other) for place, one in enumerate(found) for other in found[:place]) >= 0.056 * 64
    assert all(0 <= value <= 64 for place in found for value in place)


def test_what_the_plan_left_out_is_not_counted_twice(pairs):
    found = {(stage.name, stage.what): stage for stage in stages(open_folder(pairs))}
    planned = read_manifest(pairs / "plan").counts["skipped"]
    assert found["pairs plan", "photos"].skipped == planned
    assert not set(found["pairs materialise", "photos"].skipped) & set(planned)


def test_two_photo_tables_of_one_plan_are_one_stage(tmp_path, make_ground, scattered):
    tables = [scattered(60, seed=seed, name=f"photos{seed}.parquet", ids=[f"{seed}-{row}" for row in range(60)])
              for seed in (1, 2)]  # fmt: skip
    for seed, table in enumerate(tables):
        counts = {"done": 60, "skipped": {"no-gps": seed + 1}, "failed": {}}
        write_manifest(table, Manifest("photos", counts=counts))
    make_pairs(tables, make_ground(400), tmp_path / "out", settings=SMALL, workers=1)
    found = {(stage.name, stage.what): stage for stage in stages(open_folder(tmp_path / "out"))}
    assert found["photos", "photos"].done == 120
    assert found["photos", "photos"].skipped == {"no-gps": 3}
