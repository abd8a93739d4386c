"""The supervised oracle: the same encoder body, trained on the truth labels of the same chips.

It says what the pixels hold for an encoder of this size, and so what GRAFT's figures are to be read against. It is the
only satellite encoder here that sees labels, and it exists for evaluation alone.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from geograft.errors import CheckpointMismatch, EmptyTable, ModelMismatch, UnknownModel
from geograft.models.numerics import has_bfloat16, inference
from geograft.models.satellite import EncoderSettings, SatelliteEncoder, load_strictly, preset_settings
from geograft.pairs.dataset import PairSet, load_pairs
from geograft.sensors import Sensor, get_sensor
from geograft.tables import Manifest, atomic, write_manifest
from geograft.training.augment import jitter_bands, turn
from geograft.training.loop import LoopSettings, Share, fit, plain_attention
from geograft.world.classes import CLASSES
from geograft.world.labels import ChipTruth, truth_for_chips

_IGNORED = -100
_CLASS_IDS = np.array([cover.id for cover in CLASSES], np.uint8)


@dataclasses.dataclass(frozen=True)
class OracleSettings:
    """The oracle's training: the encoder's own shape, the trainer's augmentation.

    Attributes:
        preset: the encoder's shape.
        epochs: passes over the chips.
        batch: chips a step.
        lr: highest learning rate.
        weight_decay: AdamW's, on matrices only.
        chip_weight: weight of the chip's label beside the mean over its pixels.
        jitter: strength of the brightness changes of each band.
        seed: of everything random.
    """

    preset: str = "mini"
    epochs: int = 20
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    chip_weight: float = 0.5
    jitter: float = 0.1
    seed: int = 0


class Oracle(nn.Module):
    """An encoder body with two linear heads: a class each pixel, and a class each chip.

    Args:
        settings: the body's shape; `dim` is the number of classes.
        sensor: what its bands mean.
    """

    def __init__(self, settings: EncoderSettings, sensor: Sensor) -> None:
        super().__init__()
        self.body = SatelliteEncoder(settings)
        self.sensor = sensor

    def forward(self, chips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of normalised chips (N, C, S, S): of pixels (N, K, S, S) and of chips (N, K)."""
        found = self.body.satellite_image_backbone(pixel_values=chips)
        tokens = self.body.projector(found.last_hidden_state[:, 1:]).transpose(1, 2)
        grid = self.body.settings.grid
        coarse = tokens.unflatten(2, (grid, grid)).float()
        size = self.body.settings.image_size
        pixels = functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
        return pixels, found.image_embeds.float()

    def classify(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of chips, (N, K) in the order of `CLASSES`; pixels are native, (N, C, S, S)."""
        return self._run(pixels)[1]

    def segment(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Class ids of pixels, (N, S, S); pixels are native, (N, C, S, S)."""
        return _CLASS_IDS[self._run(pixels)[0]]

    def _run(self, pixels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The likeliest class of each pixel and the logits of each chip, batch by batch."""
        if pixels.shape[1] != len(self.sensor.bands):
            raise ModelMismatch(f"The oracle reads the bands {', '.join(self.sensor.bands)}, not {pixels.shape[1]}.")
        classes, logits = [], []
        with inference(next(self.parameters()).device):
            for start in range(0, len(pixels), 256):
                chips = torch.from_numpy(self.sensor.normalise(pixels[start : start + 256]))
                dense, whole = self(chips.to(next(self.parameters()).device))
                classes.append(dense.argmax(1).cpu().numpy())
                logits.append(whole.cpu().numpy())
        return np.concatenate(classes), np.concatenate(logits)


@dataclasses.dataclass(frozen=True)
class OracleSummary:
    """What training an oracle came to.

    Attributes:
        folder: where it lies.
        chips: chips that it learnt from.
        metrics: figures of its best epoch on the validation chips: `val_loss`, `pixel_accuracy`, `top1`.
        seconds: spent training.
    """

    folder: Path
    chips: int
    metrics: dict[str, float]
    seconds: float


def train_oracle(
    pairs: Path,
    regions: Sequence[Path],
    out: Path,
    *,
    validation: tuple[Path, Sequence[Path]],
    settings: OracleSettings | None = None,
) -> OracleSummary:
    """Train the supervised oracle on the truth of the chips that GRAFT learns from.

    Args:
        pairs: the folder of pairs; the chips of its split "train" are learnt from, their photos ignored.
        regions: the simulated regions that these chips lie in, with their truth.
        out: the folder to write; checkpoints and log lie beside it, in `<out>.work`.
        validation: pairs and regions to choose the best epoch on.
        settings: shape and training.

    Raises:
        MissingInput: pairs or truth are missing.
        TrainingDiverged: the loss is not finite.
    """
    settings = settings or OracleSettings()
    learn = _labelled(load_pairs(Path(pairs), split="train"), regions)
    check = _labelled(load_pairs(Path(validation[0])), validation[1])
    sensor = learn[0].sensor
    shape = preset_settings(settings.preset, bands=sensor.bands, dim=len(CLASSES))
    torch.manual_seed(settings.seed)
    model = Oracle(shape, sensor)
    task = _OracleTask(model, learn, check, settings)
    loop = LoopSettings(
        epochs=settings.epochs,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        bf16=has_bfloat16(),
    )
    identity = {**dataclasses.asdict(settings), "chips": len(learn[0]), "sensor": sensor.name}
    history = fit(task, out.with_name(f"{out.name}.work"), loop, identity=identity)
    save_oracle(model, out)
    counts = {"done": len(learn[0]), "skipped": {}, "failed": {}}
    regions_read = [Path(region).name for region in regions]
    extra = {"metrics": history.best, "seconds": round(history.seconds)}
    write_manifest(out / "manifest.json", Manifest("oracle", {"regions": regions_read}, settings, counts, extra=extra))
    return OracleSummary(out, len(learn[0]), history.best, history.seconds)


def save_oracle(model: Oracle, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp16)."""
    weights = {name: value.detach().half().contiguous() for name, value in model.body.state_dict().items()}
    config = {
        "architecture": "geograft-oracle",
        "encoder": model.body.settings.to_dict(),
        "sensor": model.sensor.name,
        "classes": [cover.name for cover in CLASSES],
    }
    with atomic(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    with atomic(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_oracle(folder: Path) -> Oracle:
    """The oracle of a folder, ready for use.

    Raises:
        UnknownModel: there is none.
        CheckpointMismatch: it was trained for other classes, or its weights are of another architecture.
    """
    if not (folder / "config.json").is_file():
        raise UnknownModel(f"There is no oracle in {folder}: train it with scripts/train_mini.py.")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("classes") != [cover.name for cover in CLASSES]:
        raise CheckpointMismatch(f"The oracle in {folder} knows other classes: train it again.")
    model = Oracle(EncoderSettings.from_dict(config["encoder"]), get_sensor(config["sensor"]))
    load_strictly(model.body, load_file(folder / "model.safetensors"), source=str(folder))
    return model.eval()


def shipped_oracle(sensor: str) -> Path:
    """The folder of the oracle that the package ships for a sensor.

    Args:
        sensor: "world-1m" or "world-10m".

    Raises:
        UnknownModel: this installation has none.
    """
    folder = Path(str(resources.files("geograft"))) / "assets" / "oracles" / sensor
    if not (folder / "config.json").is_file():
        raise UnknownModel(f"There is no oracle for {sensor} at {folder}: train it with scripts/train_mini.py.")
    return folder


class _Step(NamedTuple):
    rows: NDArray[np.int64]
    seed: int


class _Prepared(NamedTuple):
    """A share of a batch, and how many pixels and chips of the whole batch have a label."""

    chips: Tensor
    cover: Tensor
    labels: Tensor
    counts: tuple[int, int]


class _OracleTask:
    """Chips with their truth as the loop's task."""

    unit = "chips"

    def __init__(
        self,
        model: Oracle,
        learn: tuple[PairSet, ChipTruth],
        check: tuple[PairSet, ChipTruth],
        settings: OracleSettings,
    ) -> None:
        self.oracle = model
        plain_attention(model.body.satellite_image_backbone)
        self.learn, self.check, self.settings = learn, check, settings
        self.steps = -(-len(learn[0]) // settings.batch)

    @property
    def model(self) -> Oracle:
        return self.oracle

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[_Step]:
        draw = np.random.default_rng([self.settings.seed, epoch])
        order = draw.permutation(len(self.learn[0]))
        for number, rows in enumerate(np.array_split(order, self.steps)):
            step = _Step(rows, int(draw.integers(2**31)))
            if number >= skip:
                yield step

    def members(self, batch: _Step) -> Sequence[str]:
        return self.learn[0].chip_ids[batch.rows].tolist()  # type: ignore[no-any-return]

    def prepare(self, batch: _Step, share: Share) -> _Prepared:
        chips, cover, labels = _tensors(self.learn, batch.rows)
        draw = torch.Generator().manual_seed(batch.seed)
        ways = torch.randint(8, (len(chips),), generator=draw)
        chips = jitter_bands(turn(chips, ways), draw, strength=self.settings.jitter)
        cover = turn(cover[:, None], ways)[:, 0]
        counts = int((cover != _IGNORED).sum()), int((labels != _IGNORED).sum())
        own = share.of(len(chips))
        chips, cover, labels = self._there(chips[own], cover[own], labels[own])
        return _Prepared(chips, cover, labels, counts)

    def rows(self, prepared: _Prepared) -> int:
        return len(prepared.chips)

    def encode(self, model: nn.Module, prepared: _Prepared, rows: slice) -> tuple[Tensor, Tensor]:
        return model(prepared.chips[rows])  # type: ignore[no-any-return]

    def compare(self, found: tuple[Tensor, Tensor], prepared: _Prepared) -> Tensor:
        return self._loss(*found, prepared)

    def validate(self, model: nn.Module) -> dict[str, float]:
        pairs, _ = self.check
        parts = np.array_split(np.arange(len(pairs)), -(-len(pairs) // 256))
        sums = np.zeros(5)
        for rows in parts:
            chips, cover, labels = self._there(*_tensors(self.check, rows))
            pixels, whole = model(chips)
            counts = int((cover != _IGNORED).sum()), int((labels != _IGNORED).sum())
            sums += [
                float(self._loss(pixels, whole, _Prepared(chips, cover, labels, counts))) * len(rows),
                int((pixels.argmax(1) == cover).sum()),
                counts[0],
                int((whole.argmax(1) == labels).sum()),
                counts[1],
            ]
        return {
            "val_loss": float(sums[0] / len(pairs)),
            "pixel_accuracy": float(sums[1] / max(sums[2], 1)),
            "top1": float(sums[3] / max(sums[4], 1)),
        }

    def _there(self, *tensors: Tensor) -> Iterator[Tensor]:
        """Tensors where the model computes."""
        device = next(self.oracle.parameters()).device
        return (tensor.to(device) for tensor in tensors)

    def _loss(self, pixels: Tensor, whole: Tensor, truth: _Prepared) -> Tensor:
        """Mean over the batch's labelled pixels, and over its labelled chips at the set weight."""
        options: dict[str, Any] = {"ignore_index": _IGNORED, "reduction": "sum"}
        dense = functional.cross_entropy(pixels, truth.cover, **options) / max(truth.counts[0], 1)
        chips = functional.cross_entropy(whole, truth.labels, **options) / max(truth.counts[1], 1)
        return dense + self.settings.chip_weight * chips


def _labelled(pairs: PairSet, regions: Sequence[Path]) -> tuple[PairSet, ChipTruth]:
    """Pairs with their truth.

    Raises:
        EmptyTable: none of the chips lies in one of the regions.
    """
    truth = truth_for_chips(regions, pairs.table)
    if not truth.cover.any():
        raise EmptyTable("None of the chips lies in one of the regions: name the regions that the pairs were made of.")
    return pairs, truth


def _tensors(data: tuple[PairSet, ChipTruth], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised chips, and indices into `CLASSES` of pixels and chips, `_IGNORED` where there is no class."""
    pairs, truth = data
    index = np.full(256, _IGNORED, np.int64)
    index[_CLASS_IDS] = np.arange(len(_CLASS_IDS))
    chips = torch.from_numpy(pairs.sensor.normalise(pairs.chips[rows]))
    return chips, torch.from_numpy(index[truth.cover[rows]]), torch.from_numpy(index[truth.labels[rows]])
