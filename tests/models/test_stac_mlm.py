import dataclasses
import hashlib
import json
import re

import numpy as np
import pystac
import pytest
from pystac.extensions.mlm import MLMExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geograft.models.checkpoints import save_model
from geograft.models.model import Model, Origin
from geograft.models.stac_mlm import ModelFile, mlm_item


def item_of(model, kind="safetensors"):
    return mlm_item(model, [ModelFile("model.safetensors", b"weights", kind)])


def test_the_folders_item_is_a_valid_item_of_stac(make_model, tmp_path):
    folder = save_model(make_model(), tmp_path / "model")
    item = json.loads((folder / "stac-mlm.json").read_text())
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")  # with the schema in pystac
    assert pystac.Item.from_dict(item).id == "small"


def test_pystacs_extension_reads_what_goes_in_and_out(make_model):
    read = MLMExtension.ext(pystac.Item.from_dict(item_of(make_model())))
    assert read.mlm_name == "small"
    assert read.architecture == "Vision Transformer"
    assert read.framework == "PyTorch"
    assert read.input[0].bands == ["green", "red", "nir"]
    assert read.input[0].input.shape == [-1, 3, 16, 16]
    assert [output.result.shape for output in read.output] == [[-1, 16], [-1, 16, 4, 4]]
    assert read.total_parameters == sum(value.numel() for value in make_model().weights().values())


def test_the_item_keeps_the_rules_of_the_extension(make_model):
    """What the extension's JSON schema (1.3, 1.4) asks for, since it cannot be fetched here."""
    item = item_of(make_model())
    properties = item["properties"]
    for name in ("mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"):
        assert properties[name]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["mlm:framework_version"])
    for shape in (properties["mlm:input"][0]["input"], *(each["result"] for each in properties["mlm:output"])):
        assert len(shape["shape"]) == len(shape["dim_order"]) == len(set(shape["dim_order"]))
        assert all(re.fullmatch("[a-z-_]+", name) for name in shape["dim_order"])
        assert shape["data_type"] == "float32"
    assert all(re.fullmatch(r"[0-9a-zA-Z_.-]+", key) for key in properties["mlm:hyperparameters"])
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert len(models) == 1
    named = properties["mlm:input"][0]["bands"]
    assert (
        [band["name"] for band in models[0]["bands"]] == [band["name"] for band in models[0]["raster:bands"]] == named
    )
    assert models[0]["mlm:artifact_type"]


def test_the_scaling_brings_native_values_to_the_encoders_input(make_model, small_sensor, chips):
    scaling = item_of(make_model())["properties"]["mlm:input"][0]["value_scaling"]
    assert {each["type"] for each in scaling} == {"z-score"}
    mean, std = (np.array([each[key] for each in scaling])[:, None, None] for key in ("mean", "stddev"))
    np.testing.assert_allclose((chips - mean) / std, small_sensor.normalise(chips), atol=1e-4)


def test_the_file_can_be_checked_by_size_and_checksum(make_model):
    asset = item_of(make_model())["assets"]["model"]
    assert asset["file:size"] == 7
    assert asset["file:checksum"] == "1220" + hashlib.sha256(b"weights").hexdigest()


def test_place_and_time_are_those_of_the_training_where_noted(make_model):
    origin = Origin(training={"bounds": (9, 46, 10, 47), "period": ("2019-05-01", "2023-09-30 12:00:00+00:00")})
    item = item_of(make_model(origin=origin))
    assert item["bbox"] == [9, 46, 10, 47]
    assert item["geometry"]["coordinates"][0][2] == [10, 47]
    assert item["properties"]["start_datetime"] == "2019-05-01T00:00:00Z"
    assert item["properties"]["end_datetime"] == "2023-09-30T12:00:00Z"
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    assert item_of(make_model())["bbox"] == [-180, -90, 180, 90]


@pytest.mark.parametrize(
    ("training", "expected"),
    [({}, (None, "absent")), ({"epochs": 1}, (False, None)), ({"pretrained": "CLIP"}, (True, "CLIP"))],
)
def test_what_the_weights_started_from_is_said_as_far_as_it_is_known(make_model, training, expected):
    properties = item_of(make_model(origin=Origin(training=training)))["properties"]
    assert (properties.get("mlm:pretrained"), properties.get("mlm:pretrained_source", "absent")) == expected


@pytest.mark.parametrize(
    ("licence", "expected"), [("apache-2.0", "Apache-2.0"), ("Etalab 2.0", "other"), ("", "absent")]
)
def test_licences_are_named_as_stac_names_them(make_model, licence, expected):
    assert item_of(make_model(origin=Origin(licence=licence)))["properties"].get("license", "absent") == expected


@pytest.mark.parametrize("name", ["1", "org/name@main", "ü-Modell", "x", "/home/me/model"])
def test_names_that_the_extension_refuses_are_made_to_fit(make_model, name):
    properties = item_of(make_model(name=name))["properties"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])


def test_nodata_that_is_not_a_number_is_written_as_a_word(make_encoder, small_sensor, teacher):
    sensor = dataclasses.replace(small_sensor, dtype="float32", nodata=float("nan"))
    item = item_of(Model({"image": make_encoder()}, sensor=sensor, teacher=teacher))
    assert item["assets"]["model"]["bands"][0] == {"name": "green", "data_type": "float32", "nodata": "nan"}
    json.dumps(item, allow_nan=False)
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")


def test_a_model_of_both_levels_by_one_encoder_counts_its_weights_once(make_encoder, small_sensor, teacher):
    encoder = make_encoder()
    one = Model({"image": encoder}, sensor=small_sensor, teacher=teacher)
    joint = Model({"image": encoder, "pixel": encoder}, sensor=small_sensor, teacher=teacher)
    totals = [item_of(model)["properties"]["mlm:total_parameters"] for model in (one, joint)]
    assert totals[0] == totals[1]
