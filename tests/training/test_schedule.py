import itertools

import pytest
import torch

from geograft.training.schedule import make_optimiser, warmup_cosine


def test_the_rate_rises_in_a_line_and_falls_to_nothing():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == pytest.approx(1)
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.001


def test_a_run_of_one_step_still_moves():
    assert warmup_cosine(0, 1, 0.05) == 1


def test_norms_and_biases_do_not_decay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    decayed, kept = make_optimiser(model, lr=1e-3, weight_decay=0.1).param_groups
    assert [tuple(weight.shape) for weight in decayed["params"]] == [(4, 3)]
    assert decayed["weight_decay"] == 0.1
    assert [tuple(weight.shape) for weight in kept["params"]] == [(4,), (4,), (4,)]
    assert kept["weight_decay"] == 0
