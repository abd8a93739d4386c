"""Presets: how the tables of a site become photos, said in YAML and never in code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from geograft.errors import BadSetting
from geograft.settings import settings_from
from geograft.sources.reading.columns import SYNONYMS
from geograft.sources.reading.delimited import Layout

FOLDER = Path(__file__).parents[1] / "assets" / "presets"
"""Where the presets lie that come with the package."""

Scalar = str | int | float | bool
_STRICT: dict[str, str] = {"extra": "forbid"}
_FORMATS = frozenset({"delimited", "parquet", "vector", "lines", "document"})


@dataclass(frozen=True)
class Rule:
    """What holds for the rows of which a column has one of some values.

    Attributes:
        column: the table's column; a table without it has no such rows.
        equals: the values, without regard to case.
        reason: leave such rows out and count them so, in kebab case.
        set: field to the value that such rows get; empty for none.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    column: str
    equals: tuple[Scalar, ...]
    reason: str | None = None
    set: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def values(self) -> tuple[str, ...]:
        """The values as text in lower case."""
        return tuple(_written(value).lower() for value in self.equals)


@dataclass(frozen=True)
class View:
    """One of several photos that a row stands for, such as those of four directions.

    Attributes:
        suffix: added to the row's id.
        columns: as of a preset, for this photo.
        values: field to the value that it has in all rows.
        uri: as of a preset.
        skip: rows that have no such photo.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    suffix: str
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, Scalar] = field(default_factory=dict)
    uri: str | None = None
    skip: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Preset:
    """How the tables of a site are laid out and what their cells mean.

    Attributes:
        description: one sentence: which tables.
        link: where the site describes them.
        licence: one sentence on what their photos may be used for.
        format: `delimited`, `lines`, `document`, `parquet` or `vector`; by the suffix where None.
        separator: between cells; found where None.
        quotes: cells may stand in double quotes.
        header: the columns of tables that have no header line.
        records: where a JSON document holds its records, such as `photos.photo`.
        columns: field to the column, or to several of which the first that a row fills counts.
        defaults: field to the value of rows that have none.
        codes: field to a table from the site's codes to values; other codes are missing.
        missing: cells that mean that nothing is known, beside the usual ones.
        skip: rows that are left out, each with a reason.
        replace: rows of which fields are set.
        negative: `lat` or `lon` to the rule of the rows that lie south or west, whatever the sign they carry.
        uri: the photo's address where no column of `file` is filled: text with columns in braces, of which
            `{id[0:3]}` takes a part.
        url_encoded: fields written as in addresses (`a+b%2Cc`).
        times: `day-first`, `month-first` or a form of `strptime`.
        decimal: `,` where points separate thousands.
        views: the photos that each row stands for, where it is more than one.
        name: how the preset is called.
    """

    description: str = ""
    link: str | None = None
    licence: str | None = None
    format: str | None = None
    separator: str | None = None
    quotes: bool = True
    header: tuple[str, ...] | None = None
    records: str | None = None
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    codes: Mapping[str, Mapping[Scalar, Scalar]] = field(default_factory=dict)
    missing: tuple[Scalar, ...] = ()
    skip: tuple[Rule, ...] = ()
    replace: tuple[Rule, ...] = ()
    negative: Mapping[str, Rule] = field(default_factory=dict)
    uri: str | None = None
    url_encoded: tuple[str, ...] = ()
    times: str | None = None
    decimal: str = "."
    views: tuple[View, ...] = ()
    name: str | None = None

    def __post_init__(self) -> None:
        """Refuse fields, formats and rules that mean nothing.

        Raises:
            BadSetting: one of them; the sentence says which.
        """
        self._check_fields()
        if self.format is not None and self.format not in _FORMATS:
            raise BadSetting(f"A preset's format is one of {', '.join(sorted(_FORMATS))}, not {self.format}.")
        if self.decimal not in {".", ","}:
            raise BadSetting(f"A preset's decimal is a point or a comma, not {self.decimal!r}.")
        if self.separator is not None and len(self.separator) != 1:
            raise BadSetting(f"A preset's separator is one character, not {self.separator!r}.")
        skips = [*self.skip, *(rule for view in self.views for rule in view.skip)]
        if any(rule.reason is None for rule in skips):
            raise BadSetting("Each rule under skip needs a reason, such as not-a-photo.")
        if strange := sorted(set(self.negative) - {"lat", "lon"}):
            raise BadSetting(f"Only lat and lon can be negative, not {', '.join(strange)}.")

    def _check_fields(self) -> None:
        """Refuse names that are no field of photos."""
        named = [self.columns, self.defaults, self.codes, dict.fromkeys(self.url_encoded)]
        named += [rule.set for rule in self.replace] + [part for view in self.views for part in _maps(view)]
        strange = sorted({name for part in named for name in part} - set(SYNONYMS) - {"panorama"})
        if strange:
            raise BadSetting(f"No field is called {', '.join(strange)}; fields are {', '.join(SYNONYMS)}.")

    def layout(self, encoding: str | None) -> Layout:
        """How to read the tables."""
        return Layout(self.format, self.separator, self.quotes, self.header, self.records, encoding)

    def tables(self) -> dict[str, dict[str, str]]:
        """The tables of codes, as text."""
        return {name: {_written(a): _written(b) for a, b in table.items()} for name, table in self.codes.items()}


def _maps(view: View) -> tuple[Mapping[str, object], ...]:
    """What of a view is by field."""
    return (view.columns, view.values)


def _written(value: Scalar) -> str:
    """A value as tables write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def texts(values: Mapping[str, Scalar]) -> dict[str, str]:
    """Values by field, as text."""
    return {name: _written(value) for name, value in values.items()}


def load_preset(name: str | None) -> Preset:
    """A preset by its name or by the path of a YAML file; an empty one where None.

    Raises:
        BadSetting: there is none of that name, or the file has keys or values that mean nothing.
        MissingInput: there is no such file.
    """
    if name is None:
        return Preset()
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if path.parent == FOLDER and not path.is_file():
        raise BadSetting(
            f"There is no preset {name}; there are {', '.join(names())}, or give the path of a YAML file of your own."
        )
    try:
        preset: Preset = settings_from(Preset, path, name=None if path.parent != FOLDER else name)
    except BadSetting as error:
        raise BadSetting(f"{path}: {error}") from error
    return preset if preset.name else settings_from(Preset, path, name=path.stem)


def names() -> list[str]:
    """The presets that come with the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def describe() -> list[dict[str, str | None]]:
    """Name, description, licence and link of each preset that comes with the package, sorted by name."""
    return [
        {"name": name, "description": preset.description, "licence": preset.licence, "link": preset.link}
        for name, preset in ((name, load_preset(name)) for name in names())
    ]
