"""The log of a partition function over many columns, without ever holding the matrix of scores.

Every contrastive loss needs, for each of R rows, log Σ_p exp(row·column_p / τ) over P columns. Written plainly, the
(R, P) scores and what autograd keeps beside them are three to four such matrices: 16,384 chips against 65,536 photos
take more than 13 GB. Here scores exist only a tile at a time.

The gradient of a log-sum-exp to its row is the softmax-weighted mean of the columns, over τ. That mean has the size of
the rows, so it is summed up in the forward pass beside the sum of exponentials (rescaled when a larger maximum comes,
as in an online softmax), and the backward pass of the rows is one multiplication: no score is computed twice. Only
columns that learn have their tiles computed again.

| kept between the passes | size |
|---|---|
| the log-sum-exp | R |
| the mean column of each row, where rows learn | R · D |
| the softmax, where columns learn and one tile holds it all | at most a tile |

Sources: Milakov, Gimelshein, *Online normalizer calculation for softmax*, 2018; Rabe, Staats, *Self-attention does not
need O(n²) memory*, 2021, of which this is the case where the values are the keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geograft.errors import BadSetting, ModelMismatch

ALL = slice(None)
TILE_BYTES = {"cpu": 32 * 2**20}
"""Bytes of scores at a time by device type; a processor's caches favour small tiles, accelerators large ones."""
_ELSEWHERE = 256 * 2**20
_WIDTH = 8192  # columns a tile: wider ones make tiles of few rows, which multiply slowly


class Hidden(Protocol):
    """What a row must not see: the columns that are left out of its partition."""

    def mask(self, start: int, stop: int, columns: slice = ALL) -> Tensor | None:
        """True where a column is hidden from a row.

        Args:
            start: first row.
            stop: the row after the last.
            columns: the columns that are asked for.

        Returns:
            Bool tensor (stop - start, columns asked for), or None where nothing is hidden.
        """


def partition(
    rows: Tensor, columns: Tensor, *, temperature: float, hidden: Hidden | None = None, chunk: int | None = None
) -> Tensor:
    """The log-sum-exp of each row's scores over the columns it may see, (R,).

        log Σ_p exp(row·column_p / τ), over all p that are not hidden from the row

    Scores are computed in single precision, also under autocast and for half-precision inputs (bf16 rounds exponents
    of 14 to 1/16), and in double precision where an input is double. Gradients reach the rows and the columns, each
    only where it is required; they are not differentiable again.

    Args:
        rows: (R, D).
        columns: (P, D).
        temperature: tau; scores are divided by it.
        hidden: what rows must not see; see `geograft.training.negatives`.
        chunk: rows at a time; by default as many as fit `TILE_BYTES`. The result does not depend on it.

    Returns:
        (R,), in the dtype of the scores; -inf, without gradient, for a row that sees no column.

    Raises:
        BadSetting: the temperature is not positive, or the chunk is below 1.
        ModelMismatch: rows and columns have different dimensions.
    """
    options = _options(rows, columns, temperature, hidden, chunk)
    return _Partition.apply(rows, columns, options, torch.is_grad_enabled())  # type: ignore[no-any-return,no-untyped-call]


@torch.no_grad()
def expectation(
    rows: Tensor, columns: Tensor, *, temperature: float, hidden: Hidden | None = None, chunk: int | None = None
) -> Tensor:
    """The mean column of each row, weighted by the softmax of its scores, (R, D), without gradient.

    The same arguments, memory and errors as `partition`; zero for a row that sees no column.
    """
    scores = _Scores(rows, columns, _options(rows, columns, temperature, hidden, chunk))
    with torch.autocast(rows.device.type, enabled=False):
        mean = _reduce(scores, scores.buffer(), mean=True)[2]
    assert mean is not None
    return mean


@dataclass(frozen=True)
class _Options:
    """Temperature, mask, and a tile's rows and columns."""

    temperature: float
    hidden: Hidden | None
    dtype: torch.dtype
    height: int
    width: int


