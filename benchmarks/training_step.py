"""A training step with the teacher's embeddings read from a table, against steps that run the teacher.

Run: python benchmarks/training_step.py --json [--batch 8] [--photos 2] [--runs 3]

- ours: the satellite encoder forward and backward, photos' embeddings as they lie beside the pairs (float16).
- peer: both towers forward and backward, as open_clip trains a CLIP; its two towers here have the same code and shape
  as ours, so that the figure compares what is computed, not who wrote it.
- peer_frozen: the teacher's tower forward only, as GRAFT without kept embeddings.
- peer_one: the peer with one photo a chip, the least that a chip can have.

Towers are ViT-B/16 at 224 px with random weights (the time does not depend on them), the loss is Eq. 1 of GRAFT and
AdamW steps follow on all sides; reading and preparing pixels is left out on all sides, which favours the peers: ours
decodes no photo. Seconds are those of the processor, so that other work on the machine counts little; each figure is
the median of some steps that take turns, after one of each that warms up. All sides have the same weights, and their
losses are compared: the teacher's embeddings are those that the peer computes.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geograft.models.numerics import has_bfloat16
from geograft.models.satellite import SatelliteEncoder, preset_settings
from geograft.training.cached import backward
from geograft.training.devices import precision
from geograft.training.losses import multi_positive_contrastive
from geograft.training.schedule import make_optimiser

CPU = torch.device("cpu")
DIM = 512
LR = 1e-9  # towers serve several sides and must stay what they are; the time is that of any rate
RGB = ("red", "green", "blue")


class Side:
    """One way to do a step.

    Args:
        satellite: the tower of the chips.
        photos: how photos become unit vectors, (P, D).
        learns: the towers whose weights learn.
        settings: batch, photos a chip, precision.
    """

    def __init__(self, satellite: nn.Module, photos: Callable[[], Tensor], learns: nn.Module, settings: Any) -> None:
        self.satellite, self.photos, self.learns, self.bf16 = satellite, photos, learns, settings.bf16
        self.optimiser = make_optimiser(learns, lr=LR, weight_decay=0.05)

    def step(self, chips: Tensor, owner: Tensor) -> float:
        """One step; its loss."""

        def encode(rows: slice) -> Tensor:
            with precision(CPU, bf16=self.bf16):
                return self.satellite(chips[rows])  # type: ignore[no-any-return]

        self.optimiser.zero_grad(set_to_none=True)
        with precision(CPU, bf16=self.bf16):
            photos = self.photos()
        loss = backward(encode, lambda found: multi_positive_contrastive(found, photos, owner), len(chips))
        nn.utils.clip_grad_norm_(self.learns.parameters(), 1.0)
        self.optimiser.step()
        return float(loss)


def tower(seed: int) -> SatelliteEncoder:
    """A ViT-B/16 of random weights."""
    torch.manual_seed(seed)
    encoder = SatelliteEncoder(preset_settings("vit-b-16", bands=RGB, dim=DIM))
    encoder.projector.requires_grad_(False)  # the pixel level's head
    return encoder


def make_sides(given: argparse.Namespace) -> tuple[dict[str, tuple[Side, Tensor]], Tensor]:
    """The sides with the owners of their photos, and the chips."""
    torch.manual_seed(0)
    chips = torch.randn(given.batch, 3, 224, 224)
    pictures = torch.randn(given.batch * given.photos, 3, 224, 224)
    owner = torch.arange(given.batch).repeat(given.photos)
    teacher = tower(1)
    with torch.no_grad(), precision(CPU, bf16=given.bf16):
        kept = torch.cat([teacher(part) for part in pictures.split(8)]).float().numpy().astype(np.float16)

    def read() -> Tensor:
        return torch.from_numpy(kept.astype(np.float32))

    def frozen() -> Tensor:
        with torch.no_grad():
            return teacher(pictures).float()  # type: ignore[no-any-return]

    both, alone = nn.ModuleList([tower(0), tower(1)]), tower(0)
    sides = {
        "ours": (Side(alone, read, alone, given), owner),
        "peer": (Side(both[0], lambda: both[1](pictures), both, given), owner),
        "peer_frozen": (Side(alone, frozen, alone, given), owner),
        "peer_one": (Side(both[0], lambda: both[1](pictures[: given.batch]), both, given), owner[: given.batch]),
    }
    return sides, chips


def measure(given: argparse.Namespace) -> dict[str, object]:
    """Seconds a step of all sides."""
    sides, chips = make_sides(given)
    first = {name: side.step(chips, owner) for name, (side, owner) in sides.items()}
    if max(abs(first[name] - first["ours"]) for name in ("peer", "peer_frozen")) > 0.01:
        raise SystemExit(f"the sides compute other losses: {first}")
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.runs):
        for name, (side, owner) in sides.items():
            started = time.process_time()
            side.step(chips, owner)
            found[name].append(time.process_time() - started)
            print(f"{name}: {found[name][-1]:.2f} s", file=sys.stderr)
    seconds = {name: statistics.median(values) for name, values in found.items()}
    rates = {name: round(given.batch / value, 3) for name, value in seconds.items()}
    ratios = {f"ratio_{name}": round(seconds[name] / seconds["ours"], 2) for name in ("peer_frozen", "peer_one")}
    return {
        "name": "training-step", "ours": rates["ours"], "peer": rates["peer"],
        "ratio": round(seconds["peer"] / seconds["ours"], 2), "unit": "chips/s", "machine": _machine(given),
        "peer_frozen": rates["peer_frozen"], "peer_one": rates["peer_one"], **ratios,
        "batch": given.batch, "photos_a_chip": given.photos, "bf16": given.bf16,
    }  # fmt: skip


def _machine(given: argparse.Namespace) -> str:
    """The machine, in words."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {versions}, {given.threads} threads"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--batch", type=int, default=8, help="chips a step")
    parser.add_argument("--photos", type=int, default=2, help="photos a chip")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=has_bfloat16())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = measure(given)
    print(json.dumps(result) if given.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
