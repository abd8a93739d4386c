import json
import os
import signal
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from geograft.cli.fetch import fetch
from geograft.errors import BadSetting, MissingColumns, OutputExists, UnreadableTable, UnwritableOutput
from geograft.sources.fetch import FetchSettings, fetch_photos
from geograft.sources.fetching.fetched import read_addresses
from geograft.sources.fetching.journal import Journal
from geograft.tables import read_manifest, write_table


def status_of(out):
    return pd.read_parquet(out / "status.parquet").set_index("photo_id")


# --- what comes out ---------------------------------------------------------------------------------------


def test_photos_come_with_tables_of_the_same_columns(server, table, tmp_path, quick, image_bytes):
    photos, out = table([server.uri(f"photo/{row}") for row in range(5)]), tmp_path / "out"
    summary = fetch_photos(photos, out, settings=quick(max_side=60))
    assert (summary.rows, summary.done, summary.skipped, summary.failed) == (5, 5, {}, {})
    before, after = gpd.read_parquet(photos), gpd.read_parquet(out / "photos.parquet")
    assert after.dtypes.equals(before.dtypes)
    assert after.crs == before.crs
    assert after.drop(columns=["uri", "width", "height"]).equals(before.drop(columns=["uri", "width", "height"]))
    assert (after["width"].tolist(), after["height"].tolist()) == ([60] * 5, [40] * 5)
    for path in map(Path, after["uri"]):
        assert Image.open(path).size == (60, 40)
        assert path.parent == out / "photos" / path.name[:2]
    status = status_of(out)
    assert status["content_hash"].iloc[3] == blake2b(image_bytes(3), digest_size=16).hexdigest()
    assert status[["bytes", "http_status", "attempts"]].iloc[3].tolist() == [len(image_bytes(3)), 200, 1]
    assert read_manifest(out).counts == {"done": 5, "skipped": {}, "failed": {}}


def test_servers_are_told_who_asks(server, fetched):
    fetched("photo/1", contact="keeper@example.org")
    assert all(agent.startswith("geograft/") and "keeper@example.org" in agent for agent in server.agents)


def test_an_address_that_photos_share_is_fetched_once(server, table, tmp_path, quick):
    summary = fetch_photos(table([server.uri("photo/1")] * 3), tmp_path / "out", settings=quick())
    assert (summary.rows, summary.done) == (3, 1)
    assert server.hits["/photo/1"] == 1
    assert gpd.read_parquet(tmp_path / "out" / "photos.parquet")["uri"].unique().size == 1


def test_local_photos_stay_where_they_are_and_rows_without_address_go(server, table, tmp_path, quick):
    uris = ["/data/photo.jpg", None, server.uri("photo/1"), "file:///etc/passwd", "ftp://example.org/a.jpg", "http://"]
    summary = fetch_photos(table(uris), tmp_path / "out", settings=quick())
    assert summary.skipped == {"local": 1, "no-uri": 1}
    assert summary.failed == {"bad-scheme": 2, "bad-url": 1}
    after = gpd.read_parquet(tmp_path / "out" / "photos.parquet")
    assert after["photo_id"].tolist() == ["p0", "p2"]
    assert after["uri"].iloc[0] == "/data/photo.jpg"


def test_a_table_of_no_addresses_is_no_trouble(table, tmp_path, quick):
    summary = fetch_photos(table([None, None]), tmp_path / "out", settings=quick())
    assert (summary.rows, summary.done, summary.skipped) == (0, 0, {"no-uri": 2})


def test_a_small_jpeg_is_kept_byte_by_byte(tmp_path, fetched, image_bytes):
    fetched("photo/2")
    path = gpd.read_parquet(tmp_path / "out" / "photos.parquet")["uri"].iloc[0]
    assert Path(path).read_bytes() == image_bytes(2)


