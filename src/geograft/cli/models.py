"""The command that lists the models that are known by name."""

from typing import Annotated

import typer

from geograft.cli.options import Json
from geograft.console import show

_COLUMNS = ("name", "use", "dim", "parameters", "licence", "good for")


def models(
    name: Annotated[str | None, typer.Argument(help="One model, to see all that is known of it.")] = None,
    as_json: Json = False,
) -> None:
    """List the models that are known by name, or say all about one: licence, imagery, how to load it.

    Nothing is downloaded. Examples: `geograft models`

    `geograft models remoteclip-vit-b-32`
    """
    from geograft.models.zoo import find_entry, zoo

    if name is not None:
        about = find_entry(name).to_dict()
        show({key: value for key, value in about.items() if as_json or value not in ("", None)}, as_json)
        return
    entries = [entry.to_dict() for entry in zoo().values()]
    rows = [_COLUMNS, *((_row(entry)) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    show({"models": entries}, as_json, lines=lines)


def _row(entry: dict[str, object]) -> tuple[str, ...]:
    """An entry's cells, the licence without what stands in brackets."""
    use = ", ".join(entry["use"])  # type: ignore[arg-type]
    licence = str(entry["licence"]).split(" (")[0].split(";")[0]
    parameters = f"{entry['parameters']:.3g} M"
    return str(entry["name"]), use, str(entry["dim"]), parameters, licence, str(entry["good_for"])
