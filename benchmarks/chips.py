"""Chips of 224 px cut from zstd COGs per second of one core: in place order against a plain loop in random order.

Run: python benchmarks/chips.py --json
Many COGs (zstd, blocks of 256 px, four bands of uint8 with the noise of real imagery) lie beside each other, as the
scenes of a region do; together they are ten times GDAL's cache of decoded blocks, which is fixed and the same for all.
As many chips as a plan has lie on them, anywhere on whole pixels: one a block (`--density`).

- ours: `pairs.cutting.cut_chips` with all that it does (clouds, mask, reading order), one thread.
- peer: a rasterio loop over the same chips in random order, as a sampler draws them, with as many files open at once
  as ours (8 of 40; of a continent's thousands a process keeps 32). It reads windows and nothing else.
- `peer_opening`: the same loop where every chip opens its file, as many data loaders do.
- `peer_all_open`: the same loop with every file open from the first chip to the last, which needs no more files than
  a process may have open: what place order wins by blocks alone.

Seconds are those of the processor, so that other work on the machine does not count, and the files are in the page
cache for all; each figure is the median of some runs that take turns. The pixels of all sides are compared.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from geograft.pairs.cutting import chips as cutting
from geograft.raster import Scene, files, open_scene, write_cog

SIZE = 224
BLOCK = 256
OPEN_FILES = 8
LEFT, TOP = 400_000, 5_000_000


def write_scene(path: Path, side: int, number: int) -> None:
    """One COG of smooth ground with noise, `side` pixels wide."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / 300
    ground = np.stack([90 + 50 * np.sin(rows * (band + 1) + number) * np.cos(columns) for band in range(4)])
    pixels = (ground + rng.normal(0, 6, ground.shape)).clip(1, 255).astype(np.uint8)
    box = GeoBox((side, side), place(side, number), "EPSG:32632")
    tags = {"GEOGRAFT_SENSOR": "world-1m"}
    write_cog(path, pixels, box, band_names=["red", "green", "blue", "nir"], tags=tags)


def place(side: int, number: int) -> Affine:
    """Where a scene lies: the scenes stand beside each other."""
    return Affine(1, 0, LEFT + number * side, 0, -1, TOP)


def plan(side: int, scenes: int, density: float) -> list[cutting.PlannedChip]:
    """Chips at random places of the scenes, `density` a block, in no order."""
    rng = np.random.default_rng(0)
    count = round(density * scenes * (side / BLOCK) ** 2)
    corners = zip(rng.integers(0, scenes, count), *rng.integers(0, side - SIZE, (2, count)), strict=True)
    return [
        cutting.PlannedChip(
            f"c{row}", 32632, float(LEFT + number * side + x), float(TOP - y), 1.0, SIZE,
            (cutting.Stack(0.0, (str(number),)),),
        )
        for row, (number, x, y) in enumerate(corners)
    ]  # fmt: skip


def by_place(chips: list[cutting.PlannedChip], scenes: dict[str, Scene], shard: int = 1700) -> list[Any]:
    """Ours: shards of chips that lie together, as plans have them; 1700 chips are about 256 MB before the encoding."""
    order = cutting.reading_order(chips).tolist()
    found: list[Any] = [None] * len(chips)
    for start in range(0, len(order), shard):
        rows = order[start : start + shard]
        cuts = cutting.cut_chips([chips[row] for row in rows], scenes.__getitem__, 0.01)
        for row, cut in zip(rows, cuts, strict=True):
            found[row] = cut.pixels
    return found


def at_random(chips: list[cutting.PlannedChip], paths: dict[str, Path], side: int, *, keep: int) -> list[Any]:
    """The peer: windows in random order, `keep` files open at most; none stays open where 0."""
    held: OrderedDict[str, Any] = OrderedDict()
    found: list[Any] = [None] * len(chips)
    with rasterio.Env(GDAL_CACHEMAX=cutting.CACHE):
        for row in np.random.default_rng(1).permutation(len(chips)).tolist():
            name = chips[row].stacks[0].scenes[0]
            file = held.pop(name, None) or rasterio.open(paths[name])
            window = Window(chips[row].left - LEFT - int(name) * side, TOP - chips[row].top, SIZE, SIZE)
            found[row] = file.read((1, 2, 3, 4), window=window)
            held[name] = file
            while len(held) > keep:
                held.popitem(last=False)[1].close()
    for file in held.values():
        file.close()
    return found


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Rates of all sides on the same files and chips."""
    cutting.CACHE, cutting.READERS, files.OPEN_FILES = given.cache * 2**20, 1, OPEN_FILES
    paths = {str(number): folder / f"scene-{number}.tif" for number in range(given.scenes)}
    for number, path in enumerate(paths.values()):
        write_scene(path, given.side, number)
    scenes = {name: open_scene(path) for name, path in paths.items()}
    chips = plan(given.side, given.scenes, given.density)
    sides: dict[str, Callable[[], list[Any]]] = {
        "ours": lambda: by_place(chips, scenes),
        "peer": lambda: at_random(chips, paths, given.side, keep=OPEN_FILES),
        "peer_opening": lambda: at_random(chips, paths, given.side, keep=0),
        "peer_all_open": lambda: at_random(chips, paths, given.side, keep=len(paths)),
    }
    rates = _rates(sides, len(chips), given.runs)
    return {
        "name": "chips", "ours": rates["ours"], "peer": rates["peer"], "ratio": round(rates["ours"] / rates["peer"], 2),
        "unit": "chips/s", "machine": _machine(), "peer_opening": rates["peer_opening"],
        "peer_all_open": rates["peer_all_open"], "chips": len(chips),
        "decoded_mb": given.scenes * given.side**2 * 4 // 2**20, "files": given.scenes, "cache_mb": given.cache,
    }  # fmt: skip


def _rates(sides: dict[str, Callable[[], list[Any]]], count: int, runs: int) -> dict[str, float]:
    """The median rate of each side; they take turns, and must give the same pixels."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    first: list[Any] = []
    for _ in range(runs):
        for name, work in sides.items():
            start = time.process_time()
            pixels = work()
            found[name].append(count / (time.process_time() - start))
            first = first or pixels
            if not all(np.array_equal(one, other) for one, other in zip(first, pixels, strict=True)):
                raise SystemExit(f"{name} gives other pixels")
    return {name: round(statistics.median(rates), 1) for name, rates in found.items()}


def _machine() -> str:
    """The machine, in words."""
    gdal = f"GDAL {rasterio.__gdal_version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {gdal}, one thread"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--scenes", type=int, default=40, help="files")
    parser.add_argument("--side", type=int, default=2048, help="pixels along a file's side")
    parser.add_argument("--density", type=float, default=1.0, help="chips a block")
    parser.add_argument("--cache", type=int, default=64, help="megabytes of GDAL's cache, for both sides")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given, Path(folder))
    print(json.dumps(result) if given.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
