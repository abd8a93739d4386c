"""The growing land: whoever claims ground first keeps it, and paints it in a rotated frame of its own."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon

from geograft.world.materials import INDEX
from geograft.world.noise import CELL, upsample

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Site:
    """A rotated rectangle: centre (x east, y south, in metres from the top-left corner), angle, half lengths.

    The u axis points `angle` radians from east towards south; v is 90° further, towards south at angle 0.
    """

    x: float
    y: float
    angle: float
    half_u: float
    half_v: float

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Pixel coordinates (x, y) of a point of the site's frame."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return float(self.x + u * cos - v * sin), float(self.y + u * sin + v * cos)

    def part(self, u: float, v: float, half_u: float, half_v: float, turn: float = 0.0) -> "Site":
        """A rectangle inside this one, given in its frame."""
        x, y = self.at(u, v)
        return Site(x, y, self.angle + turn, half_u, half_v)

    def polygon(self) -> Polygon:
        """The outline in pixel coordinates; its corners run (-u, -v), (u, -v), (u, v), (-u, v)."""
        u, v = self.half_u, self.half_v
        return Polygon([self.at(-u, -v), self.at(u, -v), self.at(u, v), self.at(-u, v)])


@dataclass(frozen=True)
class Thing:
    """One object for the objects table, outlined in pixel coordinates."""

    class_id: int
    outline: Polygon
    height: float


@dataclass
class Canvas:
    """Rasters at 1 m that the generators fill, and the objects that they name.

    Attributes:
        size: metres, and pixels, a side.
        cover: class ids, (size, size) uint8, 0 where nothing has been decided.
        ground: elevation in metres, float32.
        height: height above ground in metres, float32.
        material: material numbers, uint8.
        free: True where nobody has claimed the pixel.
        things: the objects.
    """

    size: int
    ground: Floats
    cover: NDArray[np.uint8] = field(init=False)
    height: Floats = field(init=False)
    material: NDArray[np.uint8] = field(init=False)
    free: Mask = field(init=False)
    things: list[Thing] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with nothing decided."""
        shape = (self.size, self.size)
        self.cover = np.zeros(shape, np.uint8)
        self.height = np.zeros(shape, np.float32)
        self.material = np.zeros(shape, np.uint8)
        self.free = np.ones(shape, bool)

    def stage(self, site: Site, *, over: tuple[int, ...] = ()) -> "Stage":
        """The window around a site to paint on; classes named in `over` may be painted over as well."""
        return Stage(self, site, over)

    def free_share(self, site: Site, spacing: float = 8.0) -> float:
        """Share of a site's sample points that are inside the region and free."""
        u = np.linspace(-site.half_u, site.half_u, max(3, int(2 * site.half_u / spacing)))
        v = np.linspace(-site.half_v, site.half_v, max(3, int(2 * site.half_v / spacing)))
        uu, vv = np.meshgrid(u, v)
        cos, sin = np.cos(site.angle), np.sin(site.angle)
        cols = np.floor(site.x + uu * cos - vv * sin).astype(int)
        rows = np.floor(site.y + uu * sin + vv * cos).astype(int)
        inside = (rows >= 0) & (cols >= 0) & (rows < self.size) & (cols < self.size)
        return float((inside & self.free[rows.clip(0, self.size - 1), cols.clip(0, self.size - 1)]).mean())

    def fill(self, mask: Mask, cover: int, material: str, height: float = 0.0) -> None:
        """Claim all pixels of a region-wide mask."""
        self.cover[mask] = cover
        self.material[mask] = INDEX[material]
        self.height[mask] = height
        self.free[mask] = False

    def name(self, class_id: int, outline: Polygon, height: float = 0.0) -> None:
        """Enter an object into the table."""
        self.things.append(Thing(class_id, outline, height))

    def raise_to(self, coarse: Floats) -> Floats:
        """A coarse grid at 1 m."""
        return upsample(coarse, self.size)


