"""What is compared: anything that scores the classes of chips, whole and densely."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geograft.models.model import Model
from geograft.models.satellite import Level
from geograft.models.teacher import Teacher
from geograft.sensors import Sensor
from geograft.tasks.embed import chip_embeddings
from geograft.tasks.queries import ClassVectors
from geograft.tasks.segment import upsample
from geograft.training.oracle import Oracle

Encode = Callable[[NDArray[Any]], NDArray[np.float32]]
ByPhrasing = Mapping[str, NDArray[np.float32]]

TEACHER_GRID = 4
"""Windows along one side of a chip when a teacher of whole photos is read out densely."""


class Method(Protocol):
    """Scores the classes of chips, once for each way of putting the words."""

    @property
    def name(self) -> str:
        """As results call it."""
        ...

    def chip_scores(self, pixels: NDArray[Any]) -> ByPhrasing:
        """Scores of whole chips, phrasing to (N, K)."""
        ...

    def maps(self, pixels: NDArray[Any]) -> Mapping[str, NDArray[np.int64]]:
        """Class index of every pixel, phrasing to (N, S, S)."""
        ...


@dataclass(frozen=True)
class TextMethod:
    """Scores classes by the cosine of their words with embeddings of chips and of their parts.

    Attributes:
        name: as results call it.
        embed: chips (N, C, S, S) to unit vectors (N, D).
        tokens: chips to unit vectors (N, D, h, w).
        vectors: the class words in each phrasing.
    """

    name: str
    embed: Encode
    tokens: Encode
    vectors: Mapping[str, ClassVectors]

    def chip_scores(self, pixels: NDArray[Any]) -> ByPhrasing:
        """Scores of whole chips, phrasing to (N, K)."""
        embeddings = self.embed(pixels)
        return {phrasing: vectors.scores(embeddings) for phrasing, vectors in self.vectors.items()}

    def maps(self, pixels: NDArray[Any]) -> Mapping[str, NDArray[np.int64]]:
        """Class index of every pixel, phrasing to (N, S, S): scores of tokens are brought to pixels bilinearly."""
        tokens = self.tokens(pixels)
        size = pixels.shape[-1]
        return {
            phrasing: upsample(vectors.dense_scores(tokens), size).argmax(axis=1)
            for phrasing, vectors in self.vectors.items()
        }


@dataclass(frozen=True)
class SupervisedMethod:
    """Scores classes by a network that was trained on their labels; it reads no words.

    Attributes:
        name: as results call it.
        chips: chips (N, C, S, S) to class scores (N, K).
        pixels: chips to the class index of every pixel (N, S, S).
    """

    name: str
    chips: Encode
    pixels: Callable[[NDArray[Any]], NDArray[np.int64]]

    def chip_scores(self, pixels: NDArray[Any]) -> ByPhrasing:
        """Scores of whole chips under "seen", for want of words."""
        return {"seen": self.chips(pixels)}

    def maps(self, pixels: NDArray[Any]) -> Mapping[str, NDArray[np.int64]]:
        """Class index of every pixel under "seen", for want of words."""
        return {"seen": self.pixels(pixels)}


def graft_method(model: Model, level: Level, vectors: Mapping[str, ClassVectors]) -> TextMethod:
    """One level of a model, whole chips and densely."""
    return TextMethod(
        name=f"graft-{level}",
        embed=lambda pixels: chip_embeddings(model, pixels, level=level),
        tokens=lambda pixels: model.dense(pixels, level=level),
        vectors=vectors,
    )


def teacher_method(teacher: Teacher, sensor: Sensor, vectors: Mapping[str, ClassVectors]) -> TextMethod:
    """The teacher of ground photos applied to chips directly, as CLIP is applied to satellite images.

    Densely, it looks at 4 x 4 windows of half a chip, each centred on its cell as far as the chip's border allows.
    """
    return TextMethod(
        name="teacher",
        embed=lambda pixels: teacher.encode_photos(_pictures(pixels, sensor)),
        tokens=lambda pixels: _windowed(teacher, pixels, sensor),
        vectors=vectors,
    )


def oracle_method(oracle: Oracle) -> SupervisedMethod:
    """The supervised oracle; its class ids count from 1, indices from 0."""
    return SupervisedMethod("oracle", oracle.classify, lambda pixels: oracle.segment(pixels).astype(np.int64) - 1)


def window_starts(size: int, *, grid: int = TEACHER_GRID) -> tuple[int, ...]:
    """Where windows of half a chip start along one side, centred on the cells of a grid and pushed inside."""
    half = size // 2
    centres = [(cell + 0.5) * size / grid for cell in range(grid)]
    return tuple(int(np.clip(round(centre - half / 2), 0, size - half)) for centre in centres)


def _windowed(teacher: Teacher, pixels: NDArray[Any], sensor: Sensor) -> NDArray[np.float32]:
    """Embeddings of the windows of chips, (N, D, 4, 4); windows that coincide are encoded once."""
    size = pixels.shape[-1]
    starts, half = window_starts(size), size // 2
    unique = sorted(set(starts))
    cells = [
        teacher.encode_photos(_pictures(pixels[:, :, row : row + half, column : column + half], sensor))
        for row in unique
        for column in unique
    ]
    found = np.stack(cells, axis=2).reshape(len(pixels), -1, len(unique), len(unique))
    index = [unique.index(start) for start in starts]
    return found[:, :, index][:, :, :, index]


def _pictures(pixels: NDArray[Any], sensor: Sensor) -> Sequence[Image.Image]:
    return [Image.fromarray(sensor.rgb(chip)) for chip in pixels]
