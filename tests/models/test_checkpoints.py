import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geograft.errors import CheckpointMismatch, DiskFull, UnknownModel
from geograft.models import checkpoints
from geograft.models.checkpoints import SHIPPED, load_model, save_model
from geograft.models.model import Origin


@pytest.fixture
def saved(make_model, tmp_path):
    """The folder of a saved model."""
    origin = Origin(training={"data": "walks", "epochs": 3, "lr": np.float32(0.5)}, metrics={"map@100": 71.25})
    return save_model(make_model(origin=origin), tmp_path / "model")


def edit(folder, change):
    """Change a folder's configuration."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def reweigh(folder, change):
    """Change a folder's weights."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def test_a_saved_model_answers_the_same(make_model, saved, chips):
    before, after = make_model(), load_model(saved)
    assert (after.embed_chips(chips) * before.embed_chips(chips)).sum(axis=1).min() > 0.999
    assert after.fingerprint == before.fingerprint
    assert (after.levels, after.sensor, after.gsd) == (before.levels, before.sensor, before.gsd)
    assert (after.teacher_name, after.teacher_fingerprint) == ("named", "0123456789abcdef")
    assert after.origin.metrics == {"map@100": 71.25}
    assert after.origin.training == {"data": "walks", "epochs": 3, "lr": 0.5}


def test_a_model_is_loaded_with_a_teacher_at_hand(saved, teacher):
    assert load_model(saved, teacher=teacher).teacher is teacher


def test_saving_again_gives_the_same_bytes(saved, tmp_path):
    again = save_model(load_model(saved), tmp_path / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_weights_are_float16_under_the_name_of_their_level(saved):
    weights = load_file(saved / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert {key.split(".")[0] for key in weights} == {"image", "pixel"}
    assert "pixel.projector.1.weight" in weights
    assert "image.satellite_image_backbone.visual_projection.weight" in weights


def test_a_model_of_one_level_stays_one(make_model, tmp_path):
    assert load_model(save_model(make_model(levels=("pixel",)), tmp_path / "pixel")).levels == ("pixel",)


def test_the_card_says_what_was_trained_measured_and_how_to_use_it(saved):
    card = (saved / "README.md").read_text()
    for fact in (
        "# small",
        "| data | walks |",
        "| map@100 | 71.25 |",
        "## Limits",
        "model.encode_text",
        "green, red, nir",
    ):
        assert fact in card


def test_the_cards_snippet_runs(make_model, teacher, tmp_path, chips, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("geograft.models.model.load_teacher", lambda _name: teacher)
    for level, shape in (("image", (7, 2)), ("pixel", (7, 2, 4, 4))):
        save_model(make_model(levels=(level,)), "small")
        code = Path("small/README.md").read_text().split("```python\n")[1].split("```")[0]
        names = {"chips_given": chips}
        exec(code.replace("chips = ...", "chips = chips_given"), names)
        assert names["scores"].shape == shape


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("image.projector.1.weight"), r"image level .* missing projector\.1\.weight"),
        (lambda w: w.update({"image.stranger": torch.zeros(1)}), "unknown stranger"),
        (lambda w: w.update({"object.stranger": torch.zeros(1)}), "object.stranger, which is of no level"),
        (lambda w: w.update({"pixel.projector.1.weight": torch.zeros(24, 16)}), r"\(24, 16\) instead of \(16, 24\)"),
        (lambda w: w["pixel.projector.1.weight"].fill_(float("nan")), "not finite"),
        (lambda w: w["pixel.projector.1.weight"].mul_(2), "not those that its config.json was written for"),
        (lambda w: [w.pop(key) for key in list(w) if key.startswith("pixel")], "no weights of the pixel level"),
    ],
)
def test_other_weights_are_refused(saved, change, sentence):
    reweigh(saved, change)
    with pytest.raises(CheckpointMismatch, match=sentence):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["levels"]["pixel"].update(depth=3), "another architecture"),
        (lambda c: c["levels"]["pixel"].update(heads=5), "not the settings of a satellite encoder"),
        (lambda c: c["levels"].update(object=c["levels"]["pixel"]), "No level is called 'object'"),
        (lambda c: c["levels"].pop("pixel"), "of no level"),
        (lambda c: c.pop("sensor"), "incomplete"),
        (lambda c: c["sensor"].update(mean=[0.3, 0.3, 0.3]), "not those that"),
        (lambda c: c["sensor"].update(std=[0, 0, 0]), "incomplete or damaged"),
        (lambda c: c["teacher"].update(fingerprint="other"), "not those that"),
        (lambda c: c.update(format=99), "has the format 99; this version reads 1"),
        (lambda c: [c.clear(), c.update(model_type="clip")], "of the type 'clip', not a GeoGRAFT"),
    ],
)
def test_another_configuration_is_refused(saved, change, sentence):
    edit(saved, change)
    with pytest.raises(CheckpointMismatch, match=sentence):
        load_model(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_truncated_file_is_refused(saved, name):
    path = saved / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointMismatch, match="copy the folder again"):
        load_model(saved)


def test_a_folder_without_weights_is_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointMismatch, match="missing or truncated"):
        load_model(saved)


def test_weights_that_are_not_finite_are_not_saved(make_model, tmp_path):
    model = make_model()
    with torch.no_grad():
        model.encoders["image"].projector[1].weight[0, 0] = 1e6  # beyond float16
    with pytest.raises(CheckpointMismatch, match=r"image\.projector\.1\.weight"):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_full_disk_leaves_the_older_model_whole(make_model, saved, monkeypatch):
    older = load_model(saved).fingerprint
    write = Path.write_bytes

    def full(path, content):
        if "config" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFull):
        save_model(make_model(seed=5), saved)
    assert load_model(saved).fingerprint == older
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_newer_model_replaces_the_older_one(make_model, saved):
    newer = make_model(seed=5)
    save_model(newer, saved)
    assert load_model(saved).fingerprint == newer.fingerprint


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder"])
def test_an_unknown_name_lists_the_shipped_ones(name):
    with pytest.raises(UnknownModel, match=r"mini, mini-1m, mini-10m"):
        load_model(name)


def test_a_shipped_name_is_a_folder_of_the_package(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.resources, "files", lambda _: tmp_path)
    with pytest.raises(UnknownModel, match="this installation lacks it"):
        load_model("mini")
    for folder in set(SHIPPED.values()):
        (tmp_path / "assets" / "models").mkdir(parents=True, exist_ok=True)
        (tmp_path / "assets" / "models" / folder).symlink_to(saved)
    assert {load_model(name).fingerprint for name in SHIPPED} == {load_model(saved).fingerprint}
