import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest

from geograft.errors import BadSetting, UnreadableScene
from geograft.raster import chip_geobox, open_scene, read, signing, write_cog
from geograft.raster.signing import TokenSigner, signed, signer_of


@pytest.fixture(autouse=True)
def _no_signers(monkeypatch):
    monkeypatch.setattr(signing, "_registered", {})
    monkeypatch.delenv(signing.VARIABLE, raising=False)


@pytest.fixture
def token_server():
    """Gives tokens 1, 2, 3 … that live `life` seconds; what it was asked is in `asked`."""

    class Handler(BaseHTTPRequestHandler):
        asked: ClassVar[list[str]] = []
        life = 3600.0

        def do_GET(self):
            self.asked.append(self.path)
            ends = datetime.now(UTC) + timedelta(seconds=type(self).life)
            body = json.dumps({"token": f"sig={len(self.asked)}", "msft:expiry": ends.isoformat()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Stay quiet."""

    handler = type("Fresh", (Handler,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def scene_file(folder, name="a.tif"):
    pixels = np.random.default_rng(0).integers(1, 250, (4, 1024, 1024), np.uint8)
    path = folder / "box" / name
    tags = {"GEOGRAFT_SENSOR": "naip"}
    write_cog(
        path,
        pixels,
        chip_geobox(32632, 5e5, 5e6, gsd=1, size=1024),
        band_names=("red", "green", "blue", "nir"),
        tags=tags,
    )
    return pixels


def box(left, top):
    return chip_geobox(32632, 5e5 + left, 5e6 - top, gsd=1, size=64)


def test_a_token_is_asked_once_a_container_and_kept_until_it_expires(token_server):
    sign = TokenSigner(f"{token_server.url}/token/")
    assert sign("https://acct.blob.example.net/box/a/b.tif") == "https://acct.blob.example.net/box/a/b.tif?sig=1"
    assert sign("https://acct.blob.example.net/box/c.tif").endswith("?sig=1")
    assert sign("https://acct.blob.example.net/other/c.tif").endswith("?sig=2")
    assert token_server.asked == ["/token/acct/box", "/token/acct/other"]
    assert sign("https://acct.blob.example.net/box/c.tif?sig=own") == "https://acct.blob.example.net/box/c.tif?sig=own"
    sign.forget()
    token_server.life = 30.0
    assert [sign("https://acct.blob.example.net/box/c.tif")[-1] for _ in range(2)] == ["3", "4"]


def test_a_scene_is_signed_as_it_is_opened_and_again_when_its_token_has_expired(tmp_path, file_server, token_server):
    pixels = scene_file(tmp_path)
    signing.register("tokens", TokenSigner(f"{token_server.url}/token"))
    good = {"1"}
    file_server.refuse = lambda query: 200 if query.get("sig") in good else 403
    scene = open_scene(f"{file_server.url}/box/a.tif", signer="tokens")
    assert "sig" not in scene.path
    assert np.array_equal(read(scene, box(0, 0)).pixels, pixels[:, :64, :64])
    good.clear()
    good.add("2")
    assert np.array_equal(read(scene, box(700, 700)).pixels, pixels[:, 700:764, 700:764])
    assert token_server.asked == ["/token/127/box"] * 2
    good.clear()
    with pytest.raises(UnreadableScene, match=r"refuses .*a\.tif \(403\)") as caught:
        read(scene, box(300, 700))
    assert "sig=" not in str(caught.value)


def test_without_a_signer_a_refused_scene_says_to_name_one(tmp_path, file_server):
    scene_file(tmp_path, "b.tif")
    file_server.refuse = lambda query: 200 if query else 403
    with pytest.raises(UnreadableScene, match="signer"):
        open_scene(f"{file_server.url}/box/b.tif")


def test_a_signer_is_found_by_the_pattern_of_a_host_or_by_its_name():
    signing.register("*.example.org", lambda uri: f"{uri}?host")
    signing.register("mine", lambda uri: f"{uri}?mine")
    assert signed("https://a.example.org/x.tif") == "https://a.example.org/x.tif?host"
    assert signed("https://a.example.org:8080/x.tif") == "https://a.example.org:8080/x.tif?host"
    assert signed("https://a.example.org/x.tif", "mine") == "https://a.example.org/x.tif?mine"
    assert signed("https://example.com/x.tif") == "https://example.com/x.tif"
    assert signed("/data/x.tif") == "/data/x.tif"


def test_the_environment_names_code_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "signs_for_me.py").write_text("def sign(uri):\n    return uri + '?mine'\n\nnumber = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(signing.VARIABLE, "mine=signs_for_me:sign; *.example.org=signs_for_me:sign")
    assert signed("https://any.net/x", "mine") == "https://any.net/x?mine"
    assert signed("https://a.example.org/x") == "https://a.example.org/x?mine"
    for wrong in ("m=signs_for_me:absent", "m=no_such_module:sign", "m=signs_for_me:number", "m"):
        monkeypatch.setenv(signing.VARIABLE, wrong)
        with pytest.raises(BadSetting, match=signing.VARIABLE):
            signed("https://any.net/x", "m")
    sys.modules.pop("signs_for_me", None)


def test_a_table_cannot_name_code():
    with pytest.raises(BadSetting, match="No signer is called 'os:remove'"):
        signed("https://any.net/x", "os:remove")


def test_the_planetary_computer_is_known_by_name(token_server, monkeypatch):
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{token_server.url}/sas")
    assert signed("https://acct.blob.core.windows.net/box/a.tif", "planetary-computer").endswith("a.tif?sig=1")
    assert signer_of("https://acct.blob.core.windows.net/box/a.tif") is None


def test_an_endpoint_that_gives_no_token_is_named():
    with pytest.raises(UnreadableScene, match="No token"):
        TokenSigner("http://127.0.0.1:9")("https://acct.blob.example.net/box/a.tif")
