from datetime import date

import numpy as np
import pytest

from geograft.world.materials import INDEX, MATERIALS, palette, season_of


def test_names_are_unique_and_fit_one_byte():
    assert len(INDEX) == len(MATERIALS) < 256
    assert all(MATERIALS[number].name == name for name, number in INDEX.items())


@pytest.mark.parametrize("season", [0.0, 0.5, 1.0])
def test_a_palette_has_physical_values_for_every_material(season):
    looks = palette(season)
    assert looks.top.shape == (len(MATERIALS), 5)
    assert looks.side.shape == looks.texture.shape == (len(MATERIALS), 3)
    for part in (looks.top, looks.side, looks.texture):
        assert part.dtype == np.float32
        assert part.min() >= 0
        assert part.max() < 1


def test_the_season_runs_from_june_to_december():
    assert season_of(date(2024, 6, 20)) == 0.0
    assert season_of(date(2024, 12, 20)) == 1.0
    assert 0.2 < season_of(date(2024, 9, 21)) < 0.8


def test_leaves_lose_infrared_in_winter_and_roofs_do_not():
    summer, winter = palette(0.0).top, palette(1.0).top
    leaf, roof = INDEX["broadleaf"], INDEX["red tile roof"]
    assert summer[leaf, 3] > 2 * winter[leaf, 3]
    np.testing.assert_array_equal(summer[roof], winter[roof])


def test_only_plants_have_a_high_vegetation_index_in_summer():
    top = palette(0.0).top
    index = (top[:, 3] - top[:, 0]) / (top[:, 3] + top[:, 0] + 1e-6)
    assert all(index[INDEX[name]] > 0.6 for name in ("lush grass", "broadleaf", "conifer dark", "vine"))
    assert all(index[INDEX[name]] < 0.3 for name in ("asphalt", "deep water", "sand", "grey rock", "solar panel"))
