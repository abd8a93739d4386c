"""Commands about pairs."""

from pathlib import Path
from typing import Annotated

import typer

from geograft.cli.options import Config, Json, Seed, matching, settings_of
from geograft.console import show


def pairs(
    photo_tables: Annotated[str, typer.Argument(metavar="PHOTOS", help="Photo table, or a quoted pattern of several.")],
    scene_tables: Annotated[str, typer.Argument(metavar="SCENES", help="Scene table, or a quoted pattern of several.")],
    out: Annotated[Path, typer.Argument(help="Folder of the pairs.")],
    chip_size: Annotated[int | None, typer.Option(help="Pixels.", show_default="64")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres a pixel.", show_default="the sensor's")] = None,
    split: Annotated[str | None, typer.Option(help="blocks, place or none.", show_default="blocks")] = None,
    seed: Seed = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Pair chips with the photos taken inside them, split by place.

    Examples: `geograft pairs photos.parquet scenes.parquet pairs/`

    `geograft pairs 'regions/*/photos.parquet' 'regions/*/scenes.parquet' pairs/ --seed 1`
    """
    from geograft.pairs.plan import PairSettings, make_pairs

    settings = settings_of(PairSettings, config, chip_size=chip_size, gsd=gsd, split=split, seed=seed)
    show(make_pairs(matching(photo_tables), matching(scene_tables), out, settings=settings), as_json)
