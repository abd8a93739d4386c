"""Training from the command line."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from geograft.cli import app
from geograft.errors import BadSetting, MissingInput
from geograft.models.checkpoints import load_model
from geograft.models.satellite import PRESETS

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "training" / "conftest.py")))
region, tiny_teacher, pairs, coarse_pairs = made.region, made.tiny_teacher, made.pairs, made.coarse_pairs

run = CliRunner().invoke


@pytest.fixture
def options(tiny_teacher, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", {"image_size": 64, "patch_size": 16, "width": 32, "depth": 1, "heads": 2})
    return ["--preset", "tiny", "--teacher", str(tiny_teacher.folder), "--epochs", "1", "--batch", "4"]


def test_two_sensors_train_and_the_summary_is_one_object(pairs, coarse_pairs, options, tmp_path):
    done = run(app, ["train", str(pairs), str(coarse_pairs), str(tmp_path), "--level", "joint", *options, "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert set(summary) == {"folder", "chips", "pairs", "metrics", "seconds"}
    assert {"loss", "val_loss", "recall_1pc", "epoch", "world-1m/val_loss"} <= set(summary["metrics"]["joint"])
    assert load_model(tmp_path / "world-10m").levels == ("image", "pixel")


def test_a_dry_run_reads_well_and_writes_no_model(pairs, coarse_pairs, options, tmp_path):
    out = tmp_path / "model"
    told = run(app, ["train", str(pairs), str(coarse_pairs), str(out), *options, "--dry-run"])
    assert told.exit_code == 0, told.output
    lines = dict(line.split(maxsplit=1) for line in told.stdout.splitlines())
    assert list(lines) == ["device", "model", "batch", "step", "time"]
    assert lines["device"].endswith("of memory free")
    assert "GB" in lines["device"]
    assert lines["step"].endswith("with these settings: fits")
    assert "2 epochs of" in lines["time"]
    found = json.loads(run(app, ["train", str(pairs), str(out), *options, "--dry-run", "--json"]).stdout)
    assert {"device", "parameters", "row", "step", "free", "fits", "chunk", "seconds", "hours"} <= set(found)
    assert not out.exists()


def test_options_win_over_the_file_of_settings(pairs, options, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text("level: image\nepochs: 7\nsmooth: 0.0\n")
    out = str(tmp_path / "model")
    done = run(app, ["train", str(pairs), out, *options, "--config", str(config), "--json"])
    assert done.exit_code == 0, done.output
    settings = json.loads((tmp_path / "model" / "manifest.json").read_text())["settings"]
    assert (settings["level"], settings["epochs"], settings["smooth"]) == ("image", 1, 0.0)


def test_a_folder_that_is_not_there_is_a_sentence_and_exit_code_2(tmp_path):
    command = ["-m", "geograft.cli", "train", str(tmp_path / "nowhere"), str(tmp_path / "model")]
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "nowhere" in line
    assert "geograft pairs" in line


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--engine", "nonsense"], "the engine ray or ray:HOST:PORT, not 1, nonsense"),
        (["--engine", "ray", "--workers", "0"], "needs workers >= 1"),
        (["--workers", "4"], "for --engine ray.*torchrun --nproc-per-node 4"),
        (["--gpus"], "for --engine ray"),
        (["--level", "all"], "level.*image"),
        (["--epochs", "0"], "epochs >= 1"),
        (["--lr", "0"], "lr > 0"),
        (["--chunk", "0"], "chunk"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(tmp_path, wrong, sentence):
    done = run(app, ["train", str(tmp_path / "pairs"), str(tmp_path / "model"), *wrong])
    assert isinstance(done.exception, BadSetting)
    assert re.search(sentence, str(done.exception))


def test_one_folder_alone_is_wrong_use_and_a_missing_config_is_named(tmp_path):
    assert run(app, ["train", str(tmp_path)]).exit_code == 2
    done = run(app, ["train", str(tmp_path), str(tmp_path / "model"), "--config", str(tmp_path / "none.yaml")])
    assert isinstance(done.exception, MissingInput)
