"""World-1: zero-shot classification, search and maps of simulated regions that no training saw.

Protocol and definitions are those of `cards/world-1.yaml`. All methods see the same chips and the same pixels.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.evaluate import metrics
from geograft.evaluate.cards import load_card
from geograft.evaluate.diagnosis import Diagnosis, diagnose
from geograft.evaluate.methods import ByPhrasing, Method, graft_method, oracle_method, teacher_method
from geograft.evaluate.regions import CLASS_COUNT, RegionView, batches, load_region, region_size
from geograft.evaluate.results import CardResult, ClassResult, Result, provenance
from geograft.models.checkpoints import load_model
from geograft.models.model import Model
from geograft.models.numerics import weights_digest
from geograft.models.teacher import load_teacher
from geograft.tables import track
from geograft.tasks.queries import ClassQuery, ClassVectors, TextEncoder, encode_classes
from geograft.training.oracle import load_oracle, shipped_oracle
from geograft.world.classes import CLASSES, HELD_OUT_TEMPLATES, SEEN_TEMPLATES
from geograft.world.region import SUMMER, WORLD_1, RegionSettings, make_region

logger = logging.getLogger(__name__)

CARD = "world-1"
SHIPPED = "shipped"
_BATCH = 128
_FEW = 40


@dataclass(frozen=True)
class World1Settings:
    """What is evaluated, and where.

    Attributes:
        model_1m: model for the 1 m sensor, a name or folder; empty to leave the sensor out.
        model_10m: the same for the 10 m sensor.
        oracle_1m: supervised oracle for the 1 m sensor, a folder or "shipped"; empty to leave it out.
        oracle_10m: the same for the 10 m sensor.
        teacher: the teacher that is applied directly; the model's own if empty.
        seeds: the regions; the card's if empty.
        size: side of the regions in metres; the card's if 0.
        chips_per_class: most chips of a class in a region; the card's if 0.
    """

    model_1m: str = "mini"
    model_10m: str = "mini-10m"
    oracle_1m: str = SHIPPED
    oracle_10m: str = SHIPPED
    teacher: str = ""
    seeds: tuple[int, ...] = ()
    size: int = 0
    chips_per_class: int = 0


def evaluate_world1(
    work: Path, *, settings: World1Settings | None = None, models: Mapping[str, Model] | None = None
) -> CardResult:
    """Every number of the card `world-1`, for all its methods and for seen and held-out phrasings.

    Args:
        work: folder where test regions are made, or found from an earlier run.
        settings: models, oracles and regions.
        models: models in memory, by sensor, instead of those that the settings name.

    Returns:
        The results; those of the oracle, which reads no words, stand under "seen".

    Raises:
        BadSetting: neither sensor has a model.
        UnknownModel: a model, teacher or oracle does not exist.
    """
    chosen = _complete(settings or World1Settings())
    rows: list[Result] = []
    classes: list[ClassResult] = []
    fingerprints: dict[str, str] = {}
    for sensor, name, oracle in _sensors(chosen):
        model = models[sensor] if models and sensor in models else load_model(name)
        methods = _methods(model, chosen, oracle, sensor, fingerprints)
        for region in _regions(work, sensor, model.chip_size, chosen):
            for method in methods:
                some, by_class = evaluate_method(method, region)
                rows += some
                classes += by_class
    made = provenance(models=fingerprints, settings=asdict(chosen))
    return CardResult(CARD, tuple(rows), tuple(classes), made)


def diagnose_world1(work: Path, *, settings: World1Settings | None = None) -> dict[str, Diagnosis]:
    """Where the maps of World-1 lose, by sensor: words against a linear probe of the same patches and the oracle.

    The probe is fitted on the truth of the validation region.

    Args:
        work: folder where regions are made, or found from an earlier run.
        settings: models, oracles and regions; only models with a pixel level are diagnosed.

    Raises:
        BadSetting: no sensor has a model with a pixel level.
    """
    chosen = _complete(settings or World1Settings())
    probed = replace(chosen, seeds=WORLD_1["validation"])
    found: dict[str, Diagnosis] = {}
    for sensor, name, oracle in _sensors(chosen):
        model = load_model(name)
        if "pixel" not in model.levels:
            continue
        found[sensor] = diagnose(
            model,
            regions=list(_regions(work, sensor, model.chip_size, chosen)),
            probe_regions=list(_regions(work, sensor, model.chip_size, probed)),
            words=class_words(model)["seen"],
            oracle=load_oracle(shipped_oracle(sensor) if oracle == SHIPPED else Path(oracle)) if oracle else None,
        )
    if not found:
        raise BadSetting("a diagnosis reads patches: name a model with a pixel level")
    return found


def evaluate_method(method: Method, region: RegionView) -> tuple[list[Result], list[ClassResult]]:
    """All numbers of one method in one region: of chips, then of maps."""
    about = f"{method.name}, {region.sensor}, region {region.seed}"
    rows: list[Result] = []
    classes: list[ClassResult] = []
    labels = region.labels[region.picked]
    for phrasing, scores in _chip_scores(method, region, about).items():
        book = _Book(method.name, region, phrasing)
        rows += book.chip_results(labels, scores)
        classes += book.chip_classes(labels, scores)
    for phrasing, counts in _map_counts(method, region, about).items():
        book = _Book(method.name, region, phrasing)
        rows += book.map_results(counts)
        classes += book.map_classes(counts)
    return rows, classes


def class_words(encoder: TextEncoder) -> dict[str, ClassVectors]:
    """The words of all classes in seen and in held-out phrasings, encoded."""
    seen = [ClassQuery(one.name, one.words) for one in CLASSES]
    held_out = [ClassQuery(one.name, one.held_out) for one in CLASSES]
    return {
        "seen": encode_classes(encoder, seen, templates=SEEN_TEMPLATES),
        "held-out": encode_classes(encoder, held_out, templates=HELD_OUT_TEMPLATES),
    }


def find_region(work: Path, seed: int, size: int) -> Path:
    """The folder of a region: one of that seed and size below `work/regions`, else a lean one made in `work/lean`.

    Lean regions hold one date and few photos, since evaluation looks at none.
    """
    for name in (f"{seed}-{size}m", f"test-{seed}", str(seed)):
        whole = work / "regions" / name
        if (whole / "region.json").is_file() and region_size(whole) == size:
            return whole
    lean = RegionSettings(size=size, photos=_FEW, dates=(SUMMER,), cloudy_dates=())
    return make_region(work / "lean" / f"{seed}-{size}m", seed=seed, settings=lean).folder


@dataclass(frozen=True)
class _Book:
    """Turns scores into rows of results."""

    method: str
    region: RegionView
    phrasing: str

    def chip_results(self, labels: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Result]:
        counts = metrics.confusion(labels, scores.argmax(axis=1), classes=CLASS_COUNT)
        return [
            self._row("top1", metrics.accuracy(counts)),
            self._row("balanced", metrics.balanced_accuracy(counts)),
            self._row("map20", metrics.mean_average_precision(labels, scores, 20)),
            self._row("map100", metrics.mean_average_precision(labels, scores, 100)),
        ]

    def map_results(self, counts: NDArray[np.int64]) -> list[Result]:
        return [
            self._row("miou", metrics.mean_iou(counts)),
            self._row("pixel_accuracy", metrics.accuracy(counts)),
        ]

    def chip_classes(self, labels: NDArray[np.int64], scores: NDArray[np.float32]) -> list[ClassResult]:
        counts = metrics.confusion(labels, scores.argmax(axis=1), classes=CLASS_COUNT)
        precision = metrics.class_average_precision(labels, scores, 100)
        totals = counts.sum(axis=1)
        return [
            *self._class_rows("recall", metrics.class_recall(counts), totals),
            *self._class_rows("ap100", precision, totals),
        ]

    def map_classes(self, counts: NDArray[np.int64]) -> list[ClassResult]:
        return self._class_rows("iou", metrics.class_iou(counts), counts.sum(axis=1))

    def _row(self, metric: str, value: float) -> Result:
        return Result(self.method, self.region.sensor, metric, value, self.region.seed, self.phrasing)

    def _class_rows(self, metric: str, values: NDArray[np.float64], totals: NDArray[np.int64]) -> list[ClassResult]:
        return [
            ClassResult(**asdict(self._row(metric, float(value))), label=one.name, count=int(total))
            for one, value, total in zip(CLASSES, values, totals, strict=True)
            if total
        ]


def _chip_scores(method: Method, region: RegionView, about: str) -> ByPhrasing:
    """Scores of the picked chips, phrasing to (N, K)."""
    parts = [
        method.chip_scores(region.chips(some)) for some in track(batches(region.picked, _BATCH), f"chips: {about}")
    ]
    return {phrasing: np.concatenate([part[phrasing] for part in parts]) for phrasing in parts[0]}


def _map_counts(method: Method, region: RegionView, about: str) -> Mapping[str, NDArray[np.int64]]:
    """Confusion of all pixels of the chips side by side, phrasing to (K, K + 1)."""
    totals: dict[str, NDArray[np.int64]] = {}
    for some in track(batches(region.mapped, _BATCH), f"maps: {about}"):
        truth = region.truths(some).astype(np.int64) - 1
        for phrasing, guess in method.maps(region.chips(some)).items():
            totals[phrasing] = totals.get(phrasing, 0) + metrics.confusion(truth, guess, classes=CLASS_COUNT)
    return totals


def _methods(
    model: Model, settings: World1Settings, oracle: str, sensor: str, fingerprints: dict[str, str]
) -> Sequence[Method]:
    """What is compared for one sensor; notes the fingerprints."""
    words = class_words(model)
    teacher = load_teacher(settings.teacher) if settings.teacher else model.teacher
    own_words = class_words(teacher) if settings.teacher else words
    fingerprints |= {f"model {sensor}": model.fingerprint, "teacher": teacher.fingerprint}
    methods: list[Method] = [teacher_method(teacher, model.sensor, own_words)]
    methods += [graft_method(model, level, words) for level in model.levels]
    if oracle:
        methods.append(_oracle(oracle, sensor, fingerprints))
    return methods


def _oracle(folder: str, sensor: str, fingerprints: dict[str, str]) -> Method:
    oracle = load_oracle(shipped_oracle(sensor) if folder == SHIPPED else Path(folder))
    fingerprints[f"oracle {sensor}"] = weights_digest(oracle.body.state_dict(), (sensor,))
    return oracle_method(oracle)


def _regions(work: Path, sensor: str, size: int, settings: World1Settings) -> Iterator[RegionView]:
    stride = round(size * load_card(CARD).protocol["sensors"][sensor]["stride"])
    for seed in settings.seeds:
        folder = find_region(work, seed, settings.size)
        yield load_region(folder, sensor, chip=(size, stride), per_class=settings.chips_per_class)


def _sensors(settings: World1Settings) -> list[tuple[str, str, str]]:
    """Sensor, model and oracle of each sensor that has a model."""
    both = [("world-1m", settings.model_1m, settings.oracle_1m), ("world-10m", settings.model_10m, settings.oracle_10m)]
    return [row for row in both if row[1]]


def _card_size() -> int:
    return int(load_card(CARD).protocol["region_size"])


def _complete(settings: World1Settings) -> World1Settings:
    """Settings with the card's values where none were given."""
    if not _sensors(settings):
        raise BadSetting("name a model for at least one sensor: model_1m or model_10m")
    protocol = load_card(CARD).protocol
    given = asdict(settings)
    given["seeds"] = settings.seeds or tuple(protocol["seeds"])
    given["size"] = settings.size or int(protocol["region_size"])
    given["chips_per_class"] = settings.chips_per_class or int(protocol["chips_per_class"])
    return World1Settings(**given)
