import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from geograft.errors import BadSetting, MissingInput, TrainingDiverged
from geograft.models.checkpoints import load_model
from geograft.models.satellite import PRESETS
from geograft.pairs.dataset import load_pairs
from geograft.training.log import read_log
from geograft.training.trainer import TrainingSettings, train

TINY = {"image_size": 64, "patch_size": 16, "width": 32, "depth": 1, "heads": 2}


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture
def settings(tiny_teacher):
    return TrainingSettings(preset="tiny", teacher=str(tiny_teacher.folder), epochs=3, batch=8)


def test_both_levels_land_in_one_model(pairs, settings, tmp_path):
    summary = train(pairs, tmp_path / "model", settings=settings)
    model = load_model(tmp_path / "model")
    chips = load_pairs(pairs, split="train").chips
    assert model.levels == ("image", "pixel")
    assert model.embed_chips(chips[:3]).shape == (3, 16)
    assert model.dense(chips[:3]).shape == (3, 16, 4, 4)
    assert summary.chips == len(chips)
    assert set(summary.metrics) == {"image", "pixel"}


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_training_lowers_the_loss(pairs, settings, tmp_path, level):
    chosen = dataclasses.replace(settings, level=level, epochs=15, lr=3e-3)
    train(pairs, tmp_path, settings=chosen)
    log = read_log(tmp_path / "training" / level / "log.jsonl")
    assert len(log) == 15
    assert log[-1]["loss"] < log[0]["loss"] - 0.1
    assert {"val_loss", "recall_1pc", "recall_10pc", "median_rank"} <= log[0].keys()


def test_training_never_reads_the_truth(region, pairs, settings, tmp_path):
    hidden = region.with_name("hidden-truth")
    (region / "truth").rename(hidden)
    try:
        summary = train(pairs, tmp_path / "model", settings=settings)
    finally:
        hidden.rename(region / "truth")
    assert summary.metrics["pixel"]["loss"] > 0


def test_the_same_seed_gives_the_same_model_and_another_does_not(pairs, settings, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(pairs, tmp_path / name, settings=dataclasses.replace(settings, level="image", seed=seed))
    a, b, c = (load_model(tmp_path / name).fingerprint for name in "abc")
    assert a == b
    assert a != c


CHILD = """
import sys, torch
from pathlib import Path
from geograft.models.satellite import PRESETS
from geograft.training.trainer import TrainingSettings, train
torch.set_num_threads(1)
PRESETS["tiny"] = {tiny}
train(Path(sys.argv[1]), Path(sys.argv[2]), settings=TrainingSettings(
    preset="tiny", teacher=sys.argv[3], epochs=40, batch=8, level="pixel"))
"""


def start(pairs, out, teacher):
    command = [sys.executable, "-c", CHILD.format(tiny=TINY), str(pairs), str(out), str(teacher)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def test_a_run_killed_by_the_system_resumes_to_the_same_weights(pairs, tiny_teacher, tmp_path):
    child = start(pairs, tmp_path / "cut", tiny_teacher.folder)
    log = tmp_path / "cut" / "training" / "pixel" / "log.jsonl"
    while child.poll() is None and len(read_log(log)) < 3:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 3 <= len(read_log(log)) < 40
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    for name in ("cut", "whole"):
        assert start(pairs, tmp_path / name, tiny_teacher.folder).wait() == 0
    cut, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("cut", "whole"))
    assert cut == whole


def test_a_chip_of_nans_is_named(pairs, settings, tmp_path, monkeypatch):
    from geograft.sensors import Sensor

    monkeypatch.setattr(Sensor, "normalise", lambda _, pixels: np.full(pixels.shape, np.nan, np.float32))
    first = load_pairs(pairs, split="train").chip_ids
    with pytest.raises(TrainingDiverged) as error:
        train(pairs, tmp_path, settings=settings)
    assert any(chip in str(error.value) for chip in first)


def test_chips_of_another_size_than_the_preset_are_refused(pairs, settings, tmp_path):
    with pytest.raises(BadSetting, match="chips of 32 px, but the pairs have 64 px"):
        train(pairs, tmp_path, settings=dataclasses.replace(settings, preset="mini-10m"))


def test_without_a_validation_split_training_still_ends(pairs, settings, tmp_path):
    shutil.copytree(pairs, tmp_path / "pairs")
    from geograft.tables import read_table, write_table

    chips = read_table(pairs / "chips.parquet")
    write_table(chips[chips["split"] == "train"], tmp_path / "pairs" / "chips.parquet")
    summary = train(tmp_path / "pairs", tmp_path / "model", settings=dataclasses.replace(settings, level="image"))
    assert "val_loss" not in summary.metrics["image"]


def test_pairs_that_are_not_there_are_named(settings, tmp_path):
    with pytest.raises(MissingInput):
        train(tmp_path, tmp_path / "model", settings=settings)


def test_the_pixel_level_starts_where_the_image_level_ended(pairs, settings, tmp_path):
    short = dataclasses.replace(settings, epochs=1, lr=1e-9)
    train(pairs, tmp_path, settings=short)
    model = load_model(tmp_path)
    chips = load_pairs(pairs).chips[:2]
    np.testing.assert_allclose(model.dense(chips), model.dense(chips, level="image"), atol=0.02)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"temperature": 0}, {"epochs": 0}, {"jitter": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadSetting):
        TrainingSettings(**wrong)
