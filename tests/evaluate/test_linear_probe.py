import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from geograft.errors import BadSetting, EmptyTable
from geograft.evaluate.linear_probe import LinearProbe, ProbeSettings, fit_probe, patch_shares


def naive_shares(truth, grid, classes):
    """One patch at a time, one class at a time."""
    patch = truth.shape[-1] // grid
    found = np.zeros((len(truth), grid, grid, classes))
    for chip, row, column in np.ndindex(len(truth), grid, grid):
        block = truth[chip, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        for index in range(classes):
            found[chip, row, column, index] = (block == index).mean()
    return found


def test_shares_equal_a_naive_loop():
    truth = np.random.default_rng(0).integers(-1, 6, (3, 12, 12))
    np.testing.assert_allclose(patch_shares(truth, 4, 5), naive_shares(truth, 4, 5), atol=1e-7)


def blobs(count=300, classes=3, dim=5, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    centres = draw.normal(size=(classes, dim)) * 1.5
    features = (centres[labels] + draw.normal(size=(count, dim))) * draw.uniform(0.1, 9, dim) + draw.normal(size=dim)
    return features.astype(np.float32), labels, np.eye(classes, dtype=np.float32)[labels]


def scores(probe, features):
    return probe.dense_scores(features[:, :, None, None])[:, :, 0, 0]


def test_it_is_the_logistic_regression_of_the_field():
    features, labels, shares = blobs()
    probe = fit_probe([(features, shares)], settings=ProbeSettings(decay=1e-2))
    scaled = (features - features.mean(0)) / features.std(0)
    peer = LogisticRegression(C=1 / (1e-2 * len(features)), tol=1e-8, max_iter=1000).fit(scaled, labels)
    expected = peer.decision_function(scaled)
    found = scores(probe, features)
    centred = [values - values.mean(axis=1, keepdims=True) for values in (found, expected)]
    np.testing.assert_allclose(*centred, atol=0.02)


def test_a_mixed_patch_counts_for_each_of_its_classes():
    """Two patches of two classes each weigh as four pure half patches of the same embeddings."""
    features, _, shares = blobs(40, classes=2)
    mixed = np.full_like(shares, 0.5)
    pure = [(features, mixed * [1, 0]), (features, mixed * [0, 1])]
    whole, halves = (scores(fit_probe(parts), features) for parts in ([(features, mixed)], pure))
    np.testing.assert_allclose(whole, halves, atol=1e-3)


def test_patches_without_truth_do_not_count():
    features, _, shares = blobs()
    strangers = np.full((50, 5), 1e3, np.float32)
    with_them = fit_probe([(features, shares), (strangers, np.zeros((50, 3), np.float32))])
    np.testing.assert_array_equal(scores(with_them, features), scores(fit_probe([(features, shares)]), features))


def test_a_draw_of_the_patches_tells_the_same_classes_apart():
    features, labels, shares = blobs(2000)
    probe = fit_probe([(features, shares)], settings=ProbeSettings(most=300))
    whole = fit_probe([(features, shares)])
    right = [(scores(one, features).argmax(1) == labels).mean() for one in (probe, whole)]
    assert right[0] > right[1] - 0.05
    assert right[1] > 0.7


def test_scores_of_patches_stand_where_the_patches_are():
    draw = np.random.default_rng(0)
    probe = LinearProbe(draw.normal(size=(3, 4)).astype(np.float32), np.array([1, 2, 3], np.float32))
    tokens = draw.normal(size=(2, 4, 5, 6)).astype(np.float32)
    found = probe.dense_scores(tokens)
    assert found.shape == (2, 3, 5, 6)
    np.testing.assert_allclose(found[1, :, 4, 2], probe.weights @ tokens[1, :, 4, 2] + probe.bias, rtol=1e-5)


def test_nothing_to_fit_on_is_said():
    with pytest.raises(EmptyTable, match="No patch"):
        fit_probe([(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32))])


@pytest.mark.parametrize("change", [{"decay": -1}, {"steps": 0}, {"most": 0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(BadSetting):
        ProbeSettings(**change)
