"""Uploads to and downloads from a hub on loopback, which speaks the endpoints that the hub's own client asks for."""

import base64
import hashlib
import http.server
import json
import re
import threading
from contextlib import suppress

import numpy as np
import pytest
from huggingface_hub import constants

from geograft.errors import BadSetting, CheckpointMismatch, NotShareable, UnknownModel, UploadFailed
from geograft.models.card import front_matter
from geograft.models.checkpoints import load_model, save_model
from geograft.models.hub import download_folder, push_to_hub, set_licence
from geograft.models.model import Origin

COMMIT = "c0ffee" + "0" * 34
API = r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)"


class Hub:
    """What a hub knows.

    Attributes:
        repos: repository to file to bytes.
        seen: the paths that were asked for.
        refuses: whether it answers everything with 403.
        created: what it was asked to create.
    """

    def __init__(self):
        self.repos, self.seen, self.created, self.tokens = {}, [], [], set()
        self.refuses, self.address = False, ""

    def post(self, path, body):
        if path == "/api/repos/create":
            about = json.loads(body)
            self.created.append(about)
            self.repos.setdefault(f"{about['organization']}/{about['name']}", {})
            return {"url": f"{self.address}/{about['organization']}/{about['name']}"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if re.fullmatch(rf"{API}/branch/\w+", path):
            return {}
        if re.fullmatch(rf"{API}/preupload/\w+", path):
            files = [each["path"] for each in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in files]}
        repo = re.fullmatch(rf"{API}/commit/\w+", path)["repo"]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return {"commitUrl": f"{self.address}/{repo}/commit/{COMMIT}", "commitOid": COMMIT}

    def get(self, path):
        """JSON values, or the bytes of a file; None where there is nothing."""
        if match := re.fullmatch(rf"{API}(/revision/\w+)?", path):
            files = self.repos.get(match["repo"])
            siblings = [{"rfilename": name} for name in files or ()]
            return files and {"id": match["repo"], "sha": COMMIT, "siblings": siblings}
        if match := re.fullmatch(rf"{API}/tree/\w+", path):
            files = self.repos[match["repo"]]
            return [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        match = re.fullmatch(r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/\w+/(?P<file>.+)", path)
        return self.repos.get(match["repo"], {}).get(match["file"]) if match else None


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes requests on to a `Hub`."""

    hub: Hub

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(lambda path: self.hub.post(path, body))

    def do_GET(self):
        self.answer(self.hub.get)

    do_HEAD = do_GET  # noqa: N815 - the name is the protocol's

    def answer(self, find):
        path = self.path.split("?")[0]
        self.hub.seen.append(path)
        self.hub.tokens.add(self.headers.get("Authorization"))
        found = None if self.hub.refuses else find(path)
        lost = {"error": "forbidden" if self.hub.refuses else "not found"}
        content = found if isinstance(found, bytes) else json.dumps(lost if found is None else found).encode()
        self.send_response(403 if self.hub.refuses else 404 if found is None else 200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/octet-stream" if isinstance(found, bytes) else "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(BrokenPipeError):
                self.wfile.write(content)

    def log_message(self, *_args):
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on loopback, for this process's client, with an empty cache and a token."""
    known = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": known}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    known.address = address
    yield known
    server.shutdown()
    server.server_close()


@pytest.fixture
def licensed(make_model, tmp_path):
    """The folder of a model that may be passed on, with a training's leftovers in it."""
    origin = Origin(training={"photo_licences": {"cc-by": 3}}, licence="apache-2.0")
    folder = save_model(make_model(origin=origin), tmp_path / "model")
    (folder / "training").mkdir()
    (folder / "training" / "checkpoint.pt").write_bytes(b"state")
    (folder / "manifest.json").write_text("{}")
    return folder


def test_a_pushed_folder_comes_back_as_the_same_model(hub, licensed, chips):
    summary = push_to_hub(licensed, "my-org/walks-1m")
    assert set(hub.repos["my-org/walks-1m"]) == {"config.json", "README.md", "model.safetensors", "stac-mlm.json"}
    assert (summary.commit, summary.url) == (COMMIT, f"{hub.address}/my-org/walks-1m")
    here, there = load_model(licensed), load_model("hf-hub:my-org/walks-1m")
    assert there.fingerprint == here.fingerprint
    np.testing.assert_array_equal(there.embed_chips(chips), here.embed_chips(chips))


def test_what_was_downloaded_once_needs_no_network(hub, licensed):
    push_to_hub(licensed, "my-org/walks-1m")
    first = download_folder("hf-hub:my-org/walks-1m")
    hub.seen.clear()
    assert download_folder("hf-hub:my-org/walks-1m") == first
    assert hub.seen == []


def test_a_private_repository_is_made_private_and_the_token_is_that_of_the_environment(hub, licensed):
    summary = push_to_hub(licensed, "my-org/walks-1m", private=True)
    assert hub.created[0]["visibility"] == "private"
    assert hub.tokens == {"Bearer secret"}
    assert "(private, apache-2.0)" in summary.lines()[0]


def test_a_branch_is_made_where_one_is_named(hub, licensed):
    push_to_hub(licensed, "my-org/walks-1m", revision="v2")
    assert "/api/models/my-org/walks-1m/branch/v2" in hub.seen
    assert "/api/models/my-org/walks-1m/commit/v2" in hub.seen


def test_a_dry_run_says_what_would_be_uploaded_and_asks_nobody(hub, licensed, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    summary = push_to_hub(licensed, "my-org/walks-1m", dry_run=True)
    assert hub.seen == []
    assert summary.commit is None
    assert summary.files["model.safetensors"] == (licensed / "model.safetensors").stat().st_size
    assert "checkpoint.pt" not in "".join(summary.lines())


def test_a_folder_without_licence_or_card_is_not_shared(hub, make_model, licensed, tmp_path):
    folder = save_model(make_model(), tmp_path / "other")
    with pytest.raises(NotShareable, match="names no licence"):
        push_to_hub(folder, "my-org/other")
    (licensed / "README.md").unlink()
    with pytest.raises(NotShareable, match="has no card"):
        push_to_hub(licensed, "my-org/walks-1m")
    with pytest.raises(NotShareable, match="no model folder"):
        push_to_hub(tmp_path, "my-org/walks-1m")
    assert hub.seen == []


def test_a_licence_that_is_given_is_written_to_the_folder(hub, make_model, tmp_path):
    folder = save_model(make_model(), tmp_path / "other")
    before = load_model(folder).fingerprint
    push_to_hub(folder, "my-org/other", licence="cc-by-4.0")
    assert front_matter((folder / "README.md").read_text())["license"] == "cc-by-4.0"
    assert load_model("hf-hub:my-org/other").origin.licence == "cc-by-4.0"
    assert load_model(folder).fingerprint == before


def test_the_licence_of_an_export_is_that_of_its_model(make_model, tmp_path):
    pytest.importorskip("onnxruntime")
    from geograft.models.inference.export import export_model

    export_model(make_model(levels=("image",), origin=Origin(licence="mit")), tmp_path / "fast")
    set_licence(tmp_path / "fast", "mit")
    assert "image.onnx" in push_to_hub(tmp_path / "fast", "my-org/fast", dry_run=True).files
    with pytest.raises(NotShareable, match="is an export"):
        set_licence(tmp_path / "fast", "apache-2.0")


def test_a_damaged_folder_is_not_shared(hub, licensed):
    path = licensed / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointMismatch, match="truncated"):
        push_to_hub(licensed, "my-org/walks-1m")
    assert hub.seen == []


def test_what_others_will_stumble_over_is_said(make_model, tmp_path):
    origin = Origin(training={"photo_licences": {"cc-by-nc": 3, "cc0": 1}}, licence="apache-2.0")
    model = make_model(origin=origin, teacher=("/home/me/clip", "0" * 16))
    notes = push_to_hub(save_model(model, tmp_path / "model"), "my-org/walks-1m", dry_run=True).notes
    assert len(notes) == 2
    assert "/home/me/clip" in notes[0]
    assert "cc-by-nc were used" in notes[1]


def test_without_a_token_it_is_said_where_there_is_one(hub, licensed, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UploadFailed, match="HF_TOKEN"):
        push_to_hub(licensed, "my-org/walks-1m")


def test_a_hub_that_refuses_or_is_not_there_is_an_upload_that_failed(hub, licensed, monkeypatch):
    hub.refuses = True
    with pytest.raises(UploadFailed, match="did not take my-org/walks-1m: "):
        push_to_hub(licensed, "my-org/walks-1m")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UploadFailed, match="did not take my-org/walks-1m: "):
        push_to_hub(licensed, "my-org/walks-1m")


@pytest.mark.parametrize("repo", ["walks", "a/b/c", "my org/walks", ""])
def test_a_repository_has_an_owner_and_a_name(licensed, repo):
    with pytest.raises(BadSetting, match="org/name"):
        push_to_hub(licensed, repo, dry_run=True)


def test_models_that_the_hub_does_not_have_are_unknown(hub):
    with pytest.raises(UnknownModel, match="my-org/nothing is neither cached nor downloadable"):
        load_model("hf-hub:my-org/nothing")
    with pytest.raises(UnknownModel, match="hf-hub:org/name"):
        load_model("hf-hub:nothing")
    hub.repos["my-org/clip"] = {"README.md": b"# no model folder"}
    with pytest.raises(UnknownModel, match=r"no config\.json of a model folder"):
        load_model("hf-hub:my-org/clip")
