"""Photos as files: JPEG with EXIF as cameras write it, a table as a photo site exports it, and the usual dirt.

What is wrong on purpose, and at which rate, stands in `Dirt`; the truth table names what is wrong with each photo.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer

from geograft.errors import BadSetting
from geograft.tables import atomic, track
from geograft.world.classes import BY_ID
from geograft.world.daylight import noise

if TYPE_CHECKING:
    from pathlib import Path

    from geograft.world.daylight import Floats
    from geograft.world.photographers import Shots
    from geograft.world.terrain import Land

FREE_LICENCES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-2.0")
UNFREE_LICENCES = ("all-rights-reserved", "CC-BY-NC-ND-4.0")
CSV_COLUMNS = ("id", "file", "lat", "lon", "accuracy", "taken", "user", "licence", "tags")

_MEDIAN_ERROR_M, _SPREAD = 8.0, 1.0315  # log-normal: half below 8 m, one in ten beyond 30 m
_WORST_ERROR_M = 150.0
_QUALITY = 90
_CAMERAS = (("Halden", "H7"), ("Halden", "H9 Pro"), ("Orbita", "Pocket 2"), ("Kestrel", "K-100"), ("Lumo", "One"))
_DAMAGES = ("truncated-exif", "zero-position", "impossible-position")
_SMALL_TALK = ("holiday", "walk", "2022", "weekend", "phone", "outdoor", "family", "nofilter", "travel")


@dataclass(frozen=True)
class Dirt:
    """What is wrong with photos on purpose: shares of all photos, each 0 to 1.

    Every photo has at most one kind of the first six; licence, heading and stated accuracy are drawn apart.

    Attributes:
        indoor: pictures of rooms, at true outdoor positions.
        far: geotags 2 to 20 km off.
        no_exif: files without EXIF; the CSV still has their position, as the site stored it at upload.
        broken_exif: files whose EXIF is cut short (no position in the CSV either), or whose position, in file
            and CSV, is 0, 0 or beyond 180 degrees.
        duplicates: files uploaded again under another id.
        unreadable: files cut short within the picture.
        unfree: photos under licences that forbid free use.
        no_heading: files without a direction of view.
        no_accuracy: files and rows without a stated accuracy.
    """

    indoor: float = 0.03
    far: float = 0.02
    no_exif: float = 0.03
    broken_exif: float = 0.015
    duplicates: float = 0.02
    unreadable: float = 0.003
    unfree: float = 0.08
    no_heading: float = 0.15
    no_accuracy: float = 0.15

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        shares = [getattr(self, f.name) for f in fields(self)]
        if min(shares) < 0 or max(shares) > 1 or sum(shares[:6]) > 1:
            raise BadSetting("Rates of dirt are shares from 0 to 1, the first six at most 1 together.")

    @classmethod
    def none(cls) -> Dirt:
        """No dirt at all; positions still have their error."""
        return cls(**{f.name: 0.0 for f in fields(cls)})


@dataclass(frozen=True)
class Upload:
    """What becomes of some photos when they are taken, tagged and uploaded.

    Attributes:
        table: one row a photo: photo_id, dirt ("" where none), true and stated positions, what the files say.
        rgb: the pictures, (N, S, S, 3) uint8.
    """

    table: pd.DataFrame
    rgb: Any = field(repr=False)


def upload(land: Land, shots: Shots, rgb: NDArray[Any], *, dirt: Dirt, seed: int) -> Upload:
    """Give photos positions with error, licences, users and dirt.

    Args:
        land: where they were taken.
        shots: the photos.
        rgb: their pictures, (N, S, S, 3) uint8; indoor and doubled ones are replaced in a copy.
        dirt: what goes wrong how often.
        seed: the same seed gives the same result.
    """
    rng = np.random.default_rng([seed, 0xD187])
    count = len(shots)
    kinds = _kinds(dirt, count, rng)
    table = pd.DataFrame({"photo_id": [f"w{land.seed}-{number:06d}" for number in range(count)], "dirt": kinds})
    table["x"], table["y"] = shots.poses.x.astype(float), shots.poses.y.astype(float)
    table["heading_deg"] = shots.poses.heading_deg.astype(float)
    table["fov_deg"] = shots.poses.fov_deg.astype(float)
    table["subject"] = [BY_ID[int(c)].name for c in shots.subject]
    table["taken"] = pd.Series(shots.taken).astype("datetime64[s]")
    table["user"] = [f"user{number:05d}" for number in shots.user]
    table["walk"] = shots.walk
    _add_positions(table, land, rng)
    _add_words(table, dirt, rng)
    return Upload(*_with_copies(table, _with_rooms(table, rgb, rng), rng))


def _kinds(dirt: Dirt, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """What is wrong with each photo, "" for most; rates are met to the photo."""
    names = ("indoor", "far", "no-exif", "broken-exif", "duplicate", "unreadable")
    rates = (dirt.indoor, dirt.far, dirt.no_exif, dirt.broken_exif, dirt.duplicates, dirt.unreadable)
    numbers = [int(rate * count + 0.5) for rate in rates]
    kinds = np.full(count, "", dtype=object)
    kinds[: min(count, sum(numbers))] = np.repeat(np.array(names, object), numbers)[:count]
    broken = np.flatnonzero(kinds == "broken-exif")
    kinds[broken] = [_DAMAGES[n % len(_DAMAGES)] for n in range(len(broken))]
    rng.shuffle(kinds)
    return kinds


def _add_positions(table: pd.DataFrame, land: Land, rng: np.random.Generator) -> None:
    """True and stated longitudes and latitudes, and the accuracy that the phone believes in."""
    count = len(table)
    to_degrees = Transformer.from_crs(land.epsg, 4326, always_xy=True)
    east, south = land.left + table["x"].to_numpy(), land.top - table["y"].to_numpy()
    error = np.minimum(_MEDIAN_ERROR_M * np.exp(rng.normal(0, _SPREAD, count)), _WORST_ERROR_M)
    angle = rng.uniform(0, 2 * np.pi, count)
    far = (table["dirt"] == "far").to_numpy()
    offset = np.where(far, rng.uniform(2_000, 20_000, count), error)
    table["true_lon"], table["true_lat"] = to_degrees.transform(east, south)
    lon, lat = to_degrees.transform(east + offset * np.sin(angle), south + offset * np.cos(angle))
    table["lon"], table["lat"] = np.round(lon, 7), np.round(lat, 7)
    table["error_m"] = offset
    believed = np.clip(error * np.exp(rng.normal(0, 0.5, count)), 3, 200)
    table["accuracy_m"] = np.round(believed, 1)
    for kind, place in (("zero-position", (0.0, 0.0)), ("impossible-position", (203.4, 49.2))):
        table.loc[table["dirt"] == kind, ["lon", "lat"]] = place


def _add_words(table: pd.DataFrame, dirt: Dirt, rng: np.random.Generator) -> None:
    """Licence, camera, tags, and which files keep silent on direction and accuracy."""
    count = len(table)
    free, unfree = (rng.choice(names, count) for names in (FREE_LICENCES, UNFREE_LICENCES))
    table["licence"] = np.where(rng.random(count) < dirt.unfree, unfree, free)
    table["camera"] = rng.integers(len(_CAMERAS), size=count)
    table["has_heading"] = rng.random(count) >= dirt.no_heading
    table["has_accuracy"] = rng.random(count) >= dirt.no_accuracy
    talk = rng.integers(len(_SMALL_TALK), size=(count, 2))
    named = rng.random(count) < 0.3
    words = [BY_ID_WORD[subject] for subject in table["subject"]]
    table["tags"] = [
        ";".join(dict.fromkeys([*([word] if name else []), _SMALL_TALK[a], _SMALL_TALK[b]]))
        for word, name, (a, b) in zip(words, named, talk, strict=True)
    ]


BY_ID_WORD = {cover.name: cover.words[0] for cover in BY_ID.values()}


def _with_rooms(table: pd.DataFrame, rgb: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """The pictures, those of indoor photos replaced by rooms."""
    rooms = np.flatnonzero(table["dirt"] == "indoor")
    if len(rooms):
        rgb = rgb.copy()
        for row in rooms:
            rgb[row] = draw_room(rgb.shape[1], rng)
    return rgb


def _with_copies(table: pd.DataFrame, rgb: NDArray[Any], rng: np.random.Generator) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Turn the photos marked as duplicates into second uploads of clean ones: same file, another id."""
    table["copy_of"] = ""
    copies, clean = (np.flatnonzero(table["dirt"] == kind) for kind in ("duplicate", ""))
    if not len(copies) or not len(clean):
        return table, rgb
    originals = rng.choice(clean, len(copies))
    ids = table["photo_id"].to_numpy()
    kept = [name for name in table.columns if name not in ("photo_id", "dirt", "copy_of")]
    for copy, original in zip(copies, originals, strict=True):
        table.loc[copy, kept] = table.loc[original, kept]
    table.loc[copies, "copy_of"] = ids[originals]
    rgb = rgb.copy()
    rgb[copies] = rgb[originals]
    return table, rgb


