"""Commands that take models out: as graphs of other libraries, and to the hub."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from geograft.cli.options import Json, Sensor
from geograft.console import show


def export(
    model: Annotated[str, typer.Argument(help="mini, mini-10m, a model folder, or hf-hub:org/name.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; empty or absent.")],
    form: Annotated[Literal["onnx", "openvino"], typer.Option("--format", help="Which library runs it.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights and activations.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Pairs or scenes to measure int8's ranges on.", show_default=False)
    ] = None,
    sensor: Sensor = None,
    as_json: Json = False,
) -> None:
    """Write a model as a graph for ONNX Runtime or OpenVINO, and say how near and how fast it is.

    The folder is a model like any other: `geograft embed --model OUT` runs it.

    Examples: `geograft export mini fast/ --format openvino`

    `geograft export model/ small/ --format openvino --int8 --calibration pairs/`
    """
    from geograft.tasks.calibration import export_calibrated

    summary = export_calibrated(model, out, form=form, int8=int8, calibration=calibration, sensor=sensor)
    show(summary, as_json, lines=summary.lines())


def push(
    folder: Annotated[Path, typer.Argument(help="A model folder, or an exported one.")],
    repo: Annotated[str, typer.Argument(help="org/name on the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Only the owner sees a repository made now.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch.", show_default="main")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the model, e.g. apache-2.0; written to the folder.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be uploaded.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a model folder to the Hugging Face Hub; the token is read from HF_TOKEN.

    Examples: `geograft push model/ my-org/walks-1m --licence apache-2.0 --dry-run`

    `HF_TOKEN=... geograft push model/ my-org/walks-1m --private`
    """
    from geograft.models.hub import push_to_hub

    summary = push_to_hub(folder, repo, private=private, revision=revision, licence=licence, dry_run=True)
    if not dry_run:
        typer.echo("\n".join(summary.lines()).replace("nothing is uploaded", "uploading"), err=True)
        summary = push_to_hub(folder, repo, private=private, revision=revision)
    show(summary, as_json, lines=summary.lines())
