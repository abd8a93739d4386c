"""The land of a simulated region: what covers each square metre, how high it is, what it is made of.

Regions of different seeds lie at least 40 km apart in UTM zones 31 to 33 north (`place_of`), between 43.3° and
52.8° north, so that no photo of one region can fall into another. Nothing of the real surface there is used.
"""

from dataclasses import dataclass

import numpy as np
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import Affine
from shapely import box
from shapely.affinity import affine_transform

from geograft.errors import BadSetting
from geograft.world.canvas import Canvas
from geograft.world.classes import BY_ID
from geograft.world.noise import upsample
from geograft.world.parcels import paint_open_land
from geograft.world.relief import level_water, make_relief, paint_rivers, paint_water
from geograft.world.settlement import paint_settlements
from geograft.world.traffic import paint_airports, paint_railways, paint_roads
from geograft.world.works import paint_harbours, paint_works

Floats = NDArray[np.float32]

SMALLEST = 256
"""The smallest region, metres."""


@dataclass(frozen=True)
class Land:
    """One region's truth at 1 m; row 0 is the northern edge.

    Attributes:
        seed: the seed that made it.
        size: metres, and pixels, a side.
        epsg: code of its UTM zone.
        left: easting of the western edge, metres, a multiple of 10.
        top: northing of the northern edge, metres, a multiple of 10.
        cover: class ids (geograft.world.classes), (size, size) uint8, never 0.
        ground: bare elevation in metres, (size, size) float32; water surfaces are level.
        height: height of what stands on the ground in metres, (size, size) float32.
        material: numbers of geograft.world.materials.MATERIALS, (size, size) uint8.
        objects: object_id, class_id, class_name, height_m and outline in the region's CRS. Harbour, parking lot and
            runway outlines are rectangles whose corners run along their own axes (see `canvas.Site.polygon`).
    """

    seed: int
    size: int
    epsg: int
    left: float
    top: float
    cover: NDArray[np.uint8]
    ground: Floats
    height: Floats
    material: NDArray[np.uint8]
    objects: GeoDataFrame

    @property
    def geobox(self) -> GeoBox:
        """The grid of the rasters."""
        transform = Affine(1, 0, self.left, 0, -1, self.top)
        return GeoBox((self.size, self.size), transform, f"EPSG:{self.epsg}")

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle, degrees."""
        to_degrees = Transformer.from_crs(self.epsg, 4326, always_xy=True)
        lon, lat = to_degrees.transform(self.left + self.size / 2, self.top - self.size / 2)
        return float(lon), float(lat)


def place_of(seed: int) -> tuple[int, float, float]:
    """EPSG code, left and top of a seed's region: one of 504 slots of 50 km, and one of 25 places in it."""
    slot, turn = (seed * 187 + 41) % 504, (seed // 504) % 25
    zone, (row, column) = slot % 3, divmod(slot // 3, 8)
    left = 300_000 + 50_000 * column + 9_000 * (turn % 5)
    top = 4_810_000 + 50_000 * row + 9_000 * (turn // 5)
    return 32631 + zone, float(left), float(top)


def make_land(seed: int, size: int) -> Land:
    """The land of a region.

    Args:
        seed: any integer from 0; the same seed and size give the same land, byte for byte.
        size: metres a side, at least 256. From about 2,000 on nearly all classes occur, from 4,000 on all do.

    Raises:
        BadSetting: the seed is negative or the region too small.
    """
    if seed < 0 or size < SMALLEST:
        raise BadSetting(f"A region needs a seed from 0 and a size of at least {SMALLEST} m; got {seed} and {size}.")
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence([seed, 20]).spawn(10)]
    canvas = _build(size, streams)
    epsg, left, top = place_of(seed)
    objects = _objects(canvas, epsg, left, top)
    return Land(seed, size, epsg, left, top, canvas.cover, canvas.ground, canvas.height, canvas.material, objects)


def _build(size: int, streams: list[np.random.Generator]) -> Canvas:
    """Everything in the order in which it claims ground."""
    relief = make_relief(streams[0], size)
    canvas = Canvas(size, upsample(relief.elevation, size))
    paint_water(canvas, relief, streams[1])
    paint_harbours(canvas, relief, streams[2])
    paint_rivers(canvas, relief, streams[3])
    paint_airports(canvas, streams[4])
    network = paint_roads(canvas, relief, streams[5])
    paint_railways(canvas, relief, streams[6])
    paint_settlements(canvas, network, streams[7])
    paint_works(canvas, network, streams[8])
    paint_open_land(canvas, streams[9])
    level_water(canvas, relief.level)
    return canvas


def _objects(canvas: Canvas, epsg: int, left: float, top: float) -> GeoDataFrame:
    """The objects table, clipped to the region."""
    frame = box(0, 0, canvas.size, canvas.size)
    rows = []
    for thing in canvas.things:
        outline = thing.outline if frame.contains(thing.outline) else thing.outline.intersection(frame)
        if not outline.is_empty:
            moved = affine_transform(outline, [1, 0, 0, -1, left, top])
            rows.append((thing.class_id, BY_ID[thing.class_id].name, round(thing.height, 1), moved))
    table = GeoDataFrame(rows, columns=["class_id", "class_name", "height_m", "geometry"], crs=f"EPSG:{epsg}")
    table.insert(0, "object_id", np.arange(len(table), dtype=np.int64))
    return table
