import numpy as np
import pytest
import torch

from geograft.training.augment import jitter_bands, turn, turn_chips, turn_positions

WAYS = torch.arange(8)


def chips_with_a_spot(row, col, *, count=8, size=16):
    chips = torch.zeros(count, 1, size, size)
    chips[:, 0, row, col] = 1
    return chips


@pytest.mark.parametrize(("row", "col"), [(0, 0), (3, 11), (15, 2)])
def test_a_photo_stands_on_the_same_pixel_after_every_turn(row, col):
    turned = turn(chips_with_a_spot(row, col), WAYS)
    places = turn_positions(torch.tensor([[row + 0.5, col + 0.5]]).repeat(8, 1), WAYS, 16).floor().long()
    assert turned[torch.arange(8), 0, places[:, 0], places[:, 1]].tolist() == [1.0] * 8


def test_the_eight_ways_all_differ():
    rng = np.random.default_rng(0)
    chip = torch.from_numpy(rng.random((1, 2, 8, 8))).repeat(8, 1, 1, 1)
    assert len({way.numpy().tobytes() for way in turn(chip, WAYS)}) == 8


def test_photos_follow_their_own_chip():
    chips = chips_with_a_spot(2, 5, count=20)
    owner = torch.repeat_interleave(torch.arange(20), 2)
    positions = torch.tensor([[2.5, 5.5]]).repeat(40, 1)
    turned, moved = turn_chips(chips, owner, positions, torch.Generator().manual_seed(1))
    found = turned[owner, 0, moved[:, 0].long(), moved[:, 1].long()]
    assert found.tolist() == [1.0] * 40
    assert len({tuple(place) for place in moved.tolist()}) > 4


def test_jitter_changes_each_band_as_a_whole():
    chips = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    seen = jitter_bands(chips, torch.Generator().manual_seed(3), strength=0.1)
    assert not torch.allclose(seen, chips)
    for before, after in zip(chips.flatten(0, 1), seen.flatten(0, 1), strict=True):
        gain = (after[0, 0] - after[1, 1]) / (before[0, 0] - before[1, 1])
        torch.testing.assert_close(after, before * gain + (after[0, 0] - before[0, 0] * gain), rtol=1e-3, atol=1e-4)
