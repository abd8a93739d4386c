"""Walks: real photos, real places, a rendered map; from a CSV and tiles to measured retrieval in one call.

The overhead side is map tiles, so nothing here says anything of imagery. It shows that the whole path works on real
input, and how much photos alone teach an encoder about ground that no training saw. Protocol and definitions are
those of `cards/walks.yaml`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import special, stats

from geograft.errors import BadSetting
from geograft.evaluate import map_colours
from geograft.evaluate.cards import load_card
from geograft.evaluate.metrics import average_precision_at
from geograft.evaluate.results import CardResult, ClassResult, Result, provenance
from geograft.models.checkpoints import load_model
from geograft.models.model import Model
from geograft.pairs.dataset import PairSet, load_pairs
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.sources.photos import PhotoSettings, read_photos
from geograft.sources.scenes import read_scenes
from geograft.tables import atomic
from geograft.tasks.queries import encode_phrasings, parse_classes
from geograft.tasks.sheets import picture_sheet
from geograft.training.objective import TEMPERATURE
from geograft.training.retrieval import photo_ranks
from geograft.training.trainer import TrainingSettings, train

logger = logging.getLogger(__name__)

CARD = "walks"
SENSOR = "map-tiles"
METHOD = "graft-image"
COSINE = "graft-image-cosine"
_HITS = 5
_SHARPNESS = 0.05


@dataclass(frozen=True)
class WalksSettings:
    """What is evaluated.

    Attributes:
        photos: CSV of the photos, with a column `walk`.
        tiles: folder of XYZ tiles, or a URL template.
        pairs: how photos and chips are paired and divided.
        training: how the encoder is trained; its seed is replaced by each of `seeds`.
        seeds: one training each.
        model: a trained model, name or folder, that is measured as it is; trained here if empty.
        sheet: picture of ten queries with their best chips, or "" for none; of the first seed.
    """

    photos: str = ""
    tiles: str = ""
    pairs: PairSettings = field(
        default_factory=lambda: PairSettings(split="place", fractions=(0.7, 0.1, 0.2), buffer_m=256.0)
    )
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            level="image", teacher="words", epochs=12, batch=128, jitter=0.0, alike=0.0
        )
    )
    seeds: tuple[int, ...] = (0,)
    model: str = ""
    sheet: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        if not self.seeds or self.training.level == "pixel":
            raise BadSetting("The card walks needs at least one seed, and the image level.")


# --- the whole path ---------------------------------------------------------------------------------------


def evaluate_walks(work: Path, *, settings: WalksSettings | None = None) -> CardResult:
    """Every number of the card `walks`: pairs are made and encoders trained where `work` does not hold them yet.

    Args:
        work: folder of everything that is made: photos.parquet, tiles.parquet, pairs/, model-<seed>/.
        settings: where photos and tiles are, and how to go about it.

    Returns:
        The results, one set a seed.

    Raises:
        BadSetting: photos or tiles are not named.
        MissingInput: they do not exist.
        OutputExists: `work` holds pairs or models of other settings.
        MissingExtra: the teacher's packages are not installed.
    """
    chosen = settings or WalksSettings()
    pairs = prepare_walks(work, settings=chosen)
    rows: list[Result] = []
    classes: list[ClassResult] = []
    fingerprints: dict[str, str] = {}
    for seed in chosen.seeds:
        model = _model(work, pairs, chosen, seed)
        fingerprints |= {f"{METHOD} {seed}": model.fingerprint, "teacher": model.teacher_fingerprint}
        view = view_walks(pairs, model)
        rows += retrieval_results(view, seed)
        classes += word_results(view, seed)
        if chosen.sheet and seed == chosen.seeds[0]:
            query_sheet(view, Path(chosen.sheet))
    rows += _means(classes)
    return CardResult(CARD, tuple(rows), tuple(classes), provenance(models=fingerprints, settings=asdict(chosen)))


def prepare_walks(work: Path, *, settings: WalksSettings) -> Path:
    """The folder of pairs of the walks' photos and map tiles, made where it is not there yet.

    Raises:
        BadSetting: photos or tiles are not named.
    """
    if not settings.photos or not settings.tiles:
        raise BadSetting(
            "The card walks needs `photos` (a CSV with a column walk) and `tiles` (a folder of XYZ tiles): name both "
            "in a YAML file and pass it with --config."
        )
    photos, tiles = Path(work) / "photos.parquet", Path(work) / "tiles.parquet"
    read_photos(settings.photos, photos, settings=PhotoSettings(place="walk"))
    read_scenes(settings.tiles, tiles, sensor=SENSOR)
    return make_pairs(photos, tiles, Path(work) / "pairs", settings=settings.pairs).folder


def _model(work: Path, pairs: Path, settings: WalksSettings, seed: int) -> Model:
    if settings.model:
        return load_model(settings.model)
    out = Path(work) / f"model-{seed}"
    summary = train(pairs, out, settings=replace(settings.training, seed=seed))
    logger.info("Seed %d: best epoch on the validation walks %s", seed, summary.metrics)
    return load_model(out)


# --- what is looked at ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WalksView:
    """The chips of the test walks as a model sees them.

    Attributes:
        pairs: chips and photos, with the teacher's embeddings.
        model: answers to words.
        chips: the model's embeddings of the chips, (N, D) unit.
        photos: the teacher's embeddings of the photos of the training walks, (B, D) unit.
    """

    pairs: PairSet
    model: Model
    chips: NDArray[np.float32]
    photos: NDArray[np.float32]

    @cached_property
    def relevant(self) -> NDArray[np.bool_]:
        """Whether each chip counts for each class of the map's colours, (N, 4)."""
        return map_colours.relevant(self.pairs.chips)

    @cached_property
    def usual(self) -> NDArray[np.float32]:
        """How well each chip fits photos at large, (N,)."""
        return usual_fit(self.chips, self.photos, temperature(self.model))

    def scores(self, queries: Sequence[str], *, through_photos: bool = True) -> NDArray[np.float32]:
        """Fit of every chip to queries, (N, Q).

        Args:
            queries: phrasings separated by commas, averaged.
            through_photos: look for the photos that the words mean (see `meant_photos`) instead of the words.
        """
        phrasings = [one.phrasings for one in parse_classes(list(queries))]
        vectors = np.stack([encode_phrasings(self.model, some, templates=("{}",)).mean(axis=0) for some in phrasings])
        found: NDArray[np.float32] = self.chips @ (meant_photos(vectors, self.photos) if through_photos else vectors).T
        return found


