"""Photos to a map in one command: a region, pairs, training without text, zero-shot evaluation, a report.

Every step is what a user would do with data of their own; the region stands in for it. Training is short, so the
numbers of the model trained here are shown beside those of the shipped one. Each step keeps what it finished: a demo
that was stopped goes on where it was.
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from geograft.demo.sections import Chapter, report_sections
from geograft.errors import BadSetting
from geograft.evaluate.pictures import side_by_side
from geograft.evaluate.report import write_report
from geograft.evaluate.results import CardResult, provenance
from geograft.evaluate.world1 import World1Settings, evaluate_world1
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.sources.photos import read_photos
from geograft.sources.scenes import read_scenes
from geograft.tables import atomic
from geograft.training.trainer import TrainingSettings, train
from geograft.world.region import WORLD_1, RegionSettings, make_region

logger = logging.getLogger(__name__)

SENSOR = "world-1m"
_FIRST_TEST = WORLD_1["test"][0]
_TEST_PHOTOS = 300  # to search with; no training sees them


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is.

    Attributes:
        seed: of the region that is trained on, the pairs and the training.
        size: metres a side of the region that is trained on.
        photos: its photos.
        test_seed: the region that is evaluated on; never one that is trained on.
        test_size: its side in metres.
        epochs: passes over the pairs, for each of the two levels.
        model: the shipped model that the one trained here is compared with.
    """

    seed: int = 1
    size: int = 2000
    photos: int = 3000
    test_seed: int = _FIRST_TEST
    test_size: int = 1600
    epochs: int = 16
    model: str = "mini"

    def __post_init__(self) -> None:
        """Refuse a test region that was trained on.

        Raises:
            BadSetting: the seeds are the same, or the test seed is one of World-1's training or teacher regions.
        """
        if self.test_seed in {self.seed, *WORLD_1["train"], *WORLD_1["teacher"]}:
            raise BadSetting(f"test_seed {self.test_seed} is trained on: choose one of {WORLD_1['test']} or above 400")


@dataclass(frozen=True)
class DemoSummary:
    """What the demo made.

    Attributes:
        report: the HTML file.
        model: folder of the model trained here.
        seconds: how long each step took; steps that were done before take about none.
        results: the evaluation's numbers, as the card's JSON.
    """

    report: Path
    model: Path
    seconds: dict[str, float]
    results: list[dict[str, object]]

    def lines(self) -> list[str]:
        """What to read and what to try next."""
        folder = self.report.parent
        return [
            f"report   {self.report.resolve()}",
            f"model    {self.model.resolve()}",
            f"work     {sum(self.seconds.values()):.0f} s",
            "",
            "Try next:",
            *(f"  {command}" for command in next_commands(folder)),
        ]


def run_demo(out: Path, *, settings: DemoSettings | None = None) -> DemoSummary:
    """Run the demo and write its report.

    Args:
        out: folder for everything that it makes.
        settings: how large it is.

    Returns:
        Where the report is, and how long each step took.

    Raises:
        OutputExists: the folder holds a demo of other settings.
        DiskFull: the disk filled up.
    """
    chosen = settings or DemoSettings()
    clock = _Clock()
    out.mkdir(parents=True, exist_ok=True)
    with clock.step("regions"):
        region, test = _regions(out, chosen)
    with clock.step("pairs"):
        pairs = _pairs(out, region, chosen)
    with clock.step("training"):
        model = _model(out, pairs, chosen)
    with clock.step("evaluation"):
        results = _evaluate(out, model, chosen)
    with clock.step("report"):
        chapter = Chapter(region, test, pairs, model, chosen.model, results, tuple(next_commands(out)))
        report = _write(out, chapter, clock.seconds)
        _save_picture(out / "map.jpg", side_by_side(list(chapter.map_pictures.values())))
    rows = [row for result in results.values() for row in result.to_dict()["results"]]
    return DemoSummary(report, model, {name: round(value, 1) for name, value in clock.seconds.items()}, rows)


def next_commands(out: Path) -> list[str]:
    """Three commands that go on from here."""
    scene = next(iter(sorted((out / "regions").glob(f"*/scenes/{SENSOR}_*.tif"))), Path("scene.tif"))
    return [
        f'geograft search {scene} "a harbour with boats" --sheet hits.png',
        f'geograft segment {scene} --classes "water, lake, river; forest, trees; houses; solar panels" -o map.tif',
        "geograft evaluate world-1 --out world-1.json",
    ]


class _Clock:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._began = "", 0.0

    def step(self, name: str) -> "_Clock":
        self._name = name
        return self

    def __enter__(self) -> None:
        logger.info("demo: %s", self._name)
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = time.monotonic() - self._began


def _regions(out: Path, chosen: DemoSettings) -> tuple[Path, Path]:
    """The region that is trained on, and the one that is evaluated on, where the evaluation looks for it."""
    region, test = out / "region", out / "regions" / f"{chosen.test_seed}-{chosen.test_size}m"
    from_above = RegionSettings(chosen.size, chosen.photos, sensors=(SENSOR,))
    make_region(region, seed=chosen.seed, settings=from_above)
    make_region(test, seed=chosen.test_seed, settings=replace(from_above, size=chosen.test_size, photos=_TEST_PHOTOS))
    return region, test


def _pairs(out: Path, region: Path, chosen: DemoSettings) -> Path:
    tables = out / "photos.parquet", out / "scenes.parquet"
    read_photos(region / "photos.csv", tables[0])
    read_scenes(region / "scenes", tables[1], sensor=SENSOR)
    settings = PairSettings(seed=chosen.seed, fractions=(0.85, 0.15, 0.0), block_m=256.0, indoor_teacher="mini")
    make_pairs(*tables, out / "pairs", settings=settings)
    return out / "pairs"


def _model(out: Path, pairs: Path, chosen: DemoSettings) -> Path:
    settings = TrainingSettings(level="both", teacher="mini", epochs=chosen.epochs, seed=chosen.seed)
    train(pairs, out / "model", settings=settings)
    return out / "model"


def _evaluate(out: Path, model: Path, chosen: DemoSettings) -> dict[str, CardResult]:
    """The card `world-1` on the demo's test region, for the model trained here and for the shipped one."""
    here = World1Settings(str(model), "", "", seeds=(chosen.test_seed,), size=chosen.test_size)
    shipped = replace(here, model_1m=chosen.model, oracle_1m="shipped")
    results = {"trained here": evaluate_world1(out, settings=here), "shipped": evaluate_world1(out, settings=shipped)}
    for name, result in results.items():
        result.write(out / f"results-{name.replace(' ', '-')}.json")
    return results


def _save_picture(path: Path, picture: Image.Image) -> None:
    with atomic(path) as temporary:
        picture.save(temporary, quality=88)


def _write(out: Path, chapter: Chapter, seconds: dict[str, float]) -> Path:
    made = provenance(models={}, settings={})
    took = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    return write_report(
        out / "report.html",
        "From photos to a map, without one word of text",
        report_sections(chapter),
        lead=(
            "A satellite encoder learnt what places mean from geotagged photos alone. Below it answers words about a "
            "simulated region that it never saw."
        ),
        footer=f"geograft {made.version}, {made.machine}. Took: {took}. Everything shown is simulated.",
    )
