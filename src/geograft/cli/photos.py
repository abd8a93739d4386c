"""Commands that make photo tables."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from geograft.cli.options import Config, Json, settings_of
from geograft.console import show

Preset = Annotated[
    str | None, typer.Option(help="What the site's tables mean, e.g. flickr, or a YAML file.", show_default=False)
]
MaxAccuracy = Annotated[
    float | None, typer.Option(help="Largest stated error of a position, in metres.", show_default="any")
]
Since = Annotated[str | None, typer.Option(help="First day, e.g. 2019-01-01.", show_default=False)]
Until = Annotated[str | None, typer.Option(help="The day after the last.", show_default=False)]
NoNight = Annotated[bool, typer.Option("--no-night", help="Leave out photos taken at night.")]
NoPanoramas = Annotated[bool, typer.Option("--no-panoramas", help="Leave out panoramas.")]
MaxPerUser = Annotated[int | None, typer.Option(help="Photos a user, drawn fairly.", show_default="any")]
MaxPerPlace = Annotated[int | None, typer.Option(help="Photos a place of 100 m, drawn fairly.", show_default="any")]


def photos(
    source: Annotated[str, typer.Argument(help="A folder of photos; or a table, a folder or 'pattern' of tables.")],
    out: Annotated[Path, typer.Argument(help="The photo table to write, .parquet.")],
    preset: Preset = None,
    max_accuracy: MaxAccuracy = None,
    since: Since = None,
    until: Until = None,
    no_night: NoNight = False,
    no_panoramas: NoPanoramas = False,
    max_per_user: MaxPerUser = None,
    max_per_place: MaxPerPlace = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a photo table from a folder of photos or from tables of any site.

    Example: `geograft photos walks/photos.csv photos.parquet`
    """
    from geograft.sources.photos import PhotoSettings, read_photos

    settings = _filtered(
        settings_of(PhotoSettings, config, preset=preset),
        max_accuracy_m=max_accuracy,
        since=since,
        until=until,
        night=False if no_night else None,
        panoramas=False if no_panoramas else None,
        max_per_user=max_per_user,
        max_per_place=max_per_place,
    )
    show(read_photos(source, out, settings=settings), as_json)


def _filtered(settings: Any, **options: Any) -> Any:
    """Settings whose filters have the options that the user gave."""
    given = {name: value for name, value in options.items() if value is not None}
    return dataclasses.replace(settings, filters=dataclasses.replace(settings.filters, **given))
