"""Colours for class maps: the usual one where a class is a known kind of land, else clearly different ones."""

from collections.abc import Sequence
from functools import cache

from geograft.tasks.queries import ClassQuery
from geograft.world.classes import CLASSES

RGB = tuple[int, int, int]

_USUAL: dict[RGB, tuple[str, ...]] = {
    (38, 102, 173): ("water", "sea", "ocean", "lakes", "pond"),
    (28, 98, 48): ("tree", "forests", "woodland", "vegetation"),
    (222, 196, 84): ("crops", "crop", "farmland", "cropland", "fields", "agriculture"),
    (150, 196, 102): ("grass", "lawn", "pasture", "shrub", "shrubland"),
    (216, 96, 72): ("house", "buildings", "building", "built-up", "residential area", "town", "city"),
    (64, 64, 64): ("roads", "motorway", "highway", "streets"),
    (186, 150, 120): ("bare", "bare soil", "bare ground", "soil", "rock"),
    (240, 240, 250): ("snow", "ice", "clouds", "cloud"),
    (110, 170, 150): ("wetland", "marsh", "swamp"),
}
"""Colours for words that the simulated region does not know."""

_FALLBACK: tuple[RGB, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (148, 103, 189), (140, 86, 75), (188, 189, 34), (23, 190, 207), (127, 127, 127), (255, 152, 150), (197, 176, 213),
)  # fmt: skip
"""Okabe and Ito's colours, which colour-blind people can tell apart, then some of Tableau's."""


def class_colours(classes: Sequence[ClassQuery]) -> tuple[RGB, ...]:
    """One colour per class, (R, G, B) of 0 to 255; no colour is given twice as long as there are enough."""
    taken: list[RGB] = []
    for one in classes:
        usual = [_usual_colours()[word] for word in map(str.casefold, one.phrasings) if word in _usual_colours()]
        taken.append(_free([*usual, *_FALLBACK], taken))
    return tuple(taken)


def _free(wishes: Sequence[RGB], taken: Sequence[RGB]) -> RGB:
    """The first wish that is not taken; past the end, a shade that still differs."""
    for wish in wishes:
        if wish not in taken:
            return wish
    number = len(taken)
    return (number * 67 % 200 + 30, number * 131 % 200 + 30, number * 29 % 200 + 30)


@cache
def _usual_colours() -> dict[str, RGB]:
    known = {word: colour for colour, words in _USUAL.items() for word in words}
    world = {word: one.colour for one in CLASSES for word in (one.name, *one.words, *one.held_out)}
    return {**known, **world}
