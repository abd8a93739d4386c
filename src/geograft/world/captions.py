"""What people write under their photos: words for what a photo shows, in varied phrasings.

The captions train the mini teacher as captions train CLIP elsewhere. They use the words and templates of
`classes` that may be used; the held-out words and phrasings never occur, so they measure how open the teacher is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from geograft.world.classes import BY_ID, BY_NAME, SEEN_TEMPLATES
from geograft.world.daylight import season_index
from geograft.world.materials import MATERIALS

if TYPE_CHECKING:
    from geograft.world.camera import Poses
    from geograft.world.daylight import Floats, Ints
    from geograft.world.terrain import Land

_UNCOUNTED = frozenset({
    "open water", "water", "sand", "woods", "trees", "grassland", "grass", "wheat", "rapeseed", "rows of vines",
    "vines", "houses", "homes", "apartment blocks", "apartments", "tower blocks", "warehouses", "industrial halls",
    "railway tracks", "train tracks", "parked cars", "solar panels", "photovoltaic panels", "bare rock",
    "jetties with boats", "wind turbines", "greenhouses", "glasshouses",
})  # fmt: skip
_COUNTED = {"houses": "house", "apartment blocks": "apartment block", "warehouses": "warehouse",
            "wind turbines": "wind turbine", "greenhouses": "greenhouse"}  # fmt: skip
_COUNT_IDS = tuple(BY_NAME[name].id for name in _COUNTED)
_NUMBERS = ("no", "one", "two", "three")
_SEASONS = ("winter", "spring", "summer", "autumn")
_RELATIONS = ("{a} next to {b}", "{a} with {b} behind", "{a} near {b}", "{a} and {b}", "{a} in front of {b}",
              "{b} behind {a}", "{a}, {b} in the distance")  # fmt: skip
_INDOORS = ("a room with a window", "indoors", "a photo of a room", "a living room", "the inside of a building",
            "furniture in a room", "a picture of a room with a table", "a photo taken indoors", "the inside of a room",
            "an interior with walls, a floor and a ceiling", "furniture inside a building")  # fmt: skip
_OUTDOORS = ("a photo taken outdoors", "an outdoor scene under the sky", "a landscape", "outdoors")
_NOTICED = 0.025  # share of the picture from which a second thing is mentioned
_WALL, _TOWER = 2.0, 15.0  # m from which something is a building, and a turbine's tower
_TURBINES = BY_NAME["wind turbines"].id
_IS_ROOF = np.zeros(256, bool)
_IS_ROOF[[n for n, m in enumerate(MATERIALS) if "roof" in m.name or "glass" in m.name]] = True


def with_article(word: str) -> str:
    """A word as it stands in a sentence: "a lake", "an airfield", "houses"."""
    if word in _UNCOUNTED:
        return word
    return f"an {word}" if word[0] in "aeio" else f"a {word}"


def write_captions(seen: Floats, poses: Poses, counts: Ints, seed: int) -> list[list[str]]:
    """Three to five captions for each photo.

    Args:
        seen: share of each class in each picture, (N, 256), the sky first; a row of zeros is an indoor photo.
        poses: of the photos, for season and time of day.
        counts: how many things of each class are in view, (N, 256); see `count_in_view`.
        seed: the same seed gives the same captions.
    """
    rng = np.random.default_rng([seed, 0xCAB])
    seasons = season_index(poses.season)
    result = []
    for row in range(len(seen)):
        if not seen[row].any():
            result.append([str(c) for c in rng.choice(_INDOORS, 4, replace=False)])
            continue
        when = _moment(int(seasons[row]), float(poses.hour[row]), float(poses.haze[row]), rng)
        result.append(_captions(seen[row], counts[row], when, rng))
    return result


def _captions(seen: Floats, counts: Ints, when: str, rng: np.random.Generator) -> list[str]:
    """The captions of one photo, all different."""
    order = [int(c) for c in np.argsort(-seen[1:])[:4] + 1 if seen[c] >= _NOTICED]
    main = order[0] if order else int(seen[1:].argmax()) + 1
    others = order[1:]
    wanted = int(rng.integers(3, 6))
    found: dict[str, None] = {_named(main, rng): None}
    for _ in range(4 * wanted):
        if len(found) >= wanted:
            break
        found[_phrase(main, others, counts, when, rng)] = None
    return list(found)


def _phrase(main: int, others: list[int], counts: Ints, when: str, rng: np.random.Generator) -> str:
    """One caption of some kind."""
    kind = rng.random()
    if kind > 0.97:
        return str(rng.choice(_OUTDOORS))
    if others and kind < 0.45:
        return _related(main, others, rng)
    if main in _COUNT_IDS and counts[main] and kind < 0.65:
        return _numbered(main, int(counts[main]), rng)
    if kind < 0.8:
        return f"{with_article(_word(main, rng))} {when}"
    return _named(main, rng)


def _word(class_id: int, rng: np.random.Generator) -> str:
    """One of the words for a class, the usual one half the time."""
    words = BY_ID[class_id].words
    return words[0] if rng.random() < 0.4 else str(rng.choice(words))


def _named(class_id: int, rng: np.random.Generator) -> str:
    """The thing alone, in one of the templates, with or without its article."""
    word = _word(class_id, rng)
    template = str(rng.choice(SEEN_TEMPLATES))
    return template.format(word if rng.random() < 0.5 else with_article(word))


def _related(main: int, others: list[int], rng: np.random.Generator) -> str:
    """The thing and what stands beside it."""
    second = others[int(rng.integers(min(len(others), 2)))]
    phrase = str(rng.choice(_RELATIONS)).format(a=with_article(_word(main, rng)), b=with_article(_word(second, rng)))
    return f"a photo of {phrase}" if rng.random() < 0.3 else phrase


def _numbered(class_id: int, count: int, rng: np.random.Generator) -> str:
    """How many things of a class are in view."""
    plural = BY_ID[class_id].name
    number = _NUMBERS[count] if count < 4 else "several" if count < 8 else "many"
    phrase = f"{number} {_COUNTED[plural] if count == 1 else plural}"
    return f"a picture of {phrase}" if rng.random() < 0.3 else phrase


def _moment(season: int, hour: float, haze: float, rng: np.random.Generator) -> str:
    """Season, time of day or weather, one of them."""
    noon = "at midday" if 11.5 < hour < 13.5 else ""
    day = "in the morning" if hour < 10 else "in the evening" if hour > 17 else noon
    options = [f"in {_SEASONS[season]}", day or f"on a {_SEASONS[season]} day"]
    if haze > 2:
        options.append("on a misty day")
    return str(rng.choice(options))


def count_in_view(land: Land, poses: Poses) -> Ints:
    """How many houses, blocks, halls, turbines and greenhouses lie in each photo's view, (N, 256).

    Things within 70 m count, turbines within 500 m; what hides behind others counts too: people know it is there.
    """
    counts = np.zeros((len(poses), 256), np.int64)
    eyes = np.stack([poses.x, poses.y], axis=1)
    for class_id, places in _countable(land).items():
        reach = 500.0 if class_id == _TURBINES else 70.0
        near = cKDTree(places).query_ball_point(eyes, reach)
        counts[:, class_id] = [
            _in_sector(places[index] - eyes[row], poses.heading_deg[row], poses.fov_deg[row])
            for row, index in enumerate(near)
        ]
    return counts


def _countable(land: Land) -> dict[int, Floats]:
    """The middles of single buildings and turbines by class id, (n, 2) columns and rows."""
    roofs = _IS_ROOF[land.material] & (land.height > _WALL)
    places = {}
    for class_id in _COUNT_IDS:
        standing = (land.cover == class_id) & (roofs if class_id != _TURBINES else land.height > _TOWER)
        pieces, number = ndimage.label(standing)
        if number:
            middles = np.array([[(s[1].start + s[1].stop) / 2, (s[0].start + s[0].stop) / 2]
                                for s in ndimage.find_objects(pieces)])  # fmt: skip
            places[class_id] = middles
    return places


def _in_sector(offsets: Floats, heading: float, view: float) -> int:
    """How many places, east and south of the eye, lie within the angle of view."""
    bearing = np.degrees(np.arctan2(offsets[:, 0], -offsets[:, 1]))
    off = (bearing - heading + 180) % 360 - 180
    return int(np.sum(np.abs(off) <= view / 2))
