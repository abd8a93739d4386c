"""What an encoder of several sensors knows of each, and how a new sensor's patch embedding starts from a known one."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from geograft.errors import BadSetting
from geograft.sensors import Sensor


@dataclasses.dataclass(frozen=True)
class SensorStem:
    """What an encoder of several sensors knows of one of them.

    Attributes:
        name: the sensor's.
        bands: band names in the order of the input channels.
        gsd: metres per pixel of its chips.
        image_size: chip width and height in px.
        patch_size: patch width and height in px; divides `image_size`.
    """

    name: str
    bands: tuple[str, ...]
    gsd: float
    image_size: int
    patch_size: int

    def __post_init__(self) -> None:
        """Refuse a ground sample distance that is none; the rest is checked with the encoder's shape."""
        if not (math.isfinite(self.gsd) and self.gsd > 0):
            raise BadSetting(f"The sensor {self.name} needs a ground sample distance above 0 m, not {self.gsd}.")

    @classmethod
    def of(cls, sensor: Sensor, *, image_size: int, patch_size: int, gsd: float | None = None) -> "SensorStem":
        """The stem of a sensor for chips and patches of given sizes, at the sensor's own gsd where None is given."""
        return cls(sensor.name, sensor.bands, sensor.gsd if gsd is None else gsd, image_size, patch_size)

    @property
    def grid(self) -> int:
        """Patches along one side of a chip."""
        return self.image_size // self.patch_size


def borrow_kernels(kernels: Tensor, known: Sequence[str], bands: Sequence[str], patch: int) -> Tensor:
    """The patch embedding that a sensor starts with, from that of another.

    A band that the other sensor has takes that band's kernel, any other band the mean of all kernels; all are scaled
    by the ratio of the numbers of bands, so that the sum over bands keeps its size. Patches of another size take
    kernels resampled by `resample_kernels`. With the same bands and patch the kernels are returned as they are.

    Args:
        kernels: the known patch embedding, (width, known bands, p, p).
        known: its bands, in order.
        bands: those of the new sensor, in order.
        patch: the new sensor's patch in px.

    Returns:
        (width, bands, patch, patch).
    """
    mean = kernels.mean(dim=1)
    picked = [kernels[:, list(known).index(band)] if band in known else mean for band in bands]
    scaled = torch.stack(picked, dim=1) * (len(known) / len(bands))
    return scaled if patch == kernels.shape[-1] else resample_kernels(scaled, patch)


def resample_kernels(kernels: Tensor, patch: int) -> Tensor:
    """Kernels for patches of another size that answer to resized patches as the old ones do to the original.

    With B the bilinear resize of a patch, they are the least-squares solution w' of <B x, w'> = <x, w> for all x:
    w' = pinv(B^T) w (the PI-resize of FlexiViT, Beyer et al. 2023). Exact where patches grow.

    Args:
        kernels: (width, bands, p, p).
        patch: the new size in px.

    Returns:
        (width, bands, patch, patch).
    """
    old = kernels.shape[-1]
    pixels = torch.eye(old * old, dtype=torch.float64).reshape(old * old, 1, old, old)
    resized = functional.interpolate(pixels, (patch, patch), mode="bilinear", align_corners=False, antialias=True)
    transposed = resized.reshape(old * old, patch * patch)  # row i is B applied to pixel i, so this is B^T
    inverse = torch.linalg.pinv(transposed).to(kernels.device)
    flat = kernels.flatten(2).double() @ inverse.T
    return flat.reshape(*kernels.shape[:2], patch, patch).to(kernels.dtype)
