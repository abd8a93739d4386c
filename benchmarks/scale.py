"""What millions of photos cost: rates measured here, and the core-hours, disk and requests that follow from them.

Run: python benchmarks/scale.py --json
Each stage runs once on generated input with one worker; seconds are those of the processor, so that other work on the
machine does not count. Photos: rows of a CSV. Plan: a crowd of photos (see crowd.py). Embed: CLIP ViT-B/16 of random
weights in bfloat16, 224 px, decoding left out. Materialise: chips of 224 px and four bands of uint8 cut of zstd COGs,
lossless. Requests: those of reading such a chip from a COG of 256 px blocks over HTTP, which a test counts
(tests/raster/test_remote.py).
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from crowd import write_photos, write_scenes
from geograft.pairs.grid import to_crs
from geograft.pairs.materialise import materialise
from geograft.pairs.plan import PairSettings, plan_pairs
from geograft.sensors import get_sensor
from geograft.sources.photos import PhotoSettings, read_photos
from geograft.sources.scenes import read_scenes

REQUESTS_CHIP = 2
"""HTTP requests to read a chip of a COG that is open."""

PHOTO_MB = 0.06
"""Megabytes of a photo of 512 px, as it is fetched and kept."""


def photos_rate(work: Path, rows: int) -> float:
    """Rows of a CSV made into a photo table a core-second."""
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, rows), rng.uniform(-60, 70, rows)
    lines = (f"https://x.org/{n}.jpg,{a:.6f},{b:.6f},2020-06-01T10:00:00Z,u{n % 997},CC BY 2.0" for n, (a, b) in
             enumerate(zip(lon.tolist(), lat.tolist(), strict=True)))  # fmt: skip
    (work / "photos.csv").write_text("\n".join(["file,lon,lat,taken,user,licence", *lines]))
    start = time.process_time()
    read_photos(work / "photos.csv", work / "table.parquet", settings=PhotoSettings(read_exif=False))
    return rows / (time.process_time() - start)


def plan_rate(work: Path, photos: int) -> dict[str, float]:
    """Photos planned a second by one worker, and chips and pairs a photo."""
    tables = write_photos(work / "crowd.parquet", photos), write_scenes(work / "crowd-scenes.parquet")
    start = time.process_time()
    found = plan_pairs(*tables, work / "plan", settings=PairSettings(chip_size=224), workers=1)
    seconds = time.process_time() - start
    return {"rate": photos / seconds, "chips": found.chips / photos, "pairs": found.pairs / photos}


def cut_rate(work: Path, photos: int) -> dict[str, float]:
    """Chips cut a core-second, and bytes of one in a shard."""
    sensor, side = get_sensor("naip"), 6000
    (work / "scenes").mkdir()
    rng = np.random.default_rng(1)
    small = rng.integers(20, 235, (4, side // 8, side // 8), np.int16)
    pixels = small.repeat(8, 1).repeat(8, 2) + rng.integers(-6, 7, (4, side, side), np.int16)
    place = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    options = {"driver": "COG", "count": 4, "width": side, "height": side, "dtype": "uint8", "compress": "ZSTD"}
    with rasterio.open(work / "scenes" / "naip_20200601.tif", "w", crs="EPSG:32632", transform=place, blocksize=256,
                       **options) as file:  # fmt: skip
        file.write(pixels.astype(np.uint8))
        file.descriptions = sensor.bands
    read_scenes(work / "scenes", work / "scenes.parquet", sensor="naip")
    east, north = rng.uniform(0, side, (2, photos))
    lon, lat = to_crs(32632).transform(500_000 + east, 5_000_000 - north, direction="INVERSE")
    rows = [f"http://x.org/{n}.jpg,{a:.7f},{b:.7f}" for n, (a, b) in enumerate(zip(lon, lat, strict=True))]
    (work / "few.csv").write_text("\n".join(["file,lon,lat", *rows]))
    read_photos(work / "few.csv", work / "few.parquet", settings=PhotoSettings(read_exif=False))
    settings = PairSettings(chip_size=224, split="none")
    plan_pairs(work / "few.parquet", work / "scenes.parquet", work / "cut", settings=settings, workers=1)
    start = time.process_time()
    found = materialise(work / "cut", workers=1)
    size = sum(path.stat().st_size for path in (work / "cut" / "shards").glob("*.parquet"))
    return {"rate": found.chips / (time.process_time() - start), "bytes": size / found.chips}


def embed_rate(photos: int) -> float:
    """Photos that CLIP ViT-B/16 embeds a core-second."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(patch_size=16, projection_dim=512)
    network = CLIPVisionModelWithProjection(config).eval()
    batch = torch.randn(8, 3, 224, 224)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network(batch)
        start = time.process_time()
        for _ in range(photos // 8):
            network(batch)
    return photos / (time.process_time() - start)


def costs(rates: dict[str, float], photos: float) -> dict[str, float]:
    """What so many photos cost, in core-hours, terabytes and millions of requests."""
    chips = photos * rates["chips a photo"]
    return {
        "chips": chips,
        "photo table, core-hours": photos / rates["photo rows a core-second"] / 3600,
        "plan, core-hours": photos / rates["photos planned a core-second"] / 3600,
        "embed on CPU, core-hours": photos / rates["photos embedded a core-second"] / 3600,
        "materialise, core-hours": chips / rates["chips cut a core-second"] / 3600,
        "photos kept, TB": photos * PHOTO_MB / 1e6,
        "shards, TB": chips * rates["bytes a chip"] / 1e12,
        "embeddings, TB": photos * rates["pairs a photo"] * 1024 / 1e12,
        "requests for photos, millions": photos / 1e6,
        "requests for imagery, millions": chips * REQUESTS_CHIP / 1e6,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--photos", type=int, default=2_000_000, help="of the crowd that is planned")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        plan, cut = plan_rate(work, given.photos), cut_rate(work, 3000)
        rates = {
            "photo rows a core-second": photos_rate(work, 300_000),
            "photos planned a core-second": plan["rate"],
            "chips a photo": plan["chips"],
            "pairs a photo": plan["pairs"],
            "photos embedded a core-second": embed_rate(64),
            "chips cut a core-second": cut["rate"],
            "bytes a chip": cut["bytes"],
        }
    found = {f"{count:.0e} photos": costs(rates, count) for count in (2e7, 1e9)}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"name": "scale", "rates": rates, "costs": found, "machine": machine}
    print(json.dumps(result, default=float, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
