"""A tiny training of both levels on pairs with tags, for one process or for torchrun's.

Run: [torchrun --nproc-per-node 2] together.py PAIRS TEACHER OUT
"""

import sys

import torch

from geograft.models.satellite import PRESETS
from geograft.training.losses import LossVariant
from geograft.training.trainer import TrainingSettings, train


def main(pairs, teacher, out):
    PRESETS["together"] = {"image_size": 64, "patch_size": 16, "width": 32, "depth": 1, "heads": 2}
    variant = LossVariant(both_ways=0.5)
    settings = TrainingSettings(
        preset="together", teacher=teacher, level="joint", epochs=2, batch=4, tags=0.5, variant=variant, bf16="off"
    )
    train(pairs, out, settings=settings)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
