"""Commands that make scene tables."""

from pathlib import Path
from typing import Annotated

import typer

from geograft.cli.options import Config, Json, settings_of
from geograft.console import show


def scenes(
    source: Annotated[str, typer.Argument(help="A folder of GeoTIFFs, an XYZ tile folder, or an XYZ URL template.")],
    out: Annotated[Path, typer.Argument(help="The scene table to write, .parquet.")],
    sensor: Annotated[str, typer.Option("--sensor", help="What the bands mean; `geograft info sensors` lists them.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a scene table from GeoTIFFs or map tiles.

    Examples: `geograft scenes region/scenes scenes.parquet --sensor world-1m`

    `geograft scenes walks/tiles tiles.parquet --sensor map-tiles`
    """
    from geograft.sources.scenes import SceneSettings, read_scenes

    show(read_scenes(source, out, sensor=sensor, settings=settings_of(SceneSettings, config)), as_json)
