"""The losses that tie satellite embeddings to the photos taken inside them (GRAFT, Eq. 1 and Eq. 2).

Both read a *ragged* batch: N chips, P photos, and for every photo the chip that owns it. Nothing is padded, so a
chip with one photo and a chip with twenty-five cost what they own. Scores are computed a tile at a time
(`geograft.training.partition`): memory grows with N and with P, never with N · P.

| loss | one row per | a row competes for its photo with | gives |
|---|---|---|---|
| `multi_positive_contrastive` | chip | every photo of the batch | one embedding a chip: classify, search |
| `pixel_contrastive` | photo | every photo of the batch | one embedding a patch: segment |

**Shares.** Photos are frozen, so a rank needs no other rank's gradients: it encodes the chips that are `mine` and
compares them with the photos of the whole batch. Its result is its share of the batch's mean; the shares of all ranks
add up to the loss of the batch, in value and in gradient.

Source: Mall, Phoo, Liu, Vondrick, Hariharan, Bala, *Remote Sensing Vision-Language Foundation Models without
Annotations via Ground Remote Alignment*, ICLR 2024.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geograft.errors import BadSetting, OwnerlessChip
from geograft.training.negatives import Owned, Transposed, own_photos, spare
from geograft.training.partition import Hidden, expectation, partition


@dataclass(frozen=True)
class LossVariant:
    """Terms beside Eq. 1 and Eq. 2; the defaults are the equations as published.

    **Soft targets** also credit photos which the teacher finds similar to a row's own. The target of a row is the
    distribution q = (1 − w) · own + w · softmax(similarity / t) over the photos it may see, where `own` is uniform over
    its own photos and the similarity of a photo is the mean of its cosines with them. Cross-entropy is linear in q, so
    the target enters as one point, the expected photo Σ_p q_p g_p, which is computed as the partition is: in tiles.

    **Both ways** adds the other direction: each photo must also find its row among the rows of all chips,
    −log [ exp(s_i·g_ij / τ) / Σ_a exp(s_a·g_ij / τ) ], its targets never softened. Eq. 1 compares photos for one chip,
    so a chip may score high with everything; this compares chips for one photo, as a search does.

    Attributes:
        soft_weight: w in [0, 1].
        soft_temperature: t; small values credit only near copies.
        both_ways: weight of the other direction, 0 or more.
    """

    soft_weight: float = 0.0
    soft_temperature: float = 0.05
    both_ways: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.soft_weight <= 1:
            raise BadSetting(f"soft_weight is {self.soft_weight}: give a weight from 0 to 1.")
        if not self.soft_temperature > 0:
            raise BadSetting(f"soft_temperature is {self.soft_temperature}: give one above 0, such as 0.05.")
        if not self.both_ways >= 0:
            raise BadSetting(f"both_ways is {self.both_ways}: give a weight of 0 or more.")


_PUBLISHED = LossVariant()


def multi_positive_contrastive(
    chips: Tensor,
    photos: Tensor,
    owner: Tensor,
    *,
    temperature: float = 0.07,
    mine: Tensor | None = None,
    count: int | None = None,
    hidden: Hidden | None = None,
    variant: LossVariant = _PUBLISHED,
    chunk: int | None = None,
) -> Tensor:
    """Pull every chip towards the photos taken inside it, away from all others (GRAFT, Eq. 1).

    A chip shows many things and each of its photos shows one of them. So each photo is a positive of its own: the
    mean stands outside the logarithm, and a chip must explain *all* its photos, not only the easiest one.

        L = 1/N Σ_i 1/N_i Σ_j −log [ exp(s_i·g_ij / τ) / Σ_a Σ_b exp(s_i·g_ab / τ) ]

    Args:
        chips: unit satellite embeddings s, (N, D); with `mine` those of this rank, (n, D).
        photos: unit ground embeddings g of the whole batch, (P, D), P >= N.
        owner: the chip of the batch that each photo belongs to, (P,), values in [0, N).
        temperature: tau; cosine similarities are divided by it.
        mine: the chips of the batch that `chips` holds, (n,), each once; all in order where None.
        count: N of the whole batch; by default len(chips), or with `mine` the largest owner + 1.
        hidden: photos that chips must not see as negatives, one row per row of `chips` (`NegativeSettings.for_chips`).
            A chip's own photos always stay.
        variant: soft targets, and the direction from photos to chips.
        chunk: rows at a time; the result does not depend on it.

    Returns:
        Scalar loss: the mean over chips of the mean over their photos; with `mine` this rank's share of it. It equals
        log P when nothing is learnt yet, and cannot fall below the mean of log N_i, which a chip reaches when its own
        photos are all it sees.

    Raises:
        OwnerlessChip: a chip owns no photo, or the batch holds no chip.
        BadSetting: chips and `mine` differ in number, or a share is compared both ways outside torch.distributed.
        ModelMismatch: chips and photos have different dimensions.

    Requirements:
        The photo embeddings are frozen (Eq. 1 has one direction, satellite to ground). No two chips of a batch show
        the same ground: the photos of one would be negatives of the other, unless `hidden`.

    Inputs:
        | chips | photos | owner | what it is |
        |---|---|---|---|
        | (3, D) | (3, D) | [0, 1, 2] | one photo a chip: InfoNCE |
        | (3, D) | (5, D) | [0, 0, 1, 2, 2] | many to one, in any order |
        | (1, D), mine=[2] | (5, D) | [0, 0, 1, 2, 2] | the share of a rank that encodes the third chip |

    Recommendations:
        Keep tau at 0.07 and draw up to 25 photos a chip. Larger batches help while they hold few chips of one place.

    Relatives:
        `pixel_contrastive` asks the same of the patch in which each photo was taken. With one photo a chip this is
        InfoNCE (van den Oord et al. 2018), one direction of CLIP's loss; with labels for owners it is the
        `L_out` of supervised contrastive learning (Khosla et al. 2020).
    """
    own = own_photos(owner, mine)
    owned = _owned(owner, count if count is not None else _number(chips, owner, mine))
    _check(chips, len(owned) if mine is None else len(mine), "chips")
    rows = torch.full((len(chips),), 1 / len(owned), dtype=torch.float64, device=chips.device)
    pull = _Pull(temperature, hidden, variant, chunk, gathers=mine is not None, whole=len(chips) == len(owned))
    return pull(chips, photos, own, _mean_photos(photos, own, len(chips)), rows, _weights(owned, owner[own.photo]))


def pixel_contrastive(
    patches: Tensor,
    photos: Tensor,
    owner: Tensor,
    *,
    chips: int,
    temperature: float = 0.07,
    mine: Tensor | None = None,
    hidden: Hidden | None = None,
    variant: LossVariant = _PUBLISHED,
    chunk: int | None = None,
) -> Tensor:
    """Pull the patch in which a photo was taken towards that photo, away from all others (GRAFT, Eq. 2).

    The same as Eq. 1 with the chip's embedding replaced by the encoder's output at the photo's own place. A handful
    of points a chip is enough: over many chips every kind of ground is photographed somewhere.

        L = 1/N Σ_i 1/N_i Σ_j −log [ exp(s_i[p_ij]·g_ij / τ) / Σ_a Σ_b exp(s_i[p_ij]·g_ab / τ) ]

    Args:
        patches: unit satellite embeddings s_i[p_ij] at the photos' places, (P, D), row for row with `photos`; with
            `mine` those of this rank, (Q, D).
        photos: unit ground embeddings g of the whole batch, (P, D).
        owner: the chip of the batch that each photo belongs to, (P,), values in [0, `chips`).
        chips: number N of chips in the whole batch.
        temperature: tau; cosine similarities are divided by it.
        mine: the photos of the batch that `patches` belong to, (Q,), each once; all in order where None.
        hidden: photos that patches must not see as negatives, one row per row of `patches`
            (`NegativeSettings.for_photos`). A patch's own photo always stays.
        variant: soft targets, and the direction from photos to patches.
        chunk: rows at a time; the result does not depend on it.

    Returns:
        Scalar loss: the mean over chips of the mean over their photos, with `mine` this rank's share of it; log P when
        nothing is learnt yet.

    Raises:
        OwnerlessChip: a chip owns no photo, or the batch holds no chip.
        BadSetting: patches and photos (or `mine`) differ in number, or a share is compared both ways outside
            torch.distributed.
        ModelMismatch: patches and photos have different dimensions.

    Requirements:
        Places as exact as the photos' positions are: a geotag that is off by more than a patch teaches the patch what
        stands beside it. Photos of a chip that were taken in one patch are each other's negatives, as in the paper;
        `SameGroup(owner[mine], owner)` as `hidden` ends that.

    Inputs:
        | patches | photos | owner | chips |
        |---|---|---|---|
        | (5, D) | (5, D) | [0, 0, 1, 2, 2] | 3 |
        | (2, D), mine=[3, 4] | (5, D) | [0, 0, 1, 2, 2] | 3 |

    Recommendations:
        Sample the patch grid bilinearly at the photo's sub-patch position
        (`geograft.models.satellite.sample_tokens`) rather than by the patch that contains it: neighbouring photos
        then differ, and the map's borders come out sharper than its patches.

    Relatives:
        `multi_positive_contrastive` for one embedding a chip.
    """
    owned = _owned(owner, chips)
    _check(patches, len(photos) if mine is None else len(mine), "patches")
    own = Owned(torch.arange(len(patches), device=owner.device), mine if mine is not None else _all(owner))
    weights = _weights(owned, owner[own.photo])
    pull = _Pull(temperature, hidden, variant, chunk, gathers=mine is not None, whole=len(patches) == len(owner))
    return pull(patches, photos, own, photos if mine is None else photos[mine], weights, weights)


@dataclass(frozen=True)
class _Pull:
    """Rows towards their targets and away from all photos: what Eq. 1 and Eq. 2 share."""

    temperature: float
    hidden: Hidden | None
    variant: LossVariant
    chunk: int | None
    gathers: bool
    whole: bool

    def __call__(
        self, rows: Tensor, photos: Tensor, own: Owned, target: Tensor, row_weight: Tensor, photo_weight: Tensor
    ) -> Tensor:
        """The weighted sum over rows, and over photos in the other direction.

        Args:
            rows: (R, D).
            photos: (P, D).
            own: the photos of each row, K pairs.
            target: the mean of each row's own photos, (R, D).
            row_weight: (R,); over all ranks they add up to 1.
            photo_weight: (K,), likewise.
        """
        hidden = spare(self.hidden, own, len(photos))
        logs = partition(rows, photos, temperature=self.temperature, hidden=hidden, chunk=self.chunk)
        match = _dots(rows, target) / self.temperature
        aim = self._softened(rows, photos, target, hidden, match) if self.variant.soft_weight else match
        loss = (row_weight.to(logs.dtype) * (logs - aim)).sum()
        if not self.variant.both_ways:
            return loss
        back = self._back(rows, photos, hidden)[own.photo]
        other = (photo_weight.to(back.dtype) * back).sum() - (row_weight.to(match.dtype) * match).sum()
        return loss + self.variant.both_ways * other

    def _softened(self, rows: Tensor, photos: Tensor, target: Tensor, hidden: Hidden | None, match: Tensor) -> Tensor:
        """The scores expected under the softened targets, (R,)."""
        expected = expectation(
            target.detach(), photos.detach(), temperature=self.variant.soft_temperature, hidden=hidden, chunk=self.chunk
        )
        return torch.lerp(match, _dots(rows, expected) / self.temperature, self.variant.soft_weight)

    def _back(self, rows: Tensor, photos: Tensor, hidden: Hidden | None) -> Tensor:
        """The log-sum-exp of each photo's scores over the rows of all ranks, (P,)."""
        turned = None if hidden is None else Transposed(hidden, len(rows))
        logs = partition(photos, rows, temperature=self.temperature, hidden=turned, chunk=self.chunk)
        if self.gathers and _world() > 1:
            return torch.logsumexp(_Gather.apply(logs), dim=0)  # type: ignore[no-untyped-call]
        if not self.whole:
            raise BadSetting(
                "both_ways compares each photo with the chips of the whole batch, and some are on other ranks: "
                "start torch.distributed on all ranks, or set both_ways to 0."
            )
        return logs


