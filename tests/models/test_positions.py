import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.models.positions import ScalePositions, metric_encoding, resample_positions, scale_features
from geograft.models.stems import SensorStem


def naive_encoding(grid, step, width):
    """One patch at a time, one wave at a time, in float64."""
    rows = []
    for row in range(grid):
        for column in range(grid):
            numbers = []
            for place in (row, column):
                u = (place - (grid - 1) / 2) * step
                angles = [u / 10_000 ** (4 * i / width) for i in range(width // 4)]
                numbers += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(numbers)
    return torch.tensor(rows, dtype=torch.float64)


@given(grid=st.integers(1, 6), step=st.floats(0.01, 40), width=st.sampled_from([4, 8, 24]))
@settings(max_examples=25)
def test_the_metric_encoding_equals_a_naive_loop(grid, step, width):
    found = metric_encoding(grid, step, width).double()
    torch.testing.assert_close(found, naive_encoding(grid, step, width), atol=1e-6, rtol=0)


def test_the_same_place_on_the_ground_has_the_same_encoding_at_any_resolution():
    """Offsets of 4 and 12 m: patches of 8 m side by side, and every second of patches of 4 m and an odd number."""
    coarse, fine = metric_encoding(4, 1.0, 16), metric_encoding(7, 0.5, 16)
    places = [7 * row + column for row in (0, 2, 4, 6) for column in (0, 2, 4, 6)]
    torch.testing.assert_close(fine[places], coarse)


def test_ground_sample_distances_are_told_apart_and_near_ones_are_alike():
    features = {gsd: scale_features(gsd) for gsd in (0.1, 1.0, 1.05, 10.0, 30.0)}
    distances = {gsd: float((features[gsd] - features[1.0]).norm()) for gsd in features}
    assert distances[1.05] < 0.3
    assert min(distances[gsd] for gsd in (0.1, 10.0, 30.0)) > 1


def test_positions_of_the_same_grid_stay_as_they_are():
    positions = torch.randn(17, 3)
    assert resample_positions(positions, 4) is positions


@pytest.mark.parametrize("grid", [2, 3, 8])
def test_positions_of_another_grid_run_over_the_same_chip(grid):
    ramp = torch.arange(4.0).repeat_interleave(4)  # the row of each patch
    positions = torch.cat([torch.tensor([7.0]), ramp])[:, None]
    found = resample_positions(positions, grid)
    assert found[0] == 7
    rows = found[1:, 0].reshape(grid, grid)
    assert torch.allclose(rows, rows[:, :1])
    assert (rows[1:, 0] > rows[:-1, 0]).all()
    assert rows.mean() == pytest.approx(1.5, abs=1e-5)


def test_the_class_token_has_no_place_but_a_scale():
    torch.manual_seed(0)
    positions = ScalePositions(16, 4, unit=4.0)
    stem = SensorStem("fine", ("a",), gsd=1.0, image_size=16, patch_size=4)
    with torch.no_grad():
        positions.metric.weight.normal_()
    plain = positions(stem)
    assert torch.equal(plain[0], positions.position_embedding[0])
    assert not torch.allclose(plain[1:], positions.position_embedding[1:])
    with torch.no_grad():
        positions.scale[2].weight.normal_()
    assert not torch.allclose(positions(stem)[0], positions.position_embedding[0])
    positions.forget_scale()
    assert torch.equal(positions(stem), positions.position_embedding)
