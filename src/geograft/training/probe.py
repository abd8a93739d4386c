"""How well a teacher's text recognises photos: seen words, held-out words and held-out phrasings apart."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from geograft.training.captioned import CaptionedPhotos
from geograft.world.classes import CLASSES, HELD_OUT_TEMPLATES, SEEN_TEMPLATES, CoverClass

EncodePhotos = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
EncodeText = Callable[[Sequence[str]], NDArray[np.float32]]


def zero_shot(see: EncodePhotos, read: EncodeText, photos: CaptionedPhotos) -> dict[str, float]:
    """Shares of photos whose subject text recognises among all classes.

    Args:
        see: photos (N, S, S, 3) uint8 to unit vectors.
        read: texts to unit vectors.
        photos: those with a subject count.

    Returns:
        `top1_seen` (words and phrasings of the captions), `balanced_seen` (the mean over classes), `top1_words`
        (held-out words in seen phrasings), `top1_phrasings` (seen words in held-out phrasings), each in 0..1.
    """
    names = np.array([cover.name for cover in CLASSES])
    rows = np.flatnonzero(np.isin(photos.subjects, names))
    seen, truth = see(photos.pixels[rows]), photos.subjects[rows]
    right = {
        "seen": _right(seen, truth, names, prompts(read, held_out_words=False)),
        "words": _right(seen, truth, names, prompts(read, held_out_words=True)),
        "phrasings": _right(seen, truth, names, prompts(read, held_out_words=False, templates=HELD_OUT_TEMPLATES)),
    }
    balanced = np.mean([right["seen"][truth == name].mean() for name in names if (truth == name).any()])
    return {
        "top1_seen": float(right["seen"].mean()),
        "balanced_seen": float(balanced),
        "top1_words": float(right["words"].mean()),
        "top1_phrasings": float(right["phrasings"].mean()),
    }


def confusions(
    see: EncodePhotos, read: EncodeText, photos: CaptionedPhotos, *, most: int = 3
) -> dict[str, list[tuple[str, float]]]:
    """What each class's photos are taken for, the likeliest first, with shares of its photos."""
    names = np.array([cover.name for cover in CLASSES])
    rows = np.flatnonzero(np.isin(photos.subjects, names))
    guess = names[(see(photos.pixels[rows]) @ prompts(read, held_out_words=False).T).argmax(1)]
    found = {}
    for name in names:
        taken, counts = np.unique(guess[photos.subjects[rows] == name], return_counts=True)
        order = np.argsort(-counts)[:most]
        found[str(name)] = [(str(taken[at]), round(float(counts[at] / counts.sum()), 2)) for at in order]
    return found


def prompts(
    read: EncodeText, *, held_out_words: bool, templates: Sequence[str] = SEEN_TEMPLATES
) -> NDArray[np.float32]:
    """One unit vector a class, the mean over its words and the templates, (classes, D)."""
    return np.stack([_class_vector(read, cover, held_out_words, templates) for cover in CLASSES])


def _class_vector(
    read: EncodeText, cover: CoverClass, held_out_words: bool, templates: Sequence[str]
) -> NDArray[np.float32]:
    words = cover.held_out if held_out_words else cover.words
    mean = read([template.format(word) for word in words for template in templates]).mean(0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _right(
    seen: NDArray[np.float32], truth: NDArray[np.str_], names: NDArray[np.str_], texts: NDArray[np.float32]
) -> NDArray[np.bool_]:
    return names[(seen @ texts.T).argmax(1)] == truth  # type: ignore[no-any-return]