class _Gather(torch.autograd.Function):
    """A vector of every rank, (world, P); its gradient is what all ranks ask of this rank's vector."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:  # noqa: ARG004
        """Collect; every rank holds a vector of the same length."""
        everyone = [torch.empty_like(mine) for _ in range(_world())]
        torch.distributed.all_gather(everyone, mine.contiguous())
        return torch.stack(everyone)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        """Sum over ranks, and take this rank's row."""
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)
        return gradient[torch.distributed.get_rank()]


def _world() -> int:
    """How many ranks there are."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def _mean_photos(photos: Tensor, own: Owned, rows: int) -> Tensor:
    """The mean of each row's own photos, (R, D), without a copy of the photos."""
    offsets = torch.searchsorted(own.row, torch.arange(rows, device=own.row.device))
    wide = photos.to(torch.promote_types(photos.dtype, torch.float32))
    return torch.nn.functional.embedding_bag(own.photo, wide, offsets, mode="mean")


def _dots(rows: Tensor, others: Tensor) -> Tensor:
    """Dot products row by row, (R,), in single precision or better."""
    dtype = torch.promote_types(torch.promote_types(rows.dtype, others.dtype), torch.float32)
    with torch.autocast(rows.device.type, enabled=False):
        return torch.bmm(rows.to(dtype)[:, None], others.to(dtype)[:, :, None])[:, 0, 0]


