"""Training from folders of pairs to model folders: what is written, what goes on, what is refused."""

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from geograft.errors import (
    BadSetting,
    DiskFull,
    MissingInput,
    MissingShard,
    OutOfMemory,
    OutputExists,
    TrainingDiverged,
)
from geograft.models.checkpoints import load_model
from geograft.models.multi import load_multi
from geograft.models.satellite import PRESETS, SatelliteEncoder
from geograft.pairs.dataset import load_pairs
from geograft.settings import settings_from
from geograft.training import keeping
from geograft.training.log import read_log
from geograft.training.losses import LossVariant
from geograft.training.task import PairTask
from geograft.training.trainer import TrainingSettings, estimate_training, train

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


# --- several levels, sensors and folders --------------------------------------------------------------------


def weights_of(folder):
    """The bytes of all weights that a training wrote."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("model.safetensors"))}


@pytest.mark.parametrize("level", ["both", "joint"])
def test_two_sensors_train_one_encoder_and_become_a_model_each(pairs, coarse_pairs, settings, tmp_path, level):
    summary = train([pairs, coarse_pairs], tmp_path, settings=dataclasses.replace(settings, level=level, epochs=1))
    together = load_multi(tmp_path / "joint")
    assert set(together) == {"image", "pixel"}
    for name, folder, size in (("world-1m", pairs, 64), ("world-10m", coarse_pairs, 8)):
        model, learnt = load_model(tmp_path / name), load_pairs(folder, split="train")
        assert (model.sensor.name, model.gsd, model.chip_size) == (name, learnt.gsd, size)
        assert model.dense(learnt.chips[:2]).shape == (2, 16, 4, 4)
        with torch.inference_mode():
            chips = torch.from_numpy(learnt.sensor.normalise(learnt.chips[:2]))
            expected = together["image"].embed(chips, sensor=name).numpy()
        np.testing.assert_allclose(model.embed_chips(learnt.chips[:2]), expected, atol=0.02)
    figures = next(iter(summary.metrics.values()))
    assert figures["val_loss"] == pytest.approx(
        np.mean([figures[f"{name}/val_loss"] for name in ("world-1m", "world-10m")])
    )
    assert summary.chips == sum(len(load_pairs(folder, split="train")) for folder in (pairs, coarse_pairs))
    assert list(summary.metrics) == (["joint"] if level == "joint" else ["image", "pixel"])


def test_both_levels_of_one_sensor_may_share_an_encoder(pairs, settings, tmp_path):
    train(pairs, tmp_path, settings=dataclasses.replace(settings, level="joint"))
    model = load_model(tmp_path)
    assert model.levels == ("image", "pixel")
    assert model.encoder("image") is model.encoder("pixel")


def test_two_folders_of_a_sensor_are_learnt_as_one(pairs, tagged_pairs, settings, tmp_path):
    one = dataclasses.replace(settings, level="image", epochs=1)
    alone, both = (train(given, tmp_path / str(len(given)), settings=one) for given in ([pairs], [pairs, tagged_pairs]))
    assert (both.chips, both.pairs) == (2 * alone.chips, 2 * alone.pairs)
    assert load_model(tmp_path / "2").sensor.name == "world-1m"


def test_tags_change_what_is_learnt(tagged_pairs, settings, tmp_path):
    for name, tags in (("none", 0.0), ("some", 0.5)):
        train(tagged_pairs, tmp_path / name, settings=dataclasses.replace(settings, level="joint", tags=tags))
    assert weights_of(tmp_path / "none") != weights_of(tmp_path / "some")


def test_validation_elsewhere_is_measured_instead_of_the_split(pairs, coarse_pairs, tagged_pairs, settings, tmp_path):
    one = dataclasses.replace(settings, level="image", epochs=1)
    own = train(pairs, tmp_path / "own", settings=one).metrics["image"]
    other = train(pairs, tmp_path / "other", settings=one, validation=tagged_pairs).metrics["image"]
    assert own["loss"] == other["loss"]
    assert own["val_loss"] != other["val_loss"]
    for wrong in (coarse_pairs, [pairs, tagged_pairs]):
        with pytest.raises(BadSetting, match="name one folder of each sensor that is trained"):
            train(pairs, tmp_path / "wrong", settings=one, validation=wrong)


def test_an_estimate_counts_all_encoders_and_writes_no_model(pairs, settings):
    before = {path for path in pairs.rglob("*") if "teacher-" not in path.name}
    one, both = (
        estimate_training(pairs, settings=dataclasses.replace(settings, level=level)) for level in ("pixel", "both")
    )
    assert (one.rows, one.steps, one.epochs, both.epochs) == (5, 2, 3, 6)
    assert {path for path in pairs.rglob("*") if "teacher-" not in path.name} == before


# --- going on -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def cut(monkeypatch, at, act=None):
    """Kill training at a step, or do something there."""
    steps, plain = [], PairTask.compare

    def compare(self, found, prepared):
        steps.append(len(steps))
        if len(steps) == at + 1:
            if act is None:
                raise Killed
            act()
        return plain(self, found, prepared)

    monkeypatch.setattr(PairTask, "compare", compare)


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("several", [False, True])
def test_a_joint_run_killed_inside_an_epoch_resumes_to_the_same_bytes(
    pairs, coarse_pairs, settings, tmp_path, several, at
):
    given = [pairs, coarse_pairs] if several else pairs
    chosen = dataclasses.replace(settings, level="joint", epochs=2, batch=4, save_minutes=1e-9)
    train(given, tmp_path / "whole", settings=chosen)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, at)
        with pytest.raises(Killed):
            train(given, tmp_path / "cut", settings=chosen)
    assert weights_of(tmp_path / "cut") == {}
    train(given, tmp_path / "cut", settings=chosen)
    found = weights_of(tmp_path / "cut")
    assert found == weights_of(tmp_path / "whole")
    assert set(found) == (
        {f"{name}/model.safetensors" for name in ("joint", "world-1m", "world-10m")}
        if several
        else {"model.safetensors"}
    )


def test_a_run_goes_on_with_the_windows_that_it_began_with(pairs, settings, tmp_path, monkeypatch):
    little = dataclasses.replace(settings, level="image", batch=3, memory_gb=1e-4, save_minutes=1e-9)
    plenty = dataclasses.replace(little, memory_gb=1.0)
    train(pairs, tmp_path / "whole", settings=little)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, 4)
        with pytest.raises(Killed):
            train(pairs, tmp_path / "cut", settings=little)
    train(pairs, tmp_path / "cut", settings=plenty)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")
    train(pairs, tmp_path / "other", settings=plenty)
    assert weights_of(tmp_path / "other") != weights_of(tmp_path / "whole")


def test_what_changes_no_result_may_differ_when_a_run_goes_on_and_the_rest_may_not(
    pairs, settings, tiny_teacher, tmp_path
):
    first = dataclasses.replace(settings, level="image", epochs=1)
    train(pairs, tmp_path / "model", settings=first)
    moved = shutil.copytree(tiny_teacher.folder, tmp_path / "moved")
    same = [{"chunk": 2}, {"bf16": "on"}, {"memory_gb": 2.0}, {"save_minutes": 1.0}, {"teacher": str(moved)}]
    for change in same:
        train(pairs, tmp_path / "model", settings=dataclasses.replace(first, **change))
    others = [{"lr": 2e-3}, {"alike": 0.0}, {"seed": 1}, {"batch": 4}, {"variant": LossVariant(soft_weight=0.1)}]
    for change in others:
        (name,) = change
        with pytest.raises(OutputExists, match=f"another {name}"):
            train(pairs, tmp_path / "model", settings=dataclasses.replace(first, **change))
    train(pairs, tmp_path / "model", settings=dataclasses.replace(first, lr=2e-3, resume=False))


def test_a_shard_that_vanishes_is_named_and_the_run_goes_on_once_it_is_back(pairs, settings, tmp_path, monkeypatch):
    shutil.copytree(pairs, tmp_path / "pairs")
    shards, away = tmp_path / "pairs" / "shards", tmp_path / "away"
    chosen = dataclasses.replace(settings, level="image", batch=3, memory_gb=1e-4)
    train(tmp_path / "pairs", tmp_path / "whole", settings=chosen)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, 3, act=lambda: shards.rename(away))
        with pytest.raises(MissingShard, match="part-00000"):
            train(tmp_path / "pairs", tmp_path / "cut", settings=chosen)
    away.rename(shards)
    train(tmp_path / "pairs", tmp_path / "cut", settings=chosen)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(pairs, settings, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    chosen = dataclasses.replace(settings, level="image", epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping.torch, "save", full)
        with pytest.raises(DiskFull, match=r"best\.pt: free some space"):
            train(pairs, tmp_path, settings=chosen)
    assert train(pairs, tmp_path, settings=chosen).metrics["image"]["epoch"] == 1


def test_a_step_that_does_not_fit_names_the_chunk_that_may(pairs, settings, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(SatelliteEncoder, "forward", full)
    with pytest.raises(OutOfMemory, match=r"5 rows, 4 encoded at once\. Set chunk: 2"):
        train(pairs, tmp_path, settings=dataclasses.replace(settings, chunk=4))


# --- settings -----------------------------------------------------------------------------------------------


def test_a_file_of_settings_of_the_first_version_is_still_read(tmp_path):
    names = """level: both\npreset: mini\nteacher: mini\nepochs: 20\nbatch: 128\nlr: 0.001\nweight_decay: 0.05
