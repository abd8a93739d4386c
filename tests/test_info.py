import pytest

from geograft.errors import GeograftError, MissingInput
from geograft.info import describe


def test_sensors_are_listed_with_their_bands():
    assert "red, green, blue, nir" in describe("sensors")["naip"]


def test_shipped_models_are_listed():
    assert set(describe("models")) == {"mini-1m", "mini-10m"}


@pytest.mark.parametrize(("name", "gsd"), [("mini", "1 m"), ("mini-10m", "10 m")])
def test_a_model_says_what_it_reads_and_whom_it_answers_to(name, gsd):
    about = describe(name)
    assert about["kind"] == "model"
    assert about["levels"] == ["image", "pixel"]
    assert about["ground sample distance"] == gsd
    assert about["teacher"].startswith("mini (")


def test_a_folder_that_is_nothing_of_ours_is_said_to_be_so(tmp_path):
    with pytest.raises(MissingInput, match="no scene, table, model"):
        describe(str(tmp_path))


def test_an_unknown_name_is_named():
    with pytest.raises(GeograftError, match="atlantis"):
        describe("atlantis")
