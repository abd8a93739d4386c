import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geograft.errors import BadSetting
from geograft.sensors import get_sensor
from geograft.training.augment import (
    LIGHTS,
    Light,
    Views,
    draw_ways,
    jitter_bands,
    jitter_light,
    light_of,
    shift_chips,
    turn,
    turn_chips,
    turn_headings,
    turn_positions,
    turn_views,
)

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


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_earlier_draws_repeat():
    chips = torch.arange(32.0).reshape(2, 1, 4, 4)
    ways = torch.randint(8, (2,), generator=generator(5))
    turned, _ = turn_chips(chips, torch.arange(2), torch.ones(2, 2), generator(5))
    assert (turned == turn(chips, ways)).all()
    assert (draw_ways(2, generator(5)) == ways).all()
    noise = torch.randn(2, 2, 1, 1, 1, generator=generator(6)) * 0.1
    torch.testing.assert_close(jitter_bands(chips, generator(6)), chips * (1 + noise[0]) + noise[1])


# --- headings ---------------------------------------------------------------------------------------------


def ahead(positions, headings, metres=1.0):
    """Places so far ahead of photos: north is up, and rows run south."""
    angle = torch.deg2rad(headings)
    return positions + metres * torch.stack([-torch.cos(angle), torch.sin(angle)], dim=1)


@given(st.floats(0, 16), st.floats(0, 16), st.floats(-720, 720), st.integers(0, 7))
def test_what_lies_ahead_of_a_photo_lies_ahead_after_every_turn(row, col, heading, way):
    positions, headings = torch.tensor([[row, col]], dtype=torch.float64), torch.tensor([heading], dtype=torch.float64)
    ways = torch.tensor([way])
    moved = turn_positions(ahead(positions, headings), ways, 16)
    turned = turn_headings(headings, ways)
    torch.testing.assert_close(ahead(turn_positions(positions, ways, 16), turned), moved, atol=1e-6, rtol=0)
    assert 0 <= float(turned) < 360


def test_headings_of_the_eight_ways():
    assert turn_headings(torch.full((8,), 10.0), WAYS).tolist() == [10, 260, 170, 280, 350, 100, 190, 80]
    assert turn_headings(torch.zeros(8), WAYS).tolist() == [0, 270, 180, 270, 0, 90, 180, 90]


def test_an_unknown_heading_stays_unknown():
    assert torch.isnan(turn_headings(torch.full((8,), torch.nan), WAYS)).all()


def test_a_photo_looks_at_the_same_pixel_after_a_turn():
    chips = chips_with_a_spot(3, 12, count=30)
    owner = torch.arange(30)
    views = Views(chips, torch.tensor([[9.5, 6.5]]).repeat(30, 1), torch.full((30,), 45.0))
    turned = turn_views(views, owner, generator(1))
    seen = ahead(turned.positions, turned.headings, metres=6 * 2**0.5).floor().long()
    assert turned.chips[owner, 0, seen[:, 0], seen[:, 1]].tolist() == [1.0] * 30
    plain = turn_chips(chips, owner, views.positions, generator(1))
    assert (turned.chips == plain[0]).all()
    assert (turned.positions == plain[1]).all()


# --- shifts -----------------------------------------------------------------------------------------------


@given(st.integers(0, 999), st.integers(1, 16))
def test_a_square_of_each_chip_keeps_one_of_its_photos(seed, size):
    draw = generator(seed)
    chips = torch.rand(5, 2, 16, 16, generator=draw)
    owner = torch.repeat_interleave(torch.arange(5), torch.randint(1, 4, (5,), generator=draw))
    positions = torch.rand(len(owner), 2, generator=draw) * 16
    squares, moved, inside = shift_chips(chips, owner, positions, size, draw)
    assert squares.shape == (5, 2, size, size)
    assert set(owner[inside].tolist()) == set(range(5))
    assert ((moved[inside] >= 0) & (moved[inside] < size)).all()
    before, after = positions.floor().long(), moved.floor().long()
    for photo in torch.nonzero(inside).flatten().tolist():
        chip = int(owner[photo])
        assert (squares[chip, :, *after[photo]] == chips[chip, :, *before[photo]]).all()


