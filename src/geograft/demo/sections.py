"""The sections of the demo's report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import Image

from geograft.evaluate.pictures import boxed, class_picture, enlarge, loss_curve, with_points
from geograft.evaluate.regions import clearest_scene, read_truth
from geograft.evaluate.report import (
    Block,
    Code,
    Legend,
    Picture,
    Pictures,
    Plot,
    Section,
    Strip,
    Strips,
    Table,
    rows_with_best,
    svg_of,
)
from geograft.evaluate.results import METRIC_NAMES, CardResult
from geograft.models.checkpoints import load_model
from geograft.models.model import Model
from geograft.pairs.dataset import load_pairs
from geograft.raster import Scene, read
from geograft.tables import read_table
from geograft.tasks.embed import embed_table
from geograft.tasks.search import search
from geograft.tasks.segment import segment
from geograft.tasks.sheets import hit_picture
from geograft.training.log import read_log
from geograft.training.trainer import RUNS
from geograft.world.classes import CLASSES

QUERIES = (
    "a harbour with boats",
    "solar panels on a field",
    "trees, woodland",
    "a road next to houses",
    "football pitch",
    "rocky quarry",
    "sandy beach",
    "car park",
)
"""What the report searches for; "woodland", "rocky quarry" and "sandy beach" occur in no caption of the teacher."""

_SENSOR = "world-1m"
_METRICS = ("top1", "balanced", "map20", "map100", "miou", "pixel_accuracy")
_WINDOW_M = 640  # side of the map that is shown beside its truth


@dataclass(frozen=True)
class Chapter:
    """What the demo made, for its report to show.

    Attributes:
        region: the region trained on.
        test: the region evaluated on.
        pairs: folder of the pairs.
        model: folder of the model trained here.
        shipped: name of the shipped model, which answers the queries.
        results: evaluations by name, "trained here" and "shipped".
        commands: what to try next.
    """

    region: Path
    test: Path
    pairs: Path
    model: Path
    shipped: str
    results: dict[str, CardResult]
    commands: tuple[str, ...]

    @cached_property
    def answering(self) -> Model:
        """The model that answers the queries."""
        return load_model(self.shipped)

    @cached_property
    def scene(self) -> Scene:
        """The test region from above."""
        return clearest_scene(self.test, _SENSOR)

    @cached_property
    def chips(self) -> gpd.GeoDataFrame:
        """The embedded chips of the test region."""
        return embed_table(self.scene, model=self.answering)

    @cached_property
    def map_pictures(self) -> dict[str, Image.Image]:
        """The liveliest part of the test region: from above, as mapped from words, and its truth; by caption."""
        truth = read_truth(self.test)
        box = _liveliest(truth, _WINDOW_M)
        classes = [", ".join((one.name, *(word for word in one.words if word != one.name))) for one in CLASSES]
        labels = segment(self.scene, classes, model=self.answering).labels
        image = self.scene.sensor.rgb(read(self.scene, self.scene.geobox[box]).pixels)
        colours = {one.id: one.colour for one in CLASSES}
        return {
            f"{_WINDOW_M} m of the test region": Image.fromarray(image),
            "the map, from words": class_picture(labels[box], colours),
            "the truth": class_picture(truth[box], colours),
        }


def report_sections(chapter: Chapter) -> list[Section]:
    """Everything that the report shows, in order."""
    return [
        _region(chapter),
        _pairs(chapter),
        _training(chapter),
        _numbers(chapter),
        _queries(chapter),
        _map(chapter),
        _photos(chapter),
        Section("Try next", [Code("\n".join(chapter.commands))]),
    ]


def _region(chapter: Chapter) -> Section:
    scene = clearest_scene(chapter.region, _SENSOR)
    photos = read_table(chapter.pairs / "photos.parquet")
    overview, times = _overview(scene)
    places = photos.to_crs(scene.geobox.crs).geometry
    rows, cols = _pixels(scene.geobox, places.x.to_numpy(), places.y.to_numpy())
    above = with_points(overview, np.stack([rows, cols], 1) / times, radius=1.6)
    strip = [Picture(_open(uri), small=True, alt="photo") for uri in _some(photos["uri"], 7)]
    side = round(scene.gsd * scene.geobox.shape[0])
    return Section(
        "A region with its photos",
        [
            Pictures([Picture(above, f"{side} m of simulated land at 1 m; a dot is a photo")], width=640),
            Strips([Strip("Photos from the ground", strip)]),
        ],
        text=(
            f"{len(photos):,} geotagged photos. Their positions carry the error of phones: 8 m as a rule, more than "
            "30 m for one in ten. Doubles, broken geotags and unfree licences were left out, and so were pictures that "
            "the teacher's own words call indoors."
        ),
    )


def _pairs(chapter: Chapter) -> Section:
    pairs = load_pairs(chapter.pairs)
    uris = read_table(chapter.pairs / "photos.parquet").set_index("photo_id")["uri"]
    counts = np.bincount(pairs.owner, minlength=len(pairs))
    strips = []
    for chip in _some(np.flatnonzero(counts >= min(4, counts.max())), 5):
        batch = pairs.batch(np.array([chip]))
        shown = with_points(pairs.sensor.rgb(pairs.chips[chip]), batch.positions, times=4, radius=5)
        photos = [Picture(_open(uris[photo]), small=True, alt="photo") for photo in pairs.photo_ids[batch.photos[:6]]]
        chip_picture = Picture(shown, "chip, photos as dots", small=True)
        strips.append(Strip(f"{len(batch.photos)} photos in one chip", [chip_picture, *photos]))
    return Section(
        "Pairs: a chip and the photos taken inside it",
        [Strips(strips)],
        text=f"{len(pairs):,} chips own {len(pairs.photo_ids):,} photos. Training sees these pairs and no text.",
    )


def _training(chapter: Chapter) -> Section:
    runs = {f"{level} level": _log(chapter.model, level) for level in ("image", "pixel")}
    curve = svg_of(loss_curve({name: log for name, log in runs.items() if log}))
    return Section(
        "Training",
        [Plot(curve, "Training and validation loss by epoch, image level and pixel level")],
        text=(
            "Each chip is pulled towards the teacher's embeddings of its photos (image level), and each photo's place "
            "in the chip towards that photo (pixel level). A short schedule, for the demo's sake."
        ),
    )


def _numbers(chapter: Chapter) -> Section:
    rows: list[tuple[str, Sequence[float | None]]] = []
    here, shipped = chapter.results["trained here"], chapter.results["shipped"]
    names = [
        ("teacher on the chip itself", shipped, "teacher"),
        ("GRAFT image, trained just now", here, "graft-image"),
        ("GRAFT pixel, trained just now", here, "graft-pixel"),
        ("GRAFT image, shipped", shipped, "graft-image"),
        ("GRAFT pixel, shipped", shipped, "graft-pixel"),
    ]
    rows += [(label, _values(result, method)) for label, result, method in names]
    table = rows_with_best(rows)
    oracle = rows_with_best([("supervised oracle (sees the truth)", _values(shipped, "oracle"))])
    plain = [[type(cell)(cell.text) for cell in row] for row in oracle]
    return Section(
        "Places that no training saw, in per cent",
        [
            Table(["method", *(METRIC_NAMES[name] for name in _METRICS)], table + plain),
        ],
        text=(
            "Zero-shot on another region: 22 classes by their words alone. The first row is the photo teacher applied "
            "to chips directly; the last is a network of the same size trained on the truth, the ceiling."
        ),
    )


def _queries(chapter: Chapter) -> Section:
    strips = []
    for query in QUERIES:
        hits = search(chapter.chips, query, model=chapter.answering, k=7)
        shown = [
            Picture(enlarge(hit_picture(row), 2), f"{row['score']:.2f}", alt=f"hit {row['rank']}", small=True)
            for _, row in hits.iterrows()
        ]
        strips.append(Strip(f"“{query}”", shown))
    return Section(
        "Search by words",
        [Strips(strips)],
        text=(
            "The best chips of the test region for each query, with their cosine, by the shipped model. Some words, "
            "such as woodland and rocky quarry, occur in no caption that taught the photo teacher."
        ),
    )


def _map(chapter: Chapter) -> Section:
    blocks: list[Block] = [
        Pictures([Picture(image, caption) for caption, image in chapter.map_pictures.items()]),
        Legend([(one.name, one.colour) for one in CLASSES]),
    ]
    return Section(
        "A map from words", blocks, text="Pixel level, shipped model; the 22 class names and their synonyms."
    )


def _photos(chapter: Chapter) -> Section:
    photos = pd.read_parquet(chapter.test / "truth" / "photos.parquet")
    overview, times = _overview(chapter.scene)
    strips = []
    for row in _clean(photos, 10):
        path = chapter.test / "photos" / f"{row['photo_id']}.jpg"
        hits = search(chapter.chips, path, model=chapter.answering, k=5)
        best = [
            Picture(enlarge(hit_picture(hit), 2), f"{hit['score']:.2f}", alt=f"place {hit['rank']}", small=True)
            for _, hit in hits.iterrows()
        ]
        where = _around(chapter.scene, row["x"], row["y"])
        strips.append(
            Strip(
                row["subject"],
                [
                    Picture(_open(str(path)), "the photo", small=True),
                    Picture(where, "where it stands", small=True),
                    *best,
                ],
            )
        )
    footprints = _footprints(chapter, overview, times, photos)
    return Section(
        "Photos find places like theirs",
        [Strips(strips), *footprints],
        text=(
            "Ten photos of the test region. Beside each the place where it was taken (never told to the search), then "
            "the places that look, from above, most like what it shows."
        ),
    )


def _footprints(
    chapter: Chapter, overview: NDArray[np.uint8], times: float, photos: pd.DataFrame
) -> Iterator[Pictures]:
    """The region with the ten best places for the first photo outlined."""
    row = next(iter(_clean(photos, 1)), None)
    if row is None:
        return
    path = chapter.test / "photos" / f"{row['photo_id']}.jpg"
    hits = search(chapter.chips, path, model=chapter.answering, k=10)
    image = Image.fromarray(overview)
    for _, hit in hits.iterrows():
        right, bottom = hit["left"] + hit["gsd"] * hit["size"], hit["top"] - hit["gsd"] * hit["size"]
        rows, cols = _pixels(chapter.scene.geobox, np.array([hit["left"], right]), np.array([hit["top"], bottom]))
        image = boxed(image, (cols[0] / times, rows[0] / times, cols[1] / times, rows[1] / times))
    yield Pictures([Picture(image, f"the ten best places for the first photo ({row['subject']})")], width=640)


# --- small helpers ----------------------------------------------------------------------------------------


def _values(result: CardResult, method: str) -> list[float | None]:
    values = [result.value(method, metric, sensor=_SENSOR) for metric in _METRICS]
    return [None if np.isnan(value) else value for value in values]


def _log(model: Path, level: str) -> list[dict[str, Any]]:
    """One record an epoch of a level's training log."""
    return read_log(model / RUNS / level / "log.jsonl")


