import numpy as np
import pytest

from geograft.models.inference.eager import TorchBackend
from geograft.models.inference.parity import compare, measure_parity, probe_chips


def unit(rng, rows):
    vectors = rng.normal(size=(rows, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_cosines_are_those_of_a_plain_loop_in_float64():
    rng = np.random.default_rng(0)
    left, right = unit(rng, 40), unit(rng, 40)
    cosines = sorted(
        float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))
        for a, b in zip(left.astype(np.float64), right.astype(np.float64), strict=True)
    )
    found = compare(left, right)
    assert found.cosine_min == pytest.approx(cosines[0])
    assert found.cosine_median == pytest.approx((cosines[19] + cosines[20]) / 2)
    assert found.max_difference == pytest.approx(np.abs(left - right).max())
    assert (found.vectors, found.safe) == (40, False)


def test_equal_vectors_are_safe_and_vectors_that_are_no_numbers_are_not():
    vectors = unit(np.random.default_rng(0), 10)
    assert compare(vectors, vectors).safe
    broken = vectors.copy()
    broken[3, 0] = np.nan
    found = compare(vectors, broken)
    assert not found.safe
    assert (found.cosine_min, found.max_difference) == (-1, 2)


def test_one_vector_in_a_thousand_may_stray():
    vectors = unit(np.random.default_rng(0), 1000)
    strayed = vectors.copy()
    strayed[0] *= -1
    assert compare(vectors, strayed).safe
    strayed[:50] *= -1
    assert not compare(vectors, strayed).safe


def test_everything_that_a_model_can_be_asked_for_is_compared(make_model):
    model = make_model()
    torch32, torch16 = TorchBackend(model.encoders, bf16=False), TorchBackend(model.encoders, bf16=True)
    found = measure_parity(model.encoders, torch32, torch16, probe_chips(model.encoders, 3))
    assert found.vectors == 3 + 2 * 3 * 16
    assert 0.999 < found.cosine_min < 1


def test_probe_chips_differ_and_are_the_same_each_time(make_model):
    encoders = make_model().encoders
    chips = probe_chips(encoders, 4)
    assert chips.shape == (4, 3, 16, 16)
    assert len({chip.tobytes() for chip in chips}) == 4
    np.testing.assert_array_equal(chips, probe_chips(encoders, 4))