def _owned(owner: Tensor, chips: int) -> Tensor:
    """How many photos each chip of the batch owns, (N,)."""
    if chips < 1:
        raise OwnerlessChip("the batch holds no chip: drop empty batches")
    owned = torch.bincount(owner, minlength=chips)
    missing = (owned == 0).nonzero()
    if len(missing):
        raise OwnerlessChip(
            f"chip {int(missing[0])} of the batch owns no photo ({len(missing)} of {chips} own none): "
            "batch only chips that have photos"
        )
    return owned


def photo_weights(owner: Tensor, chips: int) -> Tensor:
    """Weight of every photo of a batch, (P,): chips count alike, and a chip's photos too; the weights sum to 1.

    Raises:
        OwnerlessChip: a chip owns no photo.
    """
    return _weights(_owned(owner, chips), owner)


def _weights(owned: Tensor, owner: Tensor) -> Tensor:
    """Weight of photos by their owner: 1 / (N · N_i), so that chips count alike however many photos they own."""
    return 1.0 / (len(owned) * owned[owner].double())


def _number(chips: Tensor, owner: Tensor, mine: Tensor | None) -> int:
    """N of the whole batch, where it was not given."""
    if mine is None:
        return len(chips)
    return int(owner.max()) + 1 if len(owner) else 0


def _all(owner: Tensor) -> Tensor:
    """Every photo of the batch."""
    return torch.arange(len(owner), device=owner.device)


def _check(rows: Tensor, expected: int, name: str) -> None:
    """Rows are as many as were named."""
    if len(rows) != expected:
        raise BadSetting(f"{len(rows)} {name} were given where the batch names {expected}: give one row for each.")
