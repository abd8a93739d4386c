"""Options that several commands share, and how they become settings."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A name (geograft models), a folder or a file.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", show_default="0")]
Level = Literal["image", "pixel"]
Classes = Annotated[
    str, typer.Option("--classes", "-c", help='Classes by semicolon, phrasings by comma: "water; trees, forest".')
]
Stride = Annotated[int | None, typer.Option(help="Pixels from one chip to the next.", show_default="a chip")]
Sensor = Annotated[str | None, typer.Option("--sensor", help="What the bands mean, e.g. naip.", show_default=False)]


def settings_of(kind: type[Any], config: Path | None, **options: Any) -> Any:
    """The settings of a command: defaults, the YAML file, and options that are not None."""
    from geograft.settings import settings_from

    return settings_from(kind, config, **options)


def matching(pattern: str) -> list[Path]:
    """The files that a path or pattern names; the path itself where nothing matches, for the error to name."""
    import glob

    return [Path(found) for found in sorted(glob.glob(pattern))] or [Path(pattern)]  # noqa: PTH207 - absolute patterns
