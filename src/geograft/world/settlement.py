"""Towns and villages: a grid of streets along a main road, and what each block is for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geograft.world.buildings import paint_apartments, paint_houses, paint_warehouses
from geograft.world.canvas import Canvas, Site, Stage
from geograft.world.classes import BY_NAME
from geograft.world.grounds import paint_park, paint_parking, paint_pitch
from geograft.world.noise import CELL, fractal, nodes
from geograft.world.traffic import Network

STREET = 6.0
"""Width of streets, metres."""

PAINTERS = {
    "houses": paint_houses,
    "apartment blocks": paint_apartments,
    "warehouses": paint_warehouses,
    "parking lot": paint_parking,
    "sports pitch": paint_pitch,
    "park": paint_park,
}
DECK = (
    ("houses",) * 9
    + ("apartment blocks",) * 5
    + ("warehouses",) * 6
    + ("parking lot",) * 2
    + ("sports pitch",) * 2
    + ("park",)
)
REACH = {
    "houses": 0.58,
    "apartment blocks": 0.2,
    "warehouses": 0.95,
    "parking lot": 0.42,
    "sports pitch": 0.72,
    "park": 0.4,
}
"""How far from the centre (0) to the edge (1) of a town its blocks tend to lie, by use."""
TALL = {"houses": 8.0, "apartment blocks": 30.0, "warehouses": 12.0}


@dataclass(frozen=True)
class Town:
    """A town's frame: x, y and angle of its centre on a main road, radius, half lengths of a block."""

    x: float
    y: float
    angle: float
    radius: float
    half_u: float
    half_v: float

    def blocks(self) -> list[Site]:
        """All blocks within the radius, the innermost first; the main road runs between two rows."""
        frame = Site(self.x, self.y, self.angle, 0, 0)
        pitch_u, pitch_v = 2 * self.half_u + STREET, 2 * self.half_v + STREET
        reach = int(self.radius / min(pitch_u, pitch_v)) + 1
        found = []
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach):
                v = (j + 0.5) * pitch_v + np.sign(j + 0.5) * 3.5
                if np.hypot(i * pitch_u, v) < self.radius:
                    found.append(frame.part(i * pitch_u, v, self.half_u, self.half_v))
        return sorted(found, key=lambda site: np.hypot(site.x - self.x, site.y - self.y))


def paint_settlements(canvas: Canvas, network: Network, rng: np.random.Generator) -> None:
    """Towns where the settlement noise is high along main roads, then their streets and blocks."""
    deck: list[str] = []
    for town in _choose_towns(canvas, network, rng):
        blocks = [site for site in town.blocks() if canvas.free_share(site) > 0.86]
        while len(deck) < len(blocks):
            deck += [str(card) for card in rng.permutation(DECK)]
        cards, deck = deck[: len(blocks)], deck[len(blocks) :]
        order = np.argsort([REACH[card] + rng.normal(0, 0.16) for card in cards])
        for site, number in zip(blocks, order, strict=True):
            _paint_block(canvas, site, cards[number], rng)


def _choose_towns(canvas: Canvas, network: Network, rng: np.random.Generator) -> list[Town]:
    count = max(1, round(canvas.size**2 / 2.1e6))
    density = fractal(rng, nodes(canvas.size), 120, 3)
    inside = ((network.places[:, :2] > 60) & (network.places[:, :2] < canvas.size - 60)).all(1)
    places = network.places[inside]
    col, row = (places[:, :2] / CELL).astype(int).T
    places = places[np.argsort(-density[row, col] - rng.normal(0, 0.5, len(places)))]
    chosen: list[NDArray[np.float64]] = []
    for place in places:
        far = all(np.hypot(*(place[:2] - other[:2])) > 640 for other in chosen)
        radius = min(260.0, canvas.size * 0.28)
        if far and canvas.free_share(Site(place[0], place[1], place[2], radius, radius), 20.0) > 0.8:
            chosen.append(place)
        if len(chosen) == count:
            break
    return [_make_town(place, canvas.size, rng) for place in chosen]


def _make_town(place: NDArray[np.float64], size: int, rng: np.random.Generator) -> Town:
    radius = min(float(rng.uniform(300, 560)), size * 0.36)
    small = size < 1000
    half_u, half_v = (54.0, 37.0) if small else (float(rng.uniform(55, 64)), float(rng.uniform(38, 44)))
    return Town(float(place[0]), float(place[1]), float(place[2]), radius, half_u, half_v)


def _paint_block(canvas: Canvas, site: Site, use: str, rng: np.random.Generator) -> None:
    free = canvas.free_share(site.part(0, 0, site.half_u - 2, site.half_v - 2), 5.0)
    if free < 0.86:
        return
    if free < 0.97 and use in ("sports pitch", "warehouses", "parking lot"):
        use = "houses"
    stage = canvas.stage(site)
    PAINTERS[use](stage, rng)
    if use != "park":
        canvas.name(BY_NAME[use].id, site.polygon(), TALL.get(use, 0.0))
    ring: Stage = canvas.stage(Site(site.x, site.y, site.angle, site.half_u + STREET, site.half_v + STREET))
    lane = np.maximum(np.abs(ring.u) - site.half_u, np.abs(ring.v) - site.half_v)
    ring.cover(ring.open, BY_NAME["road"].id, "asphalt")
    ring.paint((lane < 1.0) | (lane > STREET - 1.0), "paving")
