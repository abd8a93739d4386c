"""The command line: one command is one public function; nothing is decided here.

Results go to stdout (as one JSON object with `--json`), progress and messages to stderr. Exit codes: 0 done,
1 some rows failed (counted), 2 wrong use or input.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from geograft import __version__
from geograft.cli import export, fetch, models, pairs, photos, scenes, train
from geograft.cli.options import Classes, Config, Json, Level, Model, Sensor, Stride, settings_of
from geograft.console import VECTOR_SUFFIXES, show, show_table
from geograft.errors import BadSetting, GeograftError, path_problem

app = typer.Typer(
    name="geograft",
    help="Open-vocabulary models of satellite imagery, trained without one text annotation.",
    epilog="Start with: geograft demo demo/",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
"""The exit code that typer gives Ctrl-C."""


def main() -> None:
    """Run the command line; a user's error is one sentence on stderr and exit code 2.

    So is an error of the file system that a path of the user's causes; errors of the program keep their traceback.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads that spin cost tenfold on a busy machine
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except GeograftError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(2) from error
    except OSError as error:
        problem = path_problem(error)
        if problem is None:
            raise
        where = error.filename2 or error.filename or "a file"
        typer.secho(f"error: {where}: {problem}", fg="red", err=True)
        raise SystemExit(2) from error
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            typer.secho("stopped; run the same command again to go on", err=True)
        raise


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if verbose:
        logging.getLogger("geograft").setLevel(logging.INFO)


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.", show_default="1")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Photos to a map on a simulated region: pairs, training, evaluation, a report.

    Example: `geograft demo demo/`
    """
    from geograft.demo.run import DemoSettings, run_demo

    summary = run_demo(out, settings=settings_of(DemoSettings, config, seed=seed))
    show(summary, as_json, lines=summary.lines())


@app.command()
def world(
    out: Annotated[Path, typer.Argument(help="Folder of the region.")],
    seed: Annotated[int, typer.Option(help="Which region; World-1 lists its seeds in docs/world.md.")] = 0,
    size: Annotated[int | None, typer.Option(help="Side in metres.", show_default="4000")] = None,
    photos: Annotated[int | None, typer.Option(help="Number of photos.", show_default="5000")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Simulate a region: scenes from above, photos from the ground, truth apart.

    Example: `geograft world region/ --seed 7 --size 2000 --photos 1500`
    """
    from geograft.world.region import RegionSettings, make_region

    show(make_region(out, seed=seed, settings=settings_of(RegionSettings, config, size=size, photos=photos)), as_json)


app.command()(photos.photos)
app.command()(scenes.scenes)
app.command()(fetch.fetch)
app.command()(export.export)
app.command()(export.push)
app.command()(models.models)
app.command()(train.train)
app.add_typer(pairs.app, name="pairs")


@app.command()
def embed(
    source: Annotated[Path, typer.Argument(metavar="SCENES", help="A scene, a folder of scenes, or a scene table.")],
    out: Annotated[Path, typer.Argument(help="The table of embeddings to write, .parquet.")],
    model: Model = "mini",
    stride: Stride = None,
    sensor: Sensor = None,
    as_json: Json = False,
) -> None:
    """Write the embedding of every chip of scenes, to search them many times.

    Example: `geograft embed scenes.parquet chips.parquet --model mini`
    """
    from geograft.tasks.embed import embed

    show(embed(source, out, model=model, stride=stride, sensor=sensor), as_json)


@app.command()
def search(
    source: Annotated[Path, typer.Argument(metavar="CHIPS", help="A table that embed wrote, or scenes.")],
    query: Annotated[str, typer.Argument(help="Words (phrasings separated by commas), or a photo's path.")],
    model: Model = "mini",
    k: Annotated[int, typer.Option("-k", help="How many chips to find.")] = 20,
    sensor: Sensor = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Hits as .geojson, .gpkg, .parquet or .csv.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Picture sheet of the hits, .png.")] = None,
    as_json: Json = False,
) -> None:
    """Find the chips that fit words or a photo best.

    Examples: `geograft search chips.parquet "a harbour with boats" --sheet hits.png`

    `geograft search scene.tif photo.jpg -k 5 -o hits.geojson`
    """
    from geograft.tables import check_output
    from geograft.tasks.search import search

    if out is not None:
        check_output(out, VECTOR_SUFFIXES, inputs=[source])
    if sheet is not None:
        check_output(sheet, (".png", ".jpg", ".jpeg", ".webp"))
    photo = Path(query)
    wanted = photo if photo.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"} else query
    show_table(search(source, wanted, model=model, k=k, sensor=sensor, sheet=sheet), as_json, out=out)