def _overview(scene: Scene, pixels: int = 1000) -> tuple[NDArray[np.uint8], float]:
    """The scene on at most `pixels` a side, and how many of its pixels one of these is."""
    times = max(scene.geobox.shape) / pixels
    box = scene.geobox.zoom_out(times) if times > 1 else scene.geobox
    return scene.sensor.rgb(read(scene, box).pixels), max(times, 1.0)


def _around(scene: Scene, x: float, y: float, *, side: int = 64) -> Image.Image:
    """The scene around a place in the region's pixels, enlarged, the place marked."""
    height, width = scene.geobox.shape
    top, left = (int(np.clip(v - side / 2, 0, length - side)) for v, length in ((y, height), (x, width)))
    rgb = scene.sensor.rgb(read(scene, scene.geobox[top : top + side, left : left + side]).pixels)
    return with_points(rgb, np.array([[y - top, x - left]]), times=2, radius=3)


def _pixels(geobox: GeoBox, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and columns of coordinates in a grid's CRS."""
    cols, rows = ~geobox.affine @ (x, y)
    return np.asarray(rows), np.asarray(cols)


def _liveliest(truth: NDArray[np.uint8], side: int) -> tuple[slice, slice]:
    """The window that shows most classes."""
    side = min(side, *truth.shape)
    steps = [np.unique(np.linspace(0, length - side, 9).astype(int)) for length in truth.shape]
    windows = [(slice(r, r + side), slice(c, c + side)) for r in steps[0] for c in steps[1]]
    return max(
        windows, key=lambda window: sum(np.bincount(truth[window].ravel(), minlength=23)[1:] > side * side / 200)
    )


def _clean(photos: pd.DataFrame, count: int) -> list[Any]:
    """Photos without faults, of subjects as different as there are."""
    good = photos[photos["dirt"] == ""]
    return [
        row
        for _, row in good.groupby("subject", sort=True).head(1).sample(frac=1, random_state=3).head(count).iterrows()
    ]


def _some(values: Any, count: int) -> list[Any]:
    """Up to `count` values, spread evenly."""
    rows = np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)
    return [np.asarray(values)[row] for row in rows]


def _open(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