# --- files ------------------------------------------------------------------------------------------------


def write_photos(photos: Upload, folder: Path) -> None:
    """Write `photos/*.jpg` and `photos.csv` into a region's folder.

    Raises:
        DiskFull: the disk filled up.
    """
    with atomic(folder / "photos") as pictures:
        pictures.mkdir()
        rows = track(zip(photos.table.itertuples(), photos.rgb, strict=True), "Writing photos", len(photos.table))
        for row, rgb in rows:
            (pictures / f"{row.photo_id}.jpg").write_bytes(jpeg(rgb, row))
    with atomic(folder / "photos.csv") as path:
        export_table(photos.table).to_csv(path, index=False, lineterminator="\n")


def export_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a photo site exports it: positions with their error, nothing of the truth."""
    unknown = table["dirt"] == "truncated-exif"
    export = pd.DataFrame({
        "id": table["photo_id"], "file": [f"photos/{name}.jpg" for name in table["photo_id"]],
        "lat": table["lat"].mask(unknown), "lon": table["lon"].mask(unknown),
        "accuracy": table["accuracy_m"].where(table["has_accuracy"] & ~unknown),
        "taken": pd.to_datetime(table["taken"]).dt.strftime("%Y-%m-%dT%H:%M:%S"),
        "user": table["user"], "licence": table["licence"], "tags": table["tags"],
    })  # fmt: skip
    return export[list(CSV_COLUMNS)]


def jpeg(rgb: NDArray[Any], row: Any) -> bytes:
    """The bytes of one photo's file, with the EXIF and the damage that its row tells."""
    out = io.BytesIO()
    exif = b"" if row.dirt == "no-exif" else exif_bytes(row)
    if row.dirt == "truncated-exif":
        exif = exif[: len(exif) // 3]
    Image.fromarray(rgb).save(out, "JPEG", quality=_QUALITY, exif=exif)
    content = out.getvalue()
    return content[: int(len(content) * 0.6)] if row.dirt == "unreadable" else content


def exif_bytes(row: Any) -> bytes:
    """EXIF with camera, time, position, direction and accuracy of one row of an upload's table."""
    exif = Image.Exif()
    make, model = _CAMERAS[row.camera]
    taken = pd.Timestamp(row.taken)
    exif[0x010F], exif[0x0110], exif[0x0112] = make, model, 1
    exif[0x013B], exif[0x8298] = row.user, row.licence
    focal = 43.2666 / (2 * 2**0.5 * np.tan(np.radians(row.fov_deg) / 2))
    stamp = taken.strftime("%Y:%m:%d %H:%M:%S")
    exif.get_ifd(0x8769).update({0x9003: stamp, 0x9011: "+00:00", 0xA405: round(focal)})
    exif.get_ifd(0x8825).update(_gps(row))
    return exif.tobytes()


def _gps(row: Any) -> dict[int, Any]:
    """The GPS block: GPSLatitude, GPSLongitude, and where known GPSImgDirection and GPSHPositioningError."""
    gps: dict[int, Any] = {
        0: b"\x02\x03\x00\x00", 1: "N" if row.lat >= 0 else "S", 2: _sexagesimal(row.lat),
        3: "E" if row.lon >= 0 else "W", 4: _sexagesimal(row.lon),
    }  # fmt: skip
    if row.has_heading:
        gps |= {16: "T", 17: round(row.heading_deg, 2)}
    if row.has_accuracy:
        gps[31] = row.accuracy_m
    return gps


def _sexagesimal(angle: float) -> tuple[float, float, float]:
    """Degrees, minutes and seconds of an angle, unsigned."""
    minutes, seconds = divmod(round(abs(angle) * 3600, 4), 60)
    degrees, minutes = divmod(minutes, 60)
    return float(degrees), float(minutes), round(seconds, 4)


# --- rooms ------------------------------------------------------------------------------------------------


def draw_room(size: int, rng: np.random.Generator) -> NDArray[Any]:
    """A picture of a room, (S, S, 3) uint8: walls, floor, ceiling, a window or a lamp, furniture."""
    grid = np.mgrid[0:size, 0:size].astype(np.float32) / size
    row, column = grid
    left, right = rng.uniform(-0.1, 0.3), rng.uniform(0.7, 1.1)
    top, bottom = rng.uniform(0.02, 0.2), rng.uniform(0.6, 0.8)
    picture = np.empty((size, size, 3), np.float32)
    wall = np.array([0.80, 0.74, 0.66]) * rng.uniform(0.7, 1.15) + rng.normal(0, 0.05, 3)
    picture[:] = wall
    aside = np.maximum(left - column, column - right)
    picture[aside > 0] *= 0.82
    floor = row > bottom + np.maximum(aside, 0) * 0.7
    boards = 0.88 + 0.12 * (np.floor((column - 0.5) / (row - bottom + 0.35) * 9) % 2)
    picture[floor] = (np.array([0.46, 0.32, 0.20]) * rng.uniform(0.7, 1.5) * boards[..., None])[floor]
    picture[row < top - np.maximum(aside, 0) * 0.7] = 0.93
    _furnish(picture, grid, (left, right, top, bottom), rng)
    picture *= 1 - 0.35 * np.hypot(row - 0.4, column - rng.uniform(0.3, 0.7))[..., None]
    grain = noise(column * size + rng.integers(512), row * size + rng.integers(512)).reshape(size, size, 1)
    room: NDArray[np.uint8] = np.clip(255 * (picture * rng.uniform(0.75, 1.15) + 0.02 * grain), 0, 255).astype(np.uint8)
    return room


def _furnish(picture: Floats, grid: Floats, walls: tuple[float, float, float, float], rng: np.random.Generator) -> None:
    """Put a window or picture on the wall, and some furniture before it."""
    left, right, top, bottom = walls
    room = right - left
    x, width = left + room * rng.uniform(0.1, 0.5), room * rng.uniform(0.2, 0.42)
    y, height = top + (bottom - top) * 0.18, (bottom - top) * rng.uniform(0.35, 0.55)
    _rectangle(picture, grid, (x - 0.02, y - 0.02, width + 0.04, height + 0.04), (0.95, 0.94, 0.92))
    glass = (0.86, 0.93, 0.98) if rng.random() < 0.75 else tuple(rng.uniform(0.1, 0.9, 3))
    _rectangle(picture, grid, (x, y, width, height), glass)
    _rectangle(picture, grid, (x + width / 2 - 0.01, y, 0.02, height), (0.95, 0.94, 0.92))
    for _ in range(int(rng.integers(1, 4))):
        colour = tuple(np.clip(rng.choice(_FURNITURE, axis=0) * rng.uniform(0.7, 1.3), 0, 1))
        wide, tall = rng.uniform(0.18, 0.45), rng.uniform(0.12, 0.4)
        foot = bottom + rng.uniform(0.02, 0.2)
        at = rng.uniform(-0.05, 1 - wide)
        _rectangle(picture, grid, (at, foot - tall, wide, tall), colour)
        _rectangle(picture, grid, (at, foot - tall, wide, 0.03), tuple(min(1, 1.35 * c) for c in colour))


_FURNITURE = np.array([(0.42, 0.28, 0.17), (0.62, 0.48, 0.34),
                       (0.30, 0.34, 0.42), (0.55, 0.20, 0.18), (0.75, 0.73, 0.70)])  # fmt: skip


def _rectangle(
    picture: Floats, grid: Floats, frame: tuple[float, float, float, float], colour: tuple[float, ...]
) -> None:
    """Fill a rectangle (left, top, width, height), shares of the picture."""
    row, column = grid
    left, top, width, height = frame
    picture[(column >= left) & (column < left + width) & (row >= top) & (row < top + height)] = colour
