import re

import numpy as np
import pytest
import yaml
from PIL import Image
from pyproj import Proj

from geograft.errors import EmptyTable, MissingInput
from geograft.pairs.card import CardSettings, hub_licences, write_card
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.pairs.publishing.facts import Chips, facts_of, licence_label
from geograft.pairs.publishing.figures import equal_earth, write_map
from geograft.pairs.publishing.folder import open_folder
from geograft.pairs.publishing.histograms import Histogram
from geograft.pairs.publishing.provenance import commands, stages
from geograft.tables import read_manifest, read_table, write_manifest, write_table

SMALL = PairSettings(chip_size=32, block_m=96, buffer_m=16, fractions=(0.6, 0.2, 0.2))


@pytest.fixture
def pairs(scattered, make_ground, tmp_path):
    photos = scattered(300, 460, licence=["CC BY 4.0", "https://creativecommons.org/licenses/by-sa/3.0/", None] * 100)
    make_pairs(photos, make_ground(400), tmp_path / "pairs", settings=SMALL, workers=1)
    return tmp_path / "pairs"


def header_of(text):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL).group(1))


def test_the_header_says_what_the_hub_asks(pairs):
    header = header_of(write_card(pairs, settings=CardSettings(title="Towns: a test")).read_text())
    assert header["pretty_name"] == "Towns: a test"
    assert set(header["license"]) == {"cc-by-4.0", "cc-by-sa-3.0", "unknown"}
    assert header["size_categories"] == ["n<1K"]
    assert "remote-sensing" in header["tags"]
    assert [each["config_name"] for each in header["configs"]] == ["default", "chips", "pairs", "photos"]


def test_the_numbers_are_those_of_the_tables(pairs):
    text = write_card(pairs).read_text()
    chips, found = read_table(pairs / "chips.parquet"), read_table(pairs / "pairs.parquet")
    assert f"| pairs (chip, photo) | {len(found)} |" in text
    for split, mine in chips.groupby("split"):
        held = found[found["chip_id"].isin(mine["chip_id"])]
        assert f"| {split} | {len(mine)} | {len(held)} | {held['photo_id'].nunique()} |" in text
    assert "**Nothing leaks between the splits**" in text
    assert "2312.06960" in text


def test_what_was_left_out_is_told_for_every_stage(pairs):
    text = write_card(pairs).read_text()
    skipped = read_manifest(pairs).counts["skipped"] | read_manifest(pairs / "plan").counts["skipped"]
    assert skipped
    for reason, count in skipped.items():
        assert f"| {reason} | {count} |" in text


def test_the_imagery_licence_is_asked_for_and_told(pairs):
    assert "not stated" in write_card(pairs).read_text().split("Imagery:")[1][:40]
    stated = CardSettings(imagery_licence="Public domain (USDA)")
    assert "Imagery: Public domain (USDA)" in write_card(pairs, settings=stated).read_text()


def test_the_same_pairs_give_the_same_card(pairs):
    def written():
        write_card(pairs)
        return {path: path.read_bytes() for path in [pairs / "README.md", *sorted((pairs / "card").iterdir())]}

    assert written() == written()


def test_every_picture_of_the_card_is_there(pairs):
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", write_card(pairs).read_text())
    assert len(links) == 4
    for link in links:
        with Image.open(pairs / link) as image:
            assert image.width > 500


def test_values_that_nobody_knows_have_no_picture(scattered, make_ground, tmp_path):
    make_pairs(scattered(accuracy_m=np.nan), make_ground(400), tmp_path / "out", settings=SMALL, workers=1)
    text = write_card(tmp_path / "out").read_text()
    assert "unknown for all" in text
    assert "accuracy.png" not in text


def test_a_plan_has_a_card_without_pixels(pairs):
    text = write_card(pairs / "plan").read_text()
    assert "planned, not cut yet" in text
    assert "load_pairs" not in text