def test_squares_shift_by_whole_pixels_both_ways():
    chips = torch.arange(400.0).reshape(1, 1, 20, 20).repeat(200, 1, 1, 1)
    squares, moved, inside = shift_chips(chips, torch.arange(200), torch.full((200, 2), 10.0), 16, generator())
    assert inside.all()
    corners = {(int(square[0, 0]) // 20, int(square[0, 0]) % 20) for square in squares[:, 0]}
    assert corners == {(row, col) for row in range(5) for col in range(5)}
    assert (moved == moved.round()).all()


def test_squares_larger_than_the_chips_are_refused():
    with pytest.raises(BadSetting, match="do not fit"):
        shift_chips(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long), torch.ones(1, 2), 9, generator())


# --- light ------------------------------------------------------------------------------------------------


def test_strengths_follow_the_kind_of_sensor():
    for name in ("naip", "rgb", "world-1m", "map-tiles"):
        assert light_of(get_sensor(name)) == LIGHTS["brightness"]
    for name in ("sentinel-2-l2a", "landsat", "world-10m"):
        assert light_of(get_sensor(name)) == LIGHTS["reflectance"]
    with pytest.raises(BadSetting, match="none below 0"):
        Light(0.1, -0.1, 0.0)


def physical(values, sensor):
    mean, std = (torch.tensor(each)[:, None, None] for each in (sensor.mean, sensor.std))
    return values * std + mean


def test_light_is_a_gain_and_an_offset_of_physical_values():
    sensor = get_sensor("sentinel-2-l2a")
    chips = torch.randn(4, 5, 6, 6, generator=generator(1))
    before, after = physical(chips, sensor), physical(jitter_light(chips, sensor, generator(2)), sensor)
    gain = (after[..., 0, 0] - after[..., 3, 3]) / (before[..., 0, 0] - before[..., 3, 3])
    offset = after[..., 0, 0] - gain * before[..., 0, 0]
    torch.testing.assert_close(after, before * gain[..., None, None] + offset[..., None, None], rtol=1e-3, atol=1e-4)
    assert len(set(gain.flatten().round(decimals=4).tolist())) == 20


def test_light_varies_as_much_as_its_strengths_say():
    sensor, light = get_sensor("naip"), Light(light=0.1, band=0.05, offset=0.02)
    chips = torch.stack([torch.zeros(4000, 4, 2), torch.ones(4000, 4, 2)], dim=-1)
    after = physical(jitter_light(chips, sensor, generator(), light=light), sensor)[:, :, 0]
    gain = (after[..., 1] - after[..., 0]) / torch.tensor(sensor.std)
    offset = after[..., 0] - gain * torch.tensor(sensor.mean)
    assert float(gain.std()) == pytest.approx(np.hypot(0.1, 0.05), rel=0.05)
    assert float(gain.mean(dim=1).std()) == pytest.approx(np.hypot(0.1, 0.05 / 2), rel=0.05)
    assert float(offset.std()) == pytest.approx(0.02, rel=0.05)
    assert (jitter_light(chips, sensor, generator(), strength=0.0) == chips).all()


def test_missing_pixels_stay_missing():
    chips = torch.randn(3, 5, 4, 4, generator=generator(1))
    chips[:, :, 1, 2] = 0
    after = jitter_light(chips, get_sensor("landsat"), generator(2))
    assert (after[:, :, 1, 2] == 0).all()
    assert (after != chips).sum() == 3 * 5 * 15
    assert (jitter_light(chips[:, :4], get_sensor("naip"), generator(2))[:, :, 1, 2] != 0).all()