@app.command()
def classify(
    source: Annotated[Path, typer.Argument(metavar="SCENES", help="A scene, scenes, or a folder of plain images.")],
    classes: Classes,
    model: Model = "mini",
    stride: Stride = None,
    sensor: Sensor = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Table to write, .parquet.")] = None,
    as_json: Json = False,
) -> None:
    """Give each chip the class whose words fit it best.

    Example: `geograft classify scene.tif --classes "water; crops, farmland; trees, forest" -o chips.parquet`
    """
    from geograft.tasks.classify import classify

    table = classify(source, classes, model=model, stride=stride, sensor=sensor, out=out)
    show(
        {"chips": len(table), "by class": table["label"].value_counts().to_dict(), "out": str(out) if out else None},
        as_json,
    )


@app.command()
def segment(
    scene: Annotated[Path, typer.Argument(help="The scene to map.")],
    classes: Classes,
    out: Annotated[Path, typer.Option("--out", "-o", help="Class map to write, .tif.")],
    model: Model = "mini",
    level: Annotated[Level, typer.Option(help="pixel, or image read out densely.")] = "pixel",
    stride: Annotated[int | None, typer.Option(help="Pixels from chip to chip.", show_default="half a chip")] = None,
    sensor: Sensor = None,
    scores: Annotated[Path | None, typer.Option(help="Also write the winning class's score, .tif.")] = None,
    as_json: Json = False,
) -> None:
    """Map a scene of any size by words, as a GeoTIFF that opens coloured in QGIS.

    Example: `geograft segment scene.tif --classes "water; crops, farmland; trees, forest" -o map.tif`
    """
    from geograft.tables import check_output
    from geograft.tasks.segment import segment

    for path in filter(None, (out, scores)):
        check_output(path, (".tif", ".tiff"), inputs=[scene])
    result = segment(scene, classes, model=model, level=level, stride=stride, sensor=sensor)
    result.to_cog(out, scores=scores)
    show({"out": str(out), "share of scene": result.shares(), **result.tags}, as_json)


@app.command()
def evaluate(
    card: Annotated[str, typer.Argument(help="world-1 or walks.")],
    work: Annotated[Path, typer.Option(help="Folder for regions and other things that are made once.")] = Path("work"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Results to write, .json.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Regions, e.g. 301,302.", show_default="the card's")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A part of the data, for a first look.")] = False,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Say where maps lose instead: world-1 only.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Measure models by a benchmark card.

    Examples: `geograft evaluate world-1 --out results/world-1.json`

    `geograft evaluate walks --config walks.yaml`

    `geograft evaluate world-1 --diagnose --out maps.md` sets words beside a linear probe and an oracle, class by class.
    """
    from geograft.evaluate.run import diagnose_card, evaluate_card

    if diagnose:
        text = diagnose_card(card, work=work, seeds=_seeds(seeds), quick=quick, config=config)
        if out is not None:
            out.write_text(text, encoding="utf-8")
        show({"card": card, "diagnosis": text}, as_json, lines=text.splitlines())
        return
    results = evaluate_card(card, work=work, out=out, seeds=_seeds(seeds), quick=quick, config=config)
    show(results.to_dict(), as_json, lines=results.lines())


@app.command()
def info(
    what: Annotated[
        str, typer.Argument(help="A scene, table, pairs or model folder, model name; or: sensors, models, presets.")
    ],
    sensor: Sensor = None,
    as_json: Json = False,
) -> None:
    """Say what a file, folder or name is.

    Examples: `geograft info scene.tif`

    `geograft info mini`

    `geograft info sensors`
    """
    from geograft.info import describe

    show(describe(what, sensor=sensor), as_json)


def _seeds(text: str | None) -> list[int] | None:
    """The whole numbers of "301,302"."""
    if text is None:
        return None
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise BadSetting(f"--seeds takes whole numbers with commas between, such as 301,302, not {text!r}") from None
