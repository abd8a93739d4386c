"""One frozen dataclass of settings per command, filled from a YAML file and from options."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from geograft.errors import BadSetting, MissingInput

T = TypeVar("T")


def settings_from(kind: type[T], config: Path | None = None, **options: Any) -> T:
    """The settings of a command: defaults, overridden by a YAML file, overridden by options that are not None.

    Args:
        kind: a dataclass; its annotations are checked and simple values converted (`"3"` to 3, lists to tuples).
        config: a YAML mapping of setting names to values.
        options: setting names and values; None means that the user did not say.

    Returns:
        An instance of `kind`.

    Raises:
        MissingInput: the config file does not exist.
        BadSetting: the file is no mapping, names an unknown setting, or holds a value of the wrong type or range.
    """
    import pydantic

    values = {**_read_yaml(config), **{name: value for name, value in options.items() if value is not None}}
    _refuse_unknown(kind, values)
    try:
        return pydantic.TypeAdapter(kind).validate_python(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadSetting(f"setting {where or kind.__name__}: {first['msg']} (got {first['input']!r})") from error


def _refuse_unknown(kind: Any, values: Mapping[str, Any]) -> None:
    """Refuse names that a dataclass, or a dataclass among its fields, does not have."""
    known = {field.name for field in fields(kind)}
    if unknown := sorted(map(str, set(values) - known)):
        raise BadSetting(f"unknown settings {', '.join(unknown)}; {kind.__name__} knows {', '.join(sorted(known))}")
    hints = get_type_hints(kind)
    for name, value in values.items():
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            _refuse_unknown(hints[name], value)


def _read_yaml(config: Path | None) -> Mapping[str, Any]:
    import yaml

    if config is None:
        return {}
    if not config.is_file():
        raise MissingInput(f"{config} is no file; --config takes a YAML file of settings")
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSetting(
            f"{config} is not valid YAML ({' '.join(str(error).split())}); write lines of name: value"
        ) from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise BadSetting(f"{config} must hold a mapping of setting names to values")
    return values
