"""Metrics of the cards, each with its definition; all values lie in [0, 1].

Chance and edge cases are part of the definitions: classes that do not occur in the truth are left out of every mean
over classes, and a metric without anything to average is NaN, never 0.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def confusion(truth: ArrayLike, predicted: ArrayLike, *, classes: int) -> NDArray[np.int64]:
    """Counts of truth (rows) against prediction (columns).

    Args:
        truth: class indices of any shape; values outside [0, classes) mean "no truth" and are left out.
        predicted: class indices of the same shape; values outside [0, classes) count as wrong, in an extra last column.
        classes: how many classes there are, K.

    Returns:
        Counts, (K, K + 1); the last column counts items that got no class.
    """
    true = np.asarray(truth).astype(np.int64).ravel()
    guess = np.asarray(predicted).astype(np.int64).ravel()
    if true.shape != guess.shape:
        raise ValueError(f"truth has {true.size} items, the prediction {guess.size}")
    known = (true >= 0) & (true < classes)
    guess = np.where((guess >= 0) & (guess < classes), guess, classes)
    flat = np.bincount(true[known] * (classes + 1) + guess[known], minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def accuracy(counts: NDArray[np.int64]) -> float:
    """Share of items whose class is right (top-1 of chips, pixel accuracy of maps), from a confusion matrix."""
    total = counts.sum()
    return float(np.trace(counts) / total) if total else float("nan")


def class_recall(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class's items that are found, (K,); NaN for classes without an item."""
    return _ratio(np.diagonal(counts), counts.sum(axis=1))


def balanced_accuracy(counts: NDArray[np.int64]) -> float:
    """Mean over the classes in the truth of the share of their items that are found."""
    return _mean(class_recall(counts))


def class_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, (K,); NaN for classes that do not occur in the truth."""
    right = np.diagonal(counts)
    size = len(counts)
    union = counts.sum(axis=1) + counts[:, :size].sum(axis=0) - right
    return _ratio(right, np.where(counts.sum(axis=1) > 0, union, 0))


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Mean over the classes in the truth of intersection over union."""
    return _mean(class_iou(counts))


def average_precision_at(relevant: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Average precision of the k best ranked items.

    AP@k = 1 / min(k, R) · Σ over ranks r ≤ k that hold a relevant item of (relevant items up to r) / r, where R is the
    number of relevant items. So a ranking that puts relevant items first gets 1 whatever k and R are. Equal scores
    keep their order of input.

    Args:
        relevant: whether each item is relevant, (N,), booleans.
        scores: higher is better, (N,).
        k: how many of the best ranked items count, at least 1.

    Returns:
        A value in [0, 1]; NaN where no item is relevant.
    """
    relevance = np.asarray(relevant, dtype=bool)
    ranked = relevance[np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")][:k]
    possible = min(k, int(relevance.sum()))
    if possible == 0:
        return float("nan")
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float((precision * ranked).sum() / possible)


def class_average_precision(labels: ArrayLike, scores: ArrayLike, k: int) -> NDArray[np.float64]:
    """AP@k of each class used as a query over all items, (K,); NaN for classes without a relevant item.

    Args:
        labels: the class of each item (N,), or relevance of each item to each class (N, K) as booleans.
        scores: score of each item for each class, (N, K).
        k: how many of the best ranked items count.
    """
    table = np.asarray(scores)
    truth = np.asarray(labels)
    relevant = truth if truth.ndim == 2 else truth[:, None] == np.arange(table.shape[1])[None, :]
    return np.array([average_precision_at(relevant[:, c], table[:, c], k) for c in range(table.shape[1])])


def mean_average_precision(labels: ArrayLike, scores: ArrayLike, k: int) -> float:
    """mAP@k: the mean of AP@k over the classes that have a relevant item."""
    return _mean(class_average_precision(labels, scores, k))


def recall_at(ranks: ArrayLike, k: int) -> float:
    """Share of queries whose first right answer ranks among the best k.

    Args:
        ranks: zero-based rank of each query's first right answer, (Q,).
        k: how many ranks count as found.
    """
    found = np.asarray(ranks)
    return float((found < k).mean()) if found.size else float("nan")


def first_right_ranks(similarity: ArrayLike, right: ArrayLike) -> NDArray[np.int64]:
    """Zero-based rank of the best ranked right answer of each query, (Q,).

    Ties count against the query: a right answer ranks behind every wrong one of the same score, so that a model
    that gives everything the same score finds nothing.

    Args:
        similarity: score of each item for each query, (Q, N).
        right: which items answer each query, (Q, N), booleans, at least one each.
    """
    scores, mask = np.asarray(similarity), np.asarray(right, dtype=bool)
    if not mask.any(axis=1).all():
        raise ValueError("every query needs at least one right answer")
    best = np.where(mask, scores, -np.inf).max(axis=1, keepdims=True)
    ranks: NDArray[np.int64] = ((scores >= best) & ~mask).sum(axis=1)
    return ranks


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.full(len(part), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
