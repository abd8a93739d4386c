"""Chips of 224 px read in training order from shards: windows that fit the memory against plain readers of Parquet.

Run: python benchmarks/reading.py --json
Shards are written as `geograft pairs materialise` writes them (four bands of uint8 with the noise of real imagery, row
groups of 32 MB), in two encodings. An epoch is read in batches of 64, as training asks for them, with room for all
pixels, for a half and for a quarter of them, so that an epoch has one, four or eight windows.

- ours: an epoch of `PairSet.batches` and `PairSet.pixels` with room for a quarter.
- peer: Hugging Face datasets streams the same files through a shuffle buffer of as many rows as one of our windows.
  It gives the bytes of a chip, which are decoded as ours are.
- `peer_in_order`: a plain loop over the rows with pyarrow, one at a time, in the order of the files, not shuffled.
- `peer_at_random`: a plain loop that reads one row at a time in random order, which decodes a row group for each.

Seconds are those of the processor, of all threads, so that other work on the machine does not count; files are in the
page cache for all. Figures are medians of runs that take turns. Our pixels are compared with those of the plain loop.

`--tables 1000000` measures the tables alone instead: seconds and memory of `load_pairs`, of finding the overlaps and of
dealing an epoch, for as many chips (of 2 px, so that the disk does not matter) with three photos each.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geograft.geoparquet import geo_metadata, square_column
from geograft.pairs.cutting.shards import FORMAT, GROUP_BYTES
from geograft.pairs.dataset import PairSet, load_pairs
from geograft.pairs.encoding import decode, encode
from geograft.pairs.grid import metric_corners, to_degrees

SIZE, BANDS, BATCH = 224, 4, 64
CHIP = BANDS * SIZE * SIZE
LEFT, TOP, EPSG = 400_000, 5_000_000, 32632
SHARD = 1280
"""Chips a shard: 256 MB of pixels."""


def write_pairs(folder: Path, chips: int, encoding: str) -> None:
    """A folder of pairs on a grid of ground, one photo a chip, with its shards and tables."""
    across = int(np.ceil(np.sqrt(chips)))
    rows = np.arange(chips)
    left, top = LEFT + rows % across * float(SIZE), TOP - rows // across * float(SIZE)
    ids = write_tables(folder, left, top)
    for number, start in enumerate(range(0, chips, SHARD)):
        write_shard(folder / "shards" / f"part-{number:05d}.parquet", ids[start : start + SHARD], start, encoding)


def write_tables(folder: Path, left: Any, top: Any, *, photos: int = 1) -> list[str]:
    """The tables of chips at some places; gives their ids."""
    (folder / "shards").mkdir(parents=True)
    chips = len(left)
    ids = [f"{EPSG}-{SIZE}x1-{int(x)}-{int(y)}-{row}" for row, (x, y) in enumerate(zip(left, top, strict=True))]
    corners = to_degrees(EPSG, metric_corners(left, top, SIZE))
    table = pa.table(
        {
            "chip_id": ids, "epsg": pa.array([EPSG] * chips, pa.int32()), "left": left, "top": top,
            "gsd": np.ones(chips), "size": pa.array([SIZE] * chips, pa.int32()), "sensor": ["naip"] * chips,
            "split": ["train"] * chips, "geometry": square_column(corners),
        }
    )  # fmt: skip
    pq.write_table(table.replace_schema_metadata(geo_metadata("Polygon")), folder / "chips.parquet")
    middle = pa.array(np.full(chips * photos, SIZE / 2, np.float32))
    columns = {"chip_id": np.repeat(ids, photos), "photo_id": [f"p{row:08d}" for row in range(chips * photos)]}
    columns |= dict.fromkeys(("col", "row"), middle)
    columns |= dict.fromkeys(("accuracy_m", "heading_deg"), pa.nulls(chips * photos, pa.float32()))
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return ids


def write_shard(path: Path, ids: list[str], first: int, encoding: str) -> None:
    """A shard of smooth ground with noise."""
    about = {
        "format": FORMAT, "shape": json.dumps([BANDS, SIZE, SIZE]), "dtype": "uint8", "sensor": "naip", "plan": "",
        "bands": json.dumps(["red", "green", "blue", "nir"]), "encoding": encoding, "teacher": "", "rejected": "{}",
    }  # fmt: skip
    schema = pa.schema([("chip_id", pa.string()), ("pixels", pa.binary())], metadata=about)
    step = GROUP_BYTES // CHIP
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(ids), step):
            some = ids[start : start + step]
            content = [encode(ground(first + start + row), encoding) for row in range(len(some))]
            writer.write_table(pa.table([pa.array(some), pa.array(content, pa.binary())], schema=schema))


def ground(number: int) -> Any:
    """The pixels of a chip, one of 64 kinds of ground."""
    return np.roll(kind_of_ground(number % 64), number, axis=-1)


@cache
def kind_of_ground(number: int) -> Any:
    """Smooth ground with noise."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32) / 300
    smooth = np.stack([90 + 50 * np.sin(rows * (band + 1) + number) * np.cos(columns) for band in range(BANDS)])
    return (smooth + rng.normal(0, 6, smooth.shape)).clip(1, 255).astype(np.uint8)


