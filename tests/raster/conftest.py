"""A loopback server of files that answers ranges, counts what it is asked, and can fail."""

import http.server
import re
import threading
import time
import urllib.parse
from pathlib import Path

import pytest


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
