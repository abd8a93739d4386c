"""What computes a model's vectors, and the backend that always works: PyTorch itself."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geograft.models.inference.class_token import embed_class_token
from geograft.models.numerics import inference, to_unit
from geograft.models.satellite import Encoder, Level

_NAMES = {None: "torch", True: "torch-bf16", False: "torch-fp32"}


class Backend(Protocol):
    """Who computes a model's vectors. Batches may have any length above 0."""

    @property
    def name(self) -> str:
        """What `Model.use_backend` calls it."""

    def embed(self, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """One unit vector a chip, by the image level: normalised pixels (N, C, S, S) to (N, D)."""

    def tokens(self, chips: NDArray[np.float32], *, level: Level) -> NDArray[np.float32]:
        """One unit vector a patch: normalised pixels (N, C, S, S) to (N, D, h, w)."""


class TorchBackend:
    """PyTorch on the device that the encoders are on.

    Args:
        encoders: those of the model; weights that change are seen.
        bf16: bfloat16 or float32; None decides by the machine.
    """

    def __init__(self, encoders: Mapping[Level, Encoder], *, bf16: bool | None = None) -> None:
        self.encoders = encoders
        self.bf16 = bf16

    @property
    def name(self) -> str:
        """One of "torch", "torch-fp32", "torch-bf16"."""
        return _NAMES[self.bf16]

    def embed(self, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """One unit vector a chip, (N, D)."""
        encoder = self.encoders["image"]
        device = device_of(encoder)
        with inference(device, bf16=self.bf16):
            return to_unit(embed_class_token(encoder, _on(chips, device)))

    def tokens(self, chips: NDArray[np.float32], *, level: Level) -> NDArray[np.float32]:
        """One unit vector a patch, (N, D, h, w)."""
        encoder = self.encoders[level]
        device = device_of(encoder)
        with inference(device, bf16=self.bf16):
            return to_unit(encoder.tokens(_on(chips, device), level=level))


def device_of(encoder: Encoder) -> torch.device:
    """The device that an encoder's weights are on; the CPU where it has none."""
    first = next(iter(encoder.parameters()), None)
    return first.device if first is not None else torch.device("cpu")


def _on(chips: NDArray[np.float32], device: torch.device) -> Tensor:
    """Chips as a tensor on a device."""
    return torch.from_numpy(np.ascontiguousarray(chips, np.float32)).to(device)
