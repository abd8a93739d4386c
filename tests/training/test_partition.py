import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geograft.errors import BadSetting, ModelMismatch
from geograft.training import partition as module
from geograft.training.partition import expectation, partition


class Stored:
    """A mask that is held whole, and knows rows only."""

    def __init__(self, matrix):
        self.matrix = matrix

    def mask(self, start, stop, columns=slice(None)):
        return self.matrix[start:stop, columns]


def make_matrices(rows, columns, dim=5, *, seed=0, dtype=torch.float64, seen=True):
    draw = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, dim, generator=draw, dtype=dtype, requires_grad=True)
    right = torch.randn(columns, dim, generator=draw, dtype=dtype, requires_grad=True)
    mask = torch.rand(rows, columns, generator=draw) < 0.4
    if seen and columns:
        mask[:, 0] = False
    return left, right, mask


def plain(rows, columns, temperature, mask):
    return torch.logsumexp((rows @ columns.T / temperature).masked_fill(mask, -torch.inf), dim=1)


@pytest.fixture(params=["one tile", "tiles"])
def tiles(request, monkeypatch):
    """Everything in one tile, whose softmax is kept; or tiles of a few rows and columns."""
    if request.param == "tiles":
        monkeypatch.setattr(module, "TILE_BYTES", {"cpu": 6 * 8})
        monkeypatch.setattr(module, "_WIDTH", 3)


SHAPES = given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 11)),
    chunk=st.sampled_from([None, 1, 2, 4, 100]),
    temperature=st.sampled_from([0.01, 0.07, 1.0]),
    seed=st.integers(0, 1000),
)


@SHAPES
def test_the_partition_is_a_sum_of_exponentials(shape, chunk, temperature, seed):
    rows, columns, mask = make_matrices(*shape, seed=seed)
    found = partition(rows, columns, temperature=temperature, hidden=Stored(mask), chunk=chunk)
    for i in range(shape[0]):
        seen = [p for p in range(shape[1]) if not mask[i, p]]
        scores = [float(rows[i].detach() @ columns[p].detach()) / temperature for p in seen]
        top = max(scores)
        assert float(found[i].detach()) == pytest.approx(
            top + math.log(sum(math.exp(s - top) for s in scores)), abs=1e-9
        )


