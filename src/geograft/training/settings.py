"""What to train, and how: one dataclass, which is the YAML file of `geograft train --config` too."""

import dataclasses
from typing import Literal

import torch

from geograft.errors import BadSetting
from geograft.models.numerics import has_bfloat16
from geograft.models.satellite import Level
from geograft.training.loop import LoopSettings
from geograft.training.losses import LossVariant
from geograft.training.places import PlaceSettings

Levels = Literal["image", "pixel", "both", "joint"]


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """What to train, and how. The defaults are those of the shipped mini models.

    Attributes:
        level: "image" (one embedding a chip), "pixel" (one a patch), "both", one encoder each, or "joint", one
            encoder for both, which learns from the sum of their losses.
        preset: the encoder's shape: "mini" (64 px chips), "mini-10m" (32 px) or "vit-b-16" (224 px); with several
            sensors the transformer's, each sensor's chips having the size of its pairs and as many patches.
        teacher: what `load_teacher` takes.
        init: a CLIP in transformers' format whose image tower the backbone starts from, a folder or hub name, as in
            GRAFT; random weights where empty.
        start: "image" starts the pixel level from the image level where both are trained; "scratch" does not.
        method: the pixel level's loss: "mixture" (the place of a photo is unknown) or "point" (Eq. 2).
        sampling: how "point" reads the patches at a photo's place: "bilinear", or "nearest" as in the paper.
        place: what "mixture" believes of places.
        smooth: weight of how much neighbouring patches differ; 0 for none, as in the paper.
        epochs: passes over the pairs, of each level.
        batch: chips a step, each with all its photos.
        lr: highest learning rate.
        weight_decay: AdamW's, on matrices only.
        warmup: the share of the steps over which the learning rate rises.
        temperature: tau of the losses; 0.07 where None, as in the paper, and 0.1 for "mixture".
        alike: photos of other chips are no negatives of a chip if they look more like one of its own than this share
            of all pairs of photos do, to the teacher; 0 takes all for negatives, as in the paper.
        apart_m: photos of chips whose centres are nearer than this are no negatives either, metres.
        variant: soft targets, and the direction from photos to chips; of the image level and of "point" only.
        tags: weight of a term that does with the photos' tags, read by the teacher, what the loss does with photos.
        jitter: strength of the brightness changes of each band; 0 for none.
        light: strength of changes of light, air and calibration as large as the sensor's own kind has them
            (`augment.LIGHTS`), 1 for as large; 0 for none.
        ema: keep a moving average of the weights, such as 0.999; 0 for none.
        layer_decay: what the learning rate is multiplied by from one transformer block to the one below.
        freeze: the embeddings and so many of the first blocks stay as they are.
        chunk: chips that a process encodes at once, to save memory; the whole of its share where None.
        bf16: compute in bfloat16: "on", "off", or "auto" where the machine has it.
        memory_gb: gigabytes that chips may take in memory, see `load_pairs`.
        save_minutes: minutes between two checkpoints inside an epoch.
        tensorboard: draw curves for TensorBoard beside the log.
        seed: of everything random.
        resume: go on where a killed run stopped; False starts anew.
    """

    level: Levels = "both"
    preset: str = "mini"
    teacher: str = "mini"
    init: str = ""
    start: Literal["image", "scratch"] = "image"
    method: Literal["mixture", "point"] = "mixture"
    sampling: Literal["bilinear", "nearest"] = "bilinear"
    place: PlaceSettings = dataclasses.field(default_factory=PlaceSettings)
    smooth: float = 0.1
    epochs: int = 10
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    temperature: float | None = None
    alike: float = 0.05
    apart_m: float = 0.0
    variant: LossVariant = dataclasses.field(default_factory=LossVariant)
    tags: float = 0.0
    jitter: float = 0.1
    light: float = 0.0
    ema: float = 0.0
    layer_decay: float = 1.0
    freeze: int = 0
    chunk: int | None = None
    bf16: Literal["auto", "on", "off"] = "auto"
    memory_gb: float | None = None
    save_minutes: float = 10.0
    tensorboard: bool = False
    seed: int = 0
    resume: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        for name in ("jitter", "light", "tags", "smooth", "apart_m"):
            if getattr(self, name) < 0:
                raise BadSetting(f"{name} must be at least 0, not {getattr(self, name)}.")
        if self.batch < 1 or (self.temperature is not None and self.temperature <= 0):
            raise BadSetting(f"Training needs batch >= 1 and temperature > 0, not {self.batch} and {self.temperature}.")
        if not 0 <= self.alike < 1:
            raise BadSetting(f"alike is a share of photos from 0 to below 1, not {self.alike}.")
        choices = {"level": ("image", "pixel", "both", "joint"), "method": ("mixture", "point")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise BadSetting(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
        self.loop()

    @property
    def runs(self) -> tuple[tuple[Level, ...], ...]:
        """The levels of each encoder to train, in the order of training."""
        if self.level == "joint":
            return (("image", "pixel"),)
        return (("image",), ("pixel",)) if self.level == "both" else ((self.level,),)

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
            chunk=self.chunk,
            ema=self.ema,
            layer_decay=self.layer_decay,
            freeze=self.freeze,
            save_minutes=self.save_minutes,
            tensorboard=self.tensorboard,
        )

    def identity(self) -> dict[str, object]:
        """The settings that a resumed run must share, beside those of the loop."""
        changes = ("resume", "bf16", "chunk", "memory_gb", "save_minutes", "tensorboard", "level")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in changes}
