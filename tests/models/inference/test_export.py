import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pystac
import pytest
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geograft.errors import (
    BadSetting,
    CheckpointMismatch,
    DiskFull,
    ExportFailed,
    MissingExtra,
    ModelMismatch,
    OutputExists,
)
from geograft.models.card import front_matter
from geograft.models.checkpoints import load_model, save_model
from geograft.models.inference import export as module
from geograft.models.inference import graphs
from geograft.models.inference.export import export_model
from geograft.models.inference.exported import ExportedModel
from geograft.models.model import Model, Origin

pytest.importorskip("onnxruntime")


MADE = {}


@pytest.fixture
def exported(make_model, tmp_path, tmp_path_factory):
    """An ONNX export of a model of both levels, and its summary; it is made once and copied."""
    if not MADE:
        folder = tmp_path_factory.mktemp("export") / "fast"
        MADE["summary"] = export_model(make_model(origin=Origin(licence="mit")), folder)
    summary = MADE["summary"]
    return shutil.copytree(summary.folder, tmp_path / "fast"), summary


def test_an_export_is_a_model_like_any_other(make_model, exported, chips, teacher):
    folder, summary = exported
    model, fast = make_model(), load_model(folder, teacher=teacher)
    assert isinstance(fast, ExportedModel)
    assert (fast.embed_chips(chips) * model.embed_chips(chips)).sum(axis=1).min() > 0.999
    assert (fast.dense(chips) * model.dense(chips)).sum(axis=1).min() > 0.999
    assert (fast.levels, fast.sensor, fast.gsd, fast.chip_size) == (model.levels, model.sensor, model.gsd, 16)
    np.testing.assert_array_equal(fast.encode_text(["lake"]), model.encode_text(["lake"]))
    assert fast.backend == "onnx" == fast.use_backend("auto")
    assert summary.parity.cosine_min > 0.9999
    assert set(summary.files) == {"image.onnx", "pixel.onnx"}


def test_a_faithful_export_keeps_the_fingerprint_so_that_tables_mix(make_model, exported):
    folder, summary = exported
    assert summary.mixes
    assert load_model(folder).fingerprint == summary.fingerprint == make_model().fingerprint


def test_an_int8_export_without_chips_has_a_fingerprint_of_its_own(make_model, tmp_path):
    summary = export_model(make_model(levels=("image",)), tmp_path / "small", int8=True)
    assert not summary.mixes
    assert summary.probes == "synthetic"
    assert load_model(tmp_path / "small").fingerprint == summary.fingerprint != make_model().fingerprint
    assert "tables of both do not mix" in "\n".join(summary.lines())


def test_openvino_in_int8_is_calibrated_on_some_chips_and_held_against_others(make_model, tmp_path, chips):
    pytest.importorskip("nncf")
    calibration = np.random.default_rng(5).integers(1, 1000, (30, 3, 16, 16)).astype(np.uint16)
    model = make_model(levels=("image",))
    summary = export_model(model, tmp_path / "ov", format="openvino", int8=True, calibration=calibration)
    assert (summary.precision, summary.probes) == ("int8", "calibration")
    assert summary.parity.vectors == 11 + 11 * 16
    fast = load_model(tmp_path / "ov")
    assert (fast.embed_chips(chips) * model.embed_chips(chips)).sum(axis=1).min() > 0.99
    assert (fast.fingerprint == model.fingerprint) == summary.mixes == (summary.parity.cosine_low >= 0.999)


def test_an_encoder_of_both_levels_stays_one(make_encoder, small_sensor, teacher, tmp_path, chips):
    encoder = make_encoder()
    model = Model({"image": encoder, "pixel": encoder}, sensor=small_sensor, teacher=teacher)
    summary = export_model(model, tmp_path / "joint")
    assert set(summary.files) == {"joint.onnx"}
    fast = load_model(tmp_path / "joint")
    assert fast.joint
    assert (fast.dense(chips) * model.dense(chips)).sum(axis=1).min() > 0.999


def test_card_and_item_say_what_was_exported(exported, make_model):
    folder, _ = exported
    card = (folder / "README.md").read_text()
    assert {"onnx", "small"} <= set(front_matter(card)["tags"])
    assert front_matter(card)["license"] == "mit"
    assert f"| exported from | the weights with the fingerprint {make_model().fingerprint} |" in card
    item = json.loads((folder / "stac-mlm.json").read_text())
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    assert item["properties"]["mlm:framework"] == "ONNX"
    assert item["assets"]["model"]["href"] == "./image.onnx"
    assert item["assets"]["model"]["file:size"] == (folder / "image.onnx").stat().st_size


def test_an_export_has_no_weights_to_save_or_to_export_again(exported, tmp_path):
    fast = load_model(exported[0])
    with pytest.raises(ModelMismatch, match="export without weights"):
        save_model(fast, tmp_path / "again")
    with pytest.raises(ModelMismatch, match="an export already"):
        export_model(fast, tmp_path / "again")
    with pytest.raises(BadSetting, match="export that onnx runs"):
        fast.use_backend("torch")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_damaged_export_is_refused(exported, damage):
    damage(exported[0] / "pixel.onnx")
    with pytest.raises(CheckpointMismatch, match=r"pixel\.onnx is missing or damaged"):
        load_model(exported[0])


def test_an_export_whose_configuration_is_damaged_is_refused(exported):
    path = exported[0] / "config.json"
    config = json.loads(path.read_text())
    del config["export"]["files"]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointMismatch, match="no export's configuration"):
        load_model(exported[0])


def test_a_graph_that_is_not_the_model_is_never_written(make_model, tmp_path, monkeypatch):
    other = make_model(seed=9)
    monkeypatch.setattr(module, "plan_graphs", lambda _encoders: graphs.plan_graphs(other.encoders))
    with pytest.raises(ExportFailed, match="other vectors than the model"):
        export_model(make_model(), tmp_path / "fast")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(make_model, tmp_path, monkeypatch):
    def full(_path, _text, **_how):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFull):
        export_model(make_model(levels=("image",)), tmp_path / "fast")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said_before_the_work(make_model, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OutputExists, match="holds something"):
        export_model(make_model(), tmp_path / "taken")
    with pytest.raises(BadSetting, match="onnx or openvino"):
        export_model(make_model(), tmp_path / "new", format="tflite")
    with pytest.raises(BadSetting, match="at least 22 chips"):
        export_model(make_model(), tmp_path / "new", int8=True, calibration=np.ones((3, 3, 16, 16), np.uint16))
    with pytest.raises(BadSetting, match="int8 needs chips"):
        export_model(make_model(), tmp_path / "new", format="openvino", int8=True)
    monkeypatch.setattr(graphs, "installed", lambda _package: False)
    with pytest.raises(MissingExtra, match=r"geograft\[onnx\]"):
        export_model(make_model(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