warmup: 0.05\ntemperature: 0.07\njitter: 0.1\nstart: image\nsampling: bilinear\nbf16: auto\nseed: 0\nresume: true\n"""
    (tmp_path / "old.yaml").write_text(names + "place: {reach_m: 9}\nvariant: {soft_weight: 0.2}\n")
    found = settings_from(TrainingSettings, tmp_path / "old.yaml")
    assert (found.epochs, found.batch, found.temperature, found.runs) == (20, 128, 0.07, (("image",), ("pixel",)))
    assert (found.place.reach_m, found.variant.soft_weight) == (9, 0.2)


def test_the_published_protocol_of_walks_hides_no_negatives():
    from geograft.evaluate.walks import WalksSettings

    chosen = WalksSettings().training
    assert (chosen.level, chosen.alike, chosen.apart_m, chosen.tags, chosen.jitter) == ("image", 0, 0, 0, 0)
    assert (chosen.temperature, chosen.variant, chosen.epochs, chosen.batch) == (None, LossVariant(), 12, 128)


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"temperature": 0}, {"epochs": 0}, {"jitter": -1}, {"tags": -1}, {"smooth": -0.1}, {"alike": 1},
     {"alike": -0.1}, {"apart_m": -1}, {"level": "all"}, {"method": "line"}, {"chunk": 0}, {"ema": 1}, {"seed": -1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadSetting):
        TrainingSettings(**wrong)


@pytest.mark.parametrize("line", ["sampling: cubic", "start: pixel", "bf16: maybe", "place: {reach: 1}", "alik: 0"])
def test_lines_that_say_nothing_are_refused(tmp_path, line):
    (tmp_path / "wrong.yaml").write_text(line)
    with pytest.raises(BadSetting, match=line.split(":")[0] if "{" not in line else "reach"):
        settings_from(TrainingSettings, tmp_path / "wrong.yaml")
