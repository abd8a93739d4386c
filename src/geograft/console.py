"""How results of commands are shown: lines for people, one JSON object for programs."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

_SHOWN_ROWS = 20

VECTOR_SUFFIXES = (".geojson", ".gpkg", ".parquet", ".csv")
"""The kinds of file that hits are written to."""


def show(result: Any, as_json: bool, *, lines: Sequence[str] | None = None) -> None:
    """Print a result, and exit with 1 where rows failed.

    Args:
        result: a dataclass or mapping.
        as_json: one JSON object instead of lines.
        lines: what people see; names and values of the result if None.
    """
    values = dataclasses.asdict(result) if dataclasses.is_dataclass(result) and not isinstance(result, type) else result
    if as_json:
        typer.echo(json.dumps(_finite(values), default=_plain))
    else:
        typer.echo("\n".join(lines if lines is not None else _lines(values)))
    if failed_rows(values):
        raise typer.Exit(1)


def show_table(table: Any, as_json: bool, *, out: Path | None = None) -> None:
    """Print the first rows of a (Geo)DataFrame, or all as JSON; write it where `out` says.

    Raises:
        BadSetting: the suffix of `out` is none that can be written.
    """
    if out is not None:
        write_vector(table, out)
    plain = table.drop(columns=["geometry"], errors="ignore")
    if as_json:
        rows = json.loads(plain.to_json(orient="records", date_format="iso"))
        typer.echo(json.dumps({"rows": rows, "out": str(out) if out else None}))
        return
    columns = [name for name in ("rank", "score", "chip_id", "scene_id", "label") if name in plain]
    typer.echo(plain[columns or list(plain)].head(_SHOWN_ROWS).to_string(index=False))


def write_vector(table: Any, out: Path) -> None:
    """Write a GeoDataFrame as GeoJSON, GeoPackage, GeoParquet or CSV (with WKT), by the suffix.

    Raises:
        BadSetting: another suffix.
        UnwritableOutput: nothing can be written there.
        DiskFull: nothing is left under the final name.
    """
    from geograft.tables import atomic, check_output

    suffix = out.suffix.lower()
    check_output(out, VECTOR_SUFFIXES)
    with atomic(out) as temporary:
        if suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        elif suffix == ".csv":
            table.to_wkt().to_csv(temporary, index=False)
        else:
            table.to_file(temporary, driver="GeoJSON" if suffix == ".geojson" else "GPKG", layer=out.stem)


def failed_rows(values: Any) -> int:
    """How many rows a result says have failed."""
    if not isinstance(values, Mapping):
        return 0
    counts = values.get("counts")
    failed = values.get("failed", counts.get("failed") if isinstance(counts, Mapping) else None)
    return sum(failed.values()) if isinstance(failed, Mapping) else int(failed or 0)


def _lines(values: Mapping[str, Any]) -> list[str]:
    width = max((len(name) for name in values), default=0) + 2
    shown = {name: value for name, value in values.items() if value is not None and value != {}}
    return [f"{name.replace('_', ' '):<{width}}{_text(value)}" for name, value in shown.items()]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(inner) for inner in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    """JSON has no NaN: not-a-number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
