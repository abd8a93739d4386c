import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.errors import OwnerlessChip
from geograft.training.losses import multi_positive_contrastive, pixel_contrastive

BATCHES = given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=7),
    dim=st.integers(2, 16),
    temperature=st.sampled_from([0.03, 0.07, 1.0]),
    seed=st.integers(0, 1000),
)


def make_batch(counts, dim, seed, *, rows=None):
    draw = torch.Generator().manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    owner = owner[torch.randperm(len(owner), generator=draw)]
    size = len(owner) if rows == "photos" else len(counts)
    satellite = torch.nn.functional.normalize(torch.randn(size, dim, generator=draw, dtype=torch.float64), dim=1)
    photos = torch.nn.functional.normalize(torch.randn(len(owner), dim, generator=draw, dtype=torch.float64), dim=1)
    return satellite, photos, owner


def naive(satellite_of, photos, owner, chips, temperature):
    """Eq. 1 and Eq. 2 as they are written, in float64, one exponential at a time."""
    total = 0.0
    for i in range(chips):
        mine = [j for j in range(len(owner)) if int(owner[j]) == i]
        for j in mine:
            query = satellite_of(i, j).double()
            scores = [math.exp(float(query @ photos[b].double()) / temperature) for b in range(len(photos))]
            total += -math.log(scores[j] / sum(scores)) / len(mine)
    return total / chips


@settings(deadline=None, max_examples=40)
@BATCHES
def test_the_image_loss_is_equation_one(counts, dim, temperature, seed):
    chips, photos, owner = make_batch(counts, dim, seed)
    expected = naive(lambda i, _: chips[i], photos, owner, len(counts), temperature)
    loss = multi_positive_contrastive(chips, photos, owner, temperature=temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=40)
@BATCHES
def test_the_pixel_loss_is_equation_two(counts, dim, temperature, seed):
    patches, photos, owner = make_batch(counts, dim, seed, rows="photos")
    expected = naive(lambda _, j: patches[j], photos, owner, len(counts), temperature)
    loss = pixel_contrastive(patches, photos, owner, chips=len(counts), temperature=temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_with_one_photo_a_chip_the_image_loss_is_infonce():
    chips, photos, _ = make_batch([1] * 9, 8, 3)
    owner = torch.arange(9)
    expected = torch.nn.functional.cross_entropy(chips @ photos.T / 0.07, owner)
    assert float(multi_positive_contrastive(chips, photos, owner)) == pytest.approx(float(expected), rel=1e-5)


def test_a_chip_weighs_the_same_however_many_photos_it_owns():
    chips, photos, owner = make_batch([1, 5], 8, 4)
    loss = multi_positive_contrastive(chips, photos, owner)
    doubled = torch.cat([photos, photos]), torch.cat([owner, owner])
    log_of_twice_the_photos = math.log(2)
    assert float(multi_positive_contrastive(chips, *doubled)) == pytest.approx(
        float(loss) + log_of_twice_the_photos, rel=1e-5
    )


def test_gradients_reach_the_satellite_side_and_are_finite_in_bf16():
    chips, photos, owner = make_batch([2, 3, 1], 8, 5)
    chips, photos = chips.to(torch.bfloat16).requires_grad_(), photos.float()
    loss = multi_positive_contrastive(chips, photos, owner, temperature=0.01)
    loss.backward()
    assert loss.dtype == torch.float32
    assert bool(chips.grad.isfinite().all())
    assert float(chips.grad.abs().sum()) > 0


def test_an_ownerless_chip_is_named_in_both_losses():
    chips, photos, owner = make_batch([2, 2, 2], 8, 6)
    owner = torch.where(owner == 1, 0, owner)
    with pytest.raises(OwnerlessChip, match="chip 1 of the batch"):
        multi_positive_contrastive(chips, photos, owner)
    with pytest.raises(OwnerlessChip, match="1 of 3"):
        pixel_contrastive(photos, photos, owner, chips=3)
