"""Trainings killed by SIGKILL at random moments and run again: how many end with the bytes of an unbroken one.

Run: python benchmarks/train_resume.py --json [--kills 20]
A small simulated region gives photos, scenes and pairs by the real stages; the shipped mini teacher embeds the photos.
`train` learns both levels from them in a process of its own, with a checkpoint every few steps, a moving average of
the weights and batches encoded in slices. Each trial begins in an empty folder, is killed at a random moment between
the first and the last step of an unbroken training, and is run again until it ends. `ours` counts the trials whose
model and whose best weights of both levels have the bytes of the unbroken run; `peer` is the number of trials. The
package must stay as it is meanwhile: a changed line is another training.
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

from geograft.pairs.plan import PairSettings, make_pairs
from geograft.sources.photos import read_photos
from geograft.sources.scenes import read_scenes
from geograft.world.region import RegionSettings, make_region

CHILD = """
import dataclasses, sys, torch
from pathlib import Path
from geograft.models.satellite import PRESETS
from geograft.training.trainer import TrainingSettings, train
torch.set_num_threads(1)
PRESETS["tiny"] = {"image_size": 64, "patch_size": 16, "width": 64, "depth": 2, "heads": 2}
class Often(TrainingSettings):
    def loop(self):
        return dataclasses.replace(super().loop(), save_steps=2, ema=0.9, chunk=5)
settings = Often(preset="tiny", epochs=int(sys.argv[3]), batch=8)
train(Path(sys.argv[1]), Path(sys.argv[2]), settings=settings)
"""

SAME = ("model.safetensors", "training/image/best.pt", "training/pixel/best.pt")


def make_ground(work: Path) -> Path:
    """Pairs of a small region."""
    make_region(work / "region", seed=1, settings=RegionSettings(size=400, photos=120))
    read_photos(work / "region" / "photos.csv", work / "photos.parquet")
    read_scenes(work / "region" / "scenes", work / "scenes.parquet", sensor="world-1m")
    settings = PairSettings(fractions=(0.7, 0.3, 0.0), block_m=64, buffer_m=0)
    make_pairs(work / "photos.parquet", work / "scenes.parquet", work / "pairs", settings=settings)
    return work / "pairs"


def run(pairs: Path, out: Path, epochs: int, kill_after: float | None = None) -> float:
    """Train, or kill the training some seconds after its log begins; the seconds from there to its last checkpoint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(pairs), str(out), str(epochs)]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    while child.poll() is None and not (out / "training" / "image" / "log.jsonl").exists():
        time.sleep(0.01)
    started = time.time()
    try:
        _, said = child.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return kill_after or 0.0
    if child.returncode:
        raise SystemExit(said.decode())
    return (out / "training" / "pixel" / "last.pt").stat().st_mtime - started


def bytes_of(out: Path) -> dict[str, str]:
    """The hash of each file that must be the same."""
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in SAME}


def state_of(out: Path) -> str:
    """Where a killed run stood, in words."""
    lines = {}
    for level in ("image", "pixel"):
        path = out / "training" / level / "log.jsonl"
        text = path.read_text().splitlines() if path.is_file() else []
        lines[level] = f"{sum('step' not in line for line in text)} epochs of {level}"
    return ", ".join(lines.values())


def trials(pairs: Path, work: Path, kills: int, epochs: int) -> int:
    """How many killed trainings end with the bytes of the unbroken one."""
    seconds = run(pairs, work / "whole", epochs)
    wanted, same = bytes_of(work / "whole"), 0
    draw = np.random.default_rng(kills)
    for kill in range(kills):
        out = work / f"cut-{kill}"
        moment = draw.uniform(0, seconds)
        run(pairs, out, epochs, moment)
        stood = state_of(out)
        run(pairs, out, epochs)
        found = bytes_of(out)
        other = [name for name in SAME if found[name] != wanted[name]]
        same += not other
        print(f"killed after {moment:.1f} of {seconds:.1f} s, {stood}: {'other bytes of ' if other else 'same bytes'}"
              f"{', '.join(other)}", file=sys.stderr)  # fmt: skip
        shutil.rmtree(out)
    return same


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20, help="of each level")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        same = trials(make_ground(work), work, given.kills, given.epochs)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread"
    result = {"name": "train-resume", "ours": same, "peer": given.kills, "ratio": same / given.kills,
              "unit": "trainings with the same bytes", "machine": machine}  # fmt: skip
    print(json.dumps(result) if given.json else result)


if __name__ == "__main__":
    main()
