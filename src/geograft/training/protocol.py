"""What the loop trains: batches of rows that a model encodes, and a loss that compares what it found."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from geograft.training.cached import Found
from geograft.training.devices import Share


class Task(Protocol):
    """What the loop trains.

    Every process deals the same batches and encodes a share of each batch's rows. Its loss is the share of its rows in
    the loss of the batch: the losses of all processes *add up* to what one process alone would compute.

    Attributes:
        unit: what is counted in the progress bar ("chips").
        steps: batches of an epoch.
    """

    unit: str
    steps: int

    @property
    def model(self) -> nn.Module:
        """What is optimised."""

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[Any]:
        """The batches of an epoch, the same ones in every process and whenever they are asked for again.

        Args:
            epoch: from 0.
            skip: batches to leave out at the beginning, without reading what they hold.
        """

    def members(self, batch: Any) -> Sequence[str]:
        """The ids of what a batch holds."""

    def prepare(self, batch: Any, share: Share) -> Any:
        """The batch as tensors on the model's device: the rows of a share, and all that they are compared with.

        The same batch gives the same tensors: what is drawn here is drawn from a seed that the batch carries, not from
        torch's global generator, since a thread may prepare a batch while another one is learnt.
        """

    def rows(self, prepared: Any) -> int:
        """How many rows of a prepared batch are encoded here."""

    def encode(self, model: nn.Module, prepared: Any, rows: slice) -> Found:
        """The model's answer to some rows, with gradient.

        Rows must not depend on each other, so that a batch may be encoded in slices. With several processes all
        weights that learn are used here, not in `compare`, and all that is found is used in the loss.
        """

    def compare(self, found: Any, prepared: Any) -> Tensor:
        """This share of the batch's loss, a scalar, from what `encode` found for all rows of the share."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures after an epoch; the epoch with the lowest `val_loss` (else `loss`) is the best."""
