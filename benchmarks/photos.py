"""Photos rendered per second of one core, 64 px: ours against the same rays marched photo by photo, column by column.

Run: python benchmarks/photos.py --json
The plain version marches the same rays to the same depths with a loop over photos, columns and depths, keeps the
highest slope as it goes, and paints each pixel with its material's colour alone: less than ours paints. Seconds are
those of the processor, so that other work on the machine does not count; neither version uses threads.
"""

import argparse
import json
import os
import platform
import statistics
import time

import numpy as np

from geograft.world.camera import Poses, Scenery, depths, render_photos
from geograft.world.materials import palette
from geograft.world.photographers import choose_poses
from geograft.world.terrain import make_land


def plain_photo(scenery: Scenery, pose: Poses, size: int = 64) -> np.ndarray:
    """One photo, (S, S, 3) uint8, by plain loops over columns and depths."""
    side, far = scenery.size, depths()
    colours = (np.clip(2.1 * palette(0.0).top[:, :3], 0, 1) ** 0.56 * 255).astype(np.uint8)
    x, y, turn = float(pose.x[0]), float(pose.y[0]), np.radians(float(pose.heading_deg[0]))
    half, pitch = np.tan(np.radians(float(pose.fov_deg[0])) / 2), np.tan(np.radians(float(pose.pitch_deg[0])))
    eye = float(scenery.ground[int(y) * side + int(x)] + pose.eye_m[0])
    picture = np.full((size, size, 3), (150, 190, 230), np.uint8)
    for column in range(size):
        across = half * (2 * (column + 0.5) / size - 1)
        dx, dy = np.sin(turn) + np.cos(turn) * across, -np.cos(turn) + np.sin(turn) * across
        filled = 0
        for depth in far:
            column_at = min(max(int(x + depth * dx), 0), side - 1)
            row_at = min(max(int(y + depth * dy), 0), side - 1)
            cell = row_at * side + column_at
            slope = (scenery.open[cell] - eye) / depth
            top = int(min(max((slope - pitch + half) * size / (2 * half) + 0.5, 0), size))
            if top > filled:
                picture[size - top : size - filled, column] = colours[scenery.material[cell]]
                filled = top
    return picture


def measure(size: int, count: int, plain: int) -> dict[str, object]:
    """Both rates on one land and the same poses; the median of five runs of ours."""
    scenery = Scenery.of(make_land(1, size))
    poses = choose_poses(scenery, count, seed=0).poses
    render_photos(scenery, poses[:64])
    ours = statistics.median(count / _seconds(lambda: render_photos(scenery, poses)) for _ in range(5))
    peer = plain / _seconds(lambda: [plain_photo(scenery, poses[i : i + 1]) for i in range(plain)])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread"
    return {"name": "photos", "ours": round(ours, 1), "peer": round(peer, 2), "ratio": round(ours / peer, 1),
            "unit": "photos/s", "machine": machine}  # fmt: skip


def _seconds(work: object) -> float:
    """Processor time of a call."""
    start = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--size", type=int, default=2000, help="side of the land, m")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--plain", type=int, default=20, help="photos of the plain version")
    given = parser.parse_args()
    result = measure(given.size, given.photos, given.plain)
    if given.json:
        print(json.dumps(result))
    else:
        print(f"{result['ours']} photos/s, plain loops {result['peer']} photos/s: {result['ratio']} times")


if __name__ == "__main__":
    main()
