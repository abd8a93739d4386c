"""How chips of several sensors become tokens: a patch embedding each, and positions that know the scale."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geograft.errors import ModelMismatch
from geograft.models.stems import MultiSettings, SensorStem, borrow_kernels

_PERIODS = (16.0, 8.0, 4.0, 2.0)
"""Periods of the features of ground sample distance, in octaves; even the shortest is wide enough to interpolate."""

_LONGEST = 10_000.0
"""Ratio of the longest to the shortest period of the metric encoding, that of the first transformer."""


def metric_encoding(grid: int, step: float, width: int) -> Tensor:
    """Sines and cosines of where the patches of a chip lie on the ground, after Scale-MAE's encoding of positions.

    With u the offset of a patch's centre from the chip's centre in units of the encoding, its row takes the first
    half of the numbers and its column the second, each as sin and cos of u / 10000^(4 i / width). Scale-MAE (Reed et
    al. 2023) scales the index of a patch by gsd / reference gsd, all patches having the same number of pixels; counting
    metres is the same for those, and holds for patches of any size.

    Args:
        grid: patches along one side.
        step: from one patch to the next, in units of the encoding.
        width: how many numbers a patch gets, a multiple of 4.

    Returns:
        (grid * grid, width), row by row.
    """
    offset = (torch.arange(grid, dtype=torch.float64) - (grid - 1) / 2) * step
    periods = _LONGEST ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = offset[:, None] / periods
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = waves[:, None].expand(-1, grid, -1), waves[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, width).float()


def scale_features(gsd: float) -> Tensor:
    """Fourier features of log2 of a ground sample distance in metres, (8,)."""
    angles = 2 * math.pi * math.log2(gsd) / torch.tensor(_PERIODS, dtype=torch.float64)
    return torch.cat([angles.sin(), angles.cos()]).float()


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Learnt positions for another number of patches, bicubic; the class token's stays.

    Args:
        positions: of the class token and a square of patches, (1 + g * g, width).
        grid: patches along one side.

    Returns:
        (1 + grid * grid, width); the same tensor where the grid is the same.
    """
    old = math.isqrt(len(positions) - 1)
    if old == grid:
        return positions
    square = positions[1:].T.reshape(1, -1, old, old)
    resized = functional.interpolate(square, (grid, grid), mode="bicubic", align_corners=False, antialias=grid < old)
    return torch.cat([positions[:1], resized.flatten(2)[0].T])


class ScalePositions(nn.Module):
    """Positional encodings of any grid and ground sample distance.

    The sum of three: what is learnt for a place in the chip; a projection of the place's `metric_encoding`; and a
    vector that says the ground sample distance. The class token has no place and gets the first and the last. The
    two that depend on scale start at zero.

    Args:
        width: length of the tokens, a multiple of 4.
        grid: patches along one side for which positions are learnt; others are interpolated.
        unit: metres that count as one step of the metric encoding.
    """

    def __init__(self, width: int, grid: int, unit: float) -> None:
        super().__init__()
        self.unit = unit
        self.position_embedding = nn.Parameter(torch.empty(1 + grid * grid, width).normal_(std=0.02))
        self.metric = nn.Linear(width, width, bias=False)
        hidden = nn.Linear(2 * len(_PERIODS), width)
        self.scale = nn.Sequential(hidden, nn.GELU(), nn.Linear(width, width, bias=False))
        self.forget_scale()

    def forget_scale(self) -> None:
        """Set what depends on scale to zero: positions as a plain encoder has them, ready to learn."""
        nn.init.zeros_(self.metric.weight)
        nn.init.zeros_(self.scale[2].weight)  # type: ignore[arg-type]

    def forward(self, stem: SensorStem) -> Tensor:
        """Encodings of the class token and of the patches of a stem's chips, (1 + h * w, width) float32."""
        device = self.position_embedding.device
        with torch.autocast(device.type, enabled=False):
            step = stem.patch_size * stem.gsd / self.unit
            waves = metric_encoding(stem.grid, step, self.position_embedding.shape[1]).to(device)
            place: Tensor = functional.pad(self.metric(waves), (0, 0, 1, 0))
            scale: Tensor = self.scale(scale_features(stem.gsd).to(device))
            return resample_positions(self.position_embedding, stem.grid) + place + scale


class ScaleEmbeddings(nn.Module):
    """Chips of several sensors as tokens: what stands before the shared transformer.

    Args:
        settings: the encoder's shape.
    """

    def __init__(self, settings: MultiSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.class_embedding = nn.Parameter(torch.empty(width).normal_(std=width**-0.5))
        self.kernels = nn.ParameterList(
            torch.empty(width, len(stem.bands), stem.patch_size, stem.patch_size).normal_(std=0.02)
            for stem in settings.sensors
        )
        self.positions = ScalePositions(width, settings.sensors[0].grid, settings.unit)

    def forward(self, chips: Tensor, sensor: str) -> Tensor:
        """Tokens of a sensor's chips (N, C, S, S), the class token first, (N, 1 + h * w, width).

        Raises:
            ModelMismatch: the sensor is not known, or its chips have another shape.
        """
        stem, kernels = self.settings.stem(sensor), self.kernel(sensor)
        expected = (len(stem.bands), stem.image_size, stem.image_size)
        if tuple(chips.shape[1:]) != expected:
            raise ModelMismatch(
                f"The encoder takes chips of {sensor} of the shape (N, {', '.join(map(str, expected))}) with the bands "
                f"{', '.join(stem.bands)}, but got {tuple(chips.shape)}."
            )
        patches = functional.conv2d(chips.to(kernels.dtype), kernels, stride=stem.patch_size)
        whole = self.class_embedding.expand(len(chips), 1, -1)
        positions: Tensor = self.positions(stem)
        return torch.cat([whole, patches.flatten(2).transpose(1, 2)], dim=1) + positions

    def kernel(self, sensor: str) -> Tensor:
        """The patch embedding of a known sensor, (width, C, patch, patch)."""
        found: Tensor = self.kernels[self.settings.sensors.index(self.settings.stem(sensor))]
        return found

    def baked(self, stem: SensorStem) -> dict[str, Tensor]:
        """What the embeddings of a plain encoder are called, and hold for a known sensor at the stem's gsd."""
        with torch.no_grad():
            return {
                "class_embedding": self.class_embedding.detach(),
                "patch_embedding.weight": self.kernel(stem.name).detach(),
                "position_embedding.weight": self.positions(stem),
            }

    @torch.no_grad()
    def start_from(self, theirs: Mapping[str, Tensor], bands: Sequence[str]) -> None:
        """Begin with a plain encoder's embeddings of some bands, named as in `baked`."""
        self.positions.forget_scale()
        self.class_embedding.copy_(theirs["class_embedding"])
        positions = resample_positions(theirs["position_embedding.weight"], self.settings.sensors[0].grid)
        self.positions.position_embedding.copy_(positions)
        for stem, mine in zip(self.settings.sensors, self.kernels, strict=True):
            mine.copy_(borrow_kernels(theirs["patch_embedding.weight"], bands, stem.bands, stem.patch_size))