@SHAPES
@pytest.mark.parametrize("budget", [2**20, 6 * 8])
def test_gradients_are_those_of_the_whole_matrix(budget, shape, chunk, temperature, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE_BYTES", {"cpu": budget})
        patch.setattr(module, "_WIDTH", 3 if budget < 100 else 8192)
        rows, columns, mask = make_matrices(*shape, seed=seed)
        weights = torch.randn(shape[0], dtype=torch.float64)
        expected = torch.autograd.grad((plain(rows, columns, temperature, mask) * weights).sum(), (rows, columns))
        found = partition(rows, columns, temperature=temperature, hidden=Stored(mask), chunk=chunk)
        for ours, theirs in zip(torch.autograd.grad((found * weights).sum(), (rows, columns)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("tiles")
def test_gradients_pass_the_finite_difference_check():
    rows, columns, mask = make_matrices(7, 8, seed=3)
    torch.autograd.gradcheck(lambda r, c: partition(r, c, temperature=0.5, hidden=Stored(mask)), (rows, columns))
    torch.autograd.gradcheck(lambda r: partition(r, columns.detach(), temperature=0.5), (rows,))
    torch.autograd.gradcheck(lambda c: partition(rows.detach(), c, temperature=0.5), (columns,))


@pytest.mark.usefixtures("tiles")
def test_a_row_that_sees_nothing_is_minus_infinity_and_learns_nothing():
    rows, columns, mask = make_matrices(5, 7)
    mask[2] = True
    found = partition(rows, columns, temperature=0.07, hidden=Stored(mask))
    assert float(found[2].detach()) == -math.inf
    found.sum().backward()
    assert float(rows.grad[2].abs().sum()) == 0
    assert bool(rows.grad.isfinite().all())
    assert bool(columns.grad.isfinite().all())
    assert float(expectation(rows, columns, temperature=0.07, hidden=Stored(mask))[2].abs().sum()) == 0


@pytest.mark.usefixtures("tiles")
def test_the_expectation_is_the_softmax_weighted_mean_of_the_columns():
    rows, columns, mask = make_matrices(5, 7, seed=4)
    weights = torch.softmax((rows @ columns.T / 0.3).masked_fill(mask, -torch.inf), dim=1)
    found = expectation(rows, columns, temperature=0.3, hidden=Stored(mask))
    torch.testing.assert_close(found, (weights @ columns).detach())
    assert not found.requires_grad


def test_scores_of_thousands_neither_overflow_nor_vanish():
    rows, columns, mask = make_matrices(4, 6, dtype=torch.float32)
    found = partition(rows * 100, columns * 100, temperature=0.07, hidden=Stored(mask), chunk=1)
    torch.testing.assert_close(found, plain(rows * 100, columns * 100, 0.07, mask), rtol=1e-6, atol=0)


def test_autocast_and_half_precision_change_nothing_but_the_inputs():
    rows, columns, _ = make_matrices(6, 9, dim=64, dtype=torch.float32)
    rows, columns = rows.detach().bfloat16().requires_grad_(), columns.detach().half()
    exact = torch.logsumexp(rows.float() @ columns.float().T / 0.05, dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = partition(rows, columns, temperature=0.05, chunk=4)
        found.sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)
    assert rows.grad.dtype == torch.bfloat16
    torch.testing.assert_close(rows.grad, torch.autograd.grad(exact.sum(), rows)[0], rtol=1e-2, atol=1e-2)


def test_only_what_learns_gets_a_gradient():
    rows, columns, _ = make_matrices(4, 6)
    partition(rows, columns.detach(), temperature=1.0).sum().backward()
    partition(rows.detach(), columns, temperature=1.0).sum().backward()
    assert rows.grad is not None
    assert columns.grad is not None
    with torch.no_grad():
        assert not partition(rows, columns, temperature=1.0).requires_grad


def test_nothing_as_large_as_the_scores_is_kept():
    rows, columns, mask = make_matrices(64, 128, dim=4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        partition(rows, columns, temperature=0.07, hidden=Stored(mask), chunk=4).sum()
    assert max(kept) == columns.numel()
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        partition(rows, columns.detach(), temperature=0.07, chunk=4).sum()
    assert kept[:1] == [rows.numel()]
    assert max(kept) == rows.numel()


def test_no_rows_and_no_columns_are_no_special_case():
    rows, columns, _ = make_matrices(3, 4)
    assert partition(rows[:0], columns, temperature=1.0).shape == (0,)
    partition(rows[:0], columns, temperature=1.0).sum().backward()
    empty = partition(rows, columns[:0], temperature=1.0)
    assert empty.tolist() == [-math.inf] * 3
    empty.sum().backward()
    assert float(rows.grad.abs().sum()) == 0


def test_a_loss_that_is_not_a_number_is_not_hidden():
    rows, columns, _ = make_matrices(3, 4)
    broken = rows.detach().clone()
    broken[1] = torch.nan
    assert partition(broken, columns, temperature=1.0).isnan().tolist() == [False, True, False]


def test_impossible_arguments_are_named():
    rows, columns, _ = make_matrices(3, 4)
    with pytest.raises(BadSetting, match="temperature is 0"):
        partition(rows, columns, temperature=0.0)
    with pytest.raises(BadSetting, match="at least one row"):
        partition(rows, columns, temperature=1.0, chunk=0)
    with pytest.raises(ModelMismatch, match="5 dimensions and columns 3"):
        partition(rows, columns[:, :3], temperature=1.0)
