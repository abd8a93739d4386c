import csv
import hashlib
import json
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import webdataset

from geograft.errors import BadSetting, MissingInput, OutputExists
from geograft.pairs.dataset import load_pairs
from geograft.pairs.export import ExportSettings, export
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.pairs.publishing import exporting
from geograft.tables import read_manifest, read_table, write_table

SMALL = PairSettings(chip_size=32, block_m=96, buffer_m=16, fractions=(0.6, 0.2, 0.2))
FOLDERS = {"train": "train", "validation": "val", "test": "test"}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def pairs(scattered, make_ground, tmp_path):
    """Pairs with three splits, photos of several licences, on the web and not."""
    count = 300
    uris = [
        f"https://photos.example/{row}.jpg?key=secret" if row % 2 else f"/home/ann/{row}.jpg" for row in range(count)
    ]
    licences = ["CC BY 4.0", "CC0 1.0", None][0:3] * (count // 3)
    photos = scattered(
        count, uri=uris, licence=licences, tags="Ann and Bob", user=[f"ann{r % 7}" for r in range(count)]
    )
    make_pairs(photos, make_ground(400), tmp_path / "pairs", settings=SMALL, workers=1)
    return tmp_path / "pairs"


@pytest.fixture
def map_pairs(scattered, make_ground, tmp_path):
    """Pairs of three bands, which a PNG holds."""
    make_pairs(scattered(200), make_ground(400, sensor="rgb"), tmp_path / "maps", settings=SMALL, workers=1)
    return tmp_path / "maps"


def publish(pairs, out, **settings):
    return export(pairs, out, settings=ExportSettings(**settings), workers=1)


@pytest.mark.parametrize("form", ["parquet", "webdataset", "images"])
def test_every_chip_is_published_once_in_its_split(pairs, tmp_path, form):
    summary = publish(pairs, tmp_path / "out", form=form)
    chips = read_table(pairs / "chips.parquet")
    assert summary.chips == len(chips)
    assert summary.leaks == {}
    for split, name in FOLDERS.items():
        listed = (tmp_path / "out" / f"{name}.txt").read_text().split()
        assert listed == sorted(chips.loc[chips["split"] == split, "chip_id"])
        assert summary.splits[split] == len(listed) > 0
        assert (tmp_path / "out" / name).is_dir()


def test_checksums_hold_for_every_file(pairs, tmp_path):
    summary = publish(pairs, tmp_path / "out")
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=False)
    assert done.returncode == 0
    assert len((tmp_path / "out" / "SHA256SUMS").read_text().splitlines()) == summary.files


