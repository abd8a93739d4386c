"""What a batch of pairs asks of an encoder: its levels' losses, from what was found for the chips of a process."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geograft.models.satellite import EncoderShape, Level, sample_tokens
from geograft.pairs.dataset import PairSet
from geograft.training.losses import multi_positive_contrastive, pixel_contrastive
from geograft.training.mixture import mixture_contrastive, roughness
from geograft.training.negatives import NegativeSettings
from geograft.training.partition import Hidden
from geograft.training.places import place_shares

if TYPE_CHECKING:
    from geograft.training.settings import TrainingSettings

UNSTATED_M = 10.0
"""Radius of geotags' errors where no photo of a set states any, metres."""

TEMPERATURE, MIXTURE_TEMPERATURE = 0.07, 0.1
"""Where none is set: the paper's, and the one of the mixture, in which a patch competes for fewer photos."""

_SAMPLE = 2048  # photos whose pairs tell how alike photos are

_COPY = 0.999  # the cosine above which two vectors of half precision are the same photo, or the same words


class Prepared(NamedTuple):
    """A batch as tensors: the chips of this process, and the photos of the whole batch.

    Attributes:
        chips: normalised pixels of this process's chips, (n, C, S, S).
        mine: which chips of the batch they are, ascending, (n,).
        total: chips N of the whole batch.
        photos: unit teacher embeddings of the whole batch, (P, D).
        owner: the chip of each photo, (P,), values in [0, N), ascending.
        taken: the photos of this process's chips, (p,).
        positions: their rows and columns, px, (p, 2).
        error: standard deviation of their geotags along an axis, metres, (p,).
        headings: where they look, degrees clockwise from the chip's top, NaN where unknown, (p,).
        centres: unit-sphere positions of the batch's chips, (N, 3).
        tags: teacher embeddings of the photos' tags, (P, D), or None.
        tagged: whether a photo has tags, (P,), or None.
        shared: whether several processes encode the batch, each its share; else all chips are here.
    """

    chips: Tensor
    mine: Tensor
    total: int
    photos: Tensor
    owner: Tensor
    taken: Tensor
    positions: Tensor
    error: Tensor
    headings: Tensor
    centres: Tensor
    tags: Tensor | None = None
    tagged: Tensor | None = None
    shared: bool = False

    @property
    def local(self) -> Tensor:
        """The place in `chips` of the chip of each photo of `taken`, (p,)."""
        return torch.searchsorted(self.mine, self.owner[self.taken])

    def only(self, keep: Tensor, photos: Tensor) -> tuple["Prepared", Tensor]:
        """The batch of some photos' chips, with other vectors for photos, and which of `chips` they are.

        Args:
            keep: photos that stay, (P,) bool; chips without any go.
            photos: vectors of all photos, (P, D).

        Returns:
            The batch, without pixels and tags, and a mask of this process's chips, (n,).
        """
        rows = keep.nonzero()[:, 0]
        chips = torch.unique(self.owner[rows])
        stay, own = torch.isin(self.mine, chips), keep[self.taken]
        batch = self._replace(
            chips=self.chips.new_empty(int(stay.sum()), 0),
            mine=torch.searchsorted(chips, self.mine[stay]),
            total=len(chips),
            photos=photos[rows],
            owner=torch.searchsorted(chips, self.owner[rows]),
            taken=torch.searchsorted(rows, self.taken[own]),
            positions=self.positions[own],
            error=self.error[own],
            headings=self.headings[own],
            centres=self.centres[chips],
            tags=None,
            tagged=None,
        )
        return batch, stay


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of an encoder's levels.

    Attributes:
        levels: the encoder's, in the order in which vectors are given; their losses are added.
        shape: the encoder's.
        gsd: metres a pixel.
        settings: temperature, method, beliefs of places, weights.
        negatives: which photos are no negatives.
        tag_negatives: which photos are none by their tags, which are more alike than photos are.
        usual: radius of errors of photos that state none, metres.
    """

    levels: tuple[Level, ...]
    shape: EncoderShape
    gsd: float
    settings: "TrainingSettings"
    negatives: NegativeSettings
    tag_negatives: NegativeSettings
    usual: float

    @classmethod
    def of(
        cls, levels: tuple[Level, ...], shape: EncoderShape, learn: Sequence[PairSet], settings: "TrainingSettings"
    ) -> "Objective":
        """An objective that fits the pairs to learn from: their errors, and how alike their photos are."""

        def without(of: Literal["photos", "tags"]) -> NegativeSettings:
            return NegativeSettings(settings.apart_m, similarity_of(learn, settings.alike, settings.seed, of=of))

        return cls(levels, shape, learn[0].gsd, settings, without("photos"), without("tags"), usual_error(learn))

    def __call__(self, found: Sequence[Tensor], batch: Prepared) -> Tensor:
        """This process's share of the loss of a batch.

        Args:
            found: of each level the vectors of chips (n, D), or of their patches (n, D, h, w).
            batch: what they are compared with.
        """
        loss = self.contrast(found, batch) + self._smoothness(found, batch)
        if batch.tags is None or batch.tagged is None or not bool(batch.tagged.any()):
            return loss
        words, stay = batch.only(batch.tagged, batch.tags)
        by_tags = dataclasses.replace(self, negatives=self.tag_negatives)
        return loss + self.settings.tags * by_tags.contrast([vectors[stay] for vectors in found], words)

    def _smoothness(self, found: Sequence[Tensor], batch: Prepared) -> Tensor | float:
        """What unlike neighbours of patches cost."""
        if not self.settings.smooth or "pixel" not in self.levels:
            return 0.0
        return self.settings.smooth * roughness(found[self.levels.index("pixel")], count=batch.total)

    def contrast(self, found: Sequence[Tensor], batch: Prepared) -> Tensor:
        """The levels' own losses, added: `__call__` without smoothness and tags."""
        parts = [self._level(level, vectors, batch) for level, vectors in zip(self.levels, found, strict=True)]
        return torch.stack(parts).sum()

    def _level(self, level: Level, found: Tensor, batch: Prepared) -> Tensor:
        if level == "image":
            return self._image(found, batch)
        return self._mixture(found, batch) if self.settings.method == "mixture" else self._point(found, batch)

    def _image(self, found: Tensor, batch: Prepared) -> Tensor:
        """Eq. 1."""
        return multi_positive_contrastive(
            found,
            batch.photos,
            batch.owner,
            temperature=self._temperature,
            mine=batch.mine if batch.shared else None,
            count=batch.total,
            hidden=self._hidden(batch),
            variant=self.settings.variant,
        )

    def _point(self, found: Tensor, batch: Prepared) -> Tensor:
        """Eq. 2."""
        size, mode = self.shape.image_size, self.settings.sampling
        tokens = found.to(torch.promote_types(found.dtype, torch.float32))
        patches = sample_tokens(tokens, batch.local, batch.positions, size, mode=mode)
        places = batch.centres[batch.owner]
        hidden = self.negatives.for_photos(batch.photos, mine=batch.taken, photo_places=places)
        return pixel_contrastive(
            patches,
            batch.photos,
            batch.owner,
            chips=batch.total,
            temperature=self._temperature,
            mine=batch.taken if batch.shared else None,
            hidden=hidden,
            variant=self.settings.variant,
        )

    def _mixture(self, found: Tensor, batch: Prepared) -> Tensor:
        """The place as a latent variable."""
        shares = place_shares(
            batch.positions,
            batch.error,
            batch.headings,
            size=self.shape.image_size,
            grid=self.shape.grid,
            gsd=self.gsd,
            settings=self.settings.place,
        )
        return mixture_contrastive(
            found,
            batch.photos,
            batch.owner,
            shares,
            temperature=self.settings.temperature or MIXTURE_TEMPERATURE,
            mine=batch.mine,
            count=batch.total,
            hidden=self._hidden(batch),
        )

    @property
    def _temperature(self) -> float:
        """Of Eq. 1 and Eq. 2."""
        return self.settings.temperature or TEMPERATURE

    def _hidden(self, batch: Prepared) -> Hidden | None:
        """What chips must not take for negatives."""
        return self.negatives.for_chips(batch.photos, batch.owner, mine=batch.mine, chip_places=batch.centres)


