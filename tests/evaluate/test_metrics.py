"""Metrics against cases worked by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from geograft.evaluate.metrics import (
    accuracy,
    average_precision_at,
    balanced_accuracy,
    class_average_precision,
    class_iou,
    class_recall,
    confusion,
    first_right_ranks,
    mean_average_precision,
    mean_iou,
    recall_at,
)


def draw(seed, count=400, classes=5):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    return (
        truth,
        np.where(rng.random(count) < 0.6, truth, rng.integers(0, classes, count)),
        rng.random((count, classes)),
    )


def test_a_hand_case_of_counts():
    counts = confusion([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 9], classes=3)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1]]
    assert accuracy(counts) == pytest.approx(3 / 6)
    np.testing.assert_allclose(class_recall(counts), [1 / 2, 1, 1 / 3])
    np.testing.assert_allclose(class_iou(counts), [1 / 3, 1 / 2, 1 / 3])
    assert mean_iou(counts) == pytest.approx((1 / 3 + 1 / 2 + 1 / 3) / 3)


def test_items_without_truth_do_not_count():
    assert confusion([-1, 0, 7], [0, 0, 0], classes=2).sum() == 1


def test_classes_that_the_truth_lacks_are_left_out_of_means():
    counts = confusion([0, 0, 1, 1], [0, 0, 1, 2], classes=3)
    assert np.isnan(class_iou(counts)[2])
    assert mean_iou(counts) == pytest.approx((1 + 0.5) / 2)
    assert balanced_accuracy(counts) == pytest.approx(0.75)


def test_nothing_to_average_is_nan_and_not_zero():
    counts = confusion([], [], classes=3)
    assert all(np.isnan(metric(counts)) for metric in (accuracy, balanced_accuracy, mean_iou))
    assert np.isnan(average_precision_at([False, False], [1, 2], 5))
    assert np.isnan(recall_at([], 1))


@pytest.mark.parametrize("seed", range(3))
def test_counts_agree_with_scikit_learn(seed):
    truth, guess, _ = draw(seed)
    counts = confusion(truth, guess, classes=5)
    assert (counts[:, :5] == sk.confusion_matrix(truth, guess)).all()
    assert accuracy(counts) == pytest.approx(sk.accuracy_score(truth, guess), abs=1e-12)
    assert balanced_accuracy(counts) == pytest.approx(sk.balanced_accuracy_score(truth, guess), abs=1e-12)
    assert mean_iou(counts) == pytest.approx(sk.jaccard_score(truth, guess, average="macro"), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_over_all_items_agrees_with_scikit_learn(seed):
    truth, _, scores = draw(seed)
    mine = class_average_precision(truth, scores, len(truth))
    theirs = [sk.average_precision_score(truth == c, scores[:, c]) for c in range(5)]
    np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_a_hand_case_of_average_precision():
    relevant, scores = [1, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.1, 0.2]
    assert average_precision_at(relevant, scores, 3) == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert average_precision_at(relevant, scores, 5) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision_at(relevant, scores, 1) == 1


def test_few_relevant_items_ranked_first_give_one_whatever_k_is():
    for k in (1, 2, 5, 100):
        assert average_precision_at([1, 1, 0, 0, 0, 0], [6, 5, 4, 3, 2, 1], k) == 1


def test_more_relevant_items_than_k_still_reach_one():
    assert average_precision_at([True] * 30, range(30), 20) == 1


@given(seed=st.integers(0, 10_000), k=st.integers(1, 60))
def test_average_precision_agrees_with_a_plain_loop(seed, k):
    rng = np.random.default_rng(seed)
    relevant, scores = rng.random(50) < 0.2, rng.random(50)
    order = sorted(range(50), key=lambda i: -scores[i])[:k]
    found, total = 0, 0.0
    for rank, item in enumerate(order, start=1):
        if relevant[item]:
            found += 1
            total += found / rank
    if relevant.any():
        expected = total / min(k, relevant.sum())
        assert average_precision_at(relevant, scores, k) == pytest.approx(expected, abs=1e-12)


def test_several_labels_an_item_are_ranked_by_relevance():
    relevant = np.array([[1, 1], [0, 1], [0, 0]], bool)
    scores = np.array([[0.9, 0.2], [0.5, 0.8], [0.1, 0.5]])
    assert mean_average_precision(relevant, scores, 3) == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


def test_recall_counts_queries_whose_answer_ranks_high_enough():
    similarity = np.array([[0.9, 0.1, 0.3], [0.2, 0.4, 0.6]])
    ranks = first_right_ranks(similarity, np.array([[1, 0, 0], [1, 1, 0]], bool))
    assert ranks.tolist() == [0, 1]
    assert recall_at(ranks, 1) == 0.5
    assert recall_at(ranks, 2) == 1


def test_a_tie_counts_against_the_query():
    ranks = first_right_ranks(np.ones((1, 10)), np.eye(1, 10, dtype=bool))
    assert ranks.tolist() == [9]


def test_a_query_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        first_right_ranks(np.ones((1, 3)), np.zeros((1, 3), bool))
