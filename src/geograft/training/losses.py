"""The losses that tie satellite embeddings to the photos taken inside them (GRAFT, Eq. 1 and Eq. 2).

Both read a *ragged* batch: N chips, P photos, and for every photo the chip that owns it. Nothing is padded, so a
chip with one photo and a chip with twenty-five cost what they own.

| loss | one row per | a row competes for its photo with | gives |
|---|---|---|---|
| `multi_positive_contrastive` | chip | every photo of the batch | one embedding a chip: classify, search |
| `pixel_contrastive` | photo | every photo of the batch | one embedding a patch: segment |

Source: Mall, Phoo, Liu, Vondrick, Hariharan, Bala, *Remote Sensing Vision-Language Foundation Models without
Annotations via Ground Remote Alignment*, ICLR 2024.
"""

import torch
from torch import Tensor

from geograft.errors import OwnerlessChip


def multi_positive_contrastive(chips: Tensor, photos: Tensor, owner: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Pull every chip towards the photos taken inside it, away from all others (GRAFT, Eq. 1).

    A chip shows many things and each of its photos shows one of them. So each photo is a positive of its own: the
    mean stands outside the logarithm, and a chip must explain *all* its photos, not only the easiest one.

        L = 1/N Σ_i 1/N_i Σ_j −log [ exp(s_i·g_ij / τ) / Σ_a Σ_b exp(s_i·g_ab / τ) ]

    Args:
        chips: unit satellite embeddings s, (N, D).
        photos: unit ground embeddings g, (P, D), P >= N.
        owner: the chip that each photo belongs to, (P,), values in [0, N).
        temperature: tau; cosine similarities are divided by it.

    Returns:
        Scalar loss: the mean over chips of the mean over their photos. It equals log P when nothing is learnt yet,
        and cannot fall below the mean of log N_i, which a chip reaches when its own photos are all it sees.

    Raises:
        OwnerlessChip: a chip owns no photo.

    Requirements:
        The photo embeddings are frozen (Eq. 1 has one direction, satellite to ground). No two chips of a batch show
        the same ground: the photos of one would be negatives of the other.

    Inputs:
        | chips | photos | owner | what it is |
        |---|---|---|---|
        | (3, D) | (3, D) | [0, 1, 2] | one photo a chip: InfoNCE |
        | (3, D) | (5, D) | [0, 0, 1, 2, 2] | many to one, in any order |

    Recommendations:
        Keep tau at 0.07 and draw up to 25 photos a chip. Larger batches help while they hold few chips of one place.

    Relatives:
        `pixel_contrastive` asks the same of the patch in which each photo was taken. With one photo a chip this is
        InfoNCE (van den Oord et al. 2018), one direction of CLIP's loss; with labels for owners it is the
        `L_out` of supervised contrastive learning (Khosla et al. 2020).
    """
    weight = _photo_weights(owner, len(chips))
    scores = _scores(chips, photos, temperature)
    partition = torch.logsumexp(scores, dim=1)
    positive = scores[owner, torch.arange(len(owner), device=owner.device)]
    return ((partition[owner] - positive) * weight.to(scores.dtype)).sum()


def pixel_contrastive(
    patches: Tensor, photos: Tensor, owner: Tensor, *, chips: int, temperature: float = 0.07
) -> Tensor:
    """Pull the patch in which a photo was taken towards that photo, away from all others (GRAFT, Eq. 2).

    The same as Eq. 1 with the chip's embedding replaced by the encoder's output at the photo's own place. A handful
    of points a chip is enough: over many chips every kind of ground is photographed somewhere.

        L = 1/N Σ_i 1/N_i Σ_j −log [ exp(s_i[p_ij]·g_ij / τ) / Σ_a Σ_b exp(s_i[p_ij]·g_ab / τ) ]

    Args:
        patches: unit satellite embeddings s_i[p_ij] at the photos' places, (P, D), row for row with `photos`.
        photos: unit ground embeddings g, (P, D).
        owner: the chip that each photo belongs to, (P,), values in [0, `chips`).
        chips: number N of chips in the batch.
        temperature: tau; cosine similarities are divided by it.

    Returns:
        Scalar loss: the mean over chips of the mean over their photos; log P when nothing is learnt yet.

    Raises:
        OwnerlessChip: a chip owns no photo.

    Requirements:
        Places as exact as the photos' positions are: a geotag that is off by more than a patch teaches the patch what
        stands beside it. Photos of a chip that were taken in one patch are each other's negatives, as in the paper.

    Inputs:
        | patches | photos | owner | chips |
        |---|---|---|---|
        | (5, D) | (5, D) | [0, 0, 1, 2, 2] | 3 |

    Recommendations:
        Sample the patch grid bilinearly at the photo's sub-patch position
        (`geograft.models.satellite.sample_tokens`) rather than by the patch that contains it: neighbouring photos
        then differ, and the map's borders come out sharper than its patches.

    Relatives:
        `multi_positive_contrastive` for one embedding a chip.
    """
    weight = _photo_weights(owner, chips)
    scores = _scores(patches, photos, temperature)
    return ((torch.logsumexp(scores, dim=1) - scores.diagonal()) * weight.to(scores.dtype)).sum()


def _scores(rows: Tensor, photos: Tensor, temperature: float) -> Tensor:
    """Cosine similarities over tau, in single precision or better: bf16 rounds exponents of 14 to 1/16."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    with torch.autocast(rows.device.type, enabled=False):
        return rows.to(dtype) @ photos.to(dtype).T / temperature


def _photo_weights(owner: Tensor, chips: int) -> Tensor:
    """Weight of every photo, (P,): 1 / (N · N_i), so that chips count alike however many photos they own."""
    owned = torch.bincount(owner, minlength=chips)
    missing = (owned == 0).nonzero()
    if len(missing):
        raise OwnerlessChip(
            f"chip {int(missing[0])} of the batch owns no photo ({len(missing)} of {chips} own none): "
            "batch only chips that have photos"
        )
    return 1.0 / (chips * owned[owner].double())
