"""GRAFT training: satellite encoders that learn from the photos inside their chips, without a word of text.

A step runs the satellite encoder only. The teacher's embeddings are computed once, kept beside the pairs with the
teacher's fingerprint, and never change.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geograft.errors import EmptySplit
from geograft.models.checkpoints import save_model
from geograft.models.model import Model, Origin
from geograft.models.multi import MultiEncoder, SensorView, bake, save_multi
from geograft.models.satellite import Level, SatelliteEncoder
from geograft.models.teacher import Teacher, load_teacher
from geograft.pairs.dataset import PairSet, load_pairs
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.mix import PairMix, load_mix
from geograft.pairs.tags import embed_tags
from geograft.tables import Manifest, write_manifest
from geograft.training.devices import Devices
from geograft.training.encoders import AnyEncoder, by_sensor, make_encoder, start_pixel_from_image
from geograft.training.estimate import Estimate, estimate
from geograft.training.loop import History, Task, fit
from geograft.training.scales import ScalesTask
from geograft.training.settings import TrainingSettings
from geograft.training.task import PairTask
from geograft.training.watch import watch_world

__all__ = ["TrainingSettings", "TrainingSummary", "estimate_training", "train"]

logger = logging.getLogger(__name__)

RUNS = "training"
"""Folder of checkpoints and logs inside a model's folder, one subfolder an encoder."""

JOINT = "joint"
"""Folder of the weights for all sensors, inside the folder of a training on several."""

Paths = Path | str | Sequence[Path | str]


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """What came of a training.

    Attributes:
        folder: the model's folder; with several sensors it holds a model folder for each, called by the sensor.
        chips: chips that were learnt from.
        pairs: (chip, photo) pairs that were learnt from.
        metrics: of each level the figures of its best epoch: `loss`, `val_loss`, `recall_1pc`, `recall_10pc`,
            `median_rank` and `epoch`.
        seconds: spent training, over all resumed parts.
    """

    folder: Path
    chips: int
    pairs: int
    metrics: dict[str, dict[str, float]]
    seconds: float


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What a training reads.

    Attributes:
        teacher: whose embeddings are learnt.
        learn: the pairs of each sensor.
        check: the pairs of each sensor to validate on; sensors without any are left out.
        regions: simulated regions that these lie in.
        settings: what and how.
    """

    teacher: Teacher
    learn: dict[str, PairMix]
    check: dict[str, PairSet]
    regions: tuple[Path, ...]
    settings: TrainingSettings


def train(
    pairs: Paths,
    out: Path | str,
    *,
    settings: TrainingSettings | None = None,
    validation: Paths = (),
    regions: Sequence[Path | str] = (),
) -> TrainingSummary:
    """Train satellite encoders on pairs, without text.

    Writes a model folder (the best epoch of each encoder), and under `training/<level>` the last and the best
    checkpoint and `log.jsonl`. Run again with the same arguments to go on after a kill. Started by `torchrun` or on
    Ray, all processes train together and the first one writes.

    Args:
        pairs: folders of pairs, whose split "train" is learnt from. Those of one sensor are trained on as one set;
            those of several sensors train one encoder with a stem for each.
        out: the model's folder.
        settings: what and how.
        validation: folders of pairs of another place, all of them measured after each epoch, one a sensor; the split
            "validation" of `pairs` where empty.
        regions: folders of simulated regions that the validation pairs lie in: maps and chips named by words are then
            measured on their truth after each epoch. It is reported, and chooses nothing.

    Returns:
        Where the model lies and what it reaches.

    Raises:
        MissingInput: a folder holds no pairs.
        EmptySplit: there is nothing to learn from.
        BadSetting: preset and chips do not fit.
        OutputExists: `out` holds a run with other inputs or settings.
        TrainingDiverged: the loss is not finite.
        OutOfMemory: a step does not fit; the sentence names what helps.
    """
    settings, devices = settings or TrainingSettings(), Devices()
    inputs = _read(_listed(pairs), _listed(validation), regions, settings, devices)
    encoders: dict[Level, AnyEncoder] = {}
    histories: dict[str, History] = {}
    for levels in settings.runs:
        task = _task(inputs, levels, encoders)
        name = "joint" if len(levels) > 1 else levels[0]
        identity = _identity(name, inputs)
        folder = Path(out) / RUNS / name
        histories[name] = fit(task, folder, settings.loop(), identity=identity, resume=settings.resume)
        encoders |= dict.fromkeys(levels, task.model.cpu())  # type: ignore[arg-type]
    summary = _summary(Path(out), inputs, histories)
    devices.from_main(lambda: _save(encoders, summary, inputs))
    return summary


def estimate_training(pairs: Paths, *, settings: TrainingSettings | None = None) -> Estimate:
    """What `train` would take in memory and time, measured on a few steps; nothing is written but embeddings.

    Args:
        pairs: as for `train`.
        settings: as for `train`; of several encoders the last one is measured, and hours are those of all.

    Raises:
        Others: as `train`.
    """
    settings = settings or TrainingSettings()
    inputs = _read(_listed(pairs), [], (), settings, Devices())
    found = estimate(_task(inputs, settings.runs[-1], {}), settings.loop())
    return dataclasses.replace(found, hours=found.hours * len(settings.runs))


# --- inputs -----------------------------------------------------------------------------------------------


def _listed(folders: Paths) -> list[Path]:
    """One folder or several as a list."""
    return [Path(folders)] if isinstance(folders, (str, Path)) else [Path(folder) for folder in folders]


def _read(
    pairs: list[Path],
    validation: list[Path],
    regions: Sequence[Path | str],
    settings: TrainingSettings,
    devices: Devices,
) -> _Inputs:
    """Embed what is not embedded yet, and read the tables."""
    teacher = load_teacher(settings.teacher)
    with devices.first():
        for folder in [*pairs, *validation]:
            embed_photos(folder, teacher)
            if settings.tags and folder in pairs:
                embed_tags(folder, teacher)
    options: dict[str, Any] = {"teacher": teacher.fingerprint, "memory_gb": settings.memory_gb}
    mix = load_mix(pairs, split="train", tags=settings.tags > 0, **options)
    if validation:
        check = {one.sensor.name: one for one in (load_pairs(folder, **options) for folder in validation)}
    else:
        check = _own_validation(pairs, options)
    return _Inputs(teacher, by_sensor(mix.sets), check, tuple(map(Path, regions)), settings)


def _own_validation(pairs: list[Path], options: dict[str, Any]) -> dict[str, PairSet]:
    """The validation split of each sensor's first folder that has one."""
    found: dict[str, PairSet] = {}
    for folder in pairs:
        try:
            one = load_pairs(folder, split="validation", **options)
        except EmptySplit:
            logger.warning("%s has no validation split: the best epoch is the one of the lowest training loss", folder)
        else:
            found.setdefault(one.sensor.name, one)
    return found