def test_hugging_face_datasets_reads_the_parquet_back(map_pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    datasets = pytest.importorskip("datasets")
    publish(map_pairs, tmp_path / "out")
    files = {split: str(tmp_path / "out" / name / "*.parquet") for split, name in FOLDERS.items()}
    data = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    found = load_pairs(map_pairs, split="train")
    by_id = dict(zip(found.chip_ids, found.chips, strict=True))
    assert set(data) == set(FOLDERS)
    assert len(data["train"]) == len(found)
    for row in data["train"]:
        image = datasets.Image().decode_example(row["image"])
        assert (np.asarray(image).transpose(2, 0, 1) == by_id[row["chip_id"]]).all()
        assert {photo["photo_id"] for photo in row["photos"]} == set(
            found.photo_ids[found.owner == list(found.chip_ids).index(row["chip_id"])]
        )


def test_webdataset_reads_the_tars_back(map_pairs, tmp_path):
    publish(map_pairs, tmp_path / "out", form="webdataset")
    tars = sorted(str(path) for path in (tmp_path / "out" / "train").glob("*.tar"))
    rows = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    found = load_pairs(map_pairs, split="train")
    by_id = dict(zip(found.chip_ids, found.chips, strict=True))
    assert sorted(row["json"]["chip_id"] for row in rows) == sorted(by_id)
    for row in rows:
        assert (row["png"].transpose(2, 0, 1) == by_id[row["json"]["chip_id"]]).all()
        assert row["json"]["photos"][0]["licence"] == "CC BY 4.0"


def test_geotiffs_keep_every_band_and_the_grid(pairs, tmp_path):
    publish(pairs, tmp_path / "out", form="images")
    found = load_pairs(pairs, split="test")
    by_id = dict(zip(found.chip_ids, found.chips, strict=True))
    folder = tmp_path / "out" / "test" / "00000"
    rows = list(csv.DictReader((folder / "metadata.csv").open()))
    assert {row["chip_id"] for row in rows} == set(by_id)
    photos = pd.read_csv(folder / "photos.csv")
    assert len(photos) == len(found.photo_ids)
    for row in rows:
        with rasterio.open(folder / row["file_name"]) as file:
            assert (file.read() == by_id[row["chip_id"]]).all()
            assert file.descriptions == ("red", "green", "blue", "nir")
            assert file.crs.to_epsg() == int(row["epsg"])
            assert (file.transform.c, file.transform.f) == (float(row["left"]), float(row["top"]))


def test_names_with_dots_stay_one_sample_of_a_tar(scattered, make_ground, tmp_path):
    settings = PairSettings(chip_size=32, gsd=2.5, split="none")
    make_pairs(scattered(60), make_ground(400), tmp_path / "pairs", settings=settings, workers=1)
    publish(tmp_path / "pairs", tmp_path / "out", form="webdataset")
    tars = sorted(str(path) for path in (tmp_path / "out" / "train").glob("*.tar"))
    rows = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert all({"tif", "json"} <= set(row) for row in rows)
    assert "2.5" in json.loads(rows[0]["json"])["chip_id"]


@pytest.mark.parametrize("form", ["parquet", "webdataset", "images"])
def test_a_killed_export_goes_on_to_the_same_bytes(pairs, tmp_path, monkeypatch, form):
    publish(pairs, tmp_path / "whole", form=form)
    real = exporting.write_chips

    def dies_at_the_second(chips, path, *rest, **more):
        if list((tmp_path / "out" / "test").glob("0*")):
            path.parent.mkdir(exist_ok=True)
            (path.parent / f".{path.stem}.0123.part{path.suffix}").write_bytes(b"half")
            raise KeyboardInterrupt
        return real(chips, path, *rest, **more)

    monkeypatch.setattr(exporting, "write_chips", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        publish(pairs, tmp_path / "out", form=form)
    monkeypatch.setattr(exporting, "write_chips", real)
    publish(pairs, tmp_path / "out", form=form)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_workers_write_the_same_bytes_as_one(pairs, tmp_path):
    publish(pairs, tmp_path / "one", form="webdataset")
    export(pairs, tmp_path / "two", settings=ExportSettings(form="webdataset"), workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_lost_file_is_written_again(pairs, tmp_path):
    publish(pairs, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "val" / "00000.parquet").unlink()
    publish(pairs, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_folder_that_holds_something_else_is_refused(pairs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExists, match="something else"):
        publish(pairs, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_an_export_of_other_settings_is_refused(pairs, tmp_path):
    publish(pairs, tmp_path / "out")
    with pytest.raises(OutputExists, match="other pairs or settings"):
        publish(pairs, tmp_path / "out", strip_private=True)


def test_private_things_are_in_no_file(pairs, tmp_path):
    publish(pairs, tmp_path / "out", form="webdataset", strip_private=True)
    secrets = [b"ann", b"Ann and Bob", b"/home/", b"key=secret", str(tmp_path).encode()]
    for path, content in contents(tmp_path / "out").items():
        if path.suffix in {".tar", ".json", ".md", ".txt"}:
            assert not [secret for secret in secrets if secret in content.replace(b"Hannah", b"")], path
    photos = read_table(tmp_path / "out" / "photos.parquet")
    assert photos["user"].isna().all()
    assert photos["tags"].isna().all()
    kept = photos["uri"].dropna()
    assert len(kept)
    assert kept.str.fullmatch(r"https://photos\.example/\d+\.jpg").all()
    assert photos.loc[photos["licence"].isna(), "uri"].isna().all()
    assert read_table(tmp_path / "out" / "chips.parquet")["scene_uri"].str.fullmatch(r"[^/]+\.tif").all()


def test_a_salt_keeps_users_apart_without_their_names(pairs, tmp_path):
    publish(pairs, tmp_path / "out", strip_private=True, salt="pepper")
    publish(pairs, tmp_path / "other", strip_private=True, salt="sugar")
    source = read_table(pairs / "photos.parquet").set_index("photo_id")["user"]
    first, second = (
        read_table(tmp_path / name / "photos.parquet").set_index("photo_id")["user"] for name in ("out", "other")
    )
    assert first.groupby(source.reindex(first.index)).nunique().eq(1).all()
    assert first.nunique() == source.nunique()
    assert not set(first) & set(second)
    for path, content in contents(tmp_path / "out").items():
        assert b"pepper" not in content, path


def test_the_form_must_exist_and_hold_the_bands(pairs, tmp_path):
    with pytest.raises(BadSetting, match="exported as"):
        ExportSettings(form="zip")
    with pytest.raises(BadSetting, match="strip_private"):
        ExportSettings(salt="x")
    with pytest.raises(BadSetting, match="PNG cannot hold 4 bands"):
        publish(pairs, tmp_path / "out", image="png")
    with pytest.raises(BadSetting, match="written as"):
        publish(pairs, tmp_path / "gif", image="gif")


def test_a_picture_can_be_asked_for_of_any_bands(pairs, tmp_path):
    publish(pairs, tmp_path / "out", image="jpg")
    row = pq.read_table(tmp_path / "out" / "test" / "00000.parquet").to_pylist()[0]
    assert row["image"]["bytes"][:2] == b"\xff\xd8"
    assert row["image"]["path"].endswith(".jpg")


def test_a_plan_without_pixels_cannot_be_exported(pairs, tmp_path):
    with pytest.raises(MissingInput, match="no pixels yet"):
        publish(pairs / "plan", tmp_path / "out")


def test_a_leak_is_in_the_summary(pairs, tmp_path):
    chips = read_table(pairs / "chips.parquet")
    write_table(chips.assign(split=np.where(np.arange(len(chips)) % 2, "train", "test")), pairs / "chips.parquet")
    summary = publish(pairs, tmp_path / "out")
    assert summary.leaks["footprints"] > 0
    assert "**The splits leak**" in (tmp_path / "out" / "README.md").read_text()
    assert read_manifest(tmp_path / "out").extra["leaks"] == dict(summary.leaks)


def test_the_collection_names_every_shard_with_its_checksum(pairs, tmp_path):
    publish(pairs, tmp_path / "out", form="webdataset")
    content = json.loads((tmp_path / "out" / "collection.json").read_text())
    for asset in content["assets"].values():
        path = tmp_path / "out" / asset["href"]
        assert asset["file:size"] == path.stat().st_size
        assert asset["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert content["assets"]["train-00000"]["href"] == "./train/00000.tar"
    items = read_table(tmp_path / "out" / "items.parquet")
    hrefs = {row["pixels"]["href"] for row in items["assets"]}
    assert hrefs == {f"./{name}/00000.tar" for name in FOLDERS.values()}


def test_an_export_killed_at_any_moment_resumes_to_the_same_bytes(pairs, tmp_path):
    publish(pairs, tmp_path / "whole", form="webdataset")
    code = (
        "import sys; from geograft.pairs.export import *; "
        "export(sys.argv[1], sys.argv[2], settings=ExportSettings(form='webdataset'), workers=1)"
    )
    command = [sys.executable, "-c", code, str(pairs), str(tmp_path / "out")]
    for delay in (1.5, 2.0, 2.5, 3.0):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, timeout=delay, check=False, capture_output=True)  # a timeout ends it by SIGKILL
    publish(pairs, tmp_path / "out", form="webdataset")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
