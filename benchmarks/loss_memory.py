"""Peak memory and seconds of the image loss (GRAFT, Eq. 1) with its gradient: in tiles against the whole matrix.

Run: python benchmarks/loss_memory.py --json
Full size: python benchmarks/loss_memory.py --chips 16384 --photos 65536 --runs 1 --json   (the plain side: 17 GB)

- ours: `training.losses.multi_positive_contrastive`.
- peer: the equation with its (chips, photos) matrix of scores, torch.logsumexp and autograd.
- `--variants` adds ours with masks by place and by likeness, and with both directions.

Each side is a process of its own. Memory is the peak of the resident set during the loss and its backward pass, as
Linux counts it (VmHWM, set back before), above what is resident when the inputs are there and the libraries are warm
("ours", "peer"); `*_with_inputs_mb` adds the chips and photos themselves. The gradient of the chips is in both.
Seconds are those of the processor with one thread, so that other work on the machine hardly counts; the median of
some runs. The sides' losses and gradients are compared. `mini` times `partition` alone at the size of training the mini
model: 8,192 patches against 600 photos in 128 dimensions.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geograft.training.losses import LossVariant, multi_positive_contrastive
from geograft.training.negatives import NegativeSettings
from geograft.training.partition import partition

TAU = 0.07
MB = 2**20


def make_batch(chips: int, photos: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit chips and photos, and an owner for each photo; every chip owns one at least."""
    draw = torch.Generator().manual_seed(0)
    vectors = [torch.nn.functional.normalize(torch.randn(n, dim, generator=draw), dim=1) for n in (chips, photos)]
    owner = torch.cat([torch.arange(chips), torch.randint(0, chips, (photos - chips,), generator=draw)])
    return vectors[0].requires_grad_(), vectors[1], owner


def plain(chips: Tensor, photos: Tensor, owner: Tensor) -> Tensor:
    """Eq. 1 with its matrix."""
    scores = chips @ photos.T / TAU
    positive = scores[owner, torch.arange(len(owner))]
    weight = 1 / (len(chips) * torch.bincount(owner)[owner])
    return ((torch.logsumexp(scores, dim=1)[owner] - positive) * weight).sum()


def ours(chips: Tensor, photos: Tensor, owner: Tensor) -> Tensor:
    """Eq. 1 in tiles."""
    return multi_positive_contrastive(chips, photos, owner, temperature=TAU)


def masked(chips: Tensor, photos: Tensor, owner: Tensor) -> Tensor:
    """Eq. 1 in tiles, without negatives that are near or look alike."""
    places = torch.nn.functional.normalize(torch.randn(len(chips), 3, dtype=torch.float64), dim=1)
    settings = NegativeSettings(min_distance_m=50_000, max_similarity=0.9)
    hidden = settings.for_chips(photos, owner, chip_places=places)
    return multi_positive_contrastive(chips, photos, owner, temperature=TAU, hidden=hidden)


def both_ways(chips: Tensor, photos: Tensor, owner: Tensor) -> Tensor:
    """Eq. 1 in tiles, and its other direction."""
    return multi_positive_contrastive(chips, photos, owner, temperature=TAU, variant=LossVariant(both_ways=1.0))


SIDES = {"ours": ours, "peer": plain, "masked": masked, "both_ways": both_ways}


def run_side(given: argparse.Namespace) -> dict[str, float]:
    """One side, in this process."""
    torch.set_num_threads(1)
    loss = SIDES[given.side]
    warm = make_batch(32, 64, 16)
    loss(*warm).backward()
    batch = make_batch(given.chips, given.photos, given.dim)
    start = _reset_peak()
    seconds = []
    for _ in range(given.runs):
        batch[0].grad = None
        began = time.process_time()
        value = loss(*batch)
        value.backward()
        seconds.append(time.process_time() - began)
    used = _status("VmHWM") - start
    inputs = sum(tensor.nbytes for tensor in batch)
    assert batch[0].grad is not None
    return {
        "mb": used / MB, "with_inputs_mb": (used + inputs) / MB, "seconds": statistics.median(seconds),
        "loss": float(value.detach()), "gradient": float(batch[0].grad.double().norm()),
        "first": float(batch[0].grad[0, 0]),
    }  # fmt: skip


def _reset_peak() -> int:
    """Set the peak of the resident set back to what is resident, and give that in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """A size of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All sides, each in a process of its own."""
    names = list(SIDES) if given.variants else ["ours", "peer"]
    found = {name: _in_process(name, given) for name in names}
    one, other = found["ours"], found["peer"]
    for value in ("loss", "gradient", "first"):
        if abs(one[value] - other[value]) > 1e-4 * abs(other[value]) + 1e-9:
            raise SystemExit(f"{value} differs: {one[value]} and {other[value]}")
    result: dict[str, Any] = {
        "name": "loss_memory", "ours": round(one["mb"], 1), "peer": round(other["mb"], 1),
        "ratio": round(other["mb"] / one["mb"], 1), "unit": "MB above the inputs", "machine": _machine(),
        "chips": given.chips, "photos": given.photos, "dim": given.dim,
        "ratio_with_inputs": round(other["with_inputs_mb"] / one["with_inputs_mb"], 1),
        "speed_ratio": round(other["seconds"] / one["seconds"], 2),
    }  # fmt: skip
    for name, values in found.items():
        result |= {f"{name}_{key}": round(values[key], 2) for key in ("with_inputs_mb", "seconds")}
        result |= {} if name in ("ours", "peer") else {f"{name}_mb": round(values["mb"], 1)}
    return result | {"mini": mini(given.runs)}


def _in_process(name: str, given: argparse.Namespace) -> dict[str, float]:
    """One side in a fresh process."""
    sizes = [f"--{key}={getattr(given, key)}" for key in ("chips", "photos", "dim", "runs")]
    command = [sys.executable, __file__, "--side", name, *sizes]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def mini(runs: int) -> dict[str, float]:
    """Milliseconds of `partition` and of the plain log-sum-exp, forward and backward, at the mini model's size."""
    torch.set_num_threads(1)
    rows, columns, _ = make_batch(8192, 8192, 128)
    columns = columns[:600]
    sides: dict[str, Callable[[], Tensor]] = {
        "ours_ms": lambda: partition(rows, columns, temperature=TAU),
        "peer_ms": lambda: torch.logsumexp(rows @ columns.T / TAU, dim=1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(max(7, runs)):
        for name, work in sides.items():
            rows.grad = None
            began = time.process_time()
            work().mean().backward()
            seconds[name].append(time.process_time() - began)
    return {name: round(1000 * statistics.median(values), 1) for name, values in seconds.items()}


def _machine() -> str:
    """The machine, in words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--chips", type=int, default=4096)
    parser.add_argument("--photos", type=int, default=16384)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--variants", action="store_true", help="also measure ours with masks and with both directions")
    parser.add_argument("--side", choices=list(SIDES), help="measure one side in this process and print its figures")
    given = parser.parse_args()
    if given.side:
        print(json.dumps(run_side(given)))
        return
    result = measure(given)
    print(json.dumps(result) if given.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
