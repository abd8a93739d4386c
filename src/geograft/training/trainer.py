"""GRAFT training: satellite encoders that learn from the photos inside their chips, without a word of text.

A step runs the satellite encoder only. The teacher's embeddings are computed once, kept beside the pairs with the
teacher's fingerprint, and never change.
"""

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any, Literal

import torch

from geograft.errors import BadSetting, EmptySplit
from geograft.models.checkpoints import save_model
from geograft.models.model import Model, Origin
from geograft.models.numerics import has_bfloat16
from geograft.models.satellite import Level, SatelliteEncoder, preset_settings
from geograft.models.teacher import Teacher, load_teacher
from geograft.pairs.dataset import PairSet, load_pairs
from geograft.pairs.embeddings import embed_photos
from geograft.tables import Manifest, write_manifest
from geograft.training.loop import History, LoopSettings, fit
from geograft.training.task import PairTask

logger = logging.getLogger(__name__)

RUNS = "training"
"""Folder of checkpoints and logs inside a model's folder, one subfolder a level."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """What to train, and how. The defaults are those of the shipped mini models.

    Attributes:
        level: "image" (one embedding a chip), "pixel" (one a patch), or "both", one encoder each.
        preset: the encoder's shape: "mini" (64 px chips), "mini-10m" (32 px) or "vit-b-16" (224 px).
        teacher: what `load_teacher` takes.
        epochs: passes over the pairs, of each level.
        batch: chips a step, each with all its photos.
        lr: highest learning rate.
        weight_decay: AdamW's, on matrices only.
        warmup: the share of the steps over which the learning rate rises.
        temperature: tau of the losses.
        jitter: strength of the brightness changes of each band; 0 for none.
        start: "image" starts the pixel level from the image level where both are trained; "scratch" does not.
        sampling: how a photo's place reads the patches: "bilinear" between them, "nearest" as in the paper.
        bf16: compute in bfloat16: "on", "off", or "auto" where the machine has it.
        seed: of everything random.
        resume: go on where a killed run stopped; False starts anew.
    """

    level: Literal["image", "pixel", "both"] = "both"
    preset: str = "mini"
    teacher: str = "mini"
    epochs: int = 10
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    temperature: float = 0.07
    jitter: float = 0.1
    start: Literal["image", "scratch"] = "image"
    sampling: Literal["bilinear", "nearest"] = "bilinear"
    bf16: Literal["auto", "on", "off"] = "auto"
    seed: int = 0
    resume: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        if self.batch < 1 or self.temperature <= 0 or self.jitter < 0 or self.seed < 0:
            raise BadSetting("Training needs batch >= 1, temperature > 0, jitter >= 0 and seed >= 0.")
        self.loop()

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels to train, in this order."""
        return ("image", "pixel") if self.level == "both" else (self.level,)

    def loop(self) -> LoopSettings:
        """What the loop needs of these."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return LoopSettings(
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            seed=self.seed,
            bf16=has_bfloat16(device) if self.bf16 == "auto" else self.bf16 == "on",
        )


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """What came of a training.

    Attributes:
        folder: the model's folder.
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


def train(
    pairs: Path, out: Path, *, settings: TrainingSettings | None = None, validation: Path | None = None
) -> TrainingSummary:
    """Train satellite encoders on pairs, without text.

    Writes a model folder (the best epoch of each level), and under `training/<level>` the last and the best checkpoint
    and `log.jsonl`. Run again with the same arguments to go on after a kill.

    Args:
        pairs: a folder of pairs; its split "train" is learnt from.
        out: the model's folder.
        settings: what and how.
        validation: a folder of pairs of another place, all of it measured after each epoch; the split "validation"
            of `pairs` where None.

    Returns:
        Where the model lies and what it reaches.

    Raises:
        MissingInput: a folder holds no pairs.
        EmptySplit: there is nothing to learn from.
        OutputExists: `out` holds a run with other inputs or settings.
        TrainingDiverged: the loss is not finite.
    """
    settings = settings or TrainingSettings()
    teacher = load_teacher(settings.teacher)
    embed_photos(Path(pairs), teacher)
    learn = load_pairs(Path(pairs), split="train", teacher=teacher.fingerprint)
    check = _validation(Path(pairs), validation, teacher)
    encoders: dict[Level, SatelliteEncoder] = {}
    histories: dict[Level, History] = {}
    for level in settings.levels:
        encoder = make_encoder(learn, settings, dim=teacher.dim)
        if level == "pixel" and "image" in encoders and settings.start == "image":
            start_pixel_from_image(encoder, encoders["image"])
        task = PairTask(encoder, level, learn, check, settings)
        identity = _identity(level, learn, check, teacher, settings)
        folder = Path(out) / RUNS / level
        histories[level] = fit(task, folder, settings.loop(), identity=identity, resume=settings.resume)
        encoders[level] = encoder.cpu()
    summary = _summary(Path(out), learn, histories)
    _save(encoders, summary, learn, teacher, settings)
    return summary


