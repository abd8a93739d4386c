"""The facts of a folder of pairs that its page, its card and its collection tell, counted in one pass."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geograft.errors import EmptyTable, UnknownSensor
from geograft.pairs.planning.split import SPLITS
from geograft.pairs.publishing.folder import PairFolder, codes, column, names, numbers, stream
from geograft.pairs.publishing.histograms import (
    ACCURACY_LABELS,
    ACCURACY_M,
    GAP_DAYS,
    GAP_LABELS,
    PHOTO_LABELS,
    PHOTOS,
    Histogram,
)
from geograft.pairs.publishing.provenance import Stage, stages
from geograft.raster.grids import to_crs
from geograft.sensors import Sensor, get_sensor
from geograft.sources.licences import licence_name

NO_LICENCE = "not stated"
"""What a licence is called where a photo states none."""

_VERSION = re.compile(r"(?<![\d.])([1-4]\.\d)(?!\d)")


@dataclass(frozen=True)
class Chips:
    """What maps need of the chips, in the chip table's order.

    Attributes:
        lon: degrees east of the centres, (N,).
        lat: degrees north of the centres, (N,).
        side: metres, (N,).
        split: places in `splits`, (N,).
        splits: the splits' names, in the usual order.
        photos: photos in each, (N,).
    """

    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    side: NDArray[np.float64]
    split: NDArray[np.int32]
    splits: list[str]
    photos: NDArray[np.int64]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the footprints; east may exceed 180 where that is narrower."""
        half = float(self.side.max()) / 2 / 110_500
        wide = half / max(np.cos(np.radians(min(88.0, float(np.abs(self.lat).max())))), 0.02)
        west, east = _narrowest(self.lon)
        return west - wide, float(self.lat.min()) - half, east + wide, float(self.lat.max()) + half


@dataclass(frozen=True)
class SplitCount:
    """How much a split holds."""

    chips: int
    pairs: int
    photos: int


@dataclass(frozen=True)
class Facts:
    """What is to be said of a folder of pairs.

    Attributes:
        chips: where they are.
        splits: name to counts.
        pairs: number of (chip, photo) pairs.
        photos: number of photos.
        sensors: name to specification, None where this package has none of that name.
        scenes: number of scenes that chips were cut of (that the plan names first).
        scene_dates: first and last date of them, ISO, or None.
        photo_dates: first and last date of the photos, or None.
        licences: name (see `licence_label`) to number of photos, most first.
        users: number of users.
        photos_a_chip: by chip.
        gap_days: photo minus scene, by pair (by chip in a plan).
        accuracy_m: by photo.
        stages: what each stage left out.
    """

    chips: Chips
    splits: Mapping[str, SplitCount]
    pairs: int
    photos: int
    sensors: Mapping[str, Sensor | None]
    scenes: int
    scene_dates: tuple[str, str] | None
    photo_dates: tuple[str, str] | None
    licences: Mapping[str, int]
    users: int
    photos_a_chip: Histogram
    gap_days: Histogram
    accuracy_m: Histogram
    stages: list[Stage] = field(default_factory=list)


def facts_of(folder: PairFolder) -> Facts:
    """Count everything that is told of a folder of pairs.

    Raises:
        EmptyTable: it holds no chips.
        MissingColumns, UnreadableTable: a table is damaged.
    """
    chips = read_chips(folder)
    splits, gaps, pairs = _by_split(folder, chips)
    accuracy = Histogram("Stated error of photos' positions", ACCURACY_LABELS, ACCURACY_M)
    licences: Counter[str] = Counter()
    for table in stream(folder.photos, ["accuracy_m"], optional=["licence"]):
        accuracy.add(table["accuracy_m"].to_numpy())
        licences.update(_licences(table["licence"]))
    a_chip = Histogram("Photos a chip", PHOTO_LABELS, PHOTOS)
    a_chip.add(chips.photos)
    has_users = "user" in names(folder.photos)
    return Facts(
        chips=chips,
        splits=splits,
        pairs=pairs,
        photos=sum(licences.values()),
        sensors=_sensors(folder),
        scenes=_scene_count(folder),
        scene_dates=None if folder.planned else _dates(folder.chips),
        photo_dates=_dates(folder.photos),
        licences=dict(sorted(licences.items(), key=lambda item: (-item[1], item[0]))),
        users=len(pc.drop_null(pc.unique(column(folder.photos, "user")))) if has_users else 0,
        photos_a_chip=a_chip,
        gap_days=gaps,
        accuracy_m=accuracy,
        stages=stages(folder),
    )


# --- chips ------------------------------------------------------------------------------------------------