def test_text_of_tables_is_no_markup_of_the_card(pairs):
    photos = read_table(pairs / "photos.parquet")
    write_table(photos.assign(licence="<script>alert(1)</script>|[x](javascript:alert(1))"), pairs / "photos.parquet")
    manifest = read_manifest(pairs)
    manifest.counts["skipped"]["evil | <b>reason</b>\n# title"] = 3
    write_manifest(pairs / "manifest.json", manifest)
    text = write_card(pairs).read_text()
    assert "<script>" not in text
    assert "](javascript" not in text
    assert "\n# title" not in text
    assert "<b>" not in text


def test_stages_whose_manifest_is_damaged_are_left_out(pairs):
    (pairs / "plan" / "manifest.json").write_text("{")
    skipped = read_manifest(pairs).counts["skipped"]
    (pairs / "manifest.json").rename(pairs / "kept.json")
    text = write_card(pairs).read_text()
    assert skipped
    assert "Left out by" not in text


def test_folders_without_pairs_or_chips_are_named(pairs, tmp_path):
    with pytest.raises(MissingInput, match="holds no pairs"):
        write_card(tmp_path / "nowhere")
    write_table(read_table(pairs / "chips.parquet").iloc[:0], pairs / "chips.parquet")
    with pytest.raises(EmptyTable, match="no chips"):
        facts_of(open_folder(pairs))


@pytest.mark.parametrize(
    ("text", "label", "hub"),
    [
        ("CC BY-SA 4.0", "cc-by-sa 4.0", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by/2.0/", "cc-by 2.0", "cc-by-2.0"),
        ("CC0", "cc0", "cc0-1.0"),
        ("", "not stated", "unknown"),
        ("All rights reserved", None, "other"),
        ("CC BY 9.9", "cc-by", "other"),
    ],
)
def test_licences_get_the_ids_of_the_hub(text, label, hub):
    if label:
        assert licence_label(text) == label
    assert hub_licences({licence_label(text): 1}) == [hub]


def make_chips(lon, lat, side=64.0):
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    split = (np.arange(len(lon)) % 3).astype(np.int32)
    return Chips(lon, lat, np.full(len(lon), side), split, ["train", "validation", "test"], np.ones(len(lon), np.int64))


@pytest.mark.parametrize(
    ("lon", "lat"),
    [
        ([10.0], [50.0]),
        ([10.0, 10.01, 10.02], [50.0, 50.0, 50.01]),
        ([179.99, -179.99, -179.98], [-17.0, -17.0, -17.01]),
        ([-120, 0, 60, 150], [40, 10, -30, 70]),
        ([15, 16, 17], [83.9, 83.8, 83.9]),
    ],
)
def test_a_map_is_drawn_for_a_town_and_for_the_globe(tmp_path, lon, lat):
    path = write_map(make_chips(lon, lat), tmp_path / "map.png")
    with Image.open(path) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(10**7)}
    assert (0, 114, 178) in colours


def test_bounds_across_the_antimeridian_are_narrow():
    west, _, east, _ = make_chips([179.99, -179.99], [-17.0, -17.0]).bounds
    assert west < 180 < east
    assert east - west < 0.1


def test_equal_earth_agrees_with_proj():
    lon, lat = np.meshgrid(np.linspace(-180, 180, 13), np.linspace(-90, 90, 13))
    expected = Proj("+proj=eqearth +R=1")(lon, lat)
    assert np.allclose(equal_earth(lon, lat), expected, atol=1e-7)


def test_quantiles_of_a_histogram_are_within_half_a_percent():
    values = np.random.default_rng(0).gamma(2, 30, 20_000)
    histogram = Histogram("x", ("a", "b"), (50.0,))
    for part in np.array_split(np.append(values, [np.nan] * 7), 5):
        histogram.add(part)
    assert histogram.unknown == 7
    assert histogram.counts.tolist() == [(values < 50).sum(), (values >= 50).sum()]
    assert histogram.quantile(0.5) == pytest.approx(np.median(values), rel=6e-3)


def test_the_commands_name_files_and_no_folders_of_this_machine(pairs, tmp_path):
    lines = commands(stages(open_folder(pairs)))
    assert lines[-2:] == [
        "geograft pairs plan photos.parquet scenes.parquet pairs/",
        "geograft pairs materialise pairs/",
    ]
    assert str(tmp_path) not in write_card(pairs).read_text()
