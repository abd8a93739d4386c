"""One rank of a real process group: its share of both losses, and their gradients, into a file."""

import sys
from pathlib import Path

import torch

from geograft.training.losses import LossVariant, multi_positive_contrastive, pixel_contrastive
from geograft.training.negatives import SameGroup


def main(folder, rank, world):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    batch = torch.load(folder / "batch.pt")
    photos, owner, variant = batch["photos"], batch["owner"], LossVariant(both_ways=batch["both_ways"])
    chips, patches = batch["chips"].requires_grad_(), batch["patches"].requires_grad_()
    mine = torch.arange(rank, len(chips), world)
    hidden = SameGroup(mine % 2, owner % 3)
    image = multi_positive_contrastive(
        chips[mine], photos, owner, mine=mine, count=len(chips), hidden=hidden, variant=variant, chunk=2
    )
    taken = torch.isin(owner, mine).nonzero()[:, 0]
    pixel = pixel_contrastive(patches[taken], photos, owner, chips=len(chips), mine=taken, variant=variant)
    found = {
        "image": (image.detach(), torch.autograd.grad(image, chips)[0]),
        "pixel": (pixel.detach(), torch.autograd.grad(pixel, patches)[0]),
    }
    torch.save(found, folder / f"share-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
