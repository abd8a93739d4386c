"""Backends that run a model as a graph, and the rule by which one is chosen.

`auto` takes the first of these that is installed and keeps a cosine of 0.999 (figures in docs/sharing.md):

1. PyTorch where the encoders are on a GPU, in bfloat16;
2. OpenVINO in int8, where calibration chips are given and the processor has 8-bit products (VNNI, AMX);
3. OpenVINO, in bfloat16 where the processor has it;
4. onnxruntime where the processor has no bfloat16: it computes in float32, which PyTorch does more slowly;
5. PyTorch.
"""

import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from geograft.errors import BadSetting, ExportFailed
from geograft.models.inference.eager import Backend, TorchBackend, device_of
from geograft.models.inference.graphs import (
    EMBEDDING,
    INPUT,
    check_shape,
    installed,
    plan_graphs,
    require,
    to_openvino,
    tokens_output,
    write_onnx,
)
from geograft.models.inference.parity import PROBES, Parity, check_parity, measure_parity, probe_chips
from geograft.models.inference.quantise import check_calibration, quantise_onnx, quantise_openvino
from geograft.models.numerics import has_bfloat16, to_unit
from geograft.models.satellite import Encoder, EncoderShape, Level

if TYPE_CHECKING:
    from geograft.models.model import Model

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "torch-fp32", "torch-bf16", "openvino", "openvino-int8", "onnx", "onnx-int8")
"""What `open_backend` takes."""

_PIXELS = 2**19
"""Pixels of a band that a graph runs at once: larger batches fall out of the processor's caches and gain nothing."""

_INT8 = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "dotprod", "i8mm")


@dataclass(frozen=True)
class Machine:
    """What decides about a backend.

    Attributes:
        gpu: the encoders are on one.
        bf16: the processor multiplies bfloat16.
        int8: the processor multiplies 8-bit whole numbers.
        packages: those of "openvino", "nncf", "onnx", "onnxruntime" that are installed.
    """

    gpu: bool
    bf16: bool
    int8: bool
    packages: frozenset[str]

    @classmethod
    def here(cls, encoder: Encoder) -> "Machine":
        """This machine, for an encoder where it is."""
        abilities = torch.cpu.get_capabilities()
        packages = ("openvino", "nncf", "onnx", "onnxruntime")
        return cls(
            gpu=device_of(encoder).type != "cpu",
            bf16=has_bfloat16("cpu"),
            int8=any(abilities.get(name, False) for name in _INT8),
            packages=frozenset(filter(installed, packages)),
        )


def candidates(machine: Machine, *, calibrated: bool) -> tuple[str, ...]:
    """The backends that `auto` tries, fastest first; the last is always PyTorch."""
    if machine.gpu:
        return ("torch",)
    openvino, onnx = "openvino" in machine.packages, {"onnx", "onnxruntime"} <= machine.packages
    int8 = calibrated and machine.int8
    rules = {
        "openvino-int8": openvino and int8 and "nncf" in machine.packages,
        "openvino": openvino,
        "onnx": onnx and not machine.bf16,
        "torch": True,
    }
    return tuple(name for name, holds in rules.items() if holds)


def open_backend(model: "Model", name: str = "auto", *, calibration: NDArray[Any] | None = None) -> Backend:
    """The backend of a name for a model's encoders as they are now.

    Args:
        model: whose encoders are run.
        name: one of `BACKENDS`.
        calibration: chips, native values of the model's sensor (N, C, S, S), for int8.

    Raises:
        BadSetting: no backend has that name, or int8 has no chips to be calibrated on.
        MissingExtra: its packages are not installed.
        ExportFailed: the encoders have parts that the library has no operators for, or the graphs give other vectors.
    """
    if name not in BACKENDS:
        raise BadSetting(f"No backend is called {name!r}; the known ones are {', '.join(BACKENDS)}.")
    chips = None if calibration is None else model.prepare(calibration)
    probes = probe_chips(model.encoders) if chips is None else chips[-PROBES:]
    if chips is not None and len(chips) >= 2 * PROBES:
        chips = chips[:-PROBES]
    if name == "auto":
        return _fastest(model.encoders, chips, probes)
    backend = _open(model.encoders, name, chips)
    if not isinstance(backend, TorchBackend):
        check_parity(_parity(model.encoders, backend, probes), name)
    return backend


def _fastest(
    encoders: Mapping[Level, Encoder], chips: NDArray[np.float32] | None, probes: NDArray[np.float32]
) -> Backend:
    """The first candidate that gives the model's vectors."""
    machine = Machine.here(next(iter(encoders.values())))
    for name in candidates(machine, calibrated=chips is not None)[:-1]:
        try:
            backend = _open(encoders, name, chips)
            parity = _parity(encoders, backend, probes)
        except ExportFailed as error:
            logger.info("%s is not used: %s", name, error)
            continue
        if parity.safe:
            return backend
        logger.info("%s is not used: cosine %.5f", name, parity.cosine_low)
    return TorchBackend(encoders)


