"""Large batches on small cards: the gradient of a whole batch, encoded in slices.

A contrastive loss needs the embeddings of all rows at once, but only the embeddings: they are few numbers, the
activations behind them are many. So rows are encoded slice by slice without a graph; the loss gives the gradient of
each embedding; and each slice is encoded again, with a graph, to carry its gradients back to the weights. That is the
gradient of the whole batch up to rounding, at one more forward pass, in the memory of one slice.

Source: Gao, Zhang, Han, Callan, *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*,
RepL4NLP 2021 (GradCache).
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Found = Tensor | tuple[Tensor, ...]
"""What an encoder gives for some rows of a batch: one tensor or several, each with a row a chip."""

Encode = Callable[[slice], Found]
Compare = Callable[[Any], Tensor]
Apart = Callable[[], contextlib.AbstractContextManager[Any]]


def backward(
    encode: Encode,
    compare: Compare,
    rows: int,
    *,
    chunk: int | None = None,
    scale: float = 1.0,
    apart: Apart = contextlib.nullcontext,
    device: torch.device | None = None,
) -> Tensor:
    """Add the gradient of a batch's loss to the weights.

    Args:
        encode: what the model finds for a slice of rows; random choices in it are repeated exactly.
        compare: the scalar loss of what was found for all rows.
        rows: of the batch, 0 or more.
        chunk: rows encoded at once; all where None.
        scale: what the gradient is multiplied by.
        apart: a block in which processes do not exchange gradients; all but the last slice run in one.
        device: whose random choices are repeated, beside the CPU's.

    Returns:
        The loss, without graph and not scaled.
    """
    if chunk is None or rows <= chunk:
        loss = compare(encode(slice(0, rows)))
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    slices = [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]
    leaves, single, states = _forward(encode, slices, device)
    with apart():
        loss = compare(leaves[0] if single else tuple(leaves))
        (loss * scale).backward()  # type: ignore[no-untyped-call]
    gradients = [value.grad for value in leaves]
    after = _state(device)
    for part, state in zip(slices, states, strict=True):
        with contextlib.nullcontext() if part is slices[-1] else apart():
            _set_state(state, device)
            _carry_back(encode(part), [None if gradient is None else gradient[part] for gradient in gradients])
    _set_state(after, device)
    return loss.detach()


def _forward(encode: Encode, slices: list[slice], device: torch.device | None) -> tuple[list[Tensor], bool, list[Any]]:
    """What is found, as leaves that want a gradient; whether it is one tensor; the random state before each slice."""
    parts, states = [], []
    for part in slices:
        states.append(_state(device))
        with torch.no_grad():
            parts.append(encode(part))
    leaves = [torch.cat(values) for values in zip(*map(_as_tuple, parts), strict=True)]
    for leaf in leaves:
        leaf.requires_grad_(leaf.is_floating_point())
    return leaves, isinstance(parts[0], Tensor), states


def _as_tuple(found: Found) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _carry_back(found: Found, gradients: list[Tensor | None]) -> None:
    """Gradients of what was found, back to the weights; what the loss did not use is left out."""
    pairs = zip(_as_tuple(found), gradients, strict=True)
    ways = [(value, gradient) for value, gradient in pairs if gradient is not None and value.requires_grad]
    torch.autograd.backward([value for value, _ in ways], [gradient for _, gradient in ways])


def _state(device: torch.device | None) -> tuple[Tensor, Tensor | None]:
    """The state of the random generators of the CPU and of a GPU."""
    gpu = torch.cuda.get_rng_state(device) if device is not None and device.type == "cuda" else None
    return torch.get_rng_state(), gpu


def _set_state(state: tuple[Tensor, Tensor | None], device: torch.device | None) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None and device is not None:
        torch.cuda.set_rng_state(state[1], device)
