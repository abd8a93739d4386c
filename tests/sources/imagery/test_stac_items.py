import contextlib
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from geograft.errors import BadSetting, DownloadFailed, MissingInput, UnknownSensor, UnreadableTable
from geograft.sources.imagery import stac_items
from geograft.sources.scenes import SceneSettings, read_scenes
from geograft.tables import read_table

BANDS = ("red", "green", "blue", "nir", "swir16")
GRID = {"proj:epsg": 32632, "proj:shape": [120, 120], "proj:transform": [10.0, 0, 500000.0, 0, -10.0, 5000000.0]}


def item(name, host="https://example.org/"):
    """An item that states its grid, so that its files on a server are not asked for."""
    properties = {"datetime": "2024-07-01T10:30:00Z", "s2:processing_baseline": "05.00", **GRID}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a", "links": [],
        "geometry": None, "bbox": [9, 45.1, 9.1, 45.2], "properties": properties,
        "assets": {band: {"href": f"{host}{name}_{band}.tif"} for band in BANDS},
    }  # fmt: skip


def table_of(source, tmp_path, sensor="sentinel-2-l2a", **settings):
    summary = read_scenes(source, tmp_path / "out.parquet", sensor=sensor, settings=SceneSettings(**settings))
    return summary, read_table(summary.out)