def usual_error(learn: Sequence[PairSet]) -> float:
    """The median radius of error that photos of pair sets state, metres."""
    stated = np.concatenate([pairs.accuracy[~np.isnan(pairs.accuracy)] for pairs in learn])
    return float(np.median(stated)) if len(stated) else UNSTATED_M


def similarity_of(
    learn: Sequence[PairSet], share: float, seed: int, *, of: Literal["photos", "tags"] = "photos"
) -> float:
    """The cosine that this share of all pairs of photos exceeds, to their teacher; 1 for none.

    Estimated on the pairs of some thousand photos drawn by the seed. It stays below that of copies, so that these are
    alike however many they are.

    Args:
        learn: the pairs, with embeddings.
        share: from 0, for which nothing is alike, to below 1.
        seed: of the draw.
        of: whether the photos are compared, or what people wrote beside them; 1 where nobody did.
    """
    if not share:
        return 1.0
    draw = np.random.default_rng([seed, 4])
    vectors = np.concatenate([_some(pairs, max(2, _SAMPLE // len(learn)), draw, of) for pairs in learn])
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return float(np.clip(np.quantile(cosines, 1 - share), -0.99, _COPY)) if len(cosines) else 1.0


def _some(pairs: PairSet, most: int, draw: np.random.Generator, of: str) -> NDArray[np.float32]:
    """Embeddings of some photos or their tags, each photo at most once."""
    matrix = pairs.embeddings if of == "photos" else pairs.tags
    if matrix is None:
        return np.empty((0, 0 if pairs.embeddings is None else pairs.embeddings.shape[1]), np.float32)
    known = np.arange(len(pairs.photo_ids)) if of == "photos" or pairs.has_tags is None else pairs.has_tags.nonzero()[0]
    drawn = np.sort(draw.choice(known, min(most, len(known)), replace=False))
    _, first = np.unique(pairs.photo_ids[drawn].astype(str), return_index=True)
    return np.asarray(matrix[drawn[np.sort(first)]], np.float32)
