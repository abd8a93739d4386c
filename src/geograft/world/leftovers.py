"""What a killed run left of a region: told from anything else by name, so that nobody's own files are removed."""

import json
import re
import shutil
from pathlib import Path

from geograft.errors import OutputExists

PARTS = ("region.json", "scenes", "photos", "photos.csv", "truth", "manifest.json")
"""What a region's folder holds."""

_NAMES = {
    "scenes": re.compile(r"\.?world-10?m_\d{4}-\d\d-\d\d.*\.(tif|xml)"),
    "photos": re.compile(r"\.?w\d+-\d+.*\.jpg"),
    "truth": re.compile(r"\.?(classes|objects|photos|captions)\..*"),
}
_ROW = re.compile(r"w\d+-\d{6},")


def clear(folder: Path) -> None:
    """Remove what an unfinished run left, and make the folder; nothing else in it is touched.

    Raises:
        OutputExists: something that a region's file would replace is not of a region; nothing was removed.
    """
    found = [folder / name for name in PARTS if (folder / name).exists()]
    if strange := next((path for each in found if (path := _stranger(each))), None):
        raise OutputExists(f"{strange} is no part of a simulated region and would be lost: name another folder.")
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _stranger(path: Path) -> Path | None:
    """A file that no run of ours wrote: the path itself or one inside it; None where there is none."""
    if path.name in _NAMES:
        inside = path.iterdir() if path.is_dir() else iter([path])
        return next((each for each in inside if each.is_dir() or not _NAMES[path.name].fullmatch(each.name)), None)
    return None if _is_ours(path) else path


def _is_ours(path: Path) -> bool:
    """Whether a file beside the folders looks like a region's."""
    if path.is_dir():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        if path.name == "photos.csv":
            first = file.readlines(2048)[1:2]
            return not first or bool(_ROW.match(first[0]))
        if path.name == "region.json":
            return True
        try:
            return bool(json.load(file)["stage"] == "world")
        except (ValueError, KeyError, TypeError):
            return False