class Handler(BaseHTTPRequestHandler):
    """Answers as a STAC API does; `owner` says with what."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        address = urllib.parse.urlsplit(self.path)
        path = self.owner.folder / address.path.lstrip("/")
        if address.path == "/search":
            self.search(dict(urllib.parse.parse_qsl(address.query)))
        elif address.path in {"", "/"}:
            self.reply(200, self.owner.landing())
        elif address.path == "/collections/sentinel-2-l2a":
            self.reply(200, self.owner.collection())
        else:
            self.reply(*((200, json.loads(path.read_text())) if path.is_file() else (404, {"code": "NotFound"})))

    def do_POST(self):
        self.search(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def search(self, asked):
        self.owner.searches.append(asked)
        time.sleep(self.owner.delay)
        if self.owner.failing:
            self.reply(self.owner.failing.pop(0), {"code": "Busy"})
            return
        start, size = int(asked.get("token", 0)), min(2, int(asked.get("limit", 2)))
        found = {"type": "FeatureCollection", "features": self.owner.items[start : start + size], "links": []}
        if start + size < len(self.owner.items):
            body = {**asked, "token": start + size}
            found["links"] = [{"rel": "next", "href": f"{self.owner.url}/search", "method": "POST", "body": body}]
        self.reply(200, found)

    def reply(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 429 and self.owner.retry_after:
            self.send_header("Retry-After", self.owner.retry_after)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, *args):
        """Stay quiet."""


class Api:
    """A STAC API on loopback, which pages, and can fail.

    Attributes:
        failing: statuses that the next searches get first.
        searches: what was searched for.
    """

    def __init__(self, folder, items):
        self.folder, self.items = folder, items
        self.failing, self.searches, self.delay, self.retry_after = [], [], 0.0, None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"owner": self}))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def landing(self):
        classes = ["core", "item-search", "item-search#query", "collections", "ogcapi-features"]
        search = {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"}
        links = [{"rel": name, "href": self.url} for name in ("self", "root")]
        about = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "d"}
        conforms = [f"https://api.stacspec.org/v1.0.0/{name}" for name in classes]
        return {**about, "links": [*links, search], "conformsTo": conforms}

    def collection(self):
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        about = {"type": "Collection", "id": "sentinel-2-l2a", "stac_version": "1.0.0", "description": "d"}
        return {**about, "license": "x", "extent": extent, "links": []}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def api(tmp_path, monkeypatch):
    monkeypatch.setattr(stac_items, "BACKOFF_S", 0.01)
    made = Api(tmp_path, [item(f"s{k}") for k in range(5)])
    yield made
    made.close()


WHERE = {"collection": "sentinel-2-l2a", "bounds": (8.9, 45.0, 9.1, 45.2), "datetime": "2024-06-01/2024-09-01"}


def test_an_api_is_searched_page_by_page(tmp_path, api):
    summary, table = table_of(api.url, tmp_path, **WHERE, max_cloud=0.5)
    assert (summary.scenes, summary.failed) == (5, {})
    assert table.scene_id.tolist() == [f"sentinel-2-l2a/s{k}" for k in range(5)]
    assert len(api.searches) == 3
    first = api.searches[0]
    assert (first["collections"], first["bbox"]) == (["sentinel-2-l2a"], [8.9, 45.0, 9.1, 45.2])
    assert first["datetime"].startswith("2024-06-01T00:00:00Z/2024-09-01")
    assert first["query"] == {"eo:cloud_cover": {"lte": 50.0}}


def test_a_limit_ends_the_search_and_the_address_may_name_the_collection(tmp_path, api):
    summary, _ = table_of(f"{api.url}/collections/sentinel-2-l2a", tmp_path, limit=3)
    assert summary.scenes == 3
    assert api.searches[0]["collections"] == ["sentinel-2-l2a"]


def test_a_search_without_a_collection_says_to_name_one(tmp_path, api):
    with pytest.raises(BadSetting, match="such as sentinel-2-l2a"):
        table_of(api.url, tmp_path)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_api_is_asked_again(tmp_path, api, status):
    api.failing = [status, status]
    api.retry_after = "0"
    assert table_of(api.url, tmp_path, **WHERE)[0].scenes == 5
    assert len(api.searches) == 5


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, r"refuses .* \(403\): ask for access"),
        (404, "check the address and the collection"),
        (400, "answered 400 .* check collection, bounds and datetime"),
        (429, "answered 429 .* try again later"),
        (500, "answered 500 .* try again later"),
    ],
)
def test_an_api_that_fails_for_good_is_named_and_nothing_is_written(tmp_path, api, status, said):
    api.failing = [status] * 50
    with pytest.raises(DownloadFailed, match=said):
        table_of(api.url, tmp_path, **WHERE)
    assert not (tmp_path / "out.parquet").exists()


def test_an_api_that_fails_in_the_middle_ends_the_run(tmp_path, api):
    class Later(list):
        def __bool__(self):
            return len(api.searches) > 1

    api.failing = Later([403] * 9)
    with pytest.raises(DownloadFailed, match="403"):
        table_of(api.url, tmp_path, **WHERE)


def test_an_api_that_is_too_slow_is_named(tmp_path, api, monkeypatch):
    monkeypatch.setattr(stac_items, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(stac_items, "RETRIES", 1)
    api.delay = 1.5
    with pytest.raises(DownloadFailed, match="does not answer"):
        table_of(api.url, tmp_path, **WHERE)


def test_a_catalogue_on_a_server_is_walked_and_what_is_missing_there_is_counted(tmp_path, api):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(item(name, host="./")))
    links = [{"rel": "item", "href": f"./{name}.json"} for name in ("a", "b", "absent")]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "r", "links": links}))
    summary, table = table_of(f"{api.url}/catalog.json", tmp_path)
    assert (summary.scenes, summary.failed) == (2, {"unreadable-item": 1})
    assert json.loads(table.assets[0])["red"] == f"{api.url}/a_red.tif"
    assert table.uri[0] == f"{api.url}/a.json#a"


def test_sources_that_are_no_stac_are_named(tmp_path, api):
    with pytest.raises(DownloadFailed, match="404"):
        table_of(f"{api.url}/nothing", tmp_path)
    with pytest.raises(DownloadFailed, match="does not answer"):
        table_of("http://127.0.0.1:9/stac", tmp_path)
    with pytest.raises(MissingInput):
        table_of(tmp_path / "none.json", tmp_path)
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(UnreadableTable, match="no STAC"):
        table_of(tmp_path / "list.json", tmp_path)
    with pytest.raises(UnknownSensor, match="--sensor"):
        table_of(f"{api.url}/catalog.json", tmp_path, sensor=None)
