"""GRAFT training: satellite encoders that learn from the photos inside their chips, without a word of text.

A step runs the satellite encoder only. The teacher's embeddings are computed once, kept beside the pairs with the
teacher's fingerprint, and never change.
"""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from geograft.errors import BadSetting, EmptySplit
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
from geograft.training.loop import History, Share, Task, fit
from geograft.training.origins import data_facts
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
        folder: the model's folder; with several sensors it holds a model folder for each, called by the sensor, or by
            the file's name for one of the user's own.
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
        share: this process among those that train together.
    """

    teacher: Teacher
    learn: dict[str, PairMix]
    check: dict[str, PairSet]
    regions: tuple[Path, ...]
    settings: TrainingSettings
    share: Share

    @property
    def sets(self) -> list[PairSet]:
        """All sets to learn from."""
        return [one for mix in self.learn.values() for one in mix.sets]


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
        validation: folders of pairs of another place, at most one a sensor, whose chips of all splits are measured
            after each epoch; the split "validation" of `pairs` where empty, of each sensor's first folder that has one.
        regions: folders of simulated regions that the validation pairs lie in: maps and chips named by words are then
            measured on their truth after each epoch. It is reported, and chooses nothing.

    Returns:
        Where the model lies and what it reaches.

    Raises:
        MissingInput: a folder holds no pairs.
        EmptySplit: there is nothing to learn from.
        BadSetting: preset and chips do not fit, or `validation` has two folders of a sensor, or one of another.
        MixedSensors: pairs of one sensor differ in ground sample distance or chip size.
        OutputExists: `out` holds a run with other inputs or settings.
        TrainingDiverged: the loss is not finite.
        OutOfMemory: a step does not fit; the sentence names what helps.
    """
    settings, devices = settings or TrainingSettings(), Devices()
    inputs = _read(_listed(pairs), _listed(validation), regions, settings, devices)
    inputs = _in_step(inputs, Path(out) / RUNS, devices)
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
        settings: as for `train`; of several encoders the last one is measured, and epochs and hours are those of all.

    Raises:
        Others: as `train`.
    """
    settings = settings or TrainingSettings()
    inputs = _read(_listed(pairs), [], (), settings, Devices())
    found = estimate(_task(inputs, settings.runs[-1], {}), settings.loop())
    runs = len(settings.runs)
    return dataclasses.replace(found, epochs=found.epochs * runs, hours=found.hours * runs)


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
    learn = by_sensor(load_mix(pairs, split="train", tags=settings.tags > 0, **options).sets)
    check = _given_validation(validation, options, learn) if validation else _own_validation(pairs, options)
    return _Inputs(teacher, learn, check, tuple(map(Path, regions)), settings, devices.share)


def _given_validation(folders: list[Path], options: dict[str, Any], learn: Mapping[str, PairMix]) -> dict[str, PairSet]:
    """Pairs of another place, a set a sensor."""
    found: dict[str, PairSet] = {}
    for folder in folders:
        one = load_pairs(folder, **options)
        if one.sensor.name in found or one.sensor.name not in learn:
            raise BadSetting(
                f"The validation pairs {folder} are of {one.sensor.name}: name one folder of each sensor that is "
                f"trained ({', '.join(learn)}) at most, and none of others."
            )
        found[one.sensor.name] = one
    return found


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


def _in_step(inputs: _Inputs, runs: Path, devices: Devices) -> _Inputs:
    """The inputs with as many windows an epoch as the run to go on with has, or else the first process.

    Windows follow from memory and batches from windows, so all processes, and whoever goes on, must have the same.
    """
    begun = list(runs.glob("*/last.pt")) if inputs.settings.resume else []
    mine = [one.windows for one in inputs.sets]
    windows = devices.from_main(lambda: next(filter(None, map(_windows_of, begun)), mine))
    if len(windows) != len(mine):
        return inputs  # of another run, as the loop will say
    given = iter(windows)
    learn = {
        name: PairMix(tuple(map(_with_windows, mix.sets, itertools.islice(given, len(mix.sets)))))
        for name, mix in inputs.learn.items()
    }
    return dataclasses.replace(inputs, learn=learn)


def _windows_of(checkpoint: Path) -> list[int] | None:
    """The windows of a run; None where its checkpoint does not say, or is damaged, as the loop will say."""
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["identity"]["windows"]
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None
    return list(found)


def _with_windows(pairs: PairSet, windows: int) -> PairSet:
    return pairs if pairs.windows == windows else pairs.within(pairs.source.budget, windows)


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
    return PairTask(model, levels, inputs.learn[sensor], check, settings, watch=watch, share=inputs.share)


def _identity(name: str, inputs: _Inputs) -> dict[str, Any]:
    """What makes a run this run: chips, photos, teacher (wherever it lies) and settings."""
    digest = hashlib.sha256()
    settings = inputs.settings.identity()
    settings.pop("teacher")
    for part in (*inputs.sets, *inputs.check.values()):
        for ids in (part.chip_ids, part.photo_ids):
            digest.update("\n".join(map(str, ids)).encode())
    return {
        **settings,
        "level": name,
        "pairs": digest.hexdigest()[:16],
        "windows": [one.windows for one in inputs.sets],
        "teacher_fingerprint": inputs.teacher.fingerprint,
    }


# --- outputs ----------------------------------------------------------------------------------------------


def _summary(out: Path, inputs: _Inputs, histories: dict[str, History]) -> TrainingSummary:
    metrics: dict[str, dict[str, float]] = {
        name: {**history.best, "epoch": history.best_epoch + 1} for name, history in histories.items()
    }
    seconds = sum(history.seconds for history in histories.values())
    chips, pairs = sum(map(len, inputs.sets)), sum(len(one.owner) for one in inputs.sets)
    return TrainingSummary(out, chips, pairs, metrics, round(seconds, 1))


def _save(encoders: Mapping[Level, AnyEncoder], summary: TrainingSummary, inputs: _Inputs) -> None:
    """Write the model folders and a manifest."""
    several = {level: encoder for level, encoder in encoders.items() if isinstance(encoder, MultiEncoder)}
    if several:
        save_multi(several, summary.folder / JOINT)
        for sensor in inputs.learn:
            _save_model(bake(several, sensor), summary, inputs, sensor, summary.folder / Path(sensor).stem)
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
    data = {"chips": summary.chips, "pairs": summary.pairs, "sensors": list(inputs.learn), **data_facts(inputs.sets)}
    if inputs.settings.init:
        data["pretrained"] = inputs.settings.init
    metrics = {f"{level}.{key}": value for level, figures in summary.metrics.items() for key, value in figures.items()}
    pairs = inputs.learn[sensor].sets[0]
    origin = Origin(training={**data, **how}, metrics=metrics)
    name = folder.resolve().name
    model = Model(encoders, sensor=pairs.sensor, teacher=inputs.teacher, gsd=pairs.gsd, origin=origin, name=name)
    save_model(model, folder)
