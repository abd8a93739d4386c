"""Commands that make scene tables."""

from pathlib import Path
from typing import Annotated

import typer

from geograft.cli.options import Config, Json, settings_of
from geograft.console import show


def scenes(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, file, quoted pattern or text list of rasters; a STAC catalogue, API or Parquet of items; "
            "XYZ tiles or a WMTS, by template or capabilities."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The scene table to write, .parquet.")],
    sensor: Annotated[
        str, typer.Option("--sensor", help="What the bands mean: a name of `geograft info sensors`, or a YAML file.")
    ],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a scene table from rasters, a STAC catalogue or API, or map tiles.

    Exit code 1 where a server did not give some of what is named (counted under `failed`): run it again.

    Examples: `geograft scenes region/scenes scenes.parquet --sensor world-1m`

    `geograft scenes walks/tiles tiles.parquet --sensor map-tiles`

    `geograft scenes https://earth-search.aws.element84.com/v1 s2.parquet --sensor sentinel-2-l2a --config search.yaml`
    """
    from geograft.sources.scenes import SceneSettings, read_scenes

    summary = read_scenes(source, out, sensor=sensor, settings=settings_of(SceneSettings, config))
    show(summary, as_json)
    if summary.failed:
        raise typer.Exit(1)
