import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pandas as pd
import pytest

from geograft.sources.fetch import fetch_photos
from geograft.sources.fetching import download

PATIENCE_S = 20


# --- servers that fail, stall and lie -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "attempts"),
    [
        (401, "forbidden", 1),
        (403, "forbidden", 1),
        (404, "gone", 1),
        (410, "gone", 1),
        (418, "http-error", 1),
        (204, "http-error", 1),
        (304, "http-error", 1),
        (429, "too-many-requests", 3),
        (500, "server-error", 3),
        (503, "server-error", 3),
    ],
)
def test_every_answer_has_its_reason_and_passing_ones_are_tried_again(server, status, reason, attempts, fetched):
    server.routes["x"] = lambda handler: handler.answer(status)
    row = fetched("x", attempts=3)
    assert (row["status"], row["reason"], row["http_status"], row["attempts"]) == ("failed", reason, status, attempts)
    assert server.hits["/x"] == attempts


def test_a_server_that_fails_and_then_works_gives_the_photo(server, fetched, image_bytes):
    server.routes["moody"] = lambda handler: (
        handler.answer(500) if handler.count < 4 else handler.answer(body=image_bytes())
    )
    row = fetched("moody", attempts=4)
    assert (row["status"], row["attempts"]) == ("done", 4)


def test_a_busy_server_is_asked_again_after_the_time_it_names(server, fetched, image_bytes):
    times = []

    def busy(handler):
        times.append(time.monotonic())
        handler.answer(429, headers={"Retry-After": "1"}) if handler.count == 1 else handler.answer(body=image_bytes())

    server.routes["busy"] = busy
    assert fetched("busy")["status"] == "done"
    assert times[1] - times[0] >= 1


def test_retry_after_may_be_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert download._seconds(format_datetime(soon, usegmt=True)) == pytest.approx(90, abs=5)
    assert download._seconds(format_datetime(soon - timedelta(days=1))) == 0
    assert [download._seconds(text) for text in ("7", " 0 ", "soon", "", None, "-3")] == [7, 0, None, None, None, None]


def test_a_host_that_asks_to_wait_for_hours_is_left_for_another_run(server, table, tmp_path, caplog, quick):
    server.routes["busy"] = lambda handler: handler.answer(503, headers={"Retry-After": "7200"})
    uris = [server.uri(f"busy/{row}") for row in range(5)]
    summary = fetch_photos(table(uris), tmp_path / "out", settings=quick(per_host=1))
    assert summary.failed == {"host-stopped": 5}
    assert server.hits.total() == 1
    assert "asks to wait 7200 s" in caplog.text


@pytest.mark.parametrize("status", [403, 429])
def test_a_host_that_refuses_in_a_row_is_left_for_the_next_run(
    server, table, tmp_path, caplog, status, quick, image_bytes
):
    server.routes["x"] = lambda handler: handler.answer(status)
    photos = table([server.uri(f"x/{row}") for row in range(100)])
    summary = fetch_photos(photos, tmp_path / "out", settings=quick(per_host=1, stop_after=20))
    assert server.hits.total() == 20
    assert sum(summary.failed.values()) == 100
    assert summary.failed["host-stopped"] >= 80
    assert "refused 20 requests in a row" in caplog.text
    server.routes["x"] = lambda handler: handler.answer(body=image_bytes())
    again = fetch_photos(photos, tmp_path / "out", settings=quick())
    assert again.done == summary.failed["host-stopped"]


def test_a_server_that_stalls_times_out(server, fetched):
    server.routes["stall"] = lambda handler: handler.server.over.wait(PATIENCE_S)
    row = fetched("stall", timeout_s=0.2, attempts=2)
    assert (row["reason"], row["attempts"]) == ("timeout", 2)


def test_a_server_that_stalls_in_the_middle_times_out(server, fetched, image_bytes):
    def stall(handler):
        handler.answer(body=image_bytes()[:100], length=10_000)
        server.over.wait(PATIENCE_S)

    server.routes["stall"] = stall
    assert fetched("stall", timeout_s=0.2, attempts=1)["reason"] == "timeout"


def drip(handler, pieces):
    handler.close_connection = True
    for piece in pieces:
        handler.wfile.write(piece)
        handler.wfile.flush()
        if handler.server.over.wait(0.02):
            return


def test_a_server_that_drips_a_body_is_cut_off(server, fetched):
    def dripping(handler):
        handler.answer(length=100_000)
        drip(handler, (b"\xff" for _ in range(1000)))

    server.routes["drip"] = dripping
    assert fetched("drip", max_seconds=0.5)["reason"] == "too-slow"


