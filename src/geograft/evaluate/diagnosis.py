"""What a model's maps lack, and where it is lost: in the pixels, in the embeddings, or in the words.

Three ways of reading the same chips are measured on the same pixels. The oracle, trained on labels, says what the
pixels hold for an encoder of this size; a linear probe, fitted with labels on the frozen patch embeddings, says what
the embeddings hold; the words say what open vocabulary makes of them. Labels are used to diagnose, never to train.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting, ModelMismatch
from geograft.evaluate import metrics
from geograft.evaluate.linear_probe import LinearProbe, ProbeSettings, fit_probe, patch_shares
from geograft.evaluate.regions import CLASS_COUNT, RegionView, batches
from geograft.models.model import Model
from geograft.models.satellite import Level
from geograft.tables import track
from geograft.tasks.queries import ClassVectors
from geograft.tasks.segment import upsample
from geograft.training.oracle import Oracle
from geograft.world.classes import CLASSES

_BATCH = 128
_NAMES = tuple(one.name for one in CLASSES)

Counts = Mapping[int, NDArray[np.int64]]
"""Region to its confusion of pixels, (K, K + 1): truth in rows, what it is taken for in columns."""


@dataclass(frozen=True)
class Reading:
    """How well one way of reading chips tells the classes of pixels.

    Attributes:
        counts: region to confusion.
    """

    counts: Counts

    @property
    def miou(self) -> float:
        """Mean over regions of the mean IoU of the classes there, as the card World-1 has it."""
        return float(np.mean([metrics.mean_iou(one) for one in self.counts.values()]))

    @property
    def pixel_accuracy(self) -> float:
        """Mean over regions of the share of pixels whose class is right."""
        return float(np.mean([metrics.accuracy(one) for one in self.counts.values()]))

    @property
    def total(self) -> NDArray[np.int64]:
        """The confusion of all regions' pixels, (K, K + 1)."""
        return np.sum(list(self.counts.values()), axis=0)  # type: ignore[no-any-return]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class over all regions' pixels, (K,); NaN for absent ones."""
        return metrics.class_iou(self.total)

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share of each class's pixels that are found, (K,); NaN for absent ones."""
        return metrics.class_recall(self.total)

    def confusions(self, *, most: int = 3) -> dict[str, list[tuple[str, float]]]:
        """What the pixels of each class that occurs are wrongly taken for, the commonest first, with shares of them."""
        found = {}
        for index, row in enumerate(self.total):
            wrong = np.where(np.arange(len(row)) == index, 0, row)[: len(_NAMES)]
            order = [at for at in np.argsort(-wrong, kind="stable")[:most] if wrong[at]]
            if row.sum():
                found[_NAMES[index]] = [(_NAMES[at], float(wrong[at] / row.sum())) for at in order]
        return found


