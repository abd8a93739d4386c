"""A server on loopback that can stall, fail and lie, and tables that point to it."""

import io
import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geograft.sources.fetch import FetchSettings, fetch_photos
from geograft.tables import write_table

PATIENCE_S = 20
"""Longer than any answer takes, so that nothing hangs."""


def make_image(seed=0, size=(120, 80), kind="JPEG", **options):
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(name="image_bytes")
def _image_bytes():
    """A factory of image files."""
    return make_image


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        with self.server.lock:
            self.server.hits[self.path] += 1
            self.server.agents.add(self.headers["User-Agent"])
            self.count = self.server.hits[self.path]
        route = self.server.routes.get(self.path.split("/")[1], lambda handler: handler.answer(404))
        with suppress(OSError):
            route(self)

    def answer(self, status=200, body=b"", headers=None, length=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if length is not None:  # a lie: nothing more can be said after it
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def photo(self):
        self.answer(body=make_image(int(self.path.split("/")[-1])))


class Server(ThreadingHTTPServer):
    """Answers by the first part of the path, counts requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address="127.0.0.1"):
        super().__init__((address, 0), Handler)
        self.routes, self.hits, self.agents = {"photo": Handler.photo}, Counter(), set()
        self.lock, self.over = threading.Lock(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def uri(self, path):
        return f"http://{self.server_address[0]}:{self.server_port}/{path}"

    def end(self):
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *args):
        pass


@pytest.fixture
def make_server():
    """A factory of servers on loopback, ended with the test."""
    servers = []

    def make(address="127.0.0.1"):
        servers.append(Server(address))
        return servers[-1]

    yield make
    for server in servers:
        server.end()


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def table(tmp_path):
    """A factory of photo tables of some addresses."""

    def make(uris, name="photos.parquet", ids=None):
        count = len(uris)
        frame = pd.DataFrame({"photo_id": ids or [f"p{row}" for row in range(count)], "uri": uris})
        frame = frame.astype("string").assign(user="someone", width=None, height=None)
        frame = frame.astype({"width": "Int32", "height": "Int32"})
        points = gpd.points_from_xy([10.0 + row for row in range(count)], [50.0] * count, crs="EPSG:4326")
        return write_table(gpd.GeoDataFrame(frame, geometry=points), tmp_path / name)

    return make


@pytest.fixture
def quick():
    """A factory of settings without waiting."""

    def make(**choices):
        base = {"per_second": 1000, "per_host": 4, "workers": 4, "backoff_s": 0.001, "timeout_s": PATIENCE_S}
        return FetchSettings(**(base | {"allow_private": True} | choices))

    return make


@pytest.fixture
def fetched(server, table, tmp_path, quick):
    """Fetches one address, and gives its row of the status table."""

    def fetch(path, out=tmp_path / "out", **choices):
        uri = path if ":" in path else server.uri(path)
        fetch_photos(table([uri]), out, settings=quick(**choices))
        return pd.read_parquet(out / "status.parquet").iloc[0]

    return fetch
