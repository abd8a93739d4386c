"""Encoders as graphs that other libraries run: which there are, what they give, and how they are traced.

A model becomes one graph an encoder: `image` and `pixel`, or `joint` where one encoder serves both levels. A graph
takes `chips`, normalised pixels (N, C, S, S) of any N, and has the outputs that the model can be asked for; a runtime
computes only the one that it is asked for.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geograft.errors import ExportFailed, MissingExtra, ModelMismatch
from geograft.models.inference.class_token import embed_class_token
from geograft.models.satellite import Encoder, EncoderShape, Level

INPUT = "chips"
"""The name of every graph's input."""

EMBEDDING = "embedding"
"""The output with one vector a chip, (N, D)."""

OPSET = 18
"""The version of ONNX's operators."""


def tokens_output(level: Level) -> str:
    """The output with one vector a patch, (N, D, h, w), read out by a level."""
    return f"{level}_tokens"


@dataclass(frozen=True)
class GraphPlan:
    """One graph of a model.

    Attributes:
        name: "image", "pixel" or "joint".
        encoder: what is traced.
        outputs: in the graph's order.
    """

    name: str
    encoder: Encoder
    outputs: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of a chip."""
        settings = self.encoder.settings
        return len(settings.bands), settings.image_size, settings.image_size


def plan_graphs(encoders: Mapping[Level, Encoder]) -> tuple[GraphPlan, ...]:
    """The graphs of a model's encoders."""
    image, pixel = encoders.get("image"), encoders.get("pixel")
    if image is not None and image is pixel:
        return (GraphPlan("joint", image, (EMBEDDING, tokens_output("image"), tokens_output("pixel"))),)
    plans = []
    if image is not None:
        plans.append(GraphPlan("image", image, (EMBEDDING, tokens_output("image"))))
    if pixel is not None:
        plans.append(GraphPlan("pixel", pixel, (tokens_output("pixel"),)))
    return tuple(plans)


class _Traced(nn.Module):
    """An encoder with all outputs of its graph."""

    def __init__(self, plan: GraphPlan) -> None:
        super().__init__()
        self.encoder = plan.encoder
        self.outputs = plan.outputs

    def forward(self, chips: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the graph's order."""
        return tuple(self._output(name, chips) for name in self.outputs)

    def _output(self, name: str, chips: Tensor) -> Tensor:
        """One output."""
        if name == EMBEDDING:
            return embed_class_token(self.encoder, chips)
        return self.encoder.tokens(chips, level="image" if name == tokens_output("image") else "pixel")


def write_onnx(plan: GraphPlan, path: Path) -> None:
    """Write a graph as ONNX, in float32.

    Raises:
        MissingExtra: the packages of the extra `[onnx]` are not installed.
        ExportFailed: the encoder has parts that ONNX has no operator for.
    """
    require("onnx", "onnx", "onnxruntime")
    names = (INPUT, *plan.outputs)
    with _tracing(plan, "ONNX") as (module, example):
        torch.onnx.export(
            module, (example,), str(path), dynamo=False, input_names=[INPUT], output_names=list(plan.outputs),
            dynamic_axes={name: {0: "n"} for name in names}, opset_version=OPSET,
        )  # fmt: skip


def to_openvino(plan: GraphPlan) -> Any:
    """A graph as an `openvino.Model`, in float32.

    Raises:
        MissingExtra: the packages of the extra `[openvino]` are not installed.
        ExportFailed: the encoder has parts that OpenVINO has no operator for.
    """
    require("openvino", "openvino")
    with _tracing(plan, "OpenVINO") as (module, example), private():
        import openvino

        graph = openvino.convert_model(module, example_input=example, input=[(INPUT, [-1, *plan.shape])])
    for output, name in zip(graph.outputs, plan.outputs, strict=True):
        output.get_tensor().set_names({name})
    graph.inputs[0].get_tensor().set_names({INPUT})
    return graph


@contextmanager
def _tracing(plan: GraphPlan, library: str) -> Iterator[tuple[nn.Module, Tensor]]:
    """An encoder ready to be traced in float32 on the CPU, without the warnings that tracing always gives."""
    device = next((weight.device for weight in plan.encoder.parameters()), torch.device("cpu"))
    plan.encoder.to("cpu")
    try:
        with torch.inference_mode(), warnings.catch_warnings(), _muted():
            warnings.simplefilter("ignore")
            yield _Traced(plan).eval(), torch.zeros(2, *plan.shape)
    except MissingExtra:
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ExportFailed(f"The {plan.name} encoder does not become {library}: {reason}") from error
    finally:
        plan.encoder.to(device)


@contextmanager
def _muted() -> Iterator[None]:
    """Keep transformers from wondering about attributes that a tracer asks for."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def check_shape(settings: EncoderShape, shape: tuple[int, ...]) -> None:
    """Refuse chips of other bands or another size than an encoder takes.

    Raises:
        ModelMismatch: they are.
    """
    expected = (len(settings.bands), settings.image_size, settings.image_size)
    if shape[1:] != expected:
        raise ModelMismatch(
            f"The encoder takes chips of the shape (N, {', '.join(map(str, expected))}) with the bands "
            f"{', '.join(settings.bands)}, but got {shape}."
        )


# --- libraries --------------------------------------------------------------------------------------------


def require(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises:
        MissingExtra: one is not installed.
    """
    if missing := [package for package in packages if not installed(package)]:
        raise MissingExtra(f"This needs {' and '.join(missing)}: pip install 'geograft[{extra}]'.")


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    from importlib.util import find_spec

    return find_spec(package) is not None


@contextmanager
def private() -> Iterator[None]:
    """Let OpenVINO's tools work without sending their usage to their makers, as they do by default."""
    switches = {"CI": "true", "NNCF_CI": "1"}
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    level = logging.getLogger("nncf").level
    logging.getLogger("nncf").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger("nncf").setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
