"""A linear probe: how well labels can be read off frozen patch embeddings, whatever words make of them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from geograft.errors import BadSetting, EmptyTable


@dataclass(frozen=True)
class ProbeSettings:
    """How a linear probe is fitted.

    Attributes:
        decay: weight of the squared weights in the loss, on features of unit variance.
        steps: most iterations of L-BFGS; the loss is convex, so the result depends on nothing else.
        most: most patches to fit on, drawn by the seed from all.
        seed: of the draw.
    """

    decay: float = 1e-5
    steps: int = 200
    most: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that fit nothing."""
        if self.decay < 0 or self.steps < 1 or self.most < 1 or self.seed < 0:
            raise BadSetting("A probe needs decay and seed >= 0, and at least one step and patch.")


@dataclass(frozen=True)
class LinearProbe:
    """Class scores of embeddings by one matrix.

    Attributes:
        weights: (K, D).
        bias: (K,).
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def dense_scores(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of patches (N, D, h, w), (N, K, h, w)."""
        scores: NDArray[np.float32] = np.einsum("kd,ndhw->nkhw", self.weights, tokens, optimize=True)
        return scores + self.bias[:, None, None]


def patch_shares(truth: NDArray[np.integer], grid: int, classes: int) -> NDArray[np.float32]:
    """How much of each patch every class covers.

    Args:
        truth: class indices of the pixels of chips, (N, S, S); values outside [0, classes) are no class.
        grid: patches along one side; divides S.
        classes: how many, K.

    Returns:
        (N, h, w, K); a patch without truth has zeros.
    """
    count, size = len(truth), truth.shape[-1]
    patch = size // grid
    flat = truth.reshape(count, grid, patch, grid, patch).transpose(0, 1, 3, 2, 4).reshape(-1, patch * patch)
    index = np.where((flat >= 0) & (flat < classes), flat, classes).astype(np.int64)
    index += np.arange(len(flat))[:, None] * (classes + 1)
    counts = np.bincount(index.ravel(), minlength=len(flat) * (classes + 1)).reshape(len(flat), classes + 1)
    shares: NDArray[np.float32] = (counts[:, :classes] / (patch * patch)).astype(np.float32)
    return shares.reshape(count, grid, grid, classes)


def fit_probe(
    parts: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]], *, settings: ProbeSettings | None = None
) -> LinearProbe:
    """The multinomial logistic regression of patches' class shares on their embeddings.

    The loss is the mean over pixels of the cross-entropy, each pixel having its patch's embedding.

    Args:
        parts: embeddings of patches (n, D) with the share of each class in them (n, K), part by part.
        settings: how it is fitted.

    Raises:
        EmptyTable: no patch has any truth.
    """
    settings = settings or ProbeSettings()
    features, shares = _gather(parts, settings)
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=1e-6)
    weights, bias = _minimise((features - mean) / std, shares, settings)
    weights = weights / std
    return LinearProbe(weights.numpy(), (bias - weights @ mean).numpy())


def _gather(
    parts: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]], settings: ProbeSettings
) -> tuple[Tensor, Tensor]:
    """A fair draw of the patches with truth."""
    found = [(features[known], shares[known]) for features, shares in parts if (known := shares.any(axis=1)).any()]
    if not found:
        raise EmptyTable("No patch has a class, so no probe can be fitted: name regions with their truth.")
    features, shares = (np.concatenate(columns) for columns in zip(*found, strict=True))
    if len(features) > settings.most:
        rows = np.random.default_rng(settings.seed).choice(len(features), settings.most, replace=False)
        features, shares = features[rows], shares[rows]
    return torch.from_numpy(features).float(), torch.from_numpy(shares).float()


def _minimise(features: Tensor, shares: Tensor, settings: ProbeSettings) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and bias (K,) of the least loss."""
    target = shares / shares.sum()
    weights = torch.zeros(shares.shape[1], features.shape[1], requires_grad=True)
    bias = torch.zeros(shares.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights, bias], max_iter=settings.steps, line_search_fn="strong_wolfe", tolerance_change=1e-9
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = functional.linear(features, weights, bias)
        value = -(target * logits.log_softmax(dim=1)).sum() + settings.decay / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()
