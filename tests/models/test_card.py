import pytest
import yaml

from geograft.models.card import front_matter, model_card
from geograft.models.model import Model, Origin


@pytest.fixture
def noted():
    """An origin with everything that a card has a place for."""
    training = {
        "pairs": "walks",
        "epochs": 3,
        "photo_licences": {"cc-by": 120, "cc0": 7, "": 2},
        "bounds": (9.5, 46.25, 9.75, 46.5),
        "period": ("2019-05-01", "2023-09-30"),
        "pretrained": "openai/clip-vit-base-patch16",
    }
    return Origin(training, {"recall": 0.5}, licence="apache-2.0")


def test_the_front_matter_is_what_the_hub_reads(make_model, noted):
    about = front_matter(model_card(make_model(origin=noted)))
    assert about["license"] == "apache-2.0"
    assert about["library_name"] == "geograft"
    assert about["pipeline_tag"] == "zero-shot-image-classification"
    assert {"remote-sensing", "clip", "small"} <= set(about["tags"])


def test_the_hubs_own_library_reads_the_card(make_model, noted):
    from huggingface_hub import ModelCard

    card = ModelCard(model_card(make_model(origin=noted)))
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "geograft"
    assert card.text.lstrip().startswith("# small")


def test_licences_of_photos_place_time_and_start_are_data_not_settings(make_model, noted):
    card = model_card(make_model(origin=noted))
    data = card.split("## Data")[1].split("##")[0]
    for fact in (
        "| photos under cc-by | 120 |",
        "| photos under a licence that is not stated | 2 |",
        "9.5000, 46.2500, 9.7500, 46.5000",
        "2019-05-01 to 2023-09-30",
        "openai/clip-vit-base-patch16",
    ):
        assert fact in data
    training = card.split("## Training")[1].split("##")[0]
    assert "| epochs | 3 |" in training
    assert "photo_licences" not in training


def test_without_a_licence_the_front_matter_names_none(make_model):
    assert "license" not in front_matter(model_card(make_model()))


def test_a_licence_that_the_hub_does_not_know_is_named_beside_other(make_model):
    about = front_matter(model_card(make_model(origin=Origin(licence="Etalab 2.0"))))
    assert (about["license"], about["license_name"]) == ("other", "etalab-2.0")


def test_a_teacher_of_the_hub_is_the_base_model(make_model):
    model = make_model(teacher=("openai/clip-vit-base-patch16@main", "0" * 16))
    assert front_matter(model_card(model))["base_model"] == "openai/clip-vit-base-patch16"
    assert "base_model" not in front_matter(model_card(make_model(teacher=("/home/me/clip", "0" * 16))))


@pytest.mark.parametrize(
    ("levels", "teacher", "task"),
    [
        (("pixel",), ("named", "0" * 16), "image-segmentation"),
        (("image", "pixel"), ("named", "0" * 16), "zero-shot-image-classification"),
        (("image",), None, "image-feature-extraction"),
    ],
)
def test_the_task_follows_levels_and_teacher(make_model, levels, teacher, task):
    assert front_matter(model_card(make_model(levels=levels, teacher=teacher)))["pipeline_tag"] == task


def test_a_model_without_a_teacher_is_not_said_to_know_words(make_encoder, small_sensor):
    card = model_card(Model({"pixel": make_encoder()}, sensor=small_sensor, teacher=None))
    assert "chips compare with chips only" in card
    assert "encode_text" not in card


@pytest.mark.parametrize("card", ["", "# no front matter", "---\n: [\n---\n", "---\n- a list\n---\n"])
def test_cards_without_readable_front_matter_tell_nothing(card):
    assert front_matter(card) == {}


def test_cells_with_bars_and_line_breaks_stay_cells(make_model):
    card = model_card(make_model(origin=Origin(training={"command": "a | b\nc", "set": {"x": 1}})))
    assert "| command | a \\| b c |" in card
    assert '| set | {"x": 1} |' in card


def test_front_matter_is_valid_yaml_whatever_the_name(make_model):
    card = model_card(make_model(name="a: #name", origin=Origin(licence="it's: odd")))
    assert isinstance(yaml.safe_load(card.split("---\n")[1]), dict)
