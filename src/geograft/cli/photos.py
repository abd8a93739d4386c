"""Commands that make photo tables."""

from pathlib import Path
from typing import Annotated

import typer

from geograft.cli.options import Config, Json, settings_of
from geograft.console import show


def photos(
    source: Annotated[Path, typer.Argument(help="A folder of JPEGs with EXIF, or a CSV file.")],
    out: Annotated[Path, typer.Argument(help="The photo table to write, .parquet.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a photo table from a folder or a CSV file.

    Example: `geograft photos walks/photos.csv photos.parquet`
    """
    from geograft.sources.photos import PhotoSettings, read_photos

    show(read_photos(source, out, settings=settings_of(PhotoSettings, config)), as_json)