def view_walks(pairs: Path, model: Model, *, split: str = "test") -> WalksView:
    """The chips of a split as a model sees them.

    Args:
        pairs: folder of pairs.
        model: an image-level model.
        split: "test"; "validation" to choose settings by.
    """
    embed_photos(pairs, model.teacher)
    found = load_pairs(pairs, split=split, teacher=model.teacher_fingerprint)
    learnt = load_pairs(pairs, split="train", teacher=model.teacher_fingerprint).embeddings
    assert learnt is not None
    chips = model.embed_chips(found.chips, sensor=found.sensor)
    return WalksView(found, model, chips, learnt.astype(np.float32))


def usual_fit(chips: NDArray[np.float32], photos: NDArray[np.float32], tau: float) -> NDArray[np.float32]:
    """How well each chip fits photos at large: the normaliser of Eq. 1 over the photos of the training walks.

    Eq. 1 trains exp(s·g / τ) / Σ_b exp(s·g_b / τ), the likelihood of a photo given the chip; nothing compares the
    cosines of one photo with two chips. So a photo is looked for by that likelihood: its cosine less this.

    Args:
        chips: unit vectors s, (N, D).
        photos: unit vectors g_b, (B, D).
        tau: the temperature of the training.

    Returns:
        τ log (1/B Σ_b exp(s·g_b / τ)), (N,).
    """
    fit = np.logaddexp.reduce(chips @ photos.T / tau, axis=1) - np.log(len(photos))
    usual: NDArray[np.float32] = (tau * fit).astype(np.float32)
    return usual


