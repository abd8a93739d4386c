"""The command that trains: on this machine, under torchrun, or on a Ray cluster."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from geograft.cli.options import Config, Json, Seed, settings_of
from geograft.console import show
from geograft.errors import BadSetting


def train(
    pairs: Annotated[list[Path], typer.Argument(metavar="PAIRS...", help="Folders of pairs.")],
    out: Annotated[Path, typer.Argument(help="Folder of the model.")],
    level: Annotated[str | None, typer.Option(help="image, pixel, both or joint.", show_default="both")] = None,
    teacher: Annotated[str | None, typer.Option(help="mini, words, a CLIP folder …", show_default="mini")] = None,
    preset: Annotated[str | None, typer.Option(help="mini, mini-10m, vit-b-16.", show_default="mini")] = None,
    init: Annotated[str | None, typer.Option(help="A CLIP to start from.", show_default="random weights")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs.", show_default="10")] = None,
    batch: Annotated[int | None, typer.Option(help="Chips a step.", show_default="64")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.001")] = None,
    chunk: Annotated[int | None, typer.Option(help="Chips encoded at once.", show_default="the batch")] = None,
    seed: Seed = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Pairs of another place to validate on.", show_default=False)
    ] = None,
    regions: Annotated[
        list[Path] | None, typer.Option(help="Simulated regions of these, to watch maps.", show_default=False)
    ] = None,
    tensorboard: Annotated[bool | None, typer.Option("--tensorboard", help="Curves beside the log.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take in memory and hours.")] = False,
    engine: Annotated[str, typer.Option(help="local, ray, or ray:HOST:PORT.")] = "local",
    workers: Annotated[int, typer.Option(help="Processes that train together on Ray.")] = 1,
    gpus: Annotated[bool, typer.Option("--gpus", help="A GPU for each process on Ray.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Train a satellite encoder on pairs; run again to resume.

    Examples: `geograft train pairs/ model/ --level both --epochs 20`

    `geograft train naip/ sentinel/ model/ --level joint` trains one encoder for two sensors.

    `torchrun --nproc-per-node 4 -m geograft.cli train pairs/ model/ --preset vit-b-16`

    `geograft train pairs/ model/ --engine ray --workers 8 --gpus`
    """
    from geograft.training.trainer import TrainingSettings, estimate_training
    from geograft.training.trainer import train as run

    settings = settings_of(
        TrainingSettings, config, level=level, teacher=teacher, preset=preset, init=init, epochs=epochs, batch=batch,
        lr=lr, chunk=chunk, seed=seed, tensorboard=tensorboard,
    )  # fmt: skip
    first = os.environ.get("RANK", "0") == "0"  # torchrun starts this once a process
    if dry_run:
        estimate = estimate_training(pairs, settings=settings)
        if first:
            show(estimate, as_json, lines=estimate.lines())
        return
    inputs: dict[str, Any] = {"validation": validation or (), "regions": regions or ()}
    if engine == "local":
        _refuse_workers(workers, gpus=gpus)
        summary = run(pairs, out, settings=settings, **inputs)
    else:
        summary = _on_ray(run, {"pairs": pairs, "out": out, "settings": settings, **inputs}, engine, workers, gpus)
    if first:
        show(summary, as_json)


def _refuse_workers(workers: int, *, gpus: bool) -> None:
    """Options of Ray do nothing on this machine alone."""
    if workers != 1 or gpus:
        raise BadSetting(
            "--workers and --gpus are for --engine ray. On this machine, start as many processes by torchrun: "
            f"torchrun --nproc-per-node {max(2, workers)} -m geograft.cli train ..."
        )


def _on_ray(function: Any, arguments: dict[str, Any], engine: str, workers: int, gpus: bool) -> Any:
    """Run on a cluster, whose nodes find files by absolute paths."""
    from geograft.training.raytrain import train_on_ray

    whole = {key: _absolute(value) for key, value in arguments.items()}
    return train_on_ray(function, whole, workers=workers, gpus=gpus, engine=engine)


def _absolute(value: Any) -> Any:
    """Paths, alone or listed, from the root."""
    if isinstance(value, Path):
        return value.resolve()
    return [_absolute(one) for one in value] if isinstance(value, (list, tuple)) else value
