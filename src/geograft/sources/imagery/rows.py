"""Rows of the scene table: what every kind of source gives, and why a scene gives none."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import shapely

from geograft.errors import (
    BadSetting,
    GeograftError,
    MissingAsset,
    MissingInput,
    NoGeoreference,
    SensorMismatch,
    UnknownSensor,
    UnreachableScene,
    UnreadableScene,
)
from geograft.raster import Scene
from geograft.raster.globe import box_of

T = TypeVar("T")
Moment = datetime
"""A time; the settings have a field of the class's own name."""

COLUMNS = (
    "scene_id",
    "uri",
    "sensor",
    "taken",
    "epsg",
    "gsd",
    "width",
    "height",
    "kind",
    "cloud_share",
    "assets",
    "mask_uri",
    "signer",
    "shift",
)
"""The columns of a scene table beside its geometry (the footprint, EPSG:4326)."""

REASONS: tuple[tuple[type[GeograftError], str], ...] = (
    (NoGeoreference, "no-georeference"),
    (SensorMismatch, "sensor-mismatch"),
    (UnknownSensor, "unknown-sensor"),
    (UnreachableScene, "unreachable-scene"),
    (UnreadableScene, "unreadable-scene"),
    (MissingAsset, "no-asset"),
    (MissingInput, "missing-file"),
)
"""The errors that leave one scene of several out, and the reasons that they are counted by."""

THREADS = 8
"""Scenes on servers that are asked about at once."""


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are read, and which ones.

    Attributes:
        zoom: the level of XYZ or WMTS tiles, where the path does not say.
        bounds: west, south, east, north in degrees, west > east across the antimeridian: of tiles the part to use,
            since a server does not say what it covers; of other sources the scenes that touch it.
        datetime: an ISO time or day, or two of them as `2024-06-01/2024-09-01` or `2024-06-01/..`: when scenes were
            taken; scenes of unknown time stay. Of WMTS tiles the date to ask for.
        max_cloud: the largest `cloud_share` of a scene, 0 to 1; scenes of unknown share stay.
        collection: which collection of a STAC API.
        limit: at most this many items of a STAC API.
        layer: which layer of a WMTS.
        signer: the name of what signs the scenes' addresses as they are read; see `geograft.raster.signing`.
    """

    zoom: int | None = None
    bounds: tuple[float, float, float, float] | None = None
    datetime: str | date | Moment | None = None
    max_cloud: float | None = None
    collection: str | None = None
    limit: int | None = None
    layer: str | None = None
    signer: str | None = None

    def __post_init__(self) -> None:
        """Refuse a zoom, bounds, dates and shares that no scenes have."""
        if self.zoom is not None and not 0 <= self.zoom <= 30:
            raise BadSetting(f"A zoom lies between 0 and 30, not {self.zoom}.")
        if self.max_cloud is not None and not 0 <= self.max_cloud <= 1:
            raise BadSetting(f"max_cloud is a share between 0 and 1, not {self.max_cloud}.")
        if self.limit is not None and self.limit < 1:
            raise BadSetting(f"limit is a number of items from 1, not {self.limit}.")
        _ = self.interval
        if self.bounds is None:
            return
        west, south, east, north = self.bounds
        if not (-180 <= west <= 180 and -180 <= east <= 180 and west != east and -90 <= south < north <= 90):
            raise BadSetting(f"Bounds are west, south, east, north in degrees, not {list(self.bounds)}.")

    @property
    def when(self) -> str | None:
        """The setting `datetime` as text; YAML reads a day without quotes as a date."""
        return self.datetime.isoformat() if isinstance(self.datetime, date) else self.datetime

    @property
    def interval(self) -> tuple[Moment | None, Moment | None]:
        """The first and the last moment of `datetime`, UTC; None where open."""
        if self.when is None:
            return (None, None)
        first, _, last = self.when.partition("/") if "/" in self.when else (self.when, "", self.when)
        begin, end = (_moment(first, end=False), _moment(last, end=True))
        if begin is not None and end is not None and begin > end:
            raise BadSetting(f"datetime {self.when!r} ends before it begins.")
        return begin, end

    @property
    def area(self) -> Any | None:
        """The bounds as a shape, cut at the antimeridian, or None."""
        return None if self.bounds is None else box_of(self.bounds)


@dataclass(frozen=True)
class SceneRow:
    """A row of the scene table.

    Attributes:
        footprint: the outline in longitude and latitude.
        facts: by the names of `COLUMNS`.
    """

    footprint: Any
    facts: dict[str, Any]


def row_of(scene: Scene, scene_id: str, cloud_share: float) -> dict[str, Any]:
    """The values of an open scene."""
    height, width = scene.geobox.shape
    return {
        "scene_id": scene_id,
        "uri": scene.path,
        "sensor": scene.sensor.name,
        "taken": scene.taken,
        "epsg": scene.geobox.crs.epsg or 0,
        "gsd": scene.gsd,
        "width": width,
        "height": height,
        "kind": scene.kind,
        "cloud_share": cloud_share,
        "mask_uri": scene.mask_uri,
        "signer": scene.signer,
        "shift": scene.shift,
    }


def unwanted(row: SceneRow, settings: SceneSettings) -> str | None:
    """Why the settings leave a scene out, or None."""
    area, (begin, end) = settings.area, settings.interval
    taken, cloud = row.facts["taken"], row.facts["cloud_share"]
    if area is not None and not shapely.intersects(row.footprint, area):
        return "outside-bounds"
    if taken is not None and ((begin is not None and taken < begin) or (end is not None and taken > end)):
        return "outside-datetime"
    if settings.max_cloud is not None and cloud is not None and cloud > settings.max_cloud:
        return "cloudy"
    return None


def reason_of(error: GeograftError) -> str:
    """The reason that an error of `REASONS` is counted by."""
    return next(reason for kind, reason in REASONS if isinstance(error, kind))


def attempt(work: Callable[[T], SceneRow], item: T) -> SceneRow | GeograftError:
    """A scene's row, or the error that leaves it out."""
    try:
        return work(item)
    except tuple(kind for kind, _ in REASONS) as error:
        return error


def attempts(work: Callable[[T], SceneRow], items: Iterable[T], *, threads: int) -> Iterator[SceneRow | GeograftError]:
    """What came of each item, in order, several at once where waiting for servers is most of the work."""
    if threads == 1:
        yield from (attempt(work, item) for item in items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda item: attempt(work, item), items)


def as_text(values: Mapping[str, str] | None) -> str | None:
    """Assets as the table keeps them: a JSON object of band to address."""
    return None if values is None else json.dumps(dict(values), ensure_ascii=False)


def _moment(text: str, *, end: bool) -> datetime | None:
    """A time of an interval, UTC, or None where it is open; a day ends with its last microsecond."""
    text = text.strip()
    if text in {"", ".."}:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadSetting(f"datetime is an ISO day or time, or two as 2024-06-01/2024-09-01, not {text!r}.") from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return found + timedelta(days=1, microseconds=-1) if end and len(text) == 10 else found
