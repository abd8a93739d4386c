import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.errors import BadSetting, ModelMismatch, OwnerlessChip
from geograft.training.losses import LossVariant, multi_positive_contrastive, pixel_contrastive
from geograft.training.negatives import NegativeSettings, SameGroup, hide_any

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


def make_negatives(photos, owner, *, mine=None, per="chip", seed=0):
    """Masks by place and by likeness, for a share of the chips or of the photos."""
    draw = torch.Generator().manual_seed(seed)
    wanted = NegativeSettings(min_distance_m=3e6, max_similarity=0.8)
    places = torch.randn(int(owner.max()) + 1, 3, generator=draw, dtype=torch.float64)
    places = torch.nn.functional.normalize(places, dim=1)
    if per == "chip":
        return wanted.for_chips(photos, owner, mine=mine, chip_places=places)
    return wanted.for_photos(photos, mine=mine, photo_places=places[owner])


def loop(rows, row_of, photos, owner, *, temperature, mask, soft=0.0, soft_temperature=0.05, both_ways=0.0):
    """The losses with all their terms, one exponential at a time; `row_of` gives a photo's row."""
    chips, total = int(owner.max()) + 1, rows.new_zeros(())
    own = {r: [j for j in range(len(owner)) if row_of[j] == r] for r in range(len(rows))}
    seen = [[p for p in range(len(owner)) if p in own[r] or not mask[r, p]] for r in range(len(rows))]
    score = rows @ photos.T / temperature
    for j in range(len(owner)):
        r, weight = row_of[j], 1 / (chips * int((owner == owner[j]).sum()))
        below = sum(score[r, p].exp() for p in seen[r]).log()
        alike = [sum(photos[k] @ photos[p] for k in own[r]) / len(own[r]) / soft_temperature for p in seen[r]]
        shares = torch.softmax(torch.stack(alike), dim=0)
        total += weight * (1 - soft) * (below - score[r, j])
        total += weight * soft * sum(share * (below - score[r, p]) for share, p in zip(shares, seen[r], strict=True))
        beside = sum(score[a, j].exp() for a in range(len(rows)) if j in seen[a]).log()
        total += weight * both_ways * (beside - score[r, j])
    return total


def value_and_gradient(loss, rows):
    return loss.detach(), torch.autograd.grad(loss, rows)[0]


def assert_equal(ours, theirs, tolerance=1e-10):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


VARIANTS = st.sampled_from(
    [
        LossVariant(),
        LossVariant(both_ways=0.5),
        LossVariant(soft_weight=0.3, soft_temperature=0.2),
        LossVariant(soft_weight=1.0, both_ways=1.0),
    ]
)
TERMS = given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    variant=VARIANTS,
    masked=st.booleans(),
    chunk=st.sampled_from([None, 1, 2]),
    seed=st.integers(0, 1000),
)


@settings(max_examples=40)
@TERMS
def test_the_image_loss_with_all_its_terms_is_the_loop_in_value_and_gradient(counts, variant, masked, chunk, seed):
    chips, photos, owner = make_batch(counts, 3, seed)
    chips.requires_grad_()
    hidden = make_negatives(photos, owner, seed=seed) if masked else None
    mask = hidden.mask(0, len(chips)) if masked else torch.zeros(len(chips), len(photos), dtype=torch.bool)
    terms = {"soft": variant.soft_weight, "soft_temperature": variant.soft_temperature, "both_ways": variant.both_ways}
    expected = loop(chips, owner.tolist(), photos, owner, temperature=0.1, mask=mask, **terms)
    loss = multi_positive_contrastive(
        chips, photos, owner, temperature=0.1, hidden=hidden, variant=variant, chunk=chunk
    )
    assert_equal(value_and_gradient(loss, chips), value_and_gradient(expected, chips))


@settings(max_examples=40)
@TERMS
def test_the_pixel_loss_with_all_its_terms_is_the_loop_in_value_and_gradient(counts, variant, masked, chunk, seed):
    patches, photos, owner = make_batch(counts, 3, seed, rows="photos")
    patches.requires_grad_()
    hidden = make_negatives(photos, owner, per="photo", seed=seed) if masked else None
    mask = hidden.mask(0, len(owner)) if masked else torch.zeros(len(owner), len(owner), dtype=torch.bool)
    terms = {"soft": variant.soft_weight, "soft_temperature": variant.soft_temperature, "both_ways": variant.both_ways}
    expected = loop(patches, list(range(len(owner))), photos, owner, temperature=0.1, mask=mask, **terms)
    loss = pixel_contrastive(
        patches, photos, owner, chips=len(counts), temperature=0.1, hidden=hidden, variant=variant, chunk=chunk
    )
    assert_equal(value_and_gradient(loss, patches), value_and_gradient(expected, patches))


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=7),
    world=st.integers(1, 4),
    soft=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 1000),
)
def test_the_shares_of_ranks_add_up_to_the_loss_of_the_batch(counts, world, soft, seed):
    chips, photos, owner = make_batch(counts, 4, seed)
    patches, _, _ = make_batch(counts, 4, seed, rows="photos")
    order = torch.randperm(len(chips), generator=torch.Generator().manual_seed(seed))
    variant = LossVariant(soft_weight=soft)
    chips.requires_grad_()
    patches.requires_grad_()
    image, pixel = [], []
    for rank in range(world):
        mine = order[rank::world]
        hidden = make_negatives(photos, owner, mine=mine, seed=seed)
        image.append(
            multi_positive_contrastive(
                chips[mine], photos, owner, mine=mine, count=len(counts), hidden=hidden, variant=variant
            )
        )
        taken = torch.isin(owner, mine).nonzero()[:, 0]
        hidden = make_negatives(photos, owner, mine=taken, per="photo", seed=seed)
        pixel.append(
            pixel_contrastive(
                patches[taken], photos, owner, chips=len(counts), mine=taken, hidden=hidden, variant=variant
            )
        )
    hidden = make_negatives(photos, owner, seed=seed)
    whole = multi_positive_contrastive(chips, photos, owner, hidden=hidden, variant=variant)
    assert_equal(value_and_gradient(sum(image), chips), value_and_gradient(whole, chips))
    hidden = make_negatives(photos, owner, per="photo", seed=seed)
    whole = pixel_contrastive(patches, photos, owner, chips=len(counts), hidden=hidden, variant=variant)
    assert_equal(value_and_gradient(sum(pixel), patches), value_and_gradient(whole, patches))