def meant_photos(texts: NDArray[np.float32], photos: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the photos that a text means have over all photos: text → photo → chip, the bridge of GRAFT.

    Contrast teaches chips in what photos of one place differ from all others, and weighs a direction up the less
    photos vary along it; much of a text points where they hardly vary at all. The photos near the text are what an
    encoder has learnt to find. To first order this multiplies the text by the photos' covariance.

    Args:
        texts: vectors t, (Q, D).
        photos: unit vectors g_b of the photos of the training walks, (B, D).

    Returns:
        Σ_b w_b g_b - mean_b g_b with w = softmax(cos(t, g_b) / 0.05), (Q, D).
    """
    cosines = texts @ photos.T / np.linalg.norm(texts, axis=1, keepdims=True)
    weights: NDArray[np.float32] = special.softmax(cosines / _SHARPNESS, axis=1)
    meant: NDArray[np.float32] = weights @ photos - photos.mean(axis=0)
    return meant


def temperature(model: Model) -> float:
    """The temperature that a model was trained with; GRAFT's where its origin does not say."""
    return float(model.origin.training.get("temperature") or TEMPERATURE)


# --- photo to chip ----------------------------------------------------------------------------------------


def retrieval_results(view: WalksView, seed: int) -> list[Result]:
    """How well photos find an own chip among all, by likelihood and by plain cosine."""
    return [*_retrieval(view, METHOD, seed), *_retrieval(view, COSINE, seed)]


def _retrieval(view: WalksView, method: str, seed: int) -> list[Result]:
    """Recalls, their chances and ratios, and the median rank."""
    ranks, owned = best_ranks(view, by_likelihood=method == METHOD)
    count = len(view.pairs)
    values = {"median_rank": float(np.median(ranks) / count)}
    for name, share in (("recall_1pc", 0.01), ("recall_10pc", 0.1)):
        k = max(1, int(share * count))
        found, chance = float((ranks <= k).mean()), float(chance_recall(owned, count, k).mean())
        values |= {name: found, f"{name}_chance": chance, f"{name}_over_chance": found / chance}
    return [Result(method, SENSOR, metric, value, seed, "") for metric, value in values.items()]


def best_ranks(view: WalksView, *, by_likelihood: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each photo once: the rank of its best own chip, 1 being the best, and how many chips own it."""
    assert view.pairs.embeddings is not None
    photos = torch.from_numpy(view.pairs.embeddings.astype(np.float32))
    # A further value of every vector carries the normaliser: (s, -u)·(g, 1) = s·g - u.
    usual = view.usual if by_likelihood else np.zeros(len(view.chips), np.float32)
    chips = torch.from_numpy(np.column_stack([view.chips, -usual]))
    asked = torch.nn.functional.pad(photos, (0, 1), value=1.0)
    ranks = photo_ranks(chips, asked, torch.tensor(view.pairs.owner))
    _, place, owned = np.unique(view.pairs.photo_ids, return_inverse=True, return_counts=True)
    best = np.full(len(owned), len(view.pairs), np.int64)
    np.minimum.at(best, place, ranks)
    return best, owned


def chance_recall(owned: NDArray[np.int64], count: int, k: int) -> NDArray[np.float64]:
    """The probability that a random order of `count` chips has one of a photo's `owned` chips among its first k."""
    missed: NDArray[np.float64] = stats.hypergeom.pmf(0, count, owned, k)
    return 1 - missed


# --- words to chip ----------------------------------------------------------------------------------------


def word_results(view: WalksView, seed: int) -> list[ClassResult]:
    """Average precision of each class's words against the map's own colours, and its ratio to chance.

    Classes that no chip of the split counts for are left out.
    """
    words: Mapping[str, str] = load_card(CARD).protocol["classes"]
    rows: list[ClassResult] = []
    for method in (METHOD, COSINE):
        scores = view.scores(list(words.values()), through_photos=method == METHOD)
        for column, label in enumerate(words):
            relevant = view.relevant[:, map_colours.CLASSES.index(label)]
            values = precision_and_chance(relevant, scores[:, column]) if relevant.any() else {}
            rows += [
                ClassResult(method, SENSOR, metric, value, seed, "", label=label, count=int(relevant.sum()))
                for metric, value in values.items()
            ]
    return rows


def precision_and_chance(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> dict[str, float]:
    """Average precision over all chips, that of a random order, and their ratio."""
    precision, chance = average_precision_at(relevant, scores, len(scores)), float(relevant.mean())
    return {"ap": precision, "ap_chance": chance, "ap_over_chance": precision / chance}


def _means(classes: Sequence[ClassResult]) -> list[Result]:
    """The ratio of each class as a row of the main table."""
    return [
        Result(row.method, SENSOR, f"ap_over_chance_{row.label}", row.value, row.seed, "")
        for row in classes
        if row.metric == "ap_over_chance"
    ]


def query_sheet(view: WalksView, out: Path, *, queries: Sequence[str] | None = None) -> Path:
    """Write a picture of text queries, the best chips of each in a row; the card's ten queries where None."""
    asked = list(queries or load_card(CARD).protocol["queries"])
    scores = view.scores(asked)
    sheets = [_row(view, query, scores[:, number]) for number, query in enumerate(asked)]
    width, height = max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)
    whole, top = Image.new("RGB", (width, height), "white"), 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    with atomic(out) as temporary:
        whole.save(temporary)
    return out


def _row(view: WalksView, query: str, scores: NDArray[np.float32]) -> Image.Image:
    """The best chips of one query, with ranks and scores."""
    best = np.argsort(-scores, kind="stable")[:_HITS]
    pictures = [view.pairs.sensor.rgb(view.pairs.chips[chip]) for chip in best]
    captions = [f"{rank}. {scores[chip]:.2f}" for rank, chip in enumerate(best, start=1)]
    return picture_sheet(pictures, captions, title=f"{query} (map tiles)")
