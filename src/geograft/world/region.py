"""A simulated region as files: scenes and geotagged photos exactly as real data arrives, the truth apart.

`make_region` writes one region. `WORLD_1` names the regions of the project's own benchmark: which seeds teach the
mini teacher, train the encoders, choose settings and test. No seed serves two purposes.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.transform import Affine

from geograft.errors import BadSetting, OutputExists
from geograft.raster import write_cog
from geograft.sensors import get_sensor
from geograft.tables import Manifest, atomic, track, write_manifest, write_table
from geograft.world.camera import Photos, Poses, Scenery, render_photos
from geograft.world.captions import count_in_view, write_captions
from geograft.world.classes import CLASSES
from geograft.world.leftovers import clear
from geograft.world.movables import with_movables
from geograft.world.overhead import render_1m, render_10m
from geograft.world.photo_files import Dirt, Upload, upload, write_photos
from geograft.world.photographers import Shots, choose_poses
from geograft.world.terrain import Land, make_land

logger = logging.getLogger(__name__)

WORLD_1: dict[str, tuple[int, ...]] = {
    "teacher": (101, 102, 103, 104),
    "train": (1, 2, 3, 4, 5, 6, 7, 8),
    "validation": (201,),
    "test": (301, 302, 303),
}
"""Seeds of the regions of World-1 by purpose; disjoint."""

SENSORS = ("world-1m", "world-10m")
SUMMER, AUTUMN, WINTER = datetime(2022, 6, 24, 10, 20), datetime(2022, 9, 19, 10, 30), datetime(2023, 2, 9, 10, 30)  # noqa: DTZ001
_DAYS_OUT = 4  # on which photos are rendered; cars and boats differ from one to the next
_SEEN = len(CLASSES) + 1


@dataclass(frozen=True)
class RegionSettings:
    """What a region holds.

    Attributes:
        size: metres a side, at least 256, a multiple of 10.
        photos: the number of photos.
        photo_size: side of the photos, px, at least 64.
        sensors: which sensors look down; none for a region of photos only, as a teacher needs.
        dates: when all sensors look down (UTC).
        cloudy_dates: when the 10 m sensor looks down through clouds, besides.
        dirt: what is wrong with the photos on purpose.
    """

    size: int = 4000
    photos: int = 5000
    photo_size: int = 64
    sensors: tuple[str, ...] = SENSORS
    dates: tuple[datetime, ...] = (SUMMER, WINTER)
    cloudy_dates: tuple[datetime, ...] = (AUTUMN,)
    dirt: Dirt = field(default_factory=Dirt)

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        if unknown := sorted(set(self.sensors) - set(SENSORS)):
            raise BadSetting(f"The world has no sensor {', '.join(unknown)}; it has {', '.join(SENSORS)}.")
        if self.size < 256 or self.size % 10 or self.photos < 0:
            raise BadSetting("A region needs a size of 256 m or more in tens of metres, and no negative photos.")
        if len(set(self.dates) | set(self.cloudy_dates)) < len(self.dates) + len(self.cloudy_dates):
            raise BadSetting("Every date of a region must differ: each names a scene.")


@dataclass(frozen=True)
class RegionSummary:
    """What a region holds now.

    Attributes:
        folder: where.
        seed, size: as asked.
        photos: the number of photo files.
        dirt: how many photos are wrong in which way.
        scenes: names of the scene files.
        classes: how many classes cover some of the land.
        epsg: the UTM zone.
        seconds: how long it took; 0 where the region was there already.
    """

    folder: Path
    seed: int
    size: int
    photos: int
    dirt: dict[str, int]
    scenes: list[str]
    classes: int
    epsg: int
    seconds: float


def make_region(out: str | Path, *, seed: int = 0, settings: RegionSettings | None = None) -> RegionSummary:
    """Simulate a region and write it as real data arrives.

    The folder then holds `scenes/` (COGs by sensor and date, cloud masks beside them), `photos/` and `photos.csv`,
    `truth/` (classes.tif, objects.parquet, photos.parquet, captions.jsonl), manifest.json, and region.json, which
    is written last. The same seed and settings give the same pixels.

    Args:
        out: the folder. A finished region of the same seed and settings is kept; what a killed run left is removed
            and made again.
        seed: which region, from 0; `WORLD_1` documents the benchmark's.
        settings: what it holds.

    Raises:
        OutputExists: the folder holds a finished region of another seed or other settings, or files of yours that
            a region would replace.
        BadSetting: the seed is negative or a setting out of range.
        DiskFull: the disk filled up.
    """
    settings, folder = settings or RegionSettings(), Path(out)
    finished = _finished(folder, seed, settings)
    if finished is not None:
        return finished
    began = time.monotonic()
    land = make_land(seed, settings.size)
    clear(folder)
    with ThreadPoolExecutor(1) as beside:
        above = beside.submit(_write_scenes, folder, land, settings)
        table = _write_ground(folder, land, settings)
        scenes = above.result()
    _write_truth(folder, land)
    summary = _summary(folder, land, table, scenes, time.monotonic() - began)
    _finish(folder, summary, settings)
    return summary


# --- resume -----------------------------------------------------------------------------------------------


def _finished(folder: Path, seed: int, settings: RegionSettings) -> RegionSummary | None:
    """The summary of a finished region with this seed and these settings, or None where there is none.

    Raises:
        OutputExists: a finished region differs.
    """
    try:
        found = json.loads((folder / "region.json").read_text(encoding="utf-8"))
        same = found["settings"] == _plain(settings) and found["summary"]["seed"] == seed
        summary = RegionSummary(**{**found["summary"], "folder": folder, "seconds": 0.0})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        logger.warning("%s is not readable: the region is made again", folder / "region.json")
        return None
    if not same:
        raise OutputExists(f"{folder} holds a region of another seed or other settings: name another folder.")
    logger.info("%s is finished already", folder)
    return summary


def _plain(settings: RegionSettings) -> Any:
    """Settings as JSON gives them back."""
    return json.loads(json.dumps(asdict(settings), default=str))


# --- from above -------------------------------------------------------------------------------------------


def _write_scenes(folder: Path, land: Land, settings: RegionSettings) -> list[str]:
    """Every sensor's scene of every date; the names of the files."""
    looks: list[tuple[Callable[..., str], datetime, bool]] = []
    if "world-1m" in settings.sensors:
        looks += [(_write_1m, taken, False) for taken in settings.dates]
    if "world-10m" in settings.sensors:
        looks += [(_write_10m, taken, taken in settings.cloudy_dates)
                  for taken in sorted({*settings.dates, *settings.cloudy_dates})]  # fmt: skip
    return [write(folder, land, taken, cloudy) for write, taken, cloudy in looks]