def read_chips(folder: PairFolder) -> Chips:
    """Where the chips are.

    Raises:
        EmptyTable: there are none.
    """
    code, found = codes(column(folder.chips, "split"))
    if not len(code):
        raise EmptyTable(f"{folder.chips} holds no chips: make the pairs again with more photos or scenes.")
    splits = sorted(found, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))
    order = np.array([splits.index(name) for name in found], np.int32)
    side = numbers(folder.chips, "gsd").astype(np.float64) * numbers(folder.chips, "size")
    lon, lat = _centres(folder, side)
    return Chips(lon, lat, side, order[code], splits, numbers(folder.chips, "photos").astype(np.int64))


def _centres(folder: PairFolder, side: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of the chips in degrees."""
    epsg = numbers(folder.chips, "epsg")
    east = numbers(folder.chips, "left") + side / 2
    north = numbers(folder.chips, "top") - side / 2
    lon, lat = np.empty(len(side)), np.empty(len(side))
    for zone in np.unique(epsg):
        rows = epsg == zone
        lon[rows], lat[rows] = to_crs(int(zone)).transform(east[rows], north[rows], direction="INVERSE")
    return lon, lat


def _narrowest(lon: NDArray[np.float64]) -> tuple[float, float]:
    """The narrowest span of longitudes that holds all; it may cross 180."""
    west, east = float(lon.min()), float(lon.max())
    turned = lon % 360
    if east - west > 180 and np.ptp(turned) < east - west:
        return float(turned.min()), float(turned.max())
    return west, east


def _by_split(folder: PairFolder, chips: Chips) -> tuple[dict[str, SplitCount], Histogram, int]:
    """Chips, pairs and photos of each split; the time gaps; the number of pairs."""
    gaps = Histogram("Days from scene to photo", GAP_LABELS, GAP_DAYS)
    chip, photo = folder.chip_of_pair, folder.photo_of_pair
    of_pair = np.where(chip >= 0, chips.split[chip], -1)
    if "time_gap_days" in names(folder.pairs):
        for table in stream(folder.pairs, ["time_gap_days"]):
            gaps.add(table["time_gap_days"].to_numpy())
    elif folder.planned:
        gaps.add(_planned_gaps(folder))
    splits = {}
    for number, name in enumerate(chips.splits):
        mine = of_pair == number
        seen = np.zeros(int(photo.max(initial=-1)) + 1, np.bool_)
        seen[photo[mine & (photo >= 0)]] = True
        splits[name] = SplitCount(int((chips.split == number).sum()), int(mine.sum()), int(seen.sum()))
    return splits, gaps, len(chip)


def _planned_gaps(folder: PairFolder) -> NDArray[np.float64]:
    """Days from the scenes that the plan tries first to the photos, by chip; NaN where unknown."""
    parts = [np.empty(0)]
    for chunk in column(folder.chips, "stacks").chunks:
        first = pc.list_slice(chunk, 0, 1, return_fixed_size_list=True).flatten()
        parts.append(pc.struct_field(first, "gap_days").cast(pa.float64()).to_numpy(zero_copy_only=False))
    return np.concatenate(parts)


def _sensors(folder: PairFolder) -> dict[str, Sensor | None]:
    """The chips' sensors by name."""
    if "sensor" in names(folder.chips):
        found = sorted(filter(None, pc.unique(column(folder.chips, "sensor")).to_pylist()))
    else:
        found = [str(folder.manifest.extra["sensor"])] if "sensor" in folder.manifest.extra else []
    return {name: _sensor(name) for name in found}


def _sensor(name: str) -> Sensor | None:
    """A sensor, or None where the package has none of that name."""
    try:
        return get_sensor(name)
    except UnknownSensor:
        return None


def _scene_count(folder: PairFolder) -> int:
    """Number of scenes that chips were cut of, or that the plan names."""
    if folder.planned:
        scenes = folder.tables / "scenes.parquet"
        return len(column(scenes, "scene_id")) if scenes.is_file() else 0
    return len(pc.drop_null(pc.unique(column(folder.chips, "scene_id"))))


# --- photos -----------------------------------------------------------------------------------------------


def _licences(texts: Any) -> Counter[str]:
    """Photos by licence; spellings of one licence count together."""
    found: Counter[str] = Counter()
    for item in pc.value_counts(texts).to_pylist():
        found[licence_label(item["values"] or "")] += item["counts"]
    return found


def licence_label(text: str) -> str:
    """A licence for people: its name (see `licence_name`), with the version where the text states one."""
    name = licence_name(text) or text.strip()
    if not name:
        return NO_LICENCE
    version = _VERSION.search(text) if name.startswith("cc") else None
    return f"{name} {version.group(1)}" if version else name


def _dates(path: Any) -> tuple[str, str] | None:
    """The first and last date of a table's column `taken`, None where all are missing."""
    span = pc.min_max(column(path, "taken")).as_py()
    if span["min"] is None:
        return None
    return span["min"].strftime("%Y-%m-%d"), span["max"].strftime("%Y-%m-%d")