def _options(rows: Tensor, columns: Tensor, temperature: float, hidden: Hidden | None, chunk: int | None) -> _Options:
    """Checked options."""
    if not temperature > 0:
        raise BadSetting(f"The temperature is {temperature}: give one above 0, such as 0.07.")
    if chunk is not None and chunk < 1:
        raise BadSetting(f"A chunk holds at least one row, not {chunk}.")
    if rows.shape[1] != columns.shape[1]:
        raise ModelMismatch(
            f"Rows have {rows.shape[1]} dimensions and columns {columns.shape[1]}: "
            "train an encoder as wide as its teacher's embeddings."
        )
    dtype = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    scores = TILE_BYTES.get(rows.device.type, _ELSEWHERE) // dtype.itemsize
    wide = max(1, min(len(columns), scores // chunk if chunk else _WIDTH))
    tall = chunk or max(1, scores // wide)
    return _Options(temperature, hidden, dtype, max(1, min(tall, len(rows))), wide)


@dataclass(frozen=True)
class _Scores:
    """The matrix of scores, a tile at a time."""

    rows: Tensor
    columns: Tensor
    options: _Options

    @property
    def single(self) -> bool:
        """Whether one tile holds everything."""
        return self.options.height >= len(self.rows) and self.options.width >= len(self.columns)

    def buffer(self) -> Tensor:
        """Room for a tile."""
        return self.rows.new_empty(self.options.height * self.options.width, dtype=self.options.dtype)

    def bands(self) -> Iterator[tuple[slice, Tensor]]:
        """Chunks of rows, over tau."""
        for start in range(0, len(self.rows), self.options.height):
            band = slice(start, min(start + self.options.height, len(self.rows)))
            yield band, self.rows[band].to(self.options.dtype) / self.options.temperature

    def tiles(self, band: slice, scaled: Tensor, buffer: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Chunks of columns with the band's scores against them, -inf where hidden; each tile overwrites the last."""
        for start in range(0, len(self.columns), self.options.width):
            strip = slice(start, min(start + self.options.width, len(self.columns)))
            columns = self.columns[strip].to(self.options.dtype)
            tile = buffer[: len(scaled) * len(columns)].view(len(scaled), len(columns))
            torch.mm(scaled, columns.T, out=tile)
            self._hide(tile, band, strip)
            yield strip, columns, tile

    def _hide(self, tile: Tensor, band: slice, strip: slice) -> None:
        """Set hidden scores to -inf."""
        if self.options.hidden is None:
            return
        everything = strip.stop - strip.start == len(self.columns)
        mask = self.options.hidden.mask(band.start, band.stop, ALL if everything else strip)
        if mask is not None:
            tile.masked_fill_(mask, -torch.inf)


def _reduce(scores: _Scores, buffer: Tensor, *, mean: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Per row: the maximum (0 where nothing is seen), the sum of exponentials over it, the mean column if wanted."""
    count, dtype = len(scores.rows), scores.options.dtype
    base, total = scores.rows.new_zeros((2, count), dtype=dtype)
    found = scores.rows.new_zeros((count, scores.columns.shape[1]), dtype=dtype) if mean else None
    for band, scaled in scores.bands():
        peak = torch.full_like(base[band], -torch.inf)
        for _, columns, tile in scores.tiles(band, scaled, buffer):
            top = torch.maximum(peak, tile.amax(1))
            base[band] = _finite(top)
            tile.sub_(base[band, None]).exp_()
            shrink = (peak - base[band]).exp_()
            total[band] = total[band] * shrink + tile.sum(1)
            if found is not None:
                found[band].mul_(shrink[:, None]).addmm_(tile, columns)
            peak = top
    if found is not None:
        found.div_(total.where(total != 0, 1)[:, None])
    return base, total, found


def _finite(top: Tensor) -> Tensor:
    """What to subtract before exponentials: 0 for rows that see nothing, whose maximum is -inf."""
    return top.where(top != -torch.inf, 0)


class _Partition(torch.autograd.Function):
    """`partition` with its gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, options: _Options, learning: bool) -> Tensor:
        """The log-sum-exp; keeps what the table of this module says."""
        to_rows, to_columns = (learning and needed for needed in ctx.needs_input_grad[:2])
        scores = _Scores(rows, columns, options)
        buffer = scores.buffer()
        with torch.autocast(rows.device.type, enabled=False):
            base, total, mean = _reduce(scores, buffer, mean=to_rows)
        found = base + total.log()
        weights = None
        if to_columns and scores.single:
            weights = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
            weights.div_(total.where(total != 0, 1)[:, None])
        again = to_columns and weights is None
        ctx.save_for_backward(
            mean, weights, rows if to_columns else None, columns if again else None, found if again else None
        )
        ctx.options, ctx.dtypes = options, (rows.dtype, columns.dtype)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """To a row its mean column, to a column the softmax-weighted sum of the rows; both over tau."""
        mean, weights, rows, columns, found = ctx.saved_tensors
        pull = (gradient / ctx.options.temperature)[:, None]
        to_rows = to_columns = None
        if mean is not None:
            to_rows = (mean * pull).to(ctx.dtypes[0])
        if rows is not None:
            with torch.autocast(rows.device.type, enabled=False):
                if weights is None:
                    to_columns = _to_columns(_Scores(rows, columns, ctx.options), found, pull)
                else:
                    to_columns = weights.T @ (rows * pull).to(weights.dtype)
            to_columns = to_columns.to(ctx.dtypes[1])
        return to_rows, to_columns, None, None


def _to_columns(scores: _Scores, found: Tensor, pull: Tensor) -> Tensor:
    """The gradient to the columns, from tiles that are computed again, (P, D)."""
    gradient = torch.zeros_like(scores.columns, dtype=scores.options.dtype)
    base, buffer = _finite(found), scores.buffer()
    for band, scaled in scores.bands():
        pulled = scores.rows[band] * pull[band]
        for strip, _, tile in scores.tiles(band, scaled, buffer):
            tile.sub_(base[band, None]).exp_()
            gradient[strip].addmm_(tile.T, pulled)
    return gradient