@pytest.mark.parametrize(("max_side", "size"), [(None, (80, 120)), (512, (80, 120)), (60, (40, 60))])
def test_a_turned_photo_stays_upright(server, tmp_path, max_side, size, fetched, image_bytes):
    exif = Image.Exif()
    exif[0x0112] = 6
    server.routes["turned"] = lambda handler: handler.answer(body=image_bytes(0, exif=exif))
    fetched("turned", max_side=max_side)
    row = gpd.read_parquet(tmp_path / "out" / "photos.parquet").iloc[0]
    with Image.open(row["uri"]) as image:
        shown = image.size[::-1] if image.getexif().get(0x0112) == 6 else image.size
    assert (row["width"], row["height"]) == size == shown


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_other_images_become_jpegs(server, tmp_path, kind, fetched, image_bytes):
    server.routes["image"] = lambda handler: handler.answer(body=image_bytes(0, kind=kind))
    fetched("image")
    with Image.open(gpd.read_parquet(tmp_path / "out" / "photos.parquet")["uri"].iloc[0]) as image:
        assert (image.format, image.size) == ("JPEG", (120, 80))


# --- going on after a stop ----------------------------------------------------------------------------------

PROGRAM = """
import sys
from geograft.sources.fetch import FetchSettings, fetch_photos
from geograft.sources.fetching.fetched import read_addresses
settings = FetchSettings(per_second=100, per_host=4, workers=4, allow_private=True)
fetch_photos(sys.argv[1], sys.argv[2], settings=settings)
"""


def killed(server, photos, out, after):
    """Run in another process, kill it once the server has seen some requests, and give the journal's whole lines."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(photos), str(out)])
    deadline = time.monotonic() + 60
    while server.hits.total() < after and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return [json.loads(line) for line in (out / "journal.jsonl").read_text().split("\n")[1:-1]]


def contents(out):
    """All files of a folder but the journal, whose order tells which answer came first."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "journal.jsonl"
    }


def test_a_killed_run_resumes_to_the_same_bytes_and_asks_for_nothing_twice(server, table, tmp_path, quick):
    uris = [server.uri(f"photo/{row}" if row % 5 else f"absent/{row}") for row in range(80)]
    photos, out = table(uris), tmp_path / "out"
    for after in (15, 45):
        finished = killed(server, photos, out, after)
    with (out / "journal.jsonl").open("ab") as file:
        file.write(b'{"key": "torn')
    hits = server.hits.copy()
    fetch_photos(photos, out, settings=quick())
    assert 20 <= len(finished) < 80
    assert set(server.hits.values()) <= {1, 2, 3}
    assert server.hits.total() <= 80 + 2 * 4  # what was under way at each kill
    asked_again = {path for path, count in server.hits.items() if hits[path] and count > hits[path]}
    keys = read_addresses(photos).table.set_index("key")["uri"]
    assert not asked_again & {"/" + keys[line["key"]].split("/", 3)[3] for line in finished}
    resumed = contents(out)
    out.rename(tmp_path / "resumed")
    fetch_photos(photos, out, settings=quick())
    assert contents(out) == resumed


def test_a_finished_run_asks_nothing(server, table, tmp_path, quick):
    photos = table([server.uri("photo/1"), server.uri("absent")])
    first = fetch_photos(photos, tmp_path / "out", settings=quick())
    hits = server.hits.total()
    assert fetch_photos(photos, tmp_path / "out", settings=quick()) == first
    assert server.hits.total() == hits


def test_failed_ones_are_asked_again_when_wanted(server, table, tmp_path, quick, image_bytes):
    photos = table([server.uri("late"), server.uri("photo/1")])
    assert fetch_photos(photos, tmp_path / "out", settings=quick()).failed == {"gone": 1}
    server.routes["late"] = lambda handler: handler.answer(body=image_bytes())
    assert fetch_photos(photos, tmp_path / "out", settings=quick()).failed == {"gone": 1}
    assert fetch_photos(photos, tmp_path / "out", settings=quick(retry_failed=True)).failed == {}
    assert server.hits["/photo/1"] == 1


