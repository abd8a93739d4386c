"""The mixture equals a double loop of its formula, whole, in ranks and in chunks, with masks and gradients."""

import math

import pytest
import torch
from torch.nn import functional

from geograft.errors import OwnerlessChip
from geograft.training.losses import pixel_contrastive
from geograft.training.mixture import mixture_contrastive, roughness
from geograft.training.negatives import NegativeSettings

TAU = 0.07


def batch_of(counts, *, grid=3, dim=6, seed=0):
    """Tokens, photos, owners and shares of chips with these numbers of photos."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(counts), dim, grid, grid, generator=draw, dtype=torch.float64)
    photos = torch.randn(sum(counts), dim, generator=draw, dtype=torch.float64)
    shares = torch.rand(sum(counts), grid * grid, generator=draw, dtype=torch.float64)
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    unit = functional.normalize
    return unit(tokens, dim=1), unit(photos, dim=1), owner, shares / shares.sum(1, keepdim=True)


def plain(tokens, photos, owner, shares, hidden=None):
    """The formula, term by term."""
    total, chips = 0.0, len(tokens)
    for photo, chip in enumerate(owner.tolist()):
        patches = tokens[chip].flatten(1).T
        likelihood = 0.0
        for patch, share in zip(patches, shares[photo], strict=True):
            own = torch.exp(patch @ photos[photo] / TAU)
            others = [
                torch.exp(patch @ photos[other] / TAU)
                for other, owner_of_other in enumerate(owner.tolist())
                if owner_of_other != chip and not (hidden is not None and hidden[chip, other])
            ]
            likelihood = likelihood + share * own / (own + sum(others))
        total = total - torch.log(likelihood) / (int((owner == chip).sum()) * chips)
    return total


COUNTS = [[1, 1], [3, 1, 2], [2, 5, 1, 1]]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_it_is_the_formula_with_its_gradient(counts, chunk):
    tokens, photos, owner, shares = batch_of(counts)
    ours, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    found = mixture_contrastive(ours, photos, owner, shares, chunk=chunk)
    expected = plain(theirs, photos, owner, shares)
    assert float(found) == pytest.approx(float(expected), abs=1e-10)
    found.backward()
    expected.backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-10)


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_ranks_add_up(world):
    tokens, photos, owner, shares = batch_of([2, 5, 1, 1])
    whole = mixture_contrastive(tokens, photos, owner, shares)
    parts = [
        mixture_contrastive(tokens[mine], photos, owner, shares[torch.isin(owner, mine)], mine=mine, count=len(tokens))
        for mine in torch.arange(4).tensor_split(world)
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), abs=1e-10)


def test_photos_that_are_too_alike_are_no_negatives():
    tokens, photos, owner, shares = batch_of([2, 3, 1])
    photos[3] = photos[0]
    mask = NegativeSettings(max_similarity=0.999).for_chips(photos, owner)
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[0, 3] = hidden[1, 0] = True
    found = mixture_contrastive(tokens, photos, owner, shares, hidden=mask, chunk=4)
    assert float(found) == pytest.approx(float(plain(tokens, photos, owner, shares, hidden)), abs=1e-10)


def test_with_one_patch_and_one_photo_a_chip_it_is_the_published_loss():
    tokens, photos, owner, _ = batch_of([1, 1, 1, 1], grid=1)
    found = mixture_contrastive(tokens, photos, owner, torch.ones(4, 1).double())
    expected = pixel_contrastive(tokens.flatten(1), photos, owner, chips=4)
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


def test_a_batch_of_one_chip_has_nothing_to_tell_apart():
    tokens, photos, owner, shares = batch_of([3])
    tokens.requires_grad_()
    loss = mixture_contrastive(tokens, photos, owner, shares)
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(tokens.grad).all()


def test_it_is_exact_under_bfloat16():
    tokens, photos, owner, shares = (part.float() if part.is_floating_point() else part for part in batch_of([3, 1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mixture_contrastive(tokens, photos, owner, shares)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(mixture_contrastive(tokens, photos, owner, shares)), abs=1e-6)


def test_it_starts_at_the_number_of_choices():
    tokens, photos, owner, shares = batch_of([1] * 20)
    photos[:] = photos[0]
    assert float(mixture_contrastive(tokens, photos, owner, shares)) == pytest.approx(math.log(20), abs=1e-9)


def test_a_chip_without_photos_is_refused():
    tokens, photos, owner, shares = batch_of([2, 1])
    with pytest.raises(OwnerlessChip):
        mixture_contrastive(torch.cat([tokens, tokens[:1]]), photos, owner, shares)


def test_roughness_is_the_mean_over_neighbours_and_adds_up_over_ranks():
    tokens, *_ = batch_of([1, 1, 1])
    expected = 0.0
    for chip in tokens:
        down = [((chip[:, row + 1, col] - chip[:, row, col]) ** 2).sum() for row in range(2) for col in range(3)]
        right = [((chip[:, row, col + 1] - chip[:, row, col]) ** 2).sum() for row in range(3) for col in range(2)]
        expected = expected + (sum(down) / 6 + sum(right) / 6) / 3
    assert float(roughness(tokens)) == pytest.approx(float(expected), abs=1e-12)
    parts = roughness(tokens[:1], count=3) + roughness(tokens[1:], count=3)
    assert float(parts) == pytest.approx(float(expected), abs=1e-12)
    assert float(roughness(tokens[:, :, :1, :1])) == 0
