"""Runs of plan and materialise killed by SIGKILL at random moments, then run again: how many end with the same bytes.

Run: python benchmarks/resume.py --json [--engine ray] [--kills 20]
Each trial begins in an empty folder, is killed with all its workers after a random share of the time that an unbroken
run takes, and is run again until it ends. `ours` counts the trials whose every file has the bytes of the unbroken run;
`peer` is the number of trials. Moments are drawn evenly over the run after the imports (which write nothing). With
`--engine ray` a cluster is begun on this machine first, and the driver is killed, not the cluster.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from crowd import write_photos, write_scenes
from geograft.sensors import get_sensor
from geograft.sources.scenes import read_scenes

PYTHON = [sys.executable, "-m", "geograft.cli"]
PORT = 6399
STARTUP_S = 2.0


def make_ground(work: Path) -> tuple[Path, Path]:
    """A scene table over four real rasters of 1.5 km, and photos scattered over them."""
    sensor = get_sensor("world-1m")
    rng = np.random.default_rng(0)
    (work / "scenes").mkdir()
    for column in range(2):
        for row in range(2):
            pixels = rng.integers(1, 255, (len(sensor.bands), 1500, 1500), np.uint8)
            place = Affine(1, 0, 500_000 + 1500 * column, 0, -1, 5_000_000 - 1500 * row)
            profile = {"driver": "GTiff", "count": 4, "width": 1500, "height": 1500, "dtype": "uint8", "tiled": True}
            path = work / "scenes" / f"world-1m_2024-06-0{1 + row}_{column}.tif"
            with rasterio.open(path, "w", crs="EPSG:32632", transform=place, compress="zstd", **profile) as file:
                file.write(pixels)
                file.descriptions = sensor.bands
    read_scenes(work / "scenes", work / "ground.parquet", sensor="world-1m")
    return _scattered(work / "scattered.csv", work), work / "ground.parquet"


def _scattered(path: Path, work: Path) -> Path:
    """A photo table of 6,000 photos over the four scenes."""
    from geograft.pairs.grid import to_crs
    from geograft.sources.photos import PhotoSettings, read_photos

    east, north = np.random.default_rng(1).uniform(0, 3000, (2, 6000))
    lon, lat = to_crs(32632).transform(500_000 + east, 5_000_000 - north, direction="INVERSE")
    rows = [
        f"http://x.org/{n}.jpg,{a:.7f},{b:.7f},2024-06-02,u{n % 50}"
        for n, (a, b) in enumerate(zip(lon, lat, strict=True))
    ]
    path.write_text("\n".join(["file,lon,lat,taken,user", *rows]))
    read_photos(path, work / "scattered.parquet", settings=PhotoSettings(read_exif=False))
    return work / "scattered.parquet"


def stages(work: Path, photos: int, engine: list[str]) -> dict[str, tuple[list[str], Path | None]]:
    """The commands, and the folder that each starts from."""
    crowd = write_photos(work / "crowd.parquet", photos)
    scenes = write_scenes(work / "crowd-scenes.parquet")
    few, ground = make_ground(work)
    config = work / "small.yaml"
    config.write_text("shard_mb: 1\nsplit: none\n")
    base = work / "planned"
    subprocess.run([*PYTHON, "pairs", "plan", str(few), str(ground), str(base), "--config", str(config)], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return {
        "plan": (["pairs", "plan", str(crowd), str(scenes), "{out}", "--chip-size", "224", *engine], None),
        "materialise": (["pairs", "materialise", "{out}", *engine], base),
    }


def run(command: list[str], out: Path, seconds: float | None = None) -> float:
    """Run a command, kill it with its workers after some seconds; gives the seconds that it took."""
    start = time.perf_counter()
    words = [word.replace("{out}", str(out)) for word in command]
    running = subprocess.Popen([*PYTHON, *words], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        code = running.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return time.perf_counter() - start
    if code:
        raise SystemExit(f"{' '.join(words)} ended with {code}")
    return time.perf_counter() - start


def bytes_of(folder: Path) -> dict[str, str]:
    """Each file and the hash of what it holds; the plan's own folder of work is part of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(_plain(path, folder)).hexdigest() for path in files}


def _plain(path: Path, folder: Path) -> bytes:
    """A file's bytes; a manifest may name its own folder."""
    content = path.read_bytes()
    return content.replace(str(folder).encode(), b"OUT") if path.suffix == ".json" else content


def trials(name: str, command: list[str], base: Path | None, work: Path, kills: int) -> int:
    """How many killed runs end with the bytes of an unbroken one."""
    whole, same = work / f"{name}-whole" / "pairs", 0
    _fresh(whole, base)
    seconds = run(command, whole)
    wanted = bytes_of(whole)
    draw = np.random.default_rng([kills, len(name)])
    for kill in range(kills):
        out = work / f"{name}-{kill}" / "pairs"
        _fresh(out, base)
        moment = draw.uniform(min(STARTUP_S, seconds / 2), seconds)
        run(command, out, moment)
        left = len(bytes_of(out))
        run(command, out)
        equal = bytes_of(out) == wanted
        same += equal
        print(f"{name}: killed after {moment:.1f} of {seconds:.1f} s, {left} files; "
              f"{'same bytes' if equal else 'OTHER BYTES'}", file=sys.stderr)  # fmt: skip
        shutil.rmtree(out.parent)
    return same


def _fresh(out: Path, base: Path | None) -> None:
    """An empty folder, or one that holds what the stage starts from."""
    shutil.rmtree(out, ignore_errors=True)
    if base is not None:
        shutil.copytree(base, out)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--photos", type=int, default=200_000, help="of the crowd that is planned")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    given = parser.parse_args()
    engine = ["--engine", f"ray:127.0.0.1:{PORT}"] if given.engine == "ray" else []
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` asks for where it has a token
    ray = Path(sys.executable).with_name("ray")
    if engine:
        words = ["start", "--head", "--node-ip-address=127.0.0.1", f"--port={PORT}", "--num-cpus=2"]
        quiet = ["--include-dashboard=false", "--disable-usage-stats"]
        subprocess.run([ray, *words, *quiet], check=True, stdout=sys.stderr)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = stages(Path(folder), given.photos, engine)
            same = {name: trials(name, *stage, Path(folder), given.kills) for name, stage in found.items()}
    finally:
        if engine:
            subprocess.run([ray, "stop", "--force"], check=False, stdout=sys.stderr)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"name": f"resume-{given.engine}", "ours": sum(same.values()), "peer": given.kills * len(same),
              "ratio": sum(same.values()) / (given.kills * len(same)), "unit": "runs with the same bytes",
              "by stage": same, "machine": machine}  # fmt: skip
    print(json.dumps(result) if given.json else result)


if __name__ == "__main__":
    main()
