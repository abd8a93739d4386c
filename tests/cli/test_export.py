"""Taking models out from the command line."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from geograft.cli import app
from geograft.errors import NotShareable
from geograft.models.checkpoints import load_model, save_model

run = CliRunner().invoke


def test_an_export_prints_one_object_and_is_a_model(tmp_path):
    pytest.importorskip("onnxruntime")
    done = run(app, ["export", "mini-10m", str(tmp_path / "fast"), "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["parity"]["cosine_min"] > 0.9999
    assert summary["mixes"] is True
    assert load_model(tmp_path / "fast").fingerprint == load_model("mini-10m").fingerprint


def test_an_unknown_format_is_wrong_use(tmp_path):
    assert run(app, ["export", "mini", str(tmp_path / "fast"), "--format", "tflite"]).exit_code == 2


def test_a_push_without_licence_is_refused_and_a_dry_run_lists_the_files(tmp_path):
    model = load_model("mini-10m")
    model.origin = replace(model.origin, licence="")
    folder = save_model(model, tmp_path / "model")
    refused = run(app, ["push", str(folder), "my-org/walks", "--dry-run"])
    assert isinstance(refused.exception, NotShareable)
    done = run(app, ["push", str(folder), "my-org/walks", "--dry-run", "--licence", "apache-2.0"])
    assert done.exit_code == 0, done.output
    for name in ("config.json", "model.safetensors", "README.md", "stac-mlm.json", "nothing is uploaded"):
        assert name in done.stdout