def test_a_photo_that_was_lost_or_cut_short_is_fetched_again(server, table, tmp_path, quick):
    photos, out = table([server.uri(f"photo/{row}") for row in range(3)]), tmp_path / "out"
    fetch_photos(photos, out, settings=quick())
    before = contents(out)
    lost, short = gpd.read_parquet(out / "photos.parquet")["uri"].iloc[:2]
    Path(lost).unlink()
    os.truncate(short, 10)
    (out / "photos" / "00").mkdir(exist_ok=True)
    (out / "photos" / "00" / ".0011.abcd.part.jpg").write_bytes(b"half")
    fetch_photos(photos, out, settings=quick())
    assert contents(out) == before
    assert sorted(server.hits.values()) == [1, 2, 2]


def test_a_grown_table_asks_for_the_new_ones_only(server, table, tmp_path, quick):
    uris = [server.uri(f"photo/{row}") for row in range(6)]
    fetch_photos(table(uris[:3]), tmp_path / "out", settings=quick())
    summary = fetch_photos(table(uris, "more.parquet"), tmp_path / "out", settings=quick())
    assert (summary.done, server.hits.total()) == (6, 6)


def test_a_folder_of_other_sizes_is_refused(server, table, tmp_path, quick):
    photos = table([server.uri("photo/1")])
    fetch_photos(photos, tmp_path / "out", settings=quick())
    with pytest.raises(OutputExists, match="max_side"):
        fetch_photos(photos, tmp_path / "out", settings=quick(max_side=64))


def test_two_runs_do_not_write_to_one_folder(server, table, tmp_path, quick):
    about = {"stage": "fetch", "max_side": 512, "quality": 90}
    with Journal(tmp_path / "out" / "journal.jsonl", about), pytest.raises(UnwritableOutput, match="Another run"):
        fetch_photos(table([server.uri("photo/1")]), tmp_path / "out", settings=quick())


def test_a_damaged_journal_is_named(server, table, tmp_path, quick):
    photos = table([server.uri("photo/1")])
    fetch_photos(photos, tmp_path / "out", settings=quick())
    with (tmp_path / "out" / "journal.jsonl").open("ab") as file:
        file.write(b"what?\n")
    with pytest.raises(UnreadableTable, match="journal"):
        fetch_photos(photos, tmp_path / "out", settings=quick())


# --- wrong use ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice",
    [
        {"per_second": 0},
        {"per_host": 0},
        {"workers": 0},
        {"attempts": 0},
        {"timeout_s": float("inf")},
        {"max_seconds": -1},
        {"max_bytes": 0},
        {"max_redirects": -1},
        {"max_side": 0},
        {"quality": 96},
        {"contact": "me\r\nX-Evil: 1"},
        {"stop_after": 0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(choice):
    with pytest.raises(BadSetting, match=next(iter(choice))):
        FetchSettings(**choice)


def test_a_table_without_addresses_is_refused(tmp_path):
    path = write_table(pd.DataFrame({"photo_id": ["a"]}), tmp_path / "photos.parquet")
    with pytest.raises(MissingColumns, match="uri"):
        fetch_photos(path, tmp_path / "out")


def test_the_command_tells_what_failed_and_exits_with_1(server, table, tmp_path):
    app = typer.Typer()
    app.command()(fetch)
    config = tmp_path / "fetch.yaml"
    config.write_text("allow_private: true\nper_second: 5\n")
    photos, out = table([server.uri("photo/1"), server.uri("absent")]), tmp_path / "out"
    options = ["--config", str(config), "--per-second", "1000", "--contact", "me@example.org", "--json"]
    result = CliRunner().invoke(app, [str(photos), str(out), *options])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["done"], found["failed"]) == (1, 1, {"gone": 1})
    assert read_manifest(out).settings["per_second"] == 1000
