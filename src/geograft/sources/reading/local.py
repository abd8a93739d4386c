"""Photos as files: those of a folder, where those of a table lie, and what each says by its EXIF."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geograft.sources.exif import PhotoExif, read_exif
from geograft.sources.reading.mapping import FIELDS

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif"})
"""The photo files that a folder is searched for."""

FOLDER_BATCH = 256
"""Photos of a folder that are read before they are judged."""

_EXIF_FIELDS = ("accuracy_m", "heading_deg", "fov_deg", "taken", "user", "licence", "width", "height")
_TIME = "datetime64[us, UTC]"


def list_photos(folder: Path) -> list[Path]:
    """The photo files of a folder and all below it, sorted; hidden ones and those of killed runs are none."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def local_photos(paths: Sequence[Path], folder: Path) -> pd.DataFrame:
    """Photos of which only the files are known; the subfolder is their place."""
    places = [path.parent.relative_to(folder).as_posix() for path in paths]
    photos = pd.DataFrame({name: pd.Series(np.nan, range(len(paths)), dtype=_kind(name)) for name in FIELDS})
    photos["panorama"] = False
    photos["uri"] = pd.Series([str(path) for path in paths], dtype="str")
    photos["photo_id"] = pd.Series([_path_id(path, folder) for path in paths], dtype="str")
    photos["place"] = pd.Series([None if place == "." else place for place in places], dtype="str")
    return photos.drop(columns="file").assign(digest=None, reason="")


def _kind(name: str) -> str:
    """The type of a field."""
    if name == "taken":
        return _TIME
    return "float64" if name.endswith(("_deg", "_m")) or name in {"lat", "lon", "width", "height"} else "str"


def _path_id(path: Path, folder: Path) -> str:
    """A photo's id where the source gives none: its path from the source's folder on, without the suffix."""
    return path.relative_to(folder.parent).with_suffix("").as_posix()


def with_files(photos: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Photos of a table with the absolute path or the address of their file, and an id.

    Args:
        photos: see `mapping.Mapper.photos`.
        folder: where the table lies, from which its paths are meant.
    """
    files = photos["file"]
    remote = files.str.contains("://", regex=False).fillna(value=False).astype(bool)
    rooted = files.str.contains(r"^(?:/|[A-Za-z]:[\\/])", regex=True).fillna(value=False).astype(bool)
    uri = files.where(remote | rooted, f"{folder}/" + files.str.removeprefix("./"))
    photos = photos.assign(uri=uri, digest=None)
    nameless = photos["photo_id"].isna() & files.notna()
    if nameless.any():
        photos["photo_id"] = photos["photo_id"].where(~nameless, _file_ids(uri, remote, folder))
    missing = files.isna() & (photos["reason"] == "")
    photos["reason"] = photos["reason"].mask(missing, "missing-file")
    return photos


def _file_ids(uri: pd.Series, remote: pd.Series, folder: Path) -> pd.Series:
    """Ids of files without one: addresses as they are, paths as `_path_id` has them."""
    below = f"{folder.name}/" + uri.str.removeprefix(f"{folder}/")
    paths = below.where(uri.str.startswith(f"{folder}/"), uri)
    return uri.where(remote, paths.str.replace(r"(?<=[^/])\.[^./]+$", "", regex=True))


# --- what the files say -----------------------------------------------------------------------------------


def with_exif(photos: pd.DataFrame, *, verify: bool) -> pd.DataFrame:
    """Photos with what they lack from their EXIF, the hash of their bytes, and why their file cannot be used.

    Args:
        photos: with `uri`; those with a reason already, or on other machines, are not opened.
        verify: decode whole images.
    """
    photos = photos.copy()
    local = (photos["reason"] == "") & ~photos["uri"].str.contains("://", regex=False).fillna(value=True).astype(bool)
    rows = photos.index[local.to_numpy(bool)]
    if not len(rows):
        return photos
    found = [read_exif(uri, verify=verify) for uri in photos.loc[rows, "uri"]]
    for name in _EXIF_FIELDS:
        read = pd.Series([getattr(exif, name) for exif in found], rows, dtype=_kind(name))
        photos[name] = photos[name].fillna(read)
    placeless = photos["lat"].isna() & photos["lon"].isna()
    for name in ("lat", "lon"):
        read = pd.Series([getattr(exif, name) for exif in found], rows, dtype="float64")
        photos[name] = photos[name].fillna(read.where(placeless.loc[rows]))
    photos.loc[rows, "digest"] = pd.Series([exif.digest for exif in found], rows, dtype=object)
    photos.loc[rows, "reason"] = _reasons(photos.loc[rows], found)
    return photos


def _reasons(photos: pd.DataFrame, found: Sequence[PhotoExif]) -> list[str]:
    """Why files cannot be used, or why they do not give the position that their row lacks."""
    placed = photos["lat"].notna() & photos["lon"].notna()
    return [
        exif.image_problem or ("" if here else exif.position_problem or "no-gps")
        for exif, here in zip(found, placed, strict=True)
    ]


def position_reasons(lon: pd.Series, lat: pd.Series) -> NDArray[np.object_]:
    """Why positions are none, or "", (N,); as `exif.position_problem`."""
    x, y = np.abs(lon.to_numpy(np.float64)), np.abs(lat.to_numpy(np.float64))
    found: NDArray[np.object_] = np.full(len(x), "", object)
    with np.errstate(invalid="ignore"):
        found[(x < 1e-4) & (y < 1e-4)] = "null-island"
        found[(y > 90) | (x > 180)] = "out-of-range"
        found[(y > 90) & (y <= 180) & (x <= 90)] = "swapped-lat-lon"
    found[~(np.isfinite(x) & np.isfinite(y))] = "no-gps"
    return found
