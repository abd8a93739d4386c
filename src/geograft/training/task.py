"""Pairs as the loop's task: batches of chips, augmented; the objective; validation by retrieval."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geograft.errors import BadSetting, MixedSensors
from geograft.models.satellite import Encoder, EncoderShape, Level
from geograft.pairs.dataset import Batch, PairSet
from geograft.pairs.mix import Mixed, PairMix
from geograft.training.augment import Part, draw_ways, jitter_bands, jitter_light, turn, turn_headings, turn_positions
from geograft.training.loop import Share, plain_attention
from geograft.training.objective import Objective, Prepared
from geograft.training.retrieval import photo_ranks, recall
from geograft.training.settings import TrainingSettings

_SHORT = 10  # patches a side up to which attention is written out
_MOST_VALIDATION = 1024  # chips: a fair draw of more costs time and tells no more
_AT_ONCE = 256

Watcher = Callable[[Encoder], dict[str, float]]
"""Further figures of an encoder in evaluation mode."""


class Step(NamedTuple):
    """A batch, and the seed of what is drawn for it."""

    mixed: Mixed
    seed: int


class PairTask:
    """Trains an encoder of one or both levels on pairs of one sensor.

    Args:
        model: the encoder.
        levels: "image", "pixel" or both, whose losses are added.
        learn: the pairs to learn from, with embeddings; several sets are of one sensor and ground sample distance.
        check: the pairs to validate on, or None.
        settings: batch size, losses, augmentation, seed.
        watch: further figures of each epoch, that choose nothing.
        share: the part of each batch that this process will prepare; only its pixels are read ahead.

    Raises:
        MixedSensors: the sets are of several sensors or ground sample distances.
    """

    unit = "chips"

    def __init__(
        self,
        model: nn.Module,
        levels: tuple[Level, ...],
        learn: PairSet | PairMix,
        check: PairSet | None,
        settings: TrainingSettings,
        *,
        watch: Watcher | None = None,
        share: Share = Share(),  # noqa: B008 - a tuple
    ) -> None:
        self.encoder = model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.shape = cast("EncoderShape", model.settings)
        if self.shape.grid <= _SHORT:
            plain_attention(model.satellite_image_backbone)
        self.learn = learn if isinstance(learn, PairMix) else PairMix((learn,))
        _check_alike([*self.learn.sets, *([] if check is None else [check])])
        self.levels, self.settings, self.watch, self.share = levels, settings, watch, share
        self.check = None if check is None else _fair_draw(check, settings.seed)
        self.objective = Objective.of(levels, self.shape, self.learn.sets, settings)
        self.steps = self.learn.steps(settings.batch)

    @property
    def model(self) -> nn.Module:
        """The encoder."""
        return self.encoder

    @property
    def device(self) -> torch.device:
        """Where the encoder computes; the loop may move it."""
        return next(self.encoder.parameters()).device

    # --- a step -------------------------------------------------------------------------------------------

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[Step]:
        """The batches of an epoch."""
        seed = self.settings.seed
        draws = np.random.default_rng([seed, epoch, 1]).integers(2**31, size=self.steps)[skip:].tolist()
        dealt = self.learn.batches(self.settings.batch, seed=seed, epoch=epoch, skip=skip, share=self.share)
        return (Step(mixed, draw) for mixed, draw in zip(dealt, draws, strict=True))

    def members(self, batch: Step) -> Sequence[str]:
        """The chips' ids."""
        pairs, rows = self.learn.sets[batch.mixed.set], batch.mixed.batch.chips
        return pairs.chip_ids[rows].tolist()  # type: ignore[no-any-return]

    def prepare(self, batch: Step, share: Share) -> Prepared:
        """Chips of a share, turned and in other light, with all photos.

        Raises:
            BadSetting: some process has no chips, but all are needed to compare photos with the chips of all.
        """
        if self.settings.variant.both_ways and share.world > len(batch.mixed.batch.chips):
            raise BadSetting(
                f"both_ways needs a chip a process, but a batch has {len(batch.mixed.batch.chips)} for {share.world}: "
                "set a larger batch or both_ways to 0, or use fewer processes."
            )
        prepared = self._tensors(self.learn.sets[batch.mixed.set], batch.mixed.batch, share)
        draw = torch.Generator().manual_seed(batch.seed)
        ways = draw_ways(prepared.total, draw).to(self.device)
        own, size = ways[prepared.owner[prepared.taken]], prepared.chips.shape[-1]
        chips = turn(prepared.chips, ways[prepared.mine])
        part = Part(prepared.total, share.of(prepared.total))
        if self.settings.jitter:
            chips = jitter_bands(chips, draw, strength=self.settings.jitter, part=part)
        if self.settings.light:
            sensor = self.learn.sets[batch.mixed.set].sensor
            chips = jitter_light(chips, sensor, draw, strength=self.settings.light, part=part)
        return prepared._replace(
            chips=chips,
            positions=turn_positions(prepared.positions, own, size),
            headings=turn_headings(prepared.headings, own),
        )

    def rows(self, prepared: Prepared) -> int:
        """The number of chips."""
        return len(prepared.chips)

    def encode(self, model: nn.Module, prepared: Prepared, rows: slice) -> tuple[Tensor, ...]:
        """Of each level the vectors of chips (n, D), or of their patches (n, D, h, w)."""
        return self._found(model, prepared.chips[rows])

    def compare(self, found: tuple[Tensor, ...], prepared: Prepared) -> Tensor:
        """The loss of the levels."""
        return self.objective(found, prepared)

    # --- an epoch -----------------------------------------------------------------------------------------

    def validate(self, model: nn.Module) -> dict[str, float]:
        """`val_loss` over batches as in training, and the recall of photos' own chips by the first level."""
        watched = self.watch(model) if self.watch is not None else {}  # type: ignore[arg-type]
        check = self.check
        if check is None:
            return watched
        rows = np.arange(len(check))
        parts = np.array_split(rows, -(-len(rows) // _AT_ONCE))
        each = [self._found(model, self._chips(check, part)) for part in parts]
        found = tuple(torch.cat(level) for level in zip(*each, strict=True))
        losses = [self._loss(found, check, some) for some in check.batches(self.settings.batch, seed=0, epoch=0)]
        everything = check.batch(rows)
        owner = torch.from_numpy(everything.owner).to(self.device)
        ranks = photo_ranks(found[0], _vectors(check.embeddings, everything.photos).to(self.device), owner)
        return {"val_loss": float(np.mean(losses)), **recall(ranks, len(rows)), **watched}

    def _loss(self, found: tuple[Tensor, ...], pairs: PairSet, batch: Batch) -> float:
        """The loss of a batch of which all chips are encoded."""
        some = torch.from_numpy(batch.chips).to(self.device)
        prepared = self._tensors(pairs, batch, Share(), pixels=False)
        return float(self.objective([vectors[some] for vectors in found], prepared))

    # --- tensors ------------------------------------------------------------------------------------------

    def _found(self, model: nn.Module, chips: Tensor) -> tuple[Tensor, ...]:
        """What an encoder finds in chips, a tensor a level."""
        if len(self.levels) > 1:
            return tuple(model(chips, level="both"))
        return (model(chips, level=self.levels[0]),)

    def _tensors(self, pairs: PairSet, batch: Batch, share: Share, *, pixels: bool = True) -> Prepared:
        """A batch as it is; without pixels its chips are empty."""
        count = len(batch.chips)
        rows = share.of(count)
        taken = np.flatnonzero((batch.owner >= rows.start) & (batch.owner < rows.stop))
        own = batch.photos[taken]
        radius = torch.from_numpy(pairs.accuracy[own].astype(np.float32))
        tagged = self.settings.tags > 0 and pairs.tags is not None and pairs.has_tags is not None
        found = Prepared(
            chips=self._chips(pairs, batch.chips[rows]) if pixels else torch.empty(rows.stop - rows.start, 0),
            mine=torch.arange(rows.start, rows.stop),
            total=count,
            photos=_vectors(pairs.embeddings, batch.photos),
            owner=torch.from_numpy(batch.owner),
            taken=torch.from_numpy(taken),
            positions=torch.from_numpy(batch.positions[taken]),
            error=self.settings.place.error(radius, self.objective.usual),
            headings=torch.from_numpy(pairs.heading[own].astype(np.float32)),
            centres=torch.from_numpy(pairs.centres[batch.chips]),
            tags=_vectors(pairs.tags, batch.photos) if tagged else None,
            tagged=torch.from_numpy(pairs.has_tags[batch.photos]) if tagged and pairs.has_tags is not None else None,
            shared=share.world > 1,
        )
        moved: list[Any] = [part.to(self.device) if isinstance(part, Tensor) else part for part in found]
        return Prepared(*moved)

    def _chips(self, pairs: PairSet, rows: NDArray[np.int64]) -> Tensor:
        """Normalised pixels of chips, (n, C, S, S)."""
        return torch.from_numpy(pairs.sensor.normalise(pairs.pixels(rows))).to(self.device)


def _vectors(matrix: object, rows: NDArray[np.int64]) -> Tensor:
    """Rows of a matrix of embeddings, float32."""
    return torch.from_numpy(np.asarray(matrix[rows], np.float32))  # type: ignore[index]


def _check_alike(sets: Sequence[PairSet]) -> None:
    """Refuse sets that one stem cannot read."""
    kinds = {(pairs.sensor.name, pairs.gsd, pairs.shape[1:]) for pairs in sets}
    if len(kinds) == 1:
        return
    named = ", ".join(f"{name} at {gsd:g} m ({shape[-1]} px)" for name, gsd, shape in sorted(kinds))
    if len({name for name, _, _ in kinds}) > 1:
        raise MixedSensors(
            f"The pairs are of {named}, but a plain encoder has one stem and knows no scale: train an encoder of "
            "several sensors (docs/scales.md), or one encoder a sensor."
        )
    raise MixedSensors(
        f"The pairs are of {named}, but an encoder reads each sensor at one scale: make all of them, those to validate "
        "on too, with the same gsd and chip_size."
    )


def _fair_draw(pairs: PairSet, seed: int) -> PairSet:
    """At most so many chips as tell enough."""
    if len(pairs) <= _MOST_VALIDATION:
        return pairs
    rows = np.random.default_rng(seed).choice(len(pairs), _MOST_VALIDATION, replace=False)
    return pairs.select(np.sort(rows))
