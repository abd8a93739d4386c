import numpy as np
import pytest
import torch
from torch.nn import functional

from geograft.training.retrieval import photo_ranks, recall


def unit(*shape, seed=0, dim=1):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def test_a_photo_like_its_chip_ranks_first():
    chips = unit(20, 8)
    owner = torch.tensor([3, 7, 7, 19])
    assert photo_ranks(chips, chips[owner], owner).tolist() == [1, 1, 1, 1]


def test_ranks_are_those_of_a_sort():
    chips, photos, owner = unit(30, 6), unit(11, 6, seed=1), torch.arange(11)
    order = (-(photos @ chips.T)).argsort(dim=1)
    expected = [int((order[row] == owner[row]).nonzero()) + 1 for row in range(11)]
    assert photo_ranks(chips, photos, owner).tolist() == expected


def test_the_best_patch_speaks_for_a_chip():
    tokens = unit(9, 6, 4, 4, seed=2)
    photos, owner = tokens[:, :, 1, 3], torch.arange(9)
    assert photo_ranks(tokens, photos, owner).tolist() == [1] * 9


def test_chips_that_all_look_alike_share_the_worst_rank():
    chips = unit(1, 6).repeat(10, 1)
    assert photo_ranks(chips, unit(1, 6, seed=3), torch.tensor([0])).tolist() == [10]


def test_recall_counts_the_best_percent():
    figures = recall(np.array([1, 5, 10, 11, 200]), 200)
    assert figures == pytest.approx({"recall_1pc": 0.2, "recall_10pc": 0.8, "median_rank": 0.05})
