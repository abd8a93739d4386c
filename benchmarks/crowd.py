"""Tables of photos clustered as people take them, and of scenes under them: what the benchmarks of pairing read.

Cities of very unequal size are strewn over the continents' latitudes; in a city most photos are taken at a few sights,
the others across town, and some in the country around. Users and years are as unequal. The same seed gives the same
bytes.
"""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geograft.geoparquet import geo_metadata, point_column
from geograft.pairs.planning.photo_rows import COLUMNS

CITIES = 1500
PART = 500_000
METRES = 111_320.0
DATES = ("2016-06-01", "2021-06-01")
YEARS = (np.datetime64("2013-01-01", "us"), np.datetime64("2024-12-31", "us"))


def cities(seed: int) -> pd.DataFrame:
    """lon, lat, share of all photos and radius in metres of each city."""
    rng = np.random.default_rng([seed, 0])
    share = 1 / np.arange(1, CITIES + 1) ** 0.8
    lat = np.clip(np.where(rng.random(CITIES) < 0.75, rng.normal(42, 9, CITIES), rng.normal(-18, 14, CITIES)), -55, 66)
    radius = 1200 + 9000 * (share / share[0]) ** 0.4
    return pd.DataFrame(
        {"lon": rng.uniform(-170, 170, CITIES), "lat": lat, "share": share / share.sum(), "radius": radius}
    )


def write_photos(path: Path, count: int, seed: int = 0) -> Path:
    """A photo table of so many rows, written in parts."""
    towns = cities(seed)
    schema = pa.schema(COLUMNS, metadata=geo_metadata("Point"))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, count, PART):
            writer.write_table(_part(towns, first, min(PART, count - first), seed).cast(schema))
    return path


def _part(towns: pd.DataFrame, first: int, count: int, seed: int) -> pa.Table:
    """Some rows."""
    rng = np.random.default_rng([seed, 1, first])
    city = rng.choice(len(towns), count, p=towns["share"])
    east, north = _offsets(rng, city, towns["radius"].to_numpy()[city], seed)
    lat = towns["lat"].to_numpy()[city] + north / METRES
    lon = towns["lon"].to_numpy()[city] + east / METRES / np.cos(np.radians(lat))
    number = first + np.arange(count)
    user = np.floor(count * rng.random(count) ** 3).astype(np.int64) % 400_000
    taken = rng.integers(YEARS[0].astype(np.int64), YEARS[1].astype(np.int64), count)
    ids = pa.array(number * 7919 + 10_000_000_000).cast(pa.string())
    columns = {
        "photo_id": ids,
        "accuracy_m": pa.array(rng.choice([5.0, 10.0, 30.0], count).astype(np.float32)),
        "heading_deg": pa.array(
            np.where(rng.random(count) < 0.4, rng.uniform(0, 360, count), np.nan), from_pandas=True
        ),
        "fov_deg": pa.nulls(count, pa.float32()),
        "taken": pa.array(taken).cast(pa.timestamp("us", "UTC")),
        "user": pa.array(user).cast(pa.string()),
        "licence": pa.array(rng.choice(["CC BY 2.0", "CC BY-SA 2.0", "CC0 1.0"], count).tolist()),
        "uri": pa.array([f"https://photos.example.org/{one // 1000}/{one}_b.jpg" for one in number.tolist()]),
        "width": pa.array(np.full(count, 1024, np.int32)),
        "height": pa.array(np.full(count, 768, np.int32)),
        "source": pa.array(["crowd"]).take(pa.array(np.zeros(count, np.int64))),
        "tags": pa.nulls(count, pa.string()),
        "place": pa.nulls(count, pa.string()),
        "geometry": point_column(lon, lat),
    }
    return pa.table(columns)


def _offsets(
    rng: np.random.Generator, city: np.ndarray, radius: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Metres east and north of the city's middle: at a sight, across town, or in the country."""
    count = len(city)
    kind = rng.random(count)
    sight = np.floor(60 * rng.random(count) ** 2.5).astype(np.uint64)
    turn, reach = _sights(city, sight, seed)
    spread = np.where(kind < 0.6, 60.0, np.where(kind < 0.9, 1.0, 6.0) * radius)
    middle = np.where(kind < 0.6, reach * radius, 0.0)
    wide = rng.normal(0, 1, (2, count)) * spread
    return middle * np.cos(turn) + wide[0], middle * np.sin(turn) + wide[1]


def _sights(city: np.ndarray, sight: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Direction and distance (in radii) of a city's sights, fixed by city and number."""
    mixed = (city.astype(np.uint64) * np.uint64(1_000_003) + sight + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    low, high = (mixed >> np.uint64(11)) & np.uint64(0xFFFFF), mixed >> np.uint64(44)
    return low / 2**20 * 2 * np.pi, high / 2**20 * 1.5


def write_scenes(path: Path, *, seed: int = 0, dates: tuple[str, ...] = DATES, overlap: float = 2e-4) -> Path:
    """A scene table: squares of 0.25 degrees over all cities at several dates, with so many degrees of overlap."""
    towns = cities(seed)
    step, cells = 0.25, set()
    for lon, lat, radius in zip(towns["lon"], towns["lat"], towns["radius"], strict=True):
        reach = 18 * radius / METRES
        wide = reach / np.cos(np.radians(min(abs(lat) + reach, 80)))
        for column in range(int((lon - wide) // step), int((lon + wide) // step) + 1):
            cells.update((column, row) for row in range(int((lat - reach) // step), int((lat + reach) // step) + 1))
    rows = [(f"crowd/{c}_{r}_{date}", date, c * step, r * step) for c, r in sorted(cells) for date in dates]
    table = pd.DataFrame(rows, columns=["scene_id", "taken", "west", "south"])
    table = table.assign(
        uri="/nowhere/" + table["scene_id"] + ".tif", sensor="naip", taken=pd.to_datetime(table["taken"], utc=True),
        epsg=0, gsd=1.0, width=20_000, height=20_000, kind="file", cloud_share=0.0,
    )  # fmt: skip
    edge = overlap / 2
    shapes = shapely.box(
        table["west"] - edge, table["south"] - edge, table["west"] + step + edge, table["south"] + step + edge
    )
    gpd.GeoDataFrame(table.drop(columns=["west", "south"]), geometry=shapes, crs=4326).to_parquet(path, index=False)
    return path