class Frame:
    """The pixels of a window around a site, with the coordinates of the site's own frame.

    Attributes:
        window: rows and columns of the window in the region.
        u, v: metres along the site's axes, float32, one value a pixel of the window.
    """

    def __init__(self, site: Site, size: int) -> None:
        self.site = site
        cos, sin = np.float32(np.cos(site.angle)), np.float32(np.sin(site.angle))
        reach_x = abs(site.half_u * cos) + abs(site.half_v * sin) + 1
        reach_y = abs(site.half_u * sin) + abs(site.half_v * cos) + 1
        rows = slice(*np.clip([int(site.y - reach_y), int(site.y + reach_y) + 1], 0, size).tolist())
        cols = slice(*np.clip([int(site.x - reach_x), int(site.x + reach_x) + 1], 0, size).tolist())
        x = (np.arange(cols.start, cols.stop, dtype=np.float32) + np.float32(0.5 - site.x))[None, :]
        y = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - site.y))[:, None]
        self.window = (rows, cols)
        self.u: Floats = x * cos + y * sin
        self.v: Floats = y * cos - x * sin

    def box(self, u: float, v: float, half_u: float, half_v: float) -> Mask:
        """Pixels of a rectangle in the site's frame."""
        return np.asarray((np.abs(self.u - u) <= half_u) & (np.abs(self.v - v) <= half_v))

    def disc(self, u: float, v: float, radius: float) -> Mask:
        """Pixels of a circle in the site's frame."""
        return (self.u - u) ** 2 + (self.v - v) ** 2 <= radius**2


class Stage(Frame):
    """A frame to paint on.

    Attributes:
        open: pixels inside the site that were free when the stage was set; nothing else is ever painted.
    """

    def __init__(self, canvas: Canvas, site: Site, over: tuple[int, ...] = ()) -> None:
        super().__init__(site, canvas.size)
        self.canvas = canvas
        free = canvas.free[self.window].copy()
        if over:
            free |= np.isin(canvas.cover[self.window], over)
        self.open: Mask = free & self.box(0, 0, site.half_u, site.half_v)

    def cover(self, mask: Mask, class_id: int, material: str, height: float = 0.0) -> None:
        """Claim open pixels for a class and give them a first look."""
        mask = mask & self.open
        self.canvas.cover[self.window][mask] = class_id
        self.canvas.free[self.window][mask] = False
        self.canvas.material[self.window][mask] = INDEX[material]
        self.canvas.height[self.window][mask] = height

    def paint(self, mask: Mask, material: str | NDArray[np.uint8], height: float | Floats | None = None) -> None:
        """Change material, and height if given, of open pixels; arrays have the window's shape."""
        mask = mask & self.open
        number = INDEX[material] if isinstance(material, str) else material[mask]
        self.canvas.material[self.window][mask] = number
        if height is not None:
            self.canvas.height[self.window][mask] = height[mask] if isinstance(height, np.ndarray) else height

    def random(self, rng: np.random.Generator) -> Floats:
        """White noise of the window's shape, uniform in 0..1."""
        return rng.random(self.u.shape, np.float32)


def find_site(
    canvas: Canvas,
    rng: np.random.Generator,
    half: tuple[float, float],
    *,
    places: NDArray[np.float64] | None = None,
    tries: int = 300,
    least: float = 0.985,
) -> Site | None:
    """A free rotated rectangle, or None when `tries` drawn positions were all taken.

    Args:
        canvas: what has been claimed so far.
        rng: where positions are drawn.
        half: half lengths in metres.
        places: rows (x, y, angle) beside which to look first, as along roads; anywhere otherwise.
        tries: how often to draw.
        least: the share of the rectangle that must be free.
    """
    for attempt in range(tries):
        site = _draw_site(canvas.size, rng, half, places if attempt < 0.7 * tries else None)
        if canvas.free_share(site) >= least:
            return site
    return None


def _draw_site(
    size: int, rng: np.random.Generator, half: tuple[float, float], places: NDArray[np.float64] | None
) -> Site:
    if places is None or not len(places):
        x, y = rng.uniform(0, size, 2)
        return Site(x, y, rng.uniform(0, np.pi), *half)
    x, y, angle = places[rng.integers(len(places))]
    side = rng.choice((-1.0, 1.0)) * (half[1] + rng.uniform(9, 26))
    return Site(x - side * np.sin(angle), y + side * np.cos(angle), angle, *half)


def coarse_free(canvas: Canvas) -> Mask:
    """The free mask at every CELL metres."""
    return canvas.free[::CELL, ::CELL]
