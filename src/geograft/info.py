"""What a file, folder or name is, in a few lines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geograft.errors import MissingInput, UnknownModel

_RASTERS = frozenset({".tif", ".tiff", ".vrt", ".jp2"})


def describe(what: str, *, sensor: str | None = None) -> dict[str, Any]:
    """The facts about a scene, table, folder of pairs or region, model, or about what ships with the package.

    Args:
        what: a path, the name of a model, or "sensors", "models" or "presets".
        sensor: the sensor of a scene whose file does not say it.

    Returns:
        Names and values, ready for JSON.

    Raises:
        MissingInput: nothing has that name.
    """
    lists: dict[str, Callable[[], dict[str, Any]]] = {"sensors": _sensors, "models": _models, "presets": _presets}
    if what in lists:
        return lists[what]()
    path = Path(what)
    if path.suffix.lower() in _RASTERS or "{x}" in what:
        return _scene(what, sensor)
    if path.suffix.lower() == ".parquet":
        return _table(path)
    if (path / "manifest.json").is_file() and not (path / "config.json").is_file():
        return _stage(path)
    if path.exists() and not (path / "config.json").is_file():
        raise MissingInput(
            f"{path} is no scene, table, model or folder of a stage; geograft info --help shows examples"
        )
    return _model(what)


def _sensors() -> dict[str, Any]:
    from geograft.sensors import get_sensor, sensor_names

    known = {name: get_sensor(name) for name in sensor_names()}
    return {name: f"{', '.join(s.bands)}; {s.dtype}, {s.gsd:g} m. {s.description}" for name, s in known.items()}


def _presets() -> dict[str, Any]:
    from geograft.sources.presets import describe as known

    return {str(about["name"]): f"{about['description']} {about['licence']}" for about in known()}


def _models() -> dict[str, Any]:
    from geograft.models.checkpoints import SHIPPED, load_model

    found = {}
    for name in sorted(set(SHIPPED.values())):
        try:
            found[name] = repr(load_model(name))
        except UnknownModel as error:
            found[name] = str(error)
    return found


def _scene(what: str, sensor: str | None) -> dict[str, Any]:
    from geograft.raster import open_scene

    scene = open_scene(what, sensor=sensor)
    height, width = scene.geobox.shape
    return {
        "kind": "map tiles" if scene.kind == "xyz" else "scene",
        "sensor": scene.sensor.name,
        "bands": list(scene.sensor.bands),
        "crs": f"EPSG:{epsg}" if (epsg := scene.geobox.crs.epsg) else str(scene.geobox.crs),
        "size": f"{width} x {height} px",
        "ground sample distance": f"{scene.gsd:.3g} m",
        "taken": scene.taken.isoformat() if scene.taken else None,
        "nodata": scene.nodata,
    }


def _table(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from geograft.tables import read_schema

    schema = read_schema(path)
    found: dict[str, Any] = {"kind": "table", "rows": pq.read_metadata(path).num_rows, "columns": list(schema.names)}
    if bounds := _bounds(path, schema):
        west, south, east, north = bounds
        found["bounds"] = f"{west:.5f}, {south:.5f} to {east:.5f}, {north:.5f}"
    return found


def _bounds(path: Path, schema: Any) -> list[float] | None:
    """West, south, east, north of a table in degrees: as its metadata says, or by its rows; None where it has none."""
    from geograft.tables import read_table

    about = json.loads((schema.metadata or {}).get(b"geo", b"{}")).get("columns", {}).get("geometry")
    if about is None:
        return None
    stated, crs = about.get("bbox"), about.get("crs", {})
    if stated and len(stated) == 4 and (crs or {}).get("id", {}).get("code") in {4326, "CRS84"}:
        return list(stated)
    table = read_table(path, ["geometry"])
    return list(table.to_crs(4326).total_bounds) if len(table) and table.crs is not None else None


def _stage(path: Path) -> dict[str, Any]:
    from geograft.tables import read_manifest

    manifest = read_manifest(path / "manifest.json")
    numbers = {name: value for name, value in manifest.extra.items() if isinstance(value, (int, float, str))}
    return {"kind": f"folder of the stage {manifest.stage}", **manifest.counts, **numbers}


def _model(what: str) -> dict[str, Any]:
    from geograft.models.checkpoints import load_model

    model = load_model(what)
    return {
        "kind": "model",
        "name": model.name,
        "levels": list(model.levels),
        "sensor": model.sensor.name,
        "bands": list(model.bands),
        "ground sample distance": f"{model.gsd:g} m",
        "chip": f"{model.chip_size} px, patches of {model.patch_size} px",
        "embedding": model.dim,
        "teacher": f"{model.teacher_name} ({model.teacher_fingerprint})" if model.has_teacher else None,
        "fingerprint": model.fingerprint,
        "licence": model.origin.licence or None,
        "backend": model.backend,
        **{str(name): value for name, value in model.origin.metrics.items()},
    }
