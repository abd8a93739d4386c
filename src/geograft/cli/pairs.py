"""Commands about pairs: plan, materialise, inspect, export."""

from pathlib import Path
from typing import Annotated

import typer

from geograft.cli.options import Config, Json, Seed, matching, settings_of
from geograft.console import show

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

Photos = Annotated[str, typer.Argument(metavar="PHOTOS", help="Photo table, or a quoted pattern of several.")]
Scenes = Annotated[str, typer.Argument(metavar="SCENES", help="Scene table, or a quoted pattern of several.")]
Out = Annotated[Path, typer.Argument(help="Folder of the pairs.")]
Folder = Annotated[Path, typer.Argument(metavar="PAIRS", help="Folder of pairs.")]
ChipSize = Annotated[int | None, typer.Option(help="Pixels along a chip's side.", show_default="64")]
Gsd = Annotated[float | None, typer.Option(help="Metres a pixel.", show_default="the sensor's")]
Split = Annotated[str | None, typer.Option(help="blocks, place, scene or none.", show_default="blocks")]
Teacher = Annotated[str | None, typer.Option(help="Embeds the photos into the shards: mini, words, a CLIP folder …")]
Engine = Annotated[str, typer.Option(help="local, ray, or ray:HOST:PORT.")]
Workers = Annotated[int | None, typer.Option(help="Tasks at once.", show_default="the cores")]


@app.callback()
def pairs() -> None:
    """Pair chips with the photos taken inside them, split by place.

    Examples: `geograft pairs make photos.parquet scenes.parquet pairs/` plans and materialises in one go;

    `geograft pairs plan …`, then `geograft pairs materialise pairs/`, step by step.
    """


@app.command()
def plan(
    photo_tables: Photos,
    scene_tables: Scenes,
    out: Out,
    chip_size: ChipSize = None,
    gsd: Gsd = None,
    split: Split = None,
    seed: Seed = None,
    engine: Engine = "local",
    workers: Workers = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Decide which chips to cut of which scenes, and which photos lie in each; no scene is opened.

    Examples: `geograft pairs plan photos.parquet scenes.parquet pairs/ --chip-size 224`

    `geograft pairs plan 'regions/*/photos.parquet' 'regions/*/scenes.parquet' pairs/ --engine ray`
    """
    from geograft.pairs.plan import PairSettings, plan_pairs

    settings = settings_of(PairSettings, config, chip_size=chip_size, gsd=gsd, split=split, seed=seed)
    tables = matching(photo_tables), matching(scene_tables)
    show(plan_pairs(*tables, out, settings=settings, engine=engine, workers=workers), as_json)


@app.command()
def materialise(
    folder: Folder,
    teacher: Teacher = None,
    engine: Engine = "local",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Cut the planned chips into shards; run again to go on after a stop.

    Examples: `geograft pairs materialise pairs/`

    `geograft pairs materialise pairs/ --teacher openai/clip-vit-base-patch16 --engine ray:10.0.0.1:6379`
    """
    from geograft.pairs.materialise import materialise

    show(materialise(folder, teacher=teacher, engine=engine, workers=workers), as_json)


@app.command()
def make(
    photo_tables: Photos,
    scene_tables: Scenes,
    out: Out,
    chip_size: ChipSize = None,
    gsd: Gsd = None,
    split: Split = None,
    seed: Seed = None,
    engine: Engine = "local",
    workers: Workers = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Plan and materialise in one go.

    Examples: `geograft pairs make photos.parquet scenes.parquet pairs/`

    `geograft pairs make 'regions/*/photos.parquet' 'regions/*/scenes.parquet' pairs/ --seed 1`
    """
    from geograft.pairs.plan import PairSettings, make_pairs

    settings = settings_of(PairSettings, config, chip_size=chip_size, gsd=gsd, split=split, seed=seed)
    tables = matching(photo_tables), matching(scene_tables)
    show(make_pairs(*tables, out, settings=settings, engine=engine, workers=workers), as_json)


@app.command()
def inspect(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page.", show_default="PAIRS/inspect.html")
    ] = None,
    count: Annotated[int, typer.Option(help="Random pairs to show.")] = 24,
    split: Annotated[str | None, typer.Option(help="train, validation or test.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Which pairs.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a page with a map, the numbers, and random pairs to look at; it opens without a server.

    Examples: `geograft pairs inspect pairs/`

    `geograft pairs inspect pairs/ --count 60 --split test -o test.html`
    """
    from geograft.pairs.inspect import inspect as write_page

    show({"page": str(write_page(folder, out, count=count, seed=seed, split=split))}, as_json)


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="Folder to publish.")],
    form: Annotated[str | None, typer.Option(help="parquet, webdataset or images.", show_default="parquet")] = None,
    strip_private: Annotated[
        bool | None, typer.Option("--strip-private", help="No user names, no addresses of photos that are not free.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="The data set's name.")] = None,
    imagery_licence: Annotated[str | None, typer.Option(help="Licence of the scenes, for the card.")] = None,
    engine: Engine = "local",
    workers: Workers = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Publish a benchmark: files by split, id lists, data set card and STAC collection.

    Examples: `geograft pairs export pairs/ release/ --strip-private --title "Sydney walks"`

    `geograft pairs export pairs/ release-wds/ --form webdataset`
    """
    from geograft.pairs.export import ExportSettings
    from geograft.pairs.export import export as publish

    options = {"form": form, "strip_private": strip_private, "title": title, "imagery_licence": imagery_licence}
    settings = settings_of(ExportSettings, config, **options)
    show(publish(folder, out, settings=settings, engine=engine, workers=workers), as_json)
