"""Pairs as the loop's task: batches of chips, the loss of a level, and validation by retrieval."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geograft.models.satellite import Level, SatelliteEncoder, sample_tokens
from geograft.pairs.dataset import Batch, PairSet
from geograft.training.augment import jitter_bands, turn_chips
from geograft.training.loop import Share, alone, plain_attention
from geograft.training.losses import multi_positive_contrastive, pixel_contrastive
from geograft.training.retrieval import photo_ranks, recall

if TYPE_CHECKING:
    from geograft.training.trainer import TrainingSettings

_SHORT = 10  # patches a side up to which attention is written out
_MOST_VALIDATION = 1024  # chips: a fair draw of more costs time and tells no more


class Step(NamedTuple):
    """A batch, and the seed of what is drawn for it."""

    batch: Batch
    seed: int


class Prepared(NamedTuple):
    """Chips (N, C, S, S), photo embeddings (P, D), owners (P,) and positions (P, 2) of a batch."""

    chips: Tensor
    photos: Tensor
    owner: Tensor
    positions: Tensor


class PairTask:
    """Trains one level of a satellite encoder on pairs.

    Args:
        model: the encoder.
        level: "image" or "pixel".
        learn: the pairs to learn from, with embeddings.
        check: the pairs to validate on, or None.
        settings: batch size, temperature, augmentation, seed.
    """

    unit = "chips"

    def __init__(
        self,
        model: SatelliteEncoder,
        level: Level,
        learn: PairSet,
        check: PairSet | None,
        settings: "TrainingSettings",
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.encoder = model.to(self.device)
        if model.settings.grid <= _SHORT:
            plain_attention(model.satellite_image_backbone)
        self.level, self.learn, self.settings = level, learn, settings
        self.check = None if check is None else _fair_draw(check, settings.seed)
        self.steps = -(-len(learn) // settings.batch)

    @property
    def model(self) -> SatelliteEncoder:
        """The encoder."""
        return self.encoder

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[Step]:
        """The batches of an epoch."""
        draw = np.random.default_rng([self.settings.seed, epoch, 1])
        for number, batch in enumerate(self.learn.batches(self.settings.batch, seed=self.settings.seed, epoch=epoch)):
            step = Step(batch, int(draw.integers(2**31)))
            if number >= skip:
                yield step

    def members(self, batch: Step) -> Sequence[str]:
        """The chips' ids."""
        return self.learn.chip_ids[batch.batch.chips].tolist()  # type: ignore[no-any-return]

    def prepare(self, batch: Step, share: Share) -> Prepared:
        """Augmented chips with their photos."""
        alone(share, "A satellite encoder")
        chips, photos, owner, positions = self._tensors(self.learn, batch.batch)
        draw = torch.Generator().manual_seed(batch.seed)
        chips, positions = turn_chips(chips, owner, positions, draw)
        if self.settings.jitter:
            chips = jitter_bands(chips, draw, strength=self.settings.jitter)
        return Prepared(chips, photos, owner, positions)

    def rows(self, prepared: Prepared) -> int:
        """The number of chips."""
        return len(prepared.chips)

    def encode(self, model: nn.Module, prepared: Prepared, rows: slice) -> Tensor:
        """Vectors of chips (n, D), or of their patches (n, D, h, w)."""
        return model(prepared.chips[rows], level=self.level)  # type: ignore[no-any-return]

    def compare(self, found: Tensor, prepared: Prepared) -> Tensor:
        """The level's loss."""
        return self._loss(found, prepared.photos, prepared.owner, prepared.positions)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """`val_loss` over batches as in training, and the recall of photos' own chips."""
        if self.check is None:
            return {}
        rows = np.arange(len(self.check))
        parts = np.array_split(rows, -(-len(rows) // 256))
        found = torch.cat([model(self._chips(self.check, part), level=self.level) for part in parts])
        losses = []
        for batch in self.check.batches(self.settings.batch, seed=0, epoch=0):
            _, photos, owner, positions = self._tensors(self.check, batch)
            losses.append(float(self._loss(found[torch.from_numpy(batch.chips)], photos, owner, positions)))
        everything = self.check.batch(rows)
        _, photos, owner, _ = self._tensors(self.check, everything)
        return {"val_loss": float(np.mean(losses)), **recall(photo_ranks(found, photos, owner), len(rows))}

    def _loss(self, found: Tensor, photos: Tensor, owner: Tensor, positions: Tensor) -> Tensor:
        """Eq. 1 of chips' vectors, or Eq. 2 of patches' vectors at the photos' places."""
        tau = self.settings.temperature
        if self.level == "image":
            return multi_positive_contrastive(found, photos, owner, temperature=tau)
        size = self.model.settings.image_size
        patches = sample_tokens(found.float(), owner, positions, size, mode=self.settings.sampling)
        return pixel_contrastive(patches, photos, owner, chips=len(found), temperature=tau)

    def _tensors(self, pairs: PairSet, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Chips, photo embeddings, owners and positions of a batch."""
        assert pairs.embeddings is not None
        photos = torch.from_numpy(pairs.embeddings[batch.photos].astype(np.float32))
        owner, positions = torch.from_numpy(batch.owner), torch.from_numpy(batch.positions)
        chips = self._chips(pairs, batch.chips)
        return chips, photos.to(self.device), owner.to(self.device), positions.to(self.device)

    def _chips(self, pairs: PairSet, rows: NDArray[np.int64]) -> Tensor:
        """Normalised pixels of chips, (n, C, S, S)."""
        return torch.from_numpy(pairs.sensor.normalise(pairs.chips[rows])).to(self.device)


def _fair_draw(pairs: PairSet, seed: int) -> PairSet:
    """At most so many chips as tell enough."""
    if len(pairs) <= _MOST_VALIDATION:
        return pairs
    rows = np.random.default_rng(seed).choice(len(pairs), _MOST_VALIDATION, replace=False)
    return pairs.select(np.sort(rows))