# --- readers ----------------------------------------------------------------------------------------------


def epoch_of(pairs: PairSet) -> int:
    """Read an epoch as training does; gives the number of chips."""
    return sum(len(pairs.pixels(batch.chips)) for batch in pairs.batches(BATCH, seed=0, epoch=0))


def ours(folder: Path, share: float, chips: int) -> Callable[[], int]:
    """An epoch with memory for a share of the pixels; what is in memory is read anew each time."""
    return lambda: epoch_of(load_pairs(folder, memory_gb=1.001 * share * chips * CHIP / 1e9))


def streamed(folder: Path, buffer: int) -> Callable[[], int]:
    """Hugging Face datasets with a shuffle buffer of some rows."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from datasets import load_dataset

    files = [str(path) for path in sorted((folder / "shards").glob("*.parquet"))]

    def read() -> int:
        rows = load_dataset("parquet", data_files=files, streaming=True, split="train", cache_dir=str(folder / "hf"))
        about, count, batch = about_of(files[0]), 0, []
        for row in rows.shuffle(seed=0, buffer_size=buffer):
            batch.append(decode(row["pixels"], about))
            if len(batch) == BATCH:
                count, batch = count + len(np.stack(batch)), []
        return count + len(batch)

    return read


def in_order(folder: Path) -> Iterator[tuple[str, Any]]:
    """Ids and pixels, one row at a time, in the order of the files."""
    for path in sorted((folder / "shards").glob("*.parquet")):
        about = about_of(path)
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            for row in batch.to_pylist():
                yield row["chip_id"], decode(row["pixels"], about)


def at_random(folder: Path, chips: int) -> int:
    """Read some chips one at a time in random order."""
    files = [pq.ParquetFile(path) for path in sorted((folder / "shards").glob("*.parquet"))]
    about, step = about_of(folder / "shards" / "part-00000.parquet"), GROUP_BYTES // CHIP
    total = sum(file.metadata.num_rows for file in files)
    for row in np.random.default_rng(0).permutation(total)[:chips].tolist():
        file, inside = files[row // SHARD], row % SHARD
        group = file.read_row_group(inside // step, columns=["pixels"])
        decode(group["pixels"][inside % step].as_buffer(), about)
    return chips


def about_of(path: Any) -> dict[str, str]:
    """A shard's metadata."""
    return {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}


