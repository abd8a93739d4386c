"""The photo's place as a latent variable: the pixel level's loss where geotags are real.

GRAFT's Eq. 2 takes the patch that a geotag falls on for the place that the photo shows. Under the errors of phones and
photo sites that teaches patches what stands beside them. Here the place is unknown, with a known distribution, and the
likelihood of the photo is summed over it.
"""

import torch
from torch import Tensor

from geograft.training.losses import photo_weights
from geograft.training.negatives import SameGroup, hide_any
from geograft.training.partition import Hidden, partition


def mixture_contrastive(
    tokens: Tensor,
    photos: Tensor,
    owner: Tensor,
    shares: Tensor,
    *,
    temperature: float = 0.07,
    mine: Tensor | None = None,
    count: int | None = None,
    hidden: Hidden | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Let some patch of a chip, likelier ones first, explain each of its photos, against the photos of other chips.

    A patch p of chip i explains photo j as InfoNCE does, with the photos of *other* chips for negatives, since those
    of its own chip may well show the same patch:

        P(g_ij | p) = exp(s_i[p]·g_ij / τ) / ( exp(s_i[p]·g_ij / τ) + Σ_{a ≠ i} Σ_b exp(s_i[p]·g_ab / τ) )

    and the photo is explained by the mixture over patches, weighted by where its content may lie:

        L = 1/N Σ_i 1/N_i Σ_j −log Σ_p π_ij(p) · P(g_ij | p).

    Its gradient is that of Eq. 2 averaged over patches by the posterior π(p)·P(g | p) / Σ: the patches that explain a
    photo best learn from it. So a forest beside a road does not teach the road what a forest looks like, even where the
    geotag lies on the road. With all of π on one patch it is Eq. 2 with negatives of other chips.

    Args:
        tokens: unit satellite embeddings of every patch, (N, D, h, w), or of this rank's chips, (n, D, h, w).
        photos: unit ground embeddings of the whole batch, (P, D).
        owner: the chip of each photo, (P,), values in [0, N), ascending.
        shares: of each photo the probability of every patch of its chip (`places.place_shares`), (P, h·w); of a rank's
            part the rows of its own photos.
        temperature: tau.
        mine: the chips of this rank, ascending and one after the other, (n,); all where None.
        count: number N of chips in the whole batch; those of `tokens` where None.
        hidden: further photos that a chip must not take for negatives, a row a chip of this rank.
        chunk: see `partition`.

    Returns:
        Scalar: the mean over chips of the mean over their photos; shares of ranks add up to it.

    Raises:
        OwnerlessChip: a chip owns no photo.

    Relatives:
        Multiple-instance InfoNCE (Miech et al., CVPR 2020, "MIL-NCE") sums over positives inside one softmax, without
        a prior; here each patch keeps its own softmax, so that the mixture is a likelihood.
    """
    chips, size = len(tokens), tokens.shape[2] * tokens.shape[3]
    weight = photo_weights(owner, chips if count is None else count)
    own = torch.arange(chips, device=owner.device) if mine is None else mine
    first = int(own[0]) if len(own) else 0
    taken = ((owner >= first) & (owner < first + chips)).nonzero()[:, 0]
    with torch.autocast(tokens.device.type, enabled=False):
        patches = tokens.to(torch.promote_types(tokens.dtype, torch.float32)).flatten(2).transpose(1, 2)
        group = own.repeat_interleave(size)
        others = hide_any(SameGroup(group, owner), None if hidden is None else _Repeated(hidden, size))
        rows = patches.reshape(chips * size, tokens.shape[1])
        negative = partition(rows, photos, temperature=temperature, hidden=others, chunk=chunk).view(chips, size)
        local = owner[taken] - first
        scores = _own_scores(patches, photos[taken].to(patches.dtype), local) / temperature
        explained = scores - torch.logaddexp(scores, negative[local])
        likelihood = torch.logsumexp(explained + torch.log(shares.to(patches.dtype)), dim=1)
    return -(likelihood * weight[taken].to(likelihood.dtype)).sum()


def roughness(tokens: Tensor, *, count: int | None = None) -> Tensor:
    """How much neighbouring patches differ: the mean of ‖s[p] − s[q]‖² below and beside, the two added.

    Most patches of a chip own no photo. Land is mostly what lies beside it, so a light pull together teaches them too.

    Args:
        tokens: unit embeddings, (n, D, h, w).
        count: chips of the whole batch, where these are a rank's part of it.

    Returns:
        Scalar in [0, 8]; shares of ranks add up to that of the batch.
    """
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    steps = [tokens.diff(dim=axis) for axis in (2, 3)]
    apart = [step.square().sum(dim=1).flatten(1).mean(dim=1) for step in steps if step.numel()]
    return torch.stack(apart).sum() / (count or len(tokens)) if apart else tokens.sum() * 0


def _own_scores(patches: Tensor, photos: Tensor, owner: Tensor) -> Tensor:
    """Cosines of each photo with every patch of its chip, (P, T), by one product of padded batches.

    Args:
        patches: (n, T, D).
        photos: (P, D).
        owner: ascending, (P,).
    """
    counts = torch.bincount(owner, minlength=len(patches))
    starts = counts.cumsum(0) - counts
    slot = torch.arange(len(owner), device=owner.device) - starts[owner]
    most = int(counts.max()) if len(counts) else 0
    padded = photos.new_zeros(len(patches), most, photos.shape[1])
    padded[owner, slot] = photos
    return torch.bmm(padded, patches.transpose(1, 2))[owner, slot]


class _Repeated:
    """A mask of chips for each of their patches.

    Args:
        hidden: a row a chip.
        times: patches a chip.
    """

    def __init__(self, hidden: Hidden, times: int) -> None:
        self._hidden, self._times = hidden, times

    def mask(self, start: int, stop: int, columns: slice = slice(None)) -> Tensor | None:
        """The rows of patches `start` to `stop`."""
        low, high = start // self._times, -(-stop // self._times)
        mask = self._hidden.mask(low, high, columns)
        if mask is None:
            return None
        return mask.repeat_interleave(self._times, dim=0)[start - low * self._times : stop - low * self._times]
