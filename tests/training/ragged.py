"""A tiny float64 training of seven chips in batches of 3, 3 and 1, for one process or for torchrun's.

Run: [torchrun --nproc-per-node 2] ragged.py OUT
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn.functional import normalize

from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.training.devices import Devices, plain_attention
from geograft.training.loop import LoopSettings, fit

SHAPE = EncoderSettings(("red", "nir"), dim=8, image_size=16, patch_size=8, width=16, depth=2, heads=2)
SETTINGS = LoopSettings(epochs=2, lr=0.01, warmup=0)
RUNS = {
    "whole": SETTINGS,
    "chunks": LoopSettings(epochs=2, lr=0.01, warmup=0, chunk=1, ahead=True),
    "frozen": LoopSettings(epochs=2, lr=0.01, warmup=0, freeze=1, layer_decay=0.5, ema=0.9, chunk=2),
}
BATCHES = ((0, 1, 2), (3, 4, 5), (6,))


class Ragged:
    """Chips that own one to three photos; a step's loss is Eq. 1, written out plainly."""

    unit, steps = "chips", 3

    def __init__(self):
        torch.manual_seed(3)
        self.model = SatelliteEncoder(SHAPE).double()
        plain_attention(self.model.satellite_image_backbone)
        self.pixels = torch.randn(7, 2, 16, 16, dtype=torch.float64)
        self.owner = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6])
        self.photos = normalize(torch.randn(12, 8, dtype=torch.float64), dim=1)

    def batches(self, epoch, *, skip=0):
        yield from (BATCHES, BATCHES[::-1])[epoch % 2][skip:]

    def members(self, batch):
        return list(map(str, batch))

    def prepare(self, batch, share):
        rows = torch.tensor(batch)
        own = rows[share.of(len(rows))]
        return self.pixels[own], own, torch.isin(self.owner, rows), len(rows)

    def rows(self, prepared):
        return len(prepared[0])

    def encode(self, model, prepared, rows):
        return model(prepared[0][rows])

    def compare(self, found, prepared):
        _, own, dealt, count = prepared
        scores = found @ self.photos[dealt].T / 0.07
        loss = found.sum() * 0
        for row, chip in enumerate(own.tolist()):
            mine = scores[row][self.owner[dealt] == chip]
            loss = loss + (scores[row].logsumexp(0) - mine.mean()) / count
        return loss

    def validate(self, model):
        return {"val_loss": float(model(self.pixels).sum())}


def main(out, names=tuple(RUNS)):
    out, share = Path(out), Devices().share
    for name in names:
        task = Ragged()
        history = fit(task, out / name, RUNS[name], identity={})
        weights = {key: value.tolist() for key, value in task.model.state_dict().items()}
        report = {"weights": weights, "epochs": history.epochs, "world": share.world}
        (out / f"{name}-{share.rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
