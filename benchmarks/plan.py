"""A plan against a greedy cover by geopandas, on 100,000 photos clustered like real ones, with identical pairs.

Run: python benchmarks/plan.py --json
     python benchmarks/plan.py --photos 10000000 --alone     (ours only: seconds and peak memory)
The peer reads the same tables, projects each zone by geopandas, joins the chips centred on photos to the scenes that
hold them, visits the photos in the same order, and joins each new chip to the zone's photos by `geopandas.sjoin`; it
writes chips and pairs, and leaves out draw, split, and the choice among scenes, which ours makes too. `loop` is a
quicker peer, which asks the spatial index for each chip instead of calling `sjoin`. Both run in this process, once
warm; seconds are wall time. Memory is the summed proportional size (PSS) of ours and its workers, sampled four times a
second.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import psutil
import shapely

from crowd import write_photos, write_scenes
from geograft.hashing import hash_ids
from geograft.pairs.grid import Grid, metric_corners, project, to_degrees
from geograft.pairs.plan import PairSettings, plan_pairs
from geograft.raster.grids import utm_epsgs

SIZE = 224
LOOSE = PairSettings(chip_size=SIZE, split="none", max_photos=1_000_000)


def plain_plan(photos: Path, scenes: Path, out: Path, *, join: bool) -> set[tuple[int, int, int, str]]:
    """Chips (zone, x, y) with their photos, by geopandas."""
    table, held = gpd.read_parquet(photos), gpd.read_parquet(scenes)
    table = table.iloc[np.argsort(hash_ids(table["photo_id"].tolist(), "visit 0"))].reset_index(drop=True)
    lon, lat = table.geometry.x.to_numpy(), table.geometry.y.to_numpy()
    zones = utm_epsgs(lon, lat)
    rows = []
    for zone in np.unique(zones):
        here = np.flatnonzero(zones == zone)
        rows += [
            (int(zone), *row) for row in _plain_zone(table.iloc[here], lon[here], lat[here], int(zone), held, join=join)
        ]
    found = pd.DataFrame(rows, columns=["epsg", "x", "y", "photo_id"])
    found.to_parquet(out)
    return set(found.itertuples(index=False, name=None))


def _plain_zone(table, lon, lat, zone, scenes, *, join):  # noqa: ANN001, ANN202
    """The pairs of one zone; photos of other zones are not attached, and the crowd keeps clear of the edges."""
    grid = Grid(SIZE, 1.0)
    east, north = project(lon, lat, zone)
    points = gpd.GeoDataFrame(
        {"photo_id": table["photo_id"].to_numpy()}, geometry=gpd.points_from_xy(east, north), crs=zone
    )
    x, y = grid.centred(east, north)
    chips = shapely.polygons(to_degrees(zone, metric_corners(*grid.corner(x, y), grid.extent)))
    boxes = gpd.GeoDataFrame(geometry=chips, crs=4326)
    whole = np.unique(gpd.sjoin(boxes, scenes[["geometry"]], predicate="within").index)
    opens, covered = np.isin(np.arange(len(points)), whole), np.zeros(len(points), bool)
    index = points.sindex
    for row in range(len(points)):
        if covered[row] or not opens[row]:
            continue
        left, top = x[row], y[row]
        box = shapely.box(left, top - SIZE, left + SIZE, top)
        if join:
            inside = gpd.sjoin(points, gpd.GeoDataFrame(geometry=[box], crs=zone)).index.to_numpy()
        else:
            inside = index.query(box, predicate="intersects")
        inside = inside[(east[inside] < left + SIZE) & (north[inside] > top - SIZE)]
        covered[inside] = True
        yield from ((int(left), int(top), name) for name in points["photo_id"].to_numpy()[inside])


def our_plan(photos: Path, scenes: Path, out: Path, workers: int) -> set[tuple[int, int, int, str]]:
    """The same, by ours."""
    plan_pairs(photos, scenes, out, settings=LOOSE, workers=workers)
    pairs = pd.read_parquet(out / "plan" / "pairs.parquet", columns=["chip_id", "photo_id"])
    name = pairs["chip_id"].str.extract(r"^(\d+)-[^-]+-(-?\d+)-(-?\d+)$").astype(int)
    return set(zip(name[0], name[1], name[2], pairs["photo_id"], strict=True))


def inland(photos: Path) -> None:
    """Leave out the few photos within a kilometre of a zone's edge, so that the peer needs no rule for them."""
    table = gpd.read_parquet(photos)
    west = (table.geometry.x + 180) % 6
    table[(west > 0.02) & (west < 5.98) & (table.geometry.y.abs() > 0.02)].to_parquet(photos)


def compare(work: Path, count: int, workers: int, runs: int, *, join: bool) -> dict[str, object]:
    """Both on the same tables; the median of ours, one run of the peer."""
    photos, scenes = (
        write_photos(work / "photos.parquet", count),
        write_scenes(work / "scenes.parquet", dates=("2020-06-01",), overlap=0.01),
    )
    inland(photos)
    seconds = []
    for run in range(runs + 1):
        start = time.perf_counter()
        plan_pairs(photos, scenes, work / f"out{run}", settings=LOOSE, workers=workers)
        seconds.append(time.perf_counter() - start)
    ours = statistics.median(seconds[1:])
    start = time.perf_counter()
    theirs = plain_plan(photos, scenes, work / "plain.parquet", join=join)
    peer = time.perf_counter() - start
    if theirs != our_plan(photos, scenes, work / "out0", workers):
        raise SystemExit("the pairs differ")
    return {"name": "plan", "ours": round(ours, 2), "peer": round(peer, 1), "ratio": round(peer / ours, 1), "unit": "s"}


def alone(work: Path, count: int, workers: int) -> dict[str, object]:
    """Seconds and peak memory of the command on a crowd of any size, tables not counted."""
    photos, scenes = work / f"photos-{count}.parquet", work / "scenes.parquet"
    if not photos.exists():
        write_photos(photos, count)
    write_scenes(scenes)
    shutil.rmtree(work / "out", ignore_errors=True)
    command = [sys.executable, "-m", "geograft.cli", "pairs", "plan", str(photos), str(scenes), str(work / "out"),
               "--chip-size", str(SIZE), "--workers", str(workers), "--json"]  # fmt: skip
    start = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.PIPE)
    peak = 0
    while running.poll() is None:
        peak = max(peak, _memory(psutil.Process(running.pid)))
        time.sleep(0.25)
    seconds = time.perf_counter() - start
    assert running.stdout is not None
    summary = json.loads(running.stdout.read())
    return {"name": "plan-alone", "photos": count, "seconds": round(seconds, 1), "peak_gb": round(peak / 1e9, 2),
            "chips": summary["chips"], "pairs": summary["pairs"]}  # fmt: skip


def _memory(process: psutil.Process) -> int:
    """Proportional size of a process and those below it, bytes."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--loop", action="store_true", help="the quicker peer")
    parser.add_argument("--alone", action="store_true", help="ours only, with its memory")
    parser.add_argument("--work", type=Path, help="keeps the tables for another run")
    given = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        if given.alone:
            result = alone(work, given.photos, given.workers)
        else:
            result = compare(work, given.photos, given.workers, given.runs, join=not given.loop)
    print(json.dumps({**result, "machine": machine}) if given.json else result)


if __name__ == "__main__":
    main()