def _parity(encoders: Mapping[Level, Encoder], backend: Backend, probes: NDArray[np.float32]) -> Parity:
    """How near a backend's vectors are to the model's in float32."""
    return measure_parity(encoders, TorchBackend(encoders, bf16=False), backend, probes)


def _open(encoders: Mapping[Level, Encoder], name: str, chips: NDArray[np.float32] | None) -> Backend:
    """The backend of a name; int8 is calibrated on normalised chips."""
    library, _, kind = name.partition("-")
    if library == "torch":
        return TorchBackend(encoders, bf16={"": None, "fp32": False, "bf16": True}[kind])
    make = _openvino_runners if library == "openvino" else _onnx_runners
    shape = next(iter(encoders.values())).settings
    return GraphBackend(name, make(encoders, chips, int8=kind == "int8"), shape)


def _openvino_runners(
    encoders: Mapping[Level, Encoder], chips: NDArray[np.float32] | None, *, int8: bool
) -> dict[str, "Runner"]:
    runners: dict[str, Runner] = {}
    for plan in plan_graphs(encoders):
        chips = check_calibration(chips) if int8 else None
        graph = to_openvino(plan)
        runners[plan.name] = OpenVinoRunner(graph if chips is None else quantise_openvino(graph, chips))
    return runners


def _onnx_runners(
    encoders: Mapping[Level, Encoder], chips: NDArray[np.float32] | None, *, int8: bool
) -> dict[str, "Runner"]:
    runners: dict[str, Runner] = {}
    with tempfile.TemporaryDirectory() as folder:
        for plan in plan_graphs(encoders):
            path = Path(folder) / f"{plan.name}.onnx"
            write_onnx(plan, path)
            if int8:
                quantise_onnx(path, path.with_suffix(".int8.onnx"), chips)
                path = path.with_suffix(".int8.onnx")
            runners[plan.name] = OnnxRunner(path.read_bytes())
    return runners


# --- running graphs ---------------------------------------------------------------------------------------


class Runner(Protocol):
    """One graph, ready to run."""

    def run(self, output: str, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of the graph's outputs for normalised chips (N, C, S, S)."""


class GraphBackend:
    """A model run as graphs.

    Args:
        name: what the backend is called.
        runners: graph name ("image", "pixel", "joint") to graph.
        shape: what chips the graphs take.

    Raises:
        ModelMismatch: from `embed` and `tokens`, where chips have other bands or another size.
    """

    def __init__(self, name: str, runners: Mapping[str, Runner], shape: EncoderShape) -> None:
        self.name = name
        self.runners = runners
        self.shape = shape

    def embed(self, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """One unit vector a chip, (N, D)."""
        return self._run("image", EMBEDDING, chips)

    def tokens(self, chips: NDArray[np.float32], *, level: Level) -> NDArray[np.float32]:
        """One unit vector a patch, (N, D, h, w)."""
        return self._run(level, tokens_output(level), chips)

    def _run(self, level: Level, output: str, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """An output of a level's graph, a few chips at a time."""
        check_shape(self.shape, chips.shape)
        runner = self.runners["joint"] if "joint" in self.runners else self.runners[level]
        step = max(1, _PIXELS // chips.shape[-1] ** 2)
        parts = [runner.run(output, chips[start : start + step]) for start in range(0, len(chips), step)]
        return to_unit(torch.from_numpy(np.concatenate(parts)))


class OpenVinoRunner:
    """A graph in OpenVINO, compiled for the processor when an output is first asked for.

    Args:
        graph: an `openvino.Model`, or the path of its .xml.

    Raises:
        MissingExtra: openvino is not installed.
    """

    def __init__(self, graph: Any) -> None:
        require("openvino", "openvino")
        import openvino

        self._core = openvino.Core()
        self._graph = self._core.read_model(graph) if isinstance(graph, Path) else graph
        self._compiled: dict[str, Any] = {}
        self._lock = threading.Lock()

    def run(self, output: str, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of the graph's outputs."""
        with self._lock:
            if output not in self._compiled:
                self._compiled[output] = self._compile(output)
            found: NDArray[np.float32] = self._compiled[output]([np.ascontiguousarray(chips)])[0]
        return found

    def _compile(self, output: str) -> Any:
        """The part of the graph that leads to an output."""
        import openvino

        end = self._graph.output(output).get_node().input_value(0)
        part = openvino.Model([end], self._graph.get_parameters(), output)
        precision = "bf16" if has_bfloat16("cpu") else "f32"
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return self._core.compile_model(part, "CPU", options)


class OnnxRunner:
    """A graph in onnxruntime.

    Args:
        graph: the file's bytes, or its path.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(self, graph: bytes | Path) -> None:
        require("onnx", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        source = graph if isinstance(graph, bytes) else str(graph)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._how = onnxruntime.RunOptions()
        self._how.only_execute_path_to_fetches = True

    def run(self, output: str, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of the graph's outputs."""
        found: NDArray[np.float32] = self._session.run([output], {INPUT: np.ascontiguousarray(chips)}, self._how)[0]
        return found