def _task(inputs: _Inputs, levels: tuple[Level, ...], encoders: Mapping[Level, AnyEncoder]) -> Task:
    """The task of an encoder, begun as the settings say."""
    encoder = make_encoder(inputs.learn, inputs.settings, dim=inputs.teacher.dim)
    if levels == ("pixel",) and "image" in encoders and inputs.settings.start == "image":
        start_pixel_from_image(encoder, encoders["image"])
    if not isinstance(encoder, MultiEncoder):
        (name,) = inputs.learn
        return _pair_task(encoder, levels, name, inputs)
    tasks = {name: _pair_task(SensorView(encoder, name), levels, name, inputs) for name in inputs.learn}
    return ScalesTask(encoder, tasks, seed=inputs.settings.seed)


def _pair_task(
    model: SatelliteEncoder | SensorView, levels: tuple[Level, ...], sensor: str, inputs: _Inputs
) -> PairTask:
    """The task of one sensor's pairs."""
    check, settings = inputs.check.get(sensor), inputs.settings
    watch = None
    if inputs.regions and check is not None:
        watch = watch_world(check, inputs.regions, encoder=inputs.teacher, level=levels[-1], seed=settings.seed)
    return PairTask(model, levels, inputs.learn[sensor], check, settings, watch=watch)


def _identity(name: str, inputs: _Inputs) -> dict[str, Any]:
    """What makes a run this run: chips, photos, teacher and settings."""
    digest = hashlib.sha256()
    sets = [one for mix in inputs.learn.values() for one in mix.sets]
    for part in (*sets, *inputs.check.values()):
        for ids in (part.chip_ids, part.photo_ids):
            digest.update("\n".join(map(str, ids)).encode())
    return {
        **inputs.settings.identity(),
        "level": name,
        "pairs": digest.hexdigest()[:16],
        "windows": [one.windows for one in sets],
        "teacher_fingerprint": inputs.teacher.fingerprint,
    }


# --- outputs ----------------------------------------------------------------------------------------------


def _summary(out: Path, inputs: _Inputs, histories: dict[str, History]) -> TrainingSummary:
    metrics: dict[str, dict[str, float]] = {
        name: {**history.best, "epoch": history.best_epoch + 1} for name, history in histories.items()
    }
    seconds = sum(history.seconds for history in histories.values())
    sets = [one for mix in inputs.learn.values() for one in mix.sets]
    chips, pairs = sum(map(len, sets)), sum(len(one.owner) for one in sets)
    return TrainingSummary(out, chips, pairs, metrics, round(seconds, 1))


def _save(encoders: Mapping[Level, AnyEncoder], summary: TrainingSummary, inputs: _Inputs) -> None:
    """Write the model folders and a manifest."""
    several = {level: encoder for level, encoder in encoders.items() if isinstance(encoder, MultiEncoder)}
    if several:
        save_multi(several, summary.folder / JOINT)
        for sensor in inputs.learn:
            _save_model(bake(several, sensor), summary, inputs, sensor, summary.folder / sensor)
    else:
        (sensor,) = inputs.learn
        plain = {level: encoder for level, encoder in encoders.items() if isinstance(encoder, SatelliteEncoder)}
        _save_model(plain, summary, inputs, sensor, summary.folder)
    manifest = Manifest(
        "train",
        inputs={"pairs": summary.chips, "teacher": inputs.teacher.fingerprint},
        settings=inputs.settings,
        counts={"done": summary.chips, "skipped": {}, "failed": {}},
        extra={"metrics": summary.metrics},
    )
    write_manifest(summary.folder / "manifest.json", manifest)


def _save_model(
    encoders: Mapping[Level, SatelliteEncoder], summary: TrainingSummary, inputs: _Inputs, sensor: str, folder: Path
) -> None:
    """Write the model of one sensor."""
    kept = dataclasses.asdict(inputs.settings)
    how = {key: value for key, value in kept.items() if key not in {"resume", "memory_gb", "save_minutes"}}
    counts = {"chips": summary.chips, "pairs": summary.pairs, "sensors": list(inputs.learn)}
    metrics = {f"{level}.{key}": value for level, figures in summary.metrics.items() for key, value in figures.items()}
    pairs = inputs.learn[sensor].sets[0]
    origin = Origin(training={**counts, **how}, metrics=metrics)
    model = Model(encoders, sensor=pairs.sensor, teacher=inputs.teacher, gsd=pairs.gsd, origin=origin, name=folder.name)
    save_model(model, folder)
