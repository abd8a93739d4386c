"""The command that fetches photos."""

from pathlib import Path
from typing import Annotated

import typer

from geograft.cli.options import Config, Json, settings_of
from geograft.console import show


def fetch(
    photos: Annotated[Path, typer.Argument(help="A photo table with addresses (https://…), .parquet.")],
    out: Annotated[Path, typer.Argument(help="The folder for photos and tables.")],
    per_second: Annotated[float | None, typer.Option(help="Requests a second to one host.", show_default="2")] = None,
    max_side: Annotated[int | None, typer.Option(help="Longest side in pixels.", show_default="512")] = None,
    contact: Annotated[
        str | None, typer.Option(help="Who asks, for servers' keepers: a mail address.", show_default=False)
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again for what failed before.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Download the photos of a photo table; a run that was stopped goes on.

    Examples: `geograft fetch photos.parquet photos/ --contact me@example.org`

    `geograft fetch photos.parquet photos/ --per-second 0.5 --retry-failed`
    """
    from geograft.sources.fetch import FetchSettings, fetch_photos

    settings = settings_of(
        FetchSettings,
        config,
        per_second=per_second,
        max_side=max_side,
        contact=contact,
        retry_failed=retry_failed or None,
    )
    show(fetch_photos(photos, out, settings=settings), as_json)