def make_encoder(pairs: PairSet, settings: TrainingSettings, *, dim: int) -> SatelliteEncoder:
    """An encoder of the preset's shape with random weights of the seed, for the chips of `pairs`.

    Raises:
        BadSetting: the preset takes chips of another size.
    """
    shape = preset_settings(settings.preset, bands=pairs.sensor.bands, dim=dim)
    size = pairs.chips.shape[-1]
    if size != shape.image_size:
        raise BadSetting(
            f"The preset {settings.preset} takes chips of {shape.image_size} px, but the pairs have {size} px: "
            "make pairs with that chip_size, or take another preset."
        )
    torch.manual_seed(settings.seed)
    return SatelliteEncoder(shape)


def start_pixel_from_image(pixel: SatelliteEncoder, image: SatelliteEncoder) -> None:
    """Start a pixel-level encoder where an image-level one ended, its projector from the image level's head."""
    pixel.load_state_dict(image.state_dict())
    norm, linear = pixel.projector
    backbone = image.satellite_image_backbone
    norm.load_state_dict(backbone.vision_model.post_layernorm.state_dict())
    linear.load_state_dict(backbone.visual_projection.state_dict())


def _validation(pairs: Path, other: Path | None, teacher: Teacher) -> PairSet | None:
    """What each epoch is measured on, or None where there is nothing."""
    if other is not None:
        embed_photos(Path(other), teacher)
        return load_pairs(Path(other), split=None, teacher=teacher.fingerprint)
    try:
        return load_pairs(pairs, split="validation", teacher=teacher.fingerprint)
    except EmptySplit:
        logger.warning("%s has no validation split: the best epoch is the one of the lowest training loss", pairs)
        return None


def _identity(
    level: Level, learn: PairSet, check: PairSet | None, teacher: Teacher, settings: TrainingSettings
) -> dict[str, Any]:
    """What makes a run this run: chips, photos, teacher and settings."""
    digest = hashlib.sha256()
    for part in (learn, check):
        for ids in (part.chip_ids, part.photo_ids) if part is not None else ():
            digest.update("\n".join(map(str, ids)).encode())
    kept = {**dataclasses.asdict(settings), "level": level}
    kept.pop("resume")
    kept.pop("bf16")
    return {"pairs": digest.hexdigest()[:16], "teacher_fingerprint": teacher.fingerprint, **kept}


def _summary(out: Path, learn: PairSet, histories: dict[Level, History]) -> TrainingSummary:
    metrics: dict[str, dict[str, float]] = {
        level: {**history.best, "epoch": history.best_epoch + 1} for level, history in histories.items()
    }
    seconds = sum(history.seconds for history in histories.values())
    return TrainingSummary(out, len(learn), len(learn.owner), metrics, round(seconds, 1))


def _save(
    encoders: dict[Level, SatelliteEncoder],
    summary: TrainingSummary,
    learn: PairSet,
    teacher: Teacher,
    settings: TrainingSettings,
) -> None:
    """Write the model folder and its manifest."""
    how = {key: value for key, value in dataclasses.asdict(settings).items() if key != "resume"}
    counts = {"chips": summary.chips, "pairs": summary.pairs}
    metrics = {f"{level}.{key}": value for level, figures in summary.metrics.items() for key, value in figures.items()}
    origin = Origin(training={**counts, **how}, metrics=metrics)
    model = Model(
        encoders, sensor=learn.sensor, teacher=teacher, gsd=learn.gsd, origin=origin, name=summary.folder.name
    )
    save_model(model, summary.folder)
    manifest = Manifest(
        "train",
        inputs={"pairs": summary.chips, "teacher": teacher.fingerprint},
        settings=settings,
        counts={"done": summary.chips, "skipped": {}, "failed": {}},
        extra={"metrics": summary.metrics},
    )
    write_manifest(summary.folder / "manifest.json", manifest)
