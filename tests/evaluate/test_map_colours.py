import numpy as np
import pytest

from geograft.evaluate import map_colours
from geograft.evaluate.map_colours import CLASSES, PALETTE, class_shares, nearest_colour, relevant


def paint(colour, size=32):
    return np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, size, size)).copy()


@pytest.mark.parametrize("name", list(PALETTE))
@pytest.mark.parametrize("light", [1.0, 0.8, 0.6])
def test_hill_shading_does_not_change_what_a_colour_means(name, light):
    chip = paint(np.array(PALETTE[name]) * light)
    assert set(nearest_colour(chip).ravel()) == {list(PALETTE).index(name)}


def test_lines_and_letters_are_no_land():
    for colour in [(0, 0, 0), (230, 30, 30), (60, 60, 200), (255, 255, 255)]:
        assert set(nearest_colour(paint(colour)).ravel()) == {-1}


def test_shares_add_what_each_class_covers():
    chip = paint(PALETTE["forest"])
    chip[:, :, 16:] = paint(PALETTE["water"])[:, :, 16:]
    shares = dict(zip(CLASSES, class_shares(chip[None])[0], strict=True))
    assert shares == {"forest": 0.5, "water": 0.5, "beach": 0.0, "built-up": 0.0}


def test_streets_and_residential_land_are_built_up():
    chip = paint(PALETTE["residential"])
    chip[:, ::4] = 255
    assert class_shares(chip[None])[0, CLASSES.index("built-up")] == 1


def test_a_yellow_road_is_no_beach_and_a_strip_of_sand_is():
    road, sand = paint(PALETTE["forest"]), paint(PALETTE["water"])
    road[:, :, 10:17] = paint(PALETTE["beach"])[:, :, :7]
    sand[:, :, 10:22] = paint(PALETTE["beach"])[:, :, :12]
    found = relevant(np.stack([road, sand]))[:, CLASSES.index("beach")]
    assert found.tolist() == [False, True]


def test_the_card_states_the_shares_in_use():
    from geograft.evaluate.cards import load_card

    card = load_card("walks")
    assert card.protocol["shares"] == map_colours.SHARES
    assert set(card.protocol["classes"]) == set(CLASSES)
    assert len(card.protocol["queries"]) == 10
