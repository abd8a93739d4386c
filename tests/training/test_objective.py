"""The loss of a batch against sums written out, and shares of it against the whole."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from geograft.errors import OwnerlessChip
from geograft.models.satellite import EncoderSettings, SatelliteEncoder, sample_tokens
from geograft.training.devices import Share
from geograft.training.losses import LossVariant
from geograft.training.negatives import NegativeSettings, on_sphere
from geograft.training.objective import UNSTATED_M, Objective, Prepared, similarity_of, usual_error
from geograft.training.places import place_shares
from geograft.training.settings import TrainingSettings

SHAPE = EncoderSettings(("red", "nir"), dim=8, image_size=16, patch_size=4, width=16, depth=1, heads=2)
OWNER = [0, 0, 1, 2, 2, 2, 3, 4, 4, 5]
LEVELS = {"image": ("image",), "pixel": ("pixel",), "joint": ("image", "pixel")}


def make_batch(owner=OWNER, *, tagged=None, seed=0):
    """A whole batch in double precision; its chips lie 300 m apart on the equator."""
    draw = torch.Generator().manual_seed(seed)
    owner = torch.tensor(owner)
    chips, photos = int(owner.max()) + 1, len(owner)

    def normal(*size):
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    headings = torch.rand(photos, generator=draw, dtype=torch.float64) * 360
    return Prepared(
        chips=normal(chips, 2, 16, 16),
        mine=torch.arange(chips),
        total=chips,
        photos=normalize(normal(photos, 8), dim=1),
        owner=owner,
        taken=torch.arange(photos),
        positions=torch.rand(photos, 2, generator=draw, dtype=torch.float64) * 16,
        error=torch.rand(photos, generator=draw, dtype=torch.float64) * 5 + 3,
        headings=torch.where(torch.arange(photos) % 3 == 0, math.nan, headings),
        centres=on_sphere(torch.arange(chips) * 300 / 111_195, torch.zeros(chips)),
        tags=None if tagged is None else normalize(normal(photos, 8), dim=1),
        tagged=None if tagged is None else torch.tensor(tagged).bool(),
    )


def part_of(batch, share):
    """What one process holds of a batch."""
    rows = share.of(batch.total)
    taken = ((batch.owner >= rows.start) & (batch.owner < rows.stop)).nonzero()[:, 0]
    return batch._replace(
        chips=batch.chips[rows],
        mine=torch.arange(rows.start, rows.stop),
        taken=taken,
        positions=batch.positions[taken],
        error=batch.error[taken],
        headings=batch.headings[taken],
        shared=share.world > 1,
    )


def make_objective(level="joint", **settings):
    chosen = TrainingSettings(**({"smooth": 0.0, "alike": 0.0} | settings))
    negatives = NegativeSettings(chosen.apart_m, 0.3 if chosen.alike else 1.0)
    by_tags = NegativeSettings(chosen.apart_m, 0.5 if chosen.alike else 1.0)
    return Objective(LEVELS[level], SHAPE, 1.0, chosen, negatives, by_tags, usual=UNSTATED_M)


def make_encoder():
    torch.manual_seed(1)
    return SatelliteEncoder(SHAPE).double()


def find(encoder, levels, chips):
    both = dict(zip(("image", "pixel"), encoder.both(chips), strict=True))
    return [both[level] for level in levels]


# --- sums written out ---------------------------------------------------------------------------------------


def hidden_from(batch, chip, photo, objective, own):
    """Whether a chip must not see a photo: by distance, or by likeness to one of the photos that are its own."""
    chord = float((batch.centres[chip] - batch.centres[batch.owner[photo]]).norm())
    apart = objective.negatives.min_distance_m
    near = apart > 0 and 2 * 6_371_008.8 * math.asin(chord / 2) <= apart
    return near or bool((batch.photos[own] @ batch.photos[photo] > objective.negatives.max_similarity).any())


def naive_image(vectors, batch, objective, tau):
    total = 0.0
    for chip in range(batch.total):
        own = (batch.owner == chip).nonzero()[:, 0].tolist()
        seen = [
            photo
            for photo in range(len(batch.owner))
            if photo in own or not hidden_from(batch, chip, photo, objective, own)
        ]
        scores = {photo: float(vectors[chip] @ batch.photos[photo]) / tau for photo in seen}
        below = math.log(sum(math.exp(score) for score in scores.values()))
        total += sum(below - scores[photo] for photo in own) / len(own)
    return total / batch.total


def naive_point(tokens, batch, objective, tau):
    places = sample_tokens(tokens, batch.owner, batch.positions, 16, mode=objective.settings.sampling)
    total = 0.0
    for photo, chip in enumerate(batch.owner.tolist()):
        seen = [
            other
            for other in range(len(batch.owner))
            if other == photo or not hidden_from(batch, chip, other, objective, [photo])
        ]
        scores = {other: float(places[photo] @ batch.photos[other]) / tau for other in seen}
        below = math.log(sum(math.exp(score) for score in scores.values()))
        total += (below - scores[photo]) / OWNER.count(chip)
    return total / batch.total


def naive_mixture(tokens, batch, objective, tau):
    place = objective.settings.place
    options = {"size": 16, "grid": 4, "gsd": 1.0, "settings": place}
    shares = place_shares(batch.positions, batch.error, batch.headings, **options)
    counts = torch.bincount(batch.owner).tolist()
    total = 0.0
    for photo, chip in enumerate(batch.owner.tolist()):
        own = (batch.owner == chip).nonzero()[:, 0].tolist()
        others = [
            other
            for other in range(len(batch.owner))
            if other not in own and not hidden_from(batch, chip, other, objective, own)
        ]
        likelihood = 0.0
        for patch, vector in enumerate(tokens[chip].flatten(1).T):
            match = math.exp(float(vector @ batch.photos[photo]) / tau)
            rest = sum(math.exp(float(vector @ batch.photos[other]) / tau) for other in others)
            likelihood += float(shares[photo, patch]) * match / (match + rest)
        total -= math.log(likelihood) / counts[chip]
    return total / batch.total


HIDING = [{}, {"alike": 0.05}, {"apart_m": 400.0}, {"alike": 0.05, "apart_m": 400.0}]


@pytest.mark.parametrize("hiding", HIDING)
def test_each_level_is_its_sum_written_out_and_joint_is_both(hiding):
    batch = make_batch()
    vectors, tokens = (value.detach() for value in make_encoder().both(batch.chips))
    plain = {"image": 0.07, "point": 0.07, "mixture": 0.1}
    expected = {
        "image": naive_image(vectors, batch, make_objective(**hiding), plain["image"]),
        "point": naive_point(tokens, batch, make_objective(**hiding), plain["point"]),
        "mixture": naive_mixture(tokens, batch, make_objective(**hiding), plain["mixture"]),
    }
    found = {
        "image": make_objective("image", **hiding)([vectors], batch),
        "point": make_objective("pixel", method="point", **hiding)([tokens], batch),
        "mixture": make_objective("pixel", **hiding)([tokens], batch),
    }
    assert {name: float(loss) for name, loss in found.items()} == pytest.approx(expected, rel=1e-9)
    for method in ("point", "mixture"):
        joint = make_objective("joint", method=method, **hiding)([vectors, tokens], batch)
        assert float(joint) == pytest.approx(expected["image"] + expected[method], rel=1e-9)


def test_nearest_reads_one_patch_and_a_set_temperature_holds_for_all():
    batch = make_batch()
    vectors, tokens = (value.detach() for value in make_encoder().both(batch.chips))
    objective = make_objective("pixel", method="point", sampling="nearest", temperature=0.2)
    assert float(objective([tokens], batch)) == pytest.approx(naive_point(tokens, batch, objective, 0.2), rel=1e-9)
    for level, found, naive in (("image", vectors, naive_image), ("pixel", tokens, naive_mixture)):
        warm = make_objective(level, temperature=0.2)
        assert float(warm([found], batch)) == pytest.approx(naive(found, batch, warm, 0.2), rel=1e-9)


def test_smoothness_is_added_for_the_pixel_level_only():
    batch = make_batch()
    vectors, tokens = (value.detach() for value in make_encoder().both(batch.chips))
    steps = [(tokens.diff(dim=axis) ** 2).sum(1).mean() for axis in (2, 3)]
    rough, plain = (make_objective("pixel", smooth=smooth)([tokens], batch) for smooth in (0.5, 0.0))
    assert float(rough - plain) == pytest.approx(0.5 * float(sum(steps)))
    images = [make_objective("image", smooth=smooth)([vectors], batch) for smooth in (0.5, 0.0)]
    assert images[0] == images[1]


# --- tags ---------------------------------------------------------------------------------------------------

TAGGED = [1, 0, 0, 0, 1, 1, 1, 0, 1, 0]  # chips 1 and 5 own no tagged photo


def only_naively(batch):
    """The batch of tagged photos, made anew photo by photo."""
    kept = [photo for photo in range(len(batch.owner)) if batch.tagged[photo]]
    chips = sorted({int(batch.owner[photo]) for photo in kept})
    return batch._replace(
        chips=batch.chips[chips],
        mine=torch.arange(len(chips)),
        total=len(chips),
        photos=torch.stack([batch.tags[photo] for photo in kept]),
        owner=torch.tensor([chips.index(int(batch.owner[photo])) for photo in kept]),
        taken=torch.arange(len(kept)),
        positions=batch.positions[kept],
        error=batch.error[kept],
        headings=batch.headings[kept],
        centres=batch.centres[chips],
        tags=None,
        tagged=None,
    ), chips


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_tagged_part_of_a_batch_is_the_batch_of_the_tagged_photos(world):
    batch = make_batch(tagged=TAGGED)
    expected, chips = only_naively(batch)
    for rank in range(world):
        share = Share(rank, world)
        mine = set(range(batch.total)[share.of(batch.total)])
        found, stay = part_of(batch, share).only(batch.tagged, batch.tags)
        own = [chip for chip in chips if chip in mine]
        assert [chip for chip, kept in zip(sorted(mine), stay.tolist(), strict=True) if kept] == own
        assert found.mine.tolist() == [chips.index(chip) for chip in own]
        taken = [photo for photo, at in enumerate(expected.owner.tolist()) if chips[at] in mine]
        assert found.taken.tolist() == taken
        assert found.local.tolist() == [own.index(chips[int(expected.owner[photo])]) for photo in taken]
        for name in ("total", "photos", "owner", "centres"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
        for name in ("positions", "error", "headings"):
            here = getattr(expected, name)[taken]
            torch.testing.assert_close(getattr(found, name), here, rtol=0, atol=0, equal_nan=True)
        assert found.chips.numel() == 0
        assert found.tags is None is found.tagged


@pytest.mark.parametrize("level", LEVELS)
def test_tags_add_the_weighted_loss_of_their_own_batch(level):
    batch = make_batch(tagged=TAGGED)
    words, chips = only_naively(batch)
    found = [value.detach() for value in find(make_encoder(), LEVELS[level], batch.chips)]
    plain = make_objective(level)
    alone = plain([value[chips] for value in found], words)
    both = make_objective(level, tags=0.25)(found, batch)
    assert float(both) == pytest.approx(float(plain(found, batch._replace(tags=None)) + 0.25 * alone), rel=1e-12)


def test_tags_are_alike_by_their_own_measure():
    batch = make_batch(tagged=TAGGED)
    words, chips = only_naively(batch)
    found = [value.detach() for value in find(make_encoder(), ("image",), batch.chips)]
    objective = make_objective("image", alike=0.05, tags=1.0)
    by_tags = dataclasses.replace(objective, negatives=objective.tag_negatives)
    expected = objective(found, batch._replace(tags=None)) + by_tags([found[0][chips]], words)
    assert float(objective(found, batch)) == pytest.approx(float(expected), rel=1e-12)


def test_a_batch_without_any_tags_has_the_loss_of_its_photos():
    batch = make_batch(tagged=[0] * len(OWNER))
    found = [value.detach() for value in find(make_encoder(), ("image",), batch.chips)]
    assert make_objective("image", tags=1.0)(found, batch) == make_objective("image")(found, batch)


# --- shares -------------------------------------------------------------------------------------------------

CASES = {
    "plain": (OWNER, None, {}),
    "point": (OWNER, None, {"method": "point"}),
    "hidden": (OWNER, None, {"alike": 0.05, "apart_m": 400.0, "smooth": 0.3}),
    "soft": (OWNER, None, {"method": "point", "variant": LossVariant(soft_weight=0.4)}),
    "tags": (OWNER, TAGGED, {"tags": 0.5, "alike": 0.05, "smooth": 0.3}),
    "tags of point": (OWNER, TAGGED, {"tags": 0.5, "method": "point"}),
    "tags in one share": (OWNER, [1, 1] + [0] * 8, {"tags": 0.5}),
    "one chip": ([0, 0, 0], [0, 1, 1], {"tags": 0.5, "smooth": 0.3}),
    "two chips": ([0, 1, 1], [0, 1, 1], {"tags": 0.5, "method": "point"}),
}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_shares_add_up_to_the_whole_in_value_and_gradient(case, world):
    owner, tagged, settings = CASES[case]
    batch, encoder = make_batch(owner, tagged=tagged), make_encoder()
    objective = make_objective("joint", **settings)

    def learn(part):
        loss = objective([value[part.mine] for value in find(encoder, objective.levels, batch.chips)], part)
        grads = torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True)
        return loss.detach(), [torch.zeros(()) if grad is None else grad for grad in grads]

    whole, gradient = learn(batch)
    shares = [learn(part_of(batch, Share(rank, world))) for rank in range(world)]
    assert whole.dtype == torch.float64
    assert torch.isfinite(whole)
    torch.testing.assert_close(sum(loss for loss, _ in shares), whole, rtol=1e-12, atol=1e-12)
    for parts, expected in zip(zip(*(grads for _, grads in shares), strict=True), gradient, strict=True):
        torch.testing.assert_close(sum(parts), expected, rtol=1e-9, atol=1e-12)


def test_one_chip_alone_has_no_negatives_and_a_finite_gradient():
    batch, encoder = make_batch([0, 0, 0]), make_encoder()
    found = find(encoder, ("image", "pixel"), batch.chips)
    loss = make_objective("pixel")(found[1:], batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-7)
    assert all(torch.isfinite(weight.grad).all() for weight in encoder.parameters() if weight.grad is not None)


@pytest.mark.parametrize(("level", "method"), [("image", "point"), ("pixel", "point"), ("pixel", "mixture")])
def test_a_chip_without_photos_is_named(level, method):
    batch = make_batch([0, 0, 2])
    found = [value.detach() for value in find(make_encoder(), LEVELS[level], batch.chips)]
    with pytest.raises(OwnerlessChip, match="chip 1 of the batch owns no photo"):
        make_objective(level, method=method)(found, batch)


def test_half_precision_embeddings_are_compared_in_single_precision():
    batch = make_batch()
    for level, method in (("image", "point"), ("pixel", "point"), ("pixel", "mixture")):
        objective = make_objective(level, method=method)
        halves = [value.detach().bfloat16() for value in find(make_encoder(), LEVELS[level], batch.chips)]
        loss = objective(halves, batch)
        assert float(loss) == pytest.approx(float(objective([value.double() for value in halves], batch)), rel=1e-5)


# --- what is measured on the pairs ----------------------------------------------------------------------------


def some_pairs(vectors, *, accuracy=(math.nan,), tags=None, has_tags=None, ids=None):
    vectors = np.asarray(vectors, np.float16)
    ids = np.array(ids if ids is not None else [f"p{row}" for row in range(len(vectors))], object)
    accuracy = np.asarray(accuracy, np.float32)
    tags = None if tags is None else np.asarray(tags, np.float16)
    has_tags = None if has_tags is None else np.asarray(has_tags, bool)
    return SimpleNamespace(embeddings=vectors, photo_ids=ids, accuracy=accuracy, tags=tags, has_tags=has_tags)


def circle(count, arc=math.pi):
    angles = np.linspace(0, arc, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_the_share_of_pairs_that_are_alike_is_the_one_that_was_asked_for():
    vectors = circle(200)
    for share in (0.02, 0.05, 0.3):
        threshold = similarity_of([some_pairs(vectors[::2]), some_pairs(vectors[1::2])], share, seed=0)
        cosines = (vectors @ vectors.T)[np.triu_indices(200, 1)]
        assert (cosines > threshold).mean() == pytest.approx(share, abs=0.005)


def test_copies_are_alike_however_many_and_nothing_is_where_nothing_is_asked():
    same = np.repeat(circle(4, math.pi / 2), 50, axis=0)
    assert similarity_of([some_pairs(same)], 0.05, seed=0) == pytest.approx(0.999)
    assert similarity_of([some_pairs(same)], 0.0, seed=0) == 1
    assert similarity_of([some_pairs(circle(2)[:1])], 0.05, seed=0) == 1


def test_a_photo_in_several_chips_counts_once():
    twice = np.repeat(circle(50), 2, axis=0)
    ids = np.repeat([f"p{row}" for row in range(50)], 2)
    once = similarity_of([some_pairs(circle(50))], 0.05, seed=0)
    assert similarity_of([some_pairs(twice, ids=ids)], 0.05, seed=0) == once


def test_likeness_of_tags_is_measured_on_photos_that_have_some():
    tags = np.concatenate([circle(100, 0.3), np.zeros((100, 2))])
    pairs = some_pairs(circle(200), tags=tags, has_tags=[True] * 100 + [False] * 100)
    found = similarity_of([pairs], 0.3, seed=0, of="tags")
    cosines = (circle(100, 0.3) @ circle(100, 0.3).T)[np.triu_indices(100, 1)]
    assert (cosines > found).mean() == pytest.approx(0.3, abs=0.05)
    assert similarity_of([some_pairs(circle(9))], 0.3, seed=0, of="tags") == 1


def test_errors_that_are_not_stated_are_as_large_as_the_others_usually_are():
    stated, silent = some_pairs(circle(3), accuracy=[4, math.nan, 8]), some_pairs(circle(1), accuracy=[math.nan])
    assert usual_error([stated, silent]) == 6
    assert usual_error([silent]) == UNSTATED_M
