"""Rows of raster files: a folder, a list or pattern of paths and addresses, or one file."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from geograft.errors import MissingInput, UnreadableTable
from geograft.raster import Scene, footprint, open_scene
from geograft.raster.clouds import mask_of, share
from geograft.raster.files import with_file
from geograft.raster.remote import is_remote
from geograft.sources.imagery.rows import SceneRow, SceneSettings, row_of

SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2"})
"""The scene files that a folder is searched for."""
LISTS = frozenset({".txt", ".lst"})
"""The text files that name a path or address a line."""

_OVERVIEW = 1024


def is_raster(source: str) -> bool:
    """Whether a source is one raster file, by its name where a server has it."""
    name = source.split("?", maxsplit=1)[0].lower()
    return name.endswith(tuple(SUFFIXES)) if is_remote(source) else Path(source).is_file()


def is_pattern(source: str) -> bool:
    """Whether a source is a pattern of local paths."""
    return not is_remote(source) and any(mark in source for mark in "*?[") and not Path(source).exists()


def named_files(source: str) -> list[tuple[str, str]]:
    """The scenes of a folder, list, pattern or file, as (id, path or address), sorted by path.

    Raises:
        MissingInput: the pattern fits no file.
        UnreadableTable: the list is no UTF-8 text.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if _is_scene(each))
        return [(f"{_source_name(path)}/{_stem(each.relative_to(path).as_posix())}", str(each)) for each in found]
    if path.suffix.lower() in LISTS and path.is_file():
        return _under_common(path.stem, _listed(path))
    if is_pattern(source):
        found_ = sorted(each for each in glob.glob(source, recursive=True) if _is_scene(Path(each)))  # noqa: PTH207
        if not found_:
            raise MissingInput(f"No raster is called {source}: check the pattern.")
        return _under_common("", [os.path.abspath(each) for each in found_])  # noqa: PTH100 - resolves no link
    if is_remote(source):
        parts = _stem(source.split("?", maxsplit=1)[0]).split("/")
        return [("/".join(parts[-2:]), source)]
    return [(f"{_source_name(path.parent)}/{path.stem}", source)]


def file_row(named: tuple[str, str], *, sensor: str | None, settings: SceneSettings) -> SceneRow:
    """The footprint and the row of one raster file.

    Raises:
        GeograftError: it cannot be used; see `open_scene`.
    """
    scene_id, path = named
    scene = open_scene(path, sensor=sensor, signer=settings.signer)
    if not is_remote(path):
        with_file(path, _read_last_block)
    return SceneRow(footprint(scene.geobox), row_of(scene, scene_id, whole_share(scene) or 0.0))


def whole_share(scene: Scene) -> float | None:
    """The cloudy share of a scene's mask, from at most 1024 pixels a side; None without a mask at hand."""
    mask = mask_of(scene)
    if mask is None or is_remote(mask):
        return None
    values, valid = with_file(mask, _overview)
    return share(scene, mask, values, valid)


def _overview(file: Any) -> tuple[Any, Any]:
    """A mask's values at a coarse resolution, and where it has any."""
    values = file.read(1, out_shape=(min(_OVERVIEW, file.height), min(_OVERVIEW, file.width)))
    return values, np.ones(values.shape, np.bool_)


def _read_last_block(file: Any) -> None:
    """Read a scene's last block, which a file that was cut short does not have; GDAL's error says so."""
    rows, columns = file.block_shapes[0]
    top, left = (file.height - 1) // rows * rows, (file.width - 1) // columns * columns
    file.read(1, window=Window(left, top, file.width - left, file.height - top))


def _is_scene(path: Path) -> bool:
    """Whether a file may be a scene: a raster that is no cloud mask and no hidden leftover."""
    named = path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    return named and not path.stem.endswith("_clouds") and path.is_file()


def _source_name(folder: Path) -> str:
    """The folder's name, which keeps ids of several sources apart; that of its parent where it is called scenes."""
    folder = folder.absolute()
    return folder.parent.name if folder.name == "scenes" else folder.name


def _listed(path: Path) -> list[str]:
    """The paths and addresses of a list, relative ones from its folder; lines that begin with # say nothing."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UnreadableTable(f"{path} is no UTF-8 text: write one path or address a line.") from error
    named = [line for line in lines if line and not line.startswith("#")]
    return [line if is_remote(line) else str((path.parent / line).absolute()) for line in named]


def _under_common(name: str, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Ids of paths or addresses: what follows the folders that all have in common, after a name."""
    parts = [path.split("?", maxsplit=1)[0].split("/") for path in paths]
    folders = zip(*(each[:-1] for each in parts), strict=False)
    shared = min((len(each) - 1 for each in parts), default=0)
    common = next((depth for depth, names in enumerate(folders) if len(set(names)) > 1), shared)
    first = [name] if name else parts[0][common - 1 : common] if parts else []
    return [("/".join([*first, _stem("/".join(each[common:]))]), path) for each, path in zip(parts, paths, strict=True)]


def _stem(path: str) -> str:
    """A path without its suffix."""
    return path.removesuffix(Path(path).suffix)
