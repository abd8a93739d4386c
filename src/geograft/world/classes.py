"""The classes of the simulated region, and the words that people use for them.

Class ids are those of the truth raster; 0 means no data. `words` are used in the captions that train the mini
teacher; `held_out` words never occur there, so they measure how open a vocabulary is.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CoverClass:
    """One class of cover or object.

    Attributes:
        id: value in the truth raster, 1 to 255.
        name: the class name used in tables and maps.
        words: names that occur in captions, the first being the usual one.
        held_out: names that never occur in captions.
        colour: map colour, (R, G, B).
        share: the share of a chip from which the chip may be labelled with this class; thin and small things
            never fill half a chip.
    """

    id: int
    name: str
    words: tuple[str, ...]
    held_out: tuple[str, ...]
    colour: tuple[int, int, int]
    share: float = 0.5


CLASSES: tuple[CoverClass, ...] = (
    CoverClass(1, "lake", ("lake", "open water", "water"), ("lakeside water", "waters"), (38, 102, 173)),
    CoverClass(2, "river", ("river", "stream"), ("riverbank", "river bend"), (92, 165, 222), 0.2),
    CoverClass(3, "beach", ("beach", "sandy shore", "sand"), ("sandy beach", "beachfront"), (244, 222, 154), 0.25),
    CoverClass(4, "forest", ("forest", "woods", "trees"), ("woodland", "wooded area"), (28, 98, 48)),
    CoverClass(5, "grassland", ("grassland", "meadow", "grass"), ("grassy meadow", "meadowland"), (150, 196, 102)),
    CoverClass(
        6, "wheat field", ("wheat field", "wheat", "cereal field"), ("fields of cereal", "wheatland"), (222, 196, 84)
    ),
    CoverClass(
        7,
        "rapeseed field",
        ("rapeseed field", "rapeseed", "yellow flowers field"),
        ("rape field", "flowering rapeseed"),
        (250, 236, 40),
    ),
    CoverClass(8, "vineyard", ("vineyard", "rows of vines", "vines"), ("vineyards", "vine rows"), (132, 108, 158)),
    CoverClass(
        9, "houses", ("houses", "homes", "residential street"), ("housing", "residential homes"), (216, 96, 72), 0.35
    ),
    CoverClass(
        10,
        "apartment blocks",
        ("apartment blocks", "apartments", "tower blocks"),
        ("apartment towers", "blocks of apartments"),
        (156, 48, 64),
        0.35,
    ),
    CoverClass(
        11,
        "warehouses",
        ("warehouses", "industrial halls", "warehouse"),
        ("industrial warehouse", "halls of industry"),
        (120, 120, 140),
        0.35,
    ),
    CoverClass(12, "road", ("road", "street", "asphalt road"), ("roadway", "streets"), (64, 64, 64), 0.18),
    CoverClass(
        13,
        "railway",
        ("railway", "railway tracks", "train tracks"),
        ("rail tracks", "railway line"),
        (180, 60, 180),
        0.12,
    ),
    CoverClass(
        14,
        "parking lot",
        ("parking lot", "car park", "parked cars"),
        ("parking area", "lot with parked cars"),
        (170, 170, 170),
        0.3,
    ),
    CoverClass(
        15,
        "solar farm",
        ("solar farm", "solar panels", "photovoltaic panels"),
        ("solar park", "field of solar panels"),
        (24, 34, 110),
    ),
    CoverClass(
        16,
        "sports pitch",
        ("sports pitch", "football pitch", "playing field"),
        ("sports field", "pitch for football"),
        (60, 220, 110),
        0.35,
    ),
    CoverClass(
        17, "golf course", ("golf course", "golf green", "fairway"), ("golf fairways", "golf links"), (120, 240, 170)
    ),
    CoverClass(
        18,
        "airport runway",
        ("airport runway", "runway", "airfield"),
        ("airport airfield", "runways"),
        (90, 90, 110),
        0.3,
    ),
    CoverClass(19, "quarry", ("quarry", "bare rock", "rock face"), ("rocky quarry", "rocks"), (186, 150, 120)),
    CoverClass(
        20,
        "harbour",
        ("harbour", "jetties with boats", "marina"),
        ("boat harbour", "boats at the jetties"),
        (0, 176, 190),
        0.25,
    ),
    CoverClass(
        21,
        "wind turbines",
        ("wind turbine", "wind turbines", "wind farm"),
        ("turbine towers", "windfarm"),
        (250, 130, 30),
        0.1,
    ),
    CoverClass(
        22,
        "greenhouses",
        ("greenhouses", "glasshouses", "greenhouse"),
        ("glass greenhouse", "greenhouse farm"),
        (190, 240, 240),
        0.35,
    ),
)

BY_ID: dict[int, CoverClass] = {cover.id: cover for cover in CLASSES}
BY_NAME: dict[str, CoverClass] = {cover.name: cover for cover in CLASSES}

SEEN_TEMPLATES: tuple[str, ...] = ("a photo of {}", "{}", "a picture of {}", "{} seen from the ground", "this is {}")
"""Phrasings that occur in captions."""

HELD_OUT_TEMPLATES: tuple[str, ...] = ("a place where one finds {}", "an image showing {}", "the scene has {}")
"""Phrasings that never occur in captions."""