def _write_1m(folder: Path, land: Land, taken: datetime, _: bool) -> str:
    """The 1 m scene of a date."""
    path = _scene_path(folder, "world-1m", taken)
    _write_scene(path, render_1m(land, taken), land.geobox, "world-1m", taken)
    return path.name


def _write_10m(folder: Path, land: Land, taken: datetime, cloudy: bool) -> str:
    """The 10 m scene of a date, with its cloud mask where there are clouds."""
    path = _scene_path(folder, "world-10m", taken)
    pixels, clouds = render_10m(land, taken, cloudy)
    grid = GeoBox(clouds.shape, Affine(10, 0, land.left, 0, -10, land.top), land.geobox.crs)
    _write_scene(path, pixels, grid, "world-10m", taken)
    if cloudy:
        mask = path.with_name(f"{path.stem}_clouds.tif")
        write_cog(mask, clouds, grid, categories={0: "clear", 1: "cloud"}, colours={0: (0, 0, 0), 1: (255, 255, 255)})
    return path.name


def _scene_path(folder: Path, sensor: str, taken: datetime) -> Path:
    return folder / "scenes" / f"{sensor}_{taken:%Y-%m-%d}.tif"


def _write_scene(path: Path, pixels: NDArray[Any], grid: GeoBox, name: str, taken: datetime) -> None:
    """One scene with what its sensor says of its bands."""
    sensor = get_sensor(name)
    tags = {"TIFFTAG_DATETIME": f"{taken:%Y:%m:%d %H:%M:%S}", "GEOGRAFT_SENSOR": name}
    write_cog(path, pixels, grid, nodata=sensor.nodata, band_names=sensor.bands, tags=tags, scale=sensor.scale,
              offset=sensor.offset)  # fmt: skip


# --- from the ground --------------------------------------------------------------------------------------


def _write_ground(folder: Path, land: Land, settings: RegionSettings) -> pd.DataFrame:
    """Photos, their table, their truth and their captions; returns the table with the truth."""
    shots, photos = _take_photos(land, settings)
    files = upload(land, shots, photos.rgb, dirt=settings.dirt, seed=land.seed)
    write_photos(files, folder)
    seen = _seen_after(files, photos)
    _write_photo_truth(folder / "truth" / "photos.parquet", files.table, seen)
    captions = write_captions(seen, shots.poses, count_in_view(land, shots.poses), land.seed)
    _write_captions(folder / "truth" / "captions.jsonl", files.table["photo_id"], captions)
    return files.table


