"""Queries and class lists: what a user asks for, turned into unit vectors of the shared space.

A query is text in one or several phrasings, a ground photo, or a chip. A class list names the classes of a map;
each class may have several phrasings, and the best fitting one counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadQuery, MissingInput

DEFAULT_TEMPLATES: tuple[str, ...] = ("{}", "a photo of {}", "a picture of {}")
"""Phrasings that are averaged when the user names none."""

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
MAX_CLASSES = 255
"""A class map holds one byte a pixel, and 0 means no data."""


class TextEncoder(Protocol):
    """Whatever turns texts into unit vectors: a model or a teacher."""

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit embeddings of texts, (N, D)."""
        ...


@dataclass(frozen=True)
class ClassQuery:
    """One class of a class list.

    Attributes:
        name: what tables and legends show, the first phrasing.
        phrasings: texts that all mean this class; the best fitting one counts.
    """

    name: str
    phrasings: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """One thing to look for: exactly one of the three is given.

    Attributes:
        phrasings: texts that all mean the same; the best fitting one counts.
        photo: file of a ground photo.
        chip: pixels in the units of the model's sensor, (C, S, S).
    """

    phrasings: tuple[str, ...] = ()
    photo: Path | None = None
    chip: NDArray[np.generic] | None = None

    @property
    def label(self) -> str:
        """What a picture sheet or a log says about this query."""
        if self.photo is not None:
            return f"photo {self.photo.name}"
        return ", ".join(self.phrasings) or "a chip"


@dataclass(frozen=True)
class ClassVectors:
    """Unit vectors of a class list.

    Attributes:
        vectors: one vector per phrasing, (T, D), unit.
        owner: the class that each phrasing belongs to, (T,), values in [0, K), ascending.
        names: class names, K of them.
    """

    vectors: NDArray[np.float32]
    owner: NDArray[np.int64]
    names: tuple[str, ...]

    def scores(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of embeddings (N, D) with each class, the maximum over its phrasings, (N, K)."""
        return self.best(embeddings @ self.vectors.T)

    def dense_scores(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same for tokens (N, D, h, w), (N, K, h, w)."""
        count, dim, height, width = tokens.shape
        flat = np.ascontiguousarray(tokens.transpose(0, 2, 3, 1)).reshape(-1, dim)
        return self.scores(flat).reshape(count, height, width, -1).transpose(0, 3, 1, 2)

    def best(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """The maximum over each class's phrasings of cosines (N, T), giving (N, K)."""
        starts = np.searchsorted(self.owner, np.arange(len(self.names)))
        best: NDArray[np.float32] = np.maximum.reduceat(cosines, starts, axis=1)
        return best


def parse_classes(classes: str | Sequence[str]) -> tuple[ClassQuery, ...]:
    """The classes that a text such as `"water; crops, farmland; trees, forest"` names.

    Args:
        classes: classes separated by semicolons (or one string each), phrasings separated by commas.

    Returns:
        One `ClassQuery` per class, in the order given.

    Raises:
        BadQuery: no class, a class without a word, a name or phrasing that occurs twice, or more than 255 classes.
    """
    parts = classes.split(";") if isinstance(classes, str) else list(classes)
    if isinstance(classes, str) and parts and not parts[-1].strip():
        parts = parts[:-1]
    if not parts:
        raise BadQuery('no class given; write for example "water; crops, farmland; trees, forest"')
    if len(parts) > MAX_CLASSES:
        raise BadQuery(f"{len(parts)} classes given; a class map holds at most {MAX_CLASSES}")
    parsed = tuple(_parse_class(part, number) for number, part in enumerate(parts, start=1))
    _refuse_doubles([phrasing for one in parsed for phrasing in one.phrasings])
    return parsed


def parse_query(query: "str | Path | Query | NDArray[np.generic]") -> Query:
    """The query that a user's text, photo file or chip means.

    Args:
        query: text with phrasings separated by commas; a path of a photo (a string that ends like an image file
            counts as a path); pixels of a chip (C, S, S); or a `Query`, returned as it is.

    Raises:
        BadQuery: the text is empty or the chip is not (C, S, S).
        MissingInput: the photo does not exist.
    """
    if isinstance(query, Query):
        return query
    if isinstance(query, np.ndarray):
        return _chip_query(query)
    if isinstance(query, Path) or Path(query.strip()).suffix.lower() in PHOTO_SUFFIXES:
        return _photo_query(Path(query))
    return Query(phrasings=_phrasings(query, "the query"))


def encode_classes(
    encoder: TextEncoder, classes: Sequence[ClassQuery], *, templates: Sequence[str] = DEFAULT_TEMPLATES
) -> ClassVectors:
    """Unit vectors of a class list: per phrasing, the mean over templates.

    Raises:
        BadQuery: a template lacks the place `{}` for the phrasing.
        NoTextEncoder: the encoder knows no text.
    """
    phrasings = [phrasing for one in classes for phrasing in one.phrasings]
    owner = np.repeat(np.arange(len(classes)), [len(one.phrasings) for one in classes])
    vectors = encode_phrasings(encoder, phrasings, templates=templates)
    return ClassVectors(vectors=vectors, owner=owner, names=tuple(one.name for one in classes))


def encode_phrasings(
    encoder: TextEncoder, phrasings: Sequence[str], *, templates: Sequence[str] = DEFAULT_TEMPLATES
) -> NDArray[np.float32]:
    """Unit vectors of phrasings, each the mean over templates, (T, D).

    Raises:
        BadQuery: there is no template, or one lacks the place `{}` for the phrasing.
    """
    if not templates or any("{}" not in template for template in templates):
        raise BadQuery('every template needs the place {} for the words, as in "a photo of {}"')
    texts = [template.replace("{}", phrasing) for phrasing in phrasings for template in templates]
    vectors = encoder.encode_text(texts).reshape(len(phrasings), len(templates), -1).mean(axis=1)
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _parse_class(text: str, number: int) -> ClassQuery:
    phrasings = _phrasings(text, f"class {number}")
    return ClassQuery(name=phrasings[0], phrasings=phrasings)


def _phrasings(text: str, what: str) -> tuple[str, ...]:
    phrasings = tuple(" ".join(part.split()) for part in text.split(","))
    if not all(phrasings):
        raise BadQuery(f"{what} ({text!r}) has an empty phrasing; separate phrasings by single commas")
    return phrasings


def _refuse_doubles(phrasings: Sequence[str]) -> None:
    doubled = [name for name, count in Counter(one.casefold() for one in phrasings).items() if count > 1]
    if doubled:
        raise BadQuery(f"named twice: {', '.join(doubled)}; every phrasing may belong to one class only")


def _chip_query(pixels: NDArray[np.generic]) -> Query:
    if pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2]:
        raise BadQuery(f"a chip query must be (bands, size, size), got {pixels.shape}")
    return Query(chip=pixels)


def _photo_query(path: Path) -> Query:
    if not path.is_file():
        raise MissingInput(f"photo {path} does not exist")
    return Query(photo=path)