def test_two_real_ranks_give_the_loss_of_one_in_both_directions(tmp_path):
    chips, photos, owner = make_batch([3, 1, 4, 2, 1], 6, 11)
    patches, _, _ = make_batch([3, 1, 4, 2, 1], 6, 12, rows="photos")
    hidden = SameGroup(torch.arange(5) % 2, owner % 3)
    given = {"chips": chips, "patches": patches, "photos": photos, "owner": owner, "both_ways": 0.7}
    torch.save(given, tmp_path / "batch.pt")
    script = Path(__file__).with_name("share_of_losses.py")
    ranks = [subprocess.Popen([sys.executable, script, tmp_path, str(rank), "2"]) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    shares = [torch.load(tmp_path / f"share-{rank}.pt") for rank in range(2)]
    chips.requires_grad_()
    patches.requires_grad_()
    variant = LossVariant(both_ways=0.7)
    image = multi_positive_contrastive(chips, photos, owner, hidden=hidden, variant=variant)
    pixel = pixel_contrastive(patches, photos, owner, chips=5, variant=variant)
    for name, loss, rows in (("image", image, chips), ("pixel", pixel, patches)):
        summed = [sum(share[name][part] for share in shares) for part in range(2)]
        assert_equal(summed, value_and_gradient(loss, rows), 1e-12)


def test_hidden_photos_of_its_own_never_lift_a_chip_above_its_bound():
    chips, photos, owner = make_batch([2, 3], 4, 8)
    everything = SameGroup(torch.zeros(2), torch.zeros(5))
    loss = multi_positive_contrastive(chips, photos, owner, hidden=everything)
    same = multi_positive_contrastive(chips, photos, owner, hidden=hide_any(everything, everything))
    assert float(loss) == float(same)
    assert float(loss) >= (math.log(2) + math.log(3)) / 2


def test_photos_that_learn_get_the_gradient_of_the_loop():
    chips, photos, owner = make_batch([2, 1, 3], 4, 9)
    photos.requires_grad_()
    mask = torch.zeros(3, 6, dtype=torch.bool)
    expected = loop(chips, owner.tolist(), photos, owner, temperature=0.07, mask=mask, both_ways=1.0)
    loss = multi_positive_contrastive(chips, photos, owner, variant=LossVariant(both_ways=1.0), chunk=2)
    assert_equal(value_and_gradient(loss, photos), value_and_gradient(expected, photos))


def test_a_rank_without_chips_still_takes_part():
    _, photos, owner = make_batch([2, 1], 4, 10)
    nothing = torch.empty(0, 4, requires_grad=True)
    none = torch.empty(0, dtype=torch.long)
    loss = multi_positive_contrastive(nothing, photos.float(), owner, mine=none)
    loss = loss + pixel_contrastive(nothing, photos.float(), owner, chips=2, mine=none)
    loss.backward()
    assert float(loss.detach()) == 0
    assert nothing.grad.shape == (0, 4)


def test_what_does_not_fit_together_is_named():
    chips, photos, owner = make_batch([2, 1, 1], 4, 13)
    part = torch.tensor([0, 2])
    with pytest.raises(BadSetting, match=r"start torch\.distributed"):
        multi_positive_contrastive(chips[part], photos, owner, mine=part, variant=LossVariant(both_ways=1.0))
    with pytest.raises(BadSetting, match="3 chips were given where the batch names 2"):
        multi_positive_contrastive(chips, photos, owner, mine=part)
    with pytest.raises(BadSetting, match="3 patches were given where the batch names 4"):
        pixel_contrastive(chips, photos, owner, chips=3)
    with pytest.raises(OwnerlessChip, match="chip 3 of the batch"):
        multi_positive_contrastive(chips[part], photos, owner, mine=part, count=4)
    with pytest.raises(ModelMismatch, match="as wide as its teacher"):
        multi_positive_contrastive(chips[:, :2], photos, owner)
    for bad in ({"soft_weight": 1.5}, {"soft_temperature": 0.0}, {"both_ways": -1.0}):
        with pytest.raises(BadSetting, match=next(iter(bad))):
            LossVariant(**bad)


def test_a_batch_without_chips_or_without_photos_is_named():
    none = torch.empty(0, dtype=torch.long)
    with pytest.raises(OwnerlessChip, match="no chip"):
        multi_positive_contrastive(torch.empty(0, 4), torch.empty(0, 4), none)
    with pytest.raises(OwnerlessChip, match="2 of 2"):
        multi_positive_contrastive(torch.randn(2, 4), torch.empty(0, 4), none)