@dataclass(frozen=True)
class Diagnosis:
    """Words, probe and oracle on the same pixels.

    Attributes:
        model: what the model is called.
        sensor: the regions' sensor.
        level: the level whose patches were read.
        words: cosines with the classes' words.
        probe: the linear probe on the same patch embeddings.
        oracle: the supervised network, or None where there was none.
    """

    model: str
    sensor: str
    level: Level
    words: Reading
    probe: Reading
    oracle: Reading | None = field(default=None)

    @property
    def share_of_probe(self) -> float | None:
        """The words' mIoU over the probe's: what open vocabulary makes of the embeddings; None where that is 0."""
        return _share(self.words, self.probe)

    @property
    def share_of_oracle(self) -> float | None:
        """The words' mIoU over the oracle's, or None without an oracle."""
        return None if self.oracle is None else _share(self.words, self.oracle)

    @property
    def readings(self) -> dict[str, Reading]:
        """The ways of reading, by name."""
        both = {"words": self.words, "probe": self.probe}
        return both if self.oracle is None else {**both, "oracle": self.oracle}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        figures = {
            name: {"miou": round(one.miou, 4), "pixel_accuracy": round(one.pixel_accuracy, 4)}
            for name, one in self.readings.items()
        }
        return {
            "model": self.model,
            "sensor": self.sensor,
            "level": self.level,
            "regions": list(self.words.counts),
            **figures,
            "share_of_probe": self.share_of_probe,
            "share_of_oracle": self.share_of_oracle,
            "classes": {row["class"]: row for row in self.rows()},
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a class that occurs: its share of the pixels, IoU of each reading, what it is taken for."""
        total, taken = self.words.total, self.words.confusions()
        return [
            {
                "class": name,
                "share": round(float(total[index].sum() / total.sum()), 4),
                **{f"iou_{by}": round(float(one.iou[index]), 4) for by, one in self.readings.items()},
                "recall": round(float(self.words.recall[index]), 4),
                "taken_for": [(other, round(share, 3)) for other, share in taken[name]],
            }
            for index, name in enumerate(_NAMES)
            if name in taken
        ]

    def to_markdown(self) -> str:
        """The diagnosis as it stands beside a recipe: figures first, then a row a class."""
        regions = ", ".join(map(str, self.words.counts))
        title = f"{self.model}, {self.level} level, {self.sensor}, regions {regions}"
        return "\n".join([title, "", *self._figures(), "", *self._classes(), ""])

    def _figures(self) -> list[str]:
        """The table of the ways of reading."""
        best = self.oracle or self.probe
        lines = [f"| read by | mIoU | pixel accuracy | share of the {'oracle' if self.oracle else 'probe'}'s mIoU |"]
        lines.append("|---|---|---|---|")
        for name, one in self.readings.items():
            share = _share(one, best)
            of_best = "–" if share is None else f"{share:.0%}"
            lines.append(f"| {name} | {one.miou:.3f} | {one.pixel_accuracy:.3f} | {of_best} |")
        return lines

    def _classes(self) -> list[str]:
        """The table of the classes."""
        names = list(self.readings)
        head = "".join(f" IoU {name} |" for name in names)
        lines = [f"| class | of the pixels |{head} found by words | else taken for |"]
        lines.append("|---|---|" + "---|" * (len(names) + 2))
        for row in self.rows():
            values = "".join(f" {row[f'iou_{name}']:.2f} |" for name in names)
            taken = ", ".join(f"{other} {share:.0%}" for other, share in row["taken_for"])
            lines.append(f"| {row['class']} | {row['share']:.1%} |{values} {row['recall']:.0%} | {taken} |")
        return lines


def _share(part: Reading, whole: Reading) -> float | None:
    """One mIoU over another, to four digits; None where that is 0."""
    return round(part.miou / whole.miou, 4) if whole.miou else None


def diagnose(
    model: Model,
    *,
    regions: Sequence[RegionView],
    probe_regions: Sequence[RegionView],
    words: ClassVectors,
    oracle: Oracle | None = None,
    level: Level = "pixel",
    settings: ProbeSettings | None = None,
) -> Diagnosis:
    """What a model's maps lack, and where it is lost.

    Args:
        model: of the regions' sensor and chip size.
        regions: where all readings are measured, on the chips side by side, as the card World-1 measures maps.
        probe_regions: whose truth the probe is fitted on; training or validation regions, none of `regions`.
        words: unit vectors of the words of `CLASSES`, in that order.
        oracle: the supervised network of the same sensor and chip size.
        level: whose patches are read; "image" reads the image level out densely.
        settings: how the probe is fitted.

    Raises:
        BadSetting: there is no region, or one is both measured and fitted on.
        ModelMismatch: the regions' chips are not the model's, or the words not those of the classes.
        EmptyTable: the probe's regions have no truth.
    """
    _check(model, regions, probe_regions, words)
    probe = fit_probe(_patches(model, probe_regions, level), settings=settings)
    counts: dict[str, dict[int, NDArray[np.int64]]] = {}
    for region in regions:
        for name, one in _measure(model, region, level, {"words": words, "probe": probe}, oracle).items():
            counts.setdefault(name, {})[region.seed] = one
    readings = {name: Reading(one) for name, one in counts.items()}
    return Diagnosis(model.name, regions[0].sensor, level, readings["words"], readings["probe"], readings.get("oracle"))


def _measure(
    model: Model,
    region: RegionView,
    level: Level,
    readers: Mapping[str, ClassVectors | LinearProbe],
    oracle: Oracle | None,
) -> dict[str, NDArray[np.int64]]:
    """Confusion of a region's pixels by each reading."""
    shape = (CLASS_COUNT, CLASS_COUNT + 1)
    totals = {name: np.zeros(shape, np.int64) for name in (*readers, *(["oracle"] if oracle else []))}
    for some in track(batches(region.mapped, _BATCH), f"diagnose: region {region.seed}"):
        pixels = region.chips(some)
        truth = region.truths(some).astype(np.int64) - 1
        tokens = model.dense(pixels, level=level)
        for name, reader in readers.items():
            guess = upsample(reader.dense_scores(tokens), region.size).argmax(axis=1)
            totals[name] += metrics.confusion(truth, guess, classes=CLASS_COUNT)
        if oracle is not None:
            guess = oracle.segment(pixels).astype(np.int64) - 1
            totals["oracle"] += metrics.confusion(truth, guess, classes=CLASS_COUNT)
    return totals


def _patches(
    model: Model, regions: Sequence[RegionView], level: Level
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Embeddings and class shares of the patches of the chips side by side, batch by batch."""
    for region in regions:
        for some in track(batches(region.mapped, _BATCH), f"probe: region {region.seed}"):
            tokens = model.dense(region.chips(some), level=level)
            truth = region.truths(some).astype(np.int64) - 1
            shares = patch_shares(truth, tokens.shape[-1], CLASS_COUNT)
            yield tokens.transpose(0, 2, 3, 1).reshape(-1, tokens.shape[1]), shares.reshape(-1, CLASS_COUNT)


def _check(
    model: Model, regions: Sequence[RegionView], probe_regions: Sequence[RegionView], words: ClassVectors
) -> None:
    """Refuse what cannot be compared."""
    if not regions or not probe_regions:
        raise BadSetting("A diagnosis needs at least one region to measure and one to fit the probe on.")
    if both := {region.seed for region in regions} & {region.seed for region in probe_regions}:
        raise BadSetting(f"The probe must not be fitted where it is measured, but region {min(both)} is named twice.")
    if {region.size for region in (*regions, *probe_regions)} != {model.chip_size}:
        raise ModelMismatch(f"The model takes chips of {model.chip_size} px: load the regions with that chip size.")
    if words.names != _NAMES:
        raise ModelMismatch("A diagnosis needs the words of all classes of the simulated world, in their order.")
