import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geograft.errors import CheckpointMismatch, DiskFull, UnknownModel
from geograft.models import checkpoints
from geograft.models.checkpoints import SHIPPED, load_model, save_model
from geograft.models.model import Model, Origin
from geograft.models.rgb import SiglipEncoder, SiglipSettings
from geograft.models.satellite import SatelliteEncoder

FILES = ("README.md", "config.json", "model.safetensors", "stac-mlm.json")


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
    for name in FILES:
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
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)


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


# --- joint encoders, other kinds, no teacher ---------------------------------------------------------------


def test_a_joint_encoder_is_stored_once_and_comes_back_as_one(make_encoder, small_sensor, teacher, chips, tmp_path):
    encoder = make_encoder()
    model = Model({"image": encoder, "pixel": encoder}, sensor=small_sensor, teacher=teacher)
    folder = save_model(model, tmp_path / "joint")
    after = load_model(folder)
    assert after.encoders["image"] is after.encoders["pixel"]
    assert after.fingerprint == model.fingerprint
    assert json.loads((folder / "config.json").read_text())["joint"] is True
    assert (after.dense(chips) * model.dense(chips)).sum(axis=1).min() > 0.999
    assert {key.split(".")[0] for key in load_file(folder / "model.safetensors")} == {"joint"}


def test_folders_of_before_joint_encoders_load_as_they_did(saved, make_model):
    edit(saved, lambda c: [c.pop("joint"), c.pop("licence")])
    after = load_model(saved)
    assert after.fingerprint == make_model().fingerprint
    assert after.origin.licence == ""


def test_the_fingerprint_is_computed_as_ever(make_model):
    """Tables on people's disks hold it: whatever changes here, this model keeps it."""
    model = make_model()
    with torch.no_grad():
        for encoder in model.encoders.values():
            for value in encoder.parameters():
                value.copy_((torch.arange(value.numel()) % 64 / 64).reshape(value.shape))
    assert model.fingerprint == "0d744a13632d9ff9"


@pytest.mark.parametrize("name", ["mini", "mini-10m"])
def test_the_shipped_models_load(name):
    assert load_model(name).levels == ("image", "pixel")


def test_a_siglip_tower_is_saved_and_comes_back(small_sensor, teacher, chips, tmp_path):
    torch.manual_seed(0)
    shape = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "hidden": 20}
    encoder = SiglipEncoder(SiglipSettings(bands=small_sensor.bands, **shape)).eval()
    model = Model({"image": encoder}, sensor=small_sensor, teacher=teacher)
    after = load_model(save_model(model, tmp_path / "siglip"))
    assert isinstance(after.encoders["image"], SiglipEncoder)
    assert after.fingerprint == model.fingerprint
    assert (after.embed_chips(chips) * model.embed_chips(chips)).sum(axis=1).min() > 0.999


def test_an_encoder_of_a_kind_without_a_folder_is_not_saved(make_encoder, small_sensor, teacher, tmp_path):
    class Own(SatelliteEncoder):
        """An architecture of the user's."""

    model = Model({"image": Own(make_encoder().settings)}, sensor=small_sensor, teacher=teacher)
    with pytest.raises(CheckpointMismatch, match="type Own"):
        save_model(model, tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_a_kind_of_a_later_version_is_named(saved):
    edit(saved, lambda c: c["levels"]["pixel"].update(kind="later"))
    with pytest.raises(CheckpointMismatch, match="kind 'later' are unknown to this version"):
        load_model(saved)


def test_a_model_without_a_teacher_stays_one(make_encoder, small_sensor, chips, tmp_path):
    model = Model({"image": make_encoder()}, sensor=small_sensor, teacher=None)
    after = load_model(save_model(model, tmp_path / "mute"))
    assert not after.has_teacher
    assert after.fingerprint == model.fingerprint


def test_the_licence_travels_with_the_folder(make_model, tmp_path):
    folder = save_model(make_model(origin=Origin(licence="cc-by-4.0")), tmp_path / "model")
    assert load_model(folder).origin.licence == "cc-by-4.0"


# --- saves that end early ----------------------------------------------------------------------------------


@pytest.mark.parametrize("renamed", range(5))
def test_a_save_that_is_killed_leaves_the_older_or_the_newer_model(make_model, saved, monkeypatch, renamed):
    """Killed before any file has its final name, after one of them has, after two ..."""
    older, newer = load_model(saved).fingerprint, make_model(seed=5)
    monkeypatch.setattr(checkpoints, "atomic", dying_after(renamed))
    with pytest.raises(Killed):
        save_model(newer, saved)
    monkeypatch.undo()
    assert load_model(saved).fingerprint == (newer.fingerprint if renamed else older)
    save_model(make_model(seed=6), saved)
    assert load_model(saved).fingerprint == make_model(seed=6).fingerprint
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)


class Killed(BaseException):
    """What ends a process at once."""


def dying_after(renames):
    """`atomic` in a process that is killed after so many files have got their final name; nothing is tidied up."""
    done = 0

    @contextmanager
    def atomic(path):
        nonlocal done
        temporary = path.with_name(f".{path.stem}.0000.part{path.suffix}")
        yield temporary
        if done == renames:
            raise Killed
        temporary.replace(path)
        done += 1
        if done == 4 == renames:
            raise Killed

    return atomic


SCRIPT = """
import sys
from pathlib import Path
import torch
from geograft.errors import DiskFull
from geograft.models.checkpoints import load_model, save_model
folder = Path(sys.argv[1])
model = load_model("mini-10m")
save_model(model, folder)
model.name = "newer"
with torch.no_grad():
    model.encoders["pixel"].projector[1].weight.mul_(2)
(folder.parent / "ballast").write_bytes(bytes(int(sys.argv[2])))
try:
    save_model(model, folder)
except DiskFull as error:
    print("full", load_model(folder).fingerprint, sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a disk of its own")
def test_a_disk_that_is_really_full_leaves_the_older_model_whole(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = f'mount -t tmpfs -o size=8m tmpfs "{disk}" && exec "{sys.executable}" -c "$SCRIPT" "{disk}/model" 1500000'
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inside],
        check=False,
        env={**os.environ, "SCRIPT": SCRIPT},
        capture_output=True,
        text=True,
    )
    if "unshare" in ran.stderr or "mount" in ran.stderr:
        pytest.skip("this system lends no disk to tests")
    assert ran.stdout.strip() == f"full {load_model('mini-10m').fingerprint} {sorted(FILES)}", ran.stderr