# --- measuring --------------------------------------------------------------------------------------------


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Rates of all readers of both encodings, in chips a second of one core."""
    found: dict[str, dict[str, float]] = {}
    for encoding in ("lossless", "jpeg"):
        place = folder / encoding
        write_pairs(place, given.chips, encoding)
        check(place, given.chips)
        readers: dict[str, Callable[[], int]] = {
            "in_memory": ours(place, 1, given.chips),
            "half": ours(place, 1 / 2, given.chips),
            "quarter": ours(place, 1 / 4, given.chips),
            "peer": streamed(place, given.chips // 8),
            "peer_in_order": lambda place=place: sum(1 for _ in in_order(place)),
            "peer_at_random": lambda place=place: at_random(place, 32),
        }
        found[encoding] = rates(readers, given.runs)
    first = found["lossless"]
    return {
        "name": "reading", "ours": first["quarter"], "peer": first["peer"],
        "ratio": round(first["quarter"] / first["peer"], 2), "unit": "chips/s", "machine": machine(), **found,
        "chips": given.chips, "pixels_mb": given.chips * CHIP // 10**6,
    }  # fmt: skip


def check(folder: Path, chips: int) -> None:
    """Compare our pixels with the plain loop's."""
    pairs = load_pairs(folder, memory_gb=chips * CHIP / 8e9)
    seen = {
        str(pairs.chip_ids[chip]): int(pixels.astype(np.int64).sum())
        for batch in pairs.batches(BATCH, seed=0, epoch=0)
        for chip, pixels in zip(batch.chips, pairs.pixels(batch.chips), strict=True)
    }
    if seen != {chip_id: int(pixels.astype(np.int64).sum()) for chip_id, pixels in in_order(folder)}:
        raise SystemExit("the readers give different pixels")


def rates(readers: dict[str, Callable[[], int]], runs: int) -> dict[str, float]:
    """The median rate of each reader; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(runs):
        for name, read in readers.items():
            start = time.process_time()
            count = read()
            found[name].append(count / (time.process_time() - start))
    return {name: round(statistics.median(some), 1) for name, some in found.items()}


def measure_tables(chips: int, folder: Path) -> dict[str, object]:
    """Seconds and memory of the tables of many chips, each of which overlaps a dozen others."""
    left, top = np.floor(np.random.default_rng(0).random((2, chips)) * SIZE * np.sqrt(chips / 3))
    ids = write_tables(folder, LEFT + left, TOP - top, photos=3)
    about = {
        "format": FORMAT, "shape": "[1, 2, 2]", "dtype": "uint8", "sensor": "naip", "plan": "", "bands": '["red"]',
        "encoding": "lossless", "teacher": "", "rejected": "{}",
    }  # fmt: skip
    step = 100 * SHARD
    for number, start in enumerate(range(0, chips, step)):
        some = ids[start : start + step]
        shard = pa.table({"chip_id": some, "pixels": pa.array([bytes(4)] * len(some))}).replace_schema_metadata(about)
        pq.write_table(shard, folder / "shards" / f"part-{number:05d}.parquet", row_group_size=SHARD)
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        found = fresh.apply(load_tables, (folder,))
    return {"name": "reading-tables", "chips": chips, "pairs": 3 * chips, **found, "machine": machine()}


def load_tables(folder: Path) -> dict[str, float]:
    """What it takes to load tables, find overlaps and deal an epoch in batches of 512, in a process of its own."""
    memory, clock = [memory_mb()], [time.process_time()]
    pairs = load_pairs(folder)
    clock.append(time.process_time())
    memory.append(memory_mb())
    found = len(pairs.overlaps.others) / len(pairs)
    clock.append(time.process_time())
    batches = sum(1 for _ in pairs.batches(512, seed=0, epoch=0))
    clock.append(time.process_time())
    load, overlaps, deal = np.diff(clock).round(1).tolist()
    return {
        "load_s": load, "overlaps_s": overlaps, "overlaps_a_chip": round(found, 1), "epoch_s": deal, "batches": batches,
        "imports_mb": memory[0], "loaded_mb": memory[1], "peak_mb": memory_mb(),
    }  # fmt: skip


def memory_mb() -> int:
    """The most memory that this process has had; `getrusage` would count its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def machine() -> str:
    """The machine, in words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, pyarrow {pa.__version__}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--chips", type=int, default=5120, help="chips of 200 kB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tables", type=int, help="chips whose tables alone are measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "pairs"
        result = measure_tables(given.tables, place) if given.tables else measure(given, place)
    print(json.dumps(result) if given.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