def test_a_server_that_drips_headers_is_cut_off(server, fetched):
    def dripping(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        drip(handler, (b"a" for _ in range(1000)))

    server.routes["drip"] = dripping
    assert fetched("drip", max_seconds=0.5)["reason"] == "too-slow"


def test_a_body_that_is_shorter_than_it_says_is_asked_for_again(server, fetched, image_bytes):
    body = image_bytes(0, size=(800, 600))
    server.routes["short"] = lambda handler: handler.answer(
        body=body[: len(body) // 2] if handler.count == 1 else body, length=len(body)
    )
    row = fetched("short")
    assert (row["status"], row["attempts"], row["bytes"]) == ("done", 2, len(body))


def test_an_answer_that_breaks_off_in_its_headers_is_asked_for_again(server, fetched, image_bytes):
    def broken(handler):
        if handler.count == 1:
            handler.close_connection = True
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
        else:
            handler.answer(body=image_bytes())

    server.routes["broken"] = broken
    row = fetched("broken")
    assert (row["status"], row["attempts"]) == ("done", 2)


def test_a_body_that_is_longer_than_it_says_is_a_truncated_image(server, fetched, image_bytes):
    body = image_bytes(0, size=(800, 600))
    server.routes["long"] = lambda handler: handler.answer(body=body, length=len(body) // 2)
    assert fetched("long", attempts=2)["reason"] == "truncated"


def test_a_page_with_200_is_no_image(server, tmp_path, fetched):
    server.routes["page"] = lambda handler: handler.answer(
        body=b"<html>please log in</html>", headers={"Content-Type": "image/jpeg"}
    )
    row = fetched("page")
    assert (row["reason"], row["attempts"]) == ("not-an-image", 1)
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_an_image_that_needs_another_program_is_not_opened(server, fetched):
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    server.routes["eps"] = lambda handler: handler.answer(body=script)
    assert fetched("eps")["reason"] == "not-an-image"


def test_photos_that_are_too_large_are_not_downloaded(server, tmp_path, fetched):
    server.routes["says"] = lambda handler: handler.answer(length=10**12)
    assert fetched("says", tmp_path / "a", max_bytes=1000)["reason"] == "too-large"

    def chunks(handler):
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not server.over.is_set():
            handler.wfile.write(b"400\r\n" + bytes(1024) + b"\r\n")

    server.routes["endless"] = chunks
    assert fetched("endless", tmp_path / "b", max_bytes=100_000)["reason"] == "too-large"


def test_redirects_are_followed_a_few_times_and_only_to_the_web(server, table, tmp_path, quick):
    def to(where):
        return lambda handler: handler.answer(302, headers={"Location": where})

    server.routes |= {
        "once": to("/photo/1"),
        "loop": to("/loop"),
        "file": to("file:///etc/passwd"),
        "none": to("http://["),
    }
    uris = [server.uri(path) for path in ("once", "loop", "file", "none")]
    fetch_photos(table(uris), tmp_path / "out", settings=quick(max_redirects=3))
    reasons = pd.read_parquet(tmp_path / "out" / "status.parquet")["reason"]
    assert reasons.fillna("").tolist() == [
        "",
        "too-many-redirects",
        "bad-scheme",
        "bad-url",
    ]
    assert server.hits["/loop"] == 4


def test_a_server_that_is_not_there_fails_by_name(server, make_server, fetched):
    server = make_server()
    server.end()
    row = fetched(server.uri("photo/1"), attempts=2)
    assert (row["reason"], row["attempts"]) == ("connection", 2)


# --- addresses of the own network ---------------------------------------------------------------------------


def test_the_own_network_is_not_asked_unless_allowed(server, table, tmp_path, quick):
    port = server.server_port
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}", f"2130706433:{port}", f"[::ffff:127.0.0.1]:{port}"]
    summary = fetch_photos(
        table([f"http://{host}/photo/1" for host in hosts]), tmp_path / "out", settings=quick(allow_private=False)
    )
    assert summary.failed == {"private-address": 4}
    assert not server.hits


def test_a_redirect_into_the_own_network_is_not_followed(server, monkeypatch, make_server, fetched):
    inside = make_server("127.0.0.2")
    monkeypatch.setattr(download, "_is_public", lambda address: address == "127.0.0.1")
    server.routes["away"] = lambda handler: handler.answer(302, headers={"Location": inside.uri("photo/1")})
    row = fetched("away", allow_private=False)
    assert row["reason"] == "private-address"
    assert not inside.hits


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2600::1", True),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
    ],
)
def test_public_addresses_are_told_from_others(address, public):
    assert download._is_public(address) == public