def _take_photos(land: Land, settings: RegionSettings) -> tuple[Shots, Photos]:
    """Photos of some days, each with its own cars and boats, in order of time."""
    bare = Scenery.of(land)
    shares = np.array_split(np.arange(settings.photos), _DAYS_OUT)
    parts, pictures = [], []
    for number, share in track(enumerate(shares), "Taking photos", _DAYS_OUT):
        day = datetime(2022, 5 + number, 3 + 7 * number, 9 + number)  # noqa: DTZ001
        scenery = bare.repopulated(with_movables(land, day))
        draw = land.seed * _DAYS_OUT + number
        shots = choose_poses(scenery, len(share), draw)
        parts.append(shots)
        pictures.append(render_photos(scenery, shots.poses, size=settings.photo_size, seed=draw))
    return _in_time(_joined(parts), pictures)


def _joined(parts: list[Shots]) -> Shots:
    """Shots of several days as one; walks keep their own numbers."""
    poses = Poses(**{f.name: np.concatenate([getattr(p.poses, f.name) for p in parts]) for f in fields(Poses)})
    rest = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("subject", "taken", "user", "walk")}
    shift = np.repeat(np.arange(len(parts)), [len(p) for p in parts]) * 10_000
    on_walk = rest["walk"] >= 0
    rest["walk"] = np.where(on_walk, rest["walk"] + shift, -1)
    rest["user"] = np.where(on_walk, rest["user"] + shift, rest["user"])
    return Shots(poses, **rest)


def _in_time(shots: Shots, pictures: list[Photos]) -> tuple[Shots, Photos]:
    """Everything in the order in which it was taken."""
    order = np.argsort(shots.taken, kind="stable")
    rgb, seen = (np.concatenate([getattr(p, name) for p in pictures])[order] for name in ("rgb", "seen"))
    ordered = replace(shots, poses=shots.poses[order], subject=shots.subject[order], taken=shots.taken[order],
                      user=shots.user[order], walk=shots.walk[order])  # fmt: skip
    return ordered, Photos(rgb, seen)


def _seen_after(files: Upload, photos: Photos) -> NDArray[Any]:
    """What the files show: nothing of the land indoors, and what the original shows for a copy."""
    seen = photos.seen.copy()
    rows = pd.Series(np.arange(len(files.table)), index=files.table["photo_id"])
    copies = np.flatnonzero(files.table["copy_of"] != "")
    seen[copies] = seen[rows[files.table["copy_of"].iloc[copies]].to_numpy()]
    seen[(files.table["dirt"] == "indoor").to_numpy()] = 0
    return seen


def _write_photo_truth(path: Path, table: pd.DataFrame, seen: NDArray[Any]) -> None:
    """True positions and what each photo shows, GeoParquet."""
    truth = table.drop(columns=["camera", "tags", "licence", "user", "has_heading", "has_accuracy"])
    truth["seen"] = list(seen[:, :_SEEN].astype(np.float32))
    points = gpd.points_from_xy(truth["true_lon"], truth["true_lat"])
    write_table(gpd.GeoDataFrame(truth, geometry=points, crs="EPSG:4326"), path)


def _write_captions(path: Path, photo_ids: "pd.Series[str]", captions: list[list[str]]) -> None:
    """One JSON object a line: photo_id and captions."""
    lines = [json.dumps({"photo_id": i, "captions": c}) for i, c in zip(photo_ids, captions, strict=True)]
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# --- truth and the end ------------------------------------------------------------------------------------


def _write_truth(folder: Path, land: Land) -> None:
    """The class raster and the objects."""
    colours = {c.id: c.colour for c in CLASSES}
    names = {0: "no data", **{c.id: c.name for c in CLASSES}}
    write_cog(folder / "truth" / "classes.tif", land.cover, land.geobox, nodata=0, colours=colours, categories=names)
    write_table(land.objects, folder / "truth" / "objects.parquet")


def _summary(folder: Path, land: Land, table: pd.DataFrame, scenes: list[str], seconds: float) -> RegionSummary:
    dirt = Counter(kind for kind in table["dirt"] if kind)
    classes = int((np.bincount(land.cover.ravel()) > 0).sum())
    return RegionSummary(folder, land.seed, land.size, len(table), dict(sorted(dirt.items())), scenes, classes,
                         land.epsg, round(seconds, 1))  # fmt: skip


def _finish(folder: Path, summary: RegionSummary, settings: RegionSettings) -> None:
    """Write the manifest and, last, region.json, which says that the region is whole."""
    counts = {"done": summary.photos + len(summary.scenes), "skipped": {}, "failed": {}}
    write_manifest(folder, Manifest("world", {"seed": summary.seed}, settings, counts))
    said = {name: value for name, value in asdict(summary).items() if name not in ("folder", "seconds")}
    text = json.dumps({"settings": _plain(settings), "summary": said}, indent=2)
    with atomic(folder / "region.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
