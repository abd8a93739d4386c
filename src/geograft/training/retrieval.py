"""How well photos find their chips: the figure that validation watches, since it needs no text and no labels."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PHOTOS = 256  # scored at once


def photo_ranks(chips: Tensor, photos: Tensor, owner: Tensor) -> NDArray[np.int64]:
    """The rank of each photo's own chip among all chips, 1 being the best.

    Args:
        chips: unit vectors, (N, D), or (N, D, h, w), in which case a chip's score is that of its best patch.
        photos: unit vectors, (P, D).
        owner: the chip of each photo, (P,).

    Returns:
        (P,), values in 1..N; chips of equal score share the worst rank among them.
    """
    flat = chips.reshape(len(chips), chips.shape[1], -1).float()
    ranks = []
    for start in range(0, len(photos), _PHOTOS):
        some, mine = photos[start : start + _PHOTOS].float(), owner[start : start + _PHOTOS]
        scores = torch.stack([(some @ chip).amax(dim=1) for chip in flat], dim=1)
        own = scores.gather(1, mine[:, None])
        ranks.append((scores >= own).sum(dim=1))
    return torch.cat(ranks).cpu().numpy()


def recall(ranks: NDArray[np.int64], chips: int) -> dict[str, float]:
    """Cross-view recall of ranks among that many chips.

    Returns:
        `recall_1pc` and `recall_10pc`: the share of photos whose chip is among the best 1 % and 10 % (chance 0.01
        and 0.1); `median_rank`: the median rank over the number of chips (chance 0.5).
    """
    return {
        "recall_1pc": float((ranks <= max(1, 0.01 * chips)).mean()),
        "recall_10pc": float((ranks <= max(1, 0.1 * chips)).mean()),
        "median_rank": float(np.median(ranks) / chips),
    }
