from dataclasses import dataclass

import pytest

from geograft.errors import BadSetting, MissingInput
from geograft.settings import settings_from
from geograft.sources.photos import PhotoSettings


@dataclass(frozen=True)
class Walk:
    length: int = 3
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError("length is 0 or more metres")


def test_options_override_the_file_and_the_file_the_defaults(tmp_path):
    config = tmp_path / "walk.yaml"
    config.write_text("length: 5\nnames: [a, b]\n")
    assert settings_from(Walk) == Walk()
    assert settings_from(Walk, config) == Walk(5, ("a", "b"))
    assert settings_from(Walk, config, length=7) == Walk(7, ("a", "b"))


def test_an_option_that_was_not_given_changes_nothing():
    assert settings_from(Walk, None, length=None) == Walk()


def test_an_unknown_setting_names_the_known_ones():
    with pytest.raises(BadSetting, match="lenght; Walk knows length, names"):
        settings_from(Walk, None, lenght=3)


@pytest.mark.parametrize("value", ["many", -1])
def test_a_value_of_the_wrong_type_or_range_is_refused(value):
    with pytest.raises(BadSetting, match="length"):
        settings_from(Walk, None, length=value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "just words"])
def test_a_file_that_holds_no_mapping_is_refused(tmp_path, text):
    config = tmp_path / "walk.yaml"
    config.write_text(text)
    with pytest.raises(BadSetting, match=r"walk\.yaml"):
        settings_from(Walk, config)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"none\.yaml"):
        settings_from(Walk, tmp_path / "none.yaml")


def test_a_yaml_mistake_is_told_on_one_line_and_an_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("a: [1,\n b: }")
    with pytest.raises(BadSetting) as caught:
        settings_from(Walk, path)
    assert "\n" not in str(caught.value)
    path.write_text("# nothing yet\n")
    assert settings_from(Walk, path) == Walk()


def test_an_unknown_name_of_nested_settings_is_refused():
    with pytest.raises(BadSetting, match="max_acuracy_m"):
        settings_from(PhotoSettings, filters={"max_acuracy_m": 3})
    assert settings_from(PhotoSettings, filters={"max_accuracy_m": "3"}).filters.max_accuracy_m == 3
