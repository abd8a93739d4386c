import numpy as np
import pytest
import torch
from PIL import Image

from geograft.errors import NoTextEncoder, UnknownModel
from geograft.models import teacher as module
from geograft.models.frozen import FrozenTeacher
from geograft.models.teacher import Teacher, load_teacher


class PhotosOnly(Teacher):
    name = "photos-only"
    fingerprint = "00"
    dim = 3

    def encode_photos(self, images):
        return np.eye(3, dtype=np.float32)[: len(images)]


def test_a_teacher_without_text_names_what_to_use_instead():
    with pytest.raises(NoTextEncoder, match=r"photos-only encodes images only.*query by photo"):
        PhotosOnly().encode_text(["a lake"])


def test_a_teacher_shows_what_it_is():
    assert repr(PhotosOnly()) == "PhotosOnly('photos-only', dim=3, fingerprint='00')"


def test_a_folder_is_loaded_by_its_path(make_clip):
    teacher = load_teacher(make_clip())
    assert teacher.dim == 16
    assert teacher.encode_photos([Image.new("RGB", (8, 8))]).shape == (1, 16)


def test_the_name_of_a_folder_finds_it_again_from_anywhere(make_clip, tmp_path, monkeypatch):
    folder = make_clip()
    monkeypatch.chdir(folder.parent)
    name = load_teacher(folder.name).name
    monkeypatch.chdir("/")
    assert load_teacher(name).name == name == str(folder.resolve())


def test_the_mini_teacher_is_called_mini_wherever_it_lies(make_clip, monkeypatch):
    folder = make_clip()
    monkeypatch.setattr(module, "_shipped_mini", lambda: folder)
    assert load_teacher("mini").name == "mini"
    assert load_teacher("mini").fingerprint == load_teacher(folder).fingerprint


def test_a_package_without_mini_weights_says_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setattr(module.resources, "files", lambda _: tmp_path)
    with pytest.raises(UnknownModel, match="train them with"):
        load_teacher("mini")


@pytest.mark.parametrize("name", ["nothing-of-that-name", "/no/such/folder", "no-such-org/no-such-model", ""])
def test_an_unknown_name_is_an_unknown_model(name, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModel):
        load_teacher(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["encoder.model", "encoder.onnx", "encoder.pt"])
def test_an_exported_encoder_is_known_by_its_content_not_its_suffix(tmp_path, name):
    encoder = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.jit.trace(encoder, torch.zeros(1, 3, 8, 8)).save(str(tmp_path / name))
    (tmp_path / "preprocess.yaml").write_text("size: 8\nresize: squash\n")
    teacher = load_teacher(tmp_path / name)
    assert isinstance(teacher, FrozenTeacher)
    assert teacher.encode_photos([Image.new("RGB", (9, 9), "red")]).argmax() == 0


def test_a_satellite_model_is_no_teacher():
    with pytest.raises(UnknownModel, match=r"is a satellite model: geograft\.load"):
        load_teacher("mini-1m")
