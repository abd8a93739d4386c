"""What several test folders share: small scenes, photos with EXIF, a server of files, the real data."""

import http.server
import os
import re
import threading
import time
import urllib.parse
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GEOGRAFT_WORKERS", "1")  # tests that are about workers ask for more

import hypothesis
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from rasterio.enums import ColorInterp

from geograft.sensors import get_sensor

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")  # one commit, one verdict; `--hypothesis-profile default` looks further

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data; the test is skipped where the checkout stands alone."""
    if not SHARED.is_dir():
        pytest.skip("the real data (../shared/data beside the checkout) is absent")
    return SHARED


@pytest.fixture
def make_scene(tmp_path):
    """A factory of small GeoTIFFs: give what matters, get the path."""

    def make(
        name="scene.tif",
        *,
        pixels=None,
        sensor="world-1m",
        size=64,
        crs="EPSG:32632",
        transform=None,
        dtype=None,
        nodata=None,
        descriptions="sensor",
        tags=None,
        alpha=None,
        mask=None,
        scale=None,
        offset=None,
        seed=0,
        **profile,
    ):
        spec = get_sensor(sensor)
        if pixels is None:
            low, high = (1, 250) if (dtype or spec.dtype) == "uint8" else (1000, 4000)
            pixels = np.random.default_rng(seed).integers(low, high, (len(spec.bands), size, size))
        pixels = np.asarray(pixels).astype(dtype or spec.dtype)
        bands = pixels if alpha is None else np.concatenate([pixels, alpha[None].astype(pixels.dtype)])
        names = list(spec.bands) if descriptions == "sensor" else descriptions
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {
            "driver": "GTiff",
            "count": len(bands),
            "height": bands.shape[1],
            "width": bands.shape[2],
            "dtype": bands.dtype.name,
            "crs": crs,
            "nodata": nodata,
            "transform": transform or Affine(spec.gsd, 0, 500_000, 0, -spec.gsd, 5_000_000),
        }
        with rasterio.open(path, "w", **(options | profile)) as file:
            if alpha is not None:
                file.colorinterp = [*file.colorinterp[:-1], ColorInterp.alpha]
            file.write(bands)
            if names is not None:
                for index, text in enumerate(names, start=1):
                    file.set_band_description(index, text)
            if scale is not None:
                file.scales, file.offsets = (scale,) * len(bands), (offset,) * len(bands)
            if mask is not None:
                file.write_mask(mask)
            file.update_tags(**(tags if tags is not None else {"GEOGRAFT_SENSOR": sensor}))
        return path

    return make


def rationals(degrees):
    """Degrees, minutes and seconds as a camera writes them."""
    degrees = abs(degrees)
    minutes = degrees % 1 * 60
    return (
        IFDRational(int(degrees), 1),
        IFDRational(int(minutes), 1),
        IFDRational(round(minutes % 1 * 60 * 10000), 10000),
    )


def gps_tags(lat, lon):
    """The four GPS tags of a position."""
    return {1: "S" if lat < 0 else "N", 2: rationals(lat), 3: "W" if lon < 0 else "E", 4: rationals(lon)}


@pytest.fixture
def make_photo(tmp_path):
    """A factory of small JPEGs with EXIF: give what matters, get the path; `gps` and `camera` are raw tags."""
    made = 0

    def make(
        name="photo.jpg",
        *,
        lat=None,
        lon=None,
        accuracy=None,
        heading=None,
        taken=None,
        gps=None,
        camera=None,
        tags=None,
        size=(64, 48),
        folder=None,
        seed=None,
    ):
        nonlocal made
        made += 1
        exif = Image.Exif()
        place = gps_tags(lat, lon) if lat is not None else {}
        place |= {31: accuracy} if accuracy is not None else {}
        place |= {16: "T", 17: heading} if heading is not None else {}
        place |= gps or {}
        if place:
            exif[0x8825] = place
        about = ({0x9003: taken} if taken else {}) | (camera or {})
        if about:
            exif[0x8769] = about
        for number, value in (tags or {}).items():
            exif[number] = value
        rng = np.random.default_rng(made if seed is None else seed)
        path = (folder or tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path, exif=exif, quality=80)
        return path

    return make


class FileServer:
    """Serves a folder over HTTP with ranges.

    Attributes:
        asked: the method, path and range of every request so far.
        failing: statuses that the next requests get before they are served.
        refuse: called with a request's query; its status is answered where it is no 200.
    """

    def __init__(self, folder):
        self.asked, self.failing, self.refuse, self.delay = [], [], lambda _: 200, 0.0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, *, body):
                address = urllib.parse.urlsplit(self.path)
                asked = self.headers.get("Range")
                owner.asked.append((self.command, address.path, asked))
                time.sleep(owner.delay)
                status = (
                    owner.failing.pop(0) if owner.failing else owner.refuse(dict(urllib.parse.parse_qsl(address.query)))
                )
                path = Path(folder) / address.path.lstrip("/")
                status = 404 if status == 200 and not path.is_file() else status
                if status != 200:
                    self.reply(status, b"", {})
                    return
                content = path.read_bytes()
                size, wanted = len(content), re.match(r"bytes=(\d+)-(\d*)", asked or "")
                headers = {"Accept-Ranges": "bytes"}
                if wanted:
                    first, last = int(wanted[1]), min(int(wanted[2] or size), size - 1)
                    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
                    content = content[first : last + 1]
                self.reply(206 if wanted else 200, content, headers, body=body)

            def reply(self, status, content, headers, *, body=True):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    with suppress(OSError):  # the reader may have gone
                        self.wfile.write(content)

            def log_message(self, *args):
                """Stay quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def file_server(tmp_path, monkeypatch):
    """The files of `tmp_path` over HTTP, with retries that do not wait long."""
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.02")
    server = FileServer(tmp_path)
    yield server
    server.close()
