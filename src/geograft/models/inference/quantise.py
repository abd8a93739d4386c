"""Graphs in int8: weights and activations of the matrix products as 8-bit whole numbers.

Ranges of activations are measured on chips (calibration), so the chips should be of the kind that will be embedded.
OpenVINO's graphs are quantised by NNCF for transformers: SmoothQuant moves the outliers of activations into the
weights (Xiao et al., ICML 2023), normalisation and softmax stay in floating point. ONNX graphs are quantised by
onnxruntime: with chips by the ranges that they have (static), without them by each batch's own range (dynamic).
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.models.inference.graphs import INPUT, private, require

CHIPS = 300
"""More chips than this change the ranges little."""

_BATCH = 4


def check_calibration(chips: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Calibration chips, of which there must be some.

    Raises:
        BadSetting: there are none.
    """
    if chips is None or not len(chips):
        raise BadSetting(
            "int8 needs chips to measure ranges on: give calibration=chips, or --calibration with a folder of pairs or "
            "scenes of the kind that will be embedded."
        )
    return chips[:CHIPS]


def quantise_openvino(graph: Any, chips: NDArray[np.float32]) -> Any:
    """An OpenVINO graph in int8.

    Args:
        graph: an `openvino.Model` in float32.
        chips: normalised pixels to measure ranges on, (N, C, S, S).

    Raises:
        MissingExtra: nncf is not installed.
        BadSetting: there are no chips.
    """
    require("openvino", "openvino", "nncf")
    chips = check_calibration(chips)
    with private(), _quiet():
        import nncf

        batches = list(_batches(chips))
        names = {output: output.get_tensor().get_names() for output in graph.outputs}
        small = nncf.quantize(
            graph, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches),
        )  # fmt: skip
    for output, before in zip(small.outputs, names.values(), strict=True):
        output.get_tensor().set_names(before)
    return small


def quantise_onnx(source: Path, target: Path, chips: NDArray[np.float32] | None) -> None:
    """Write an ONNX graph in int8: static over chips where there are any, else dynamic.

    Raises:
        MissingExtra: the packages of the extra `[onnx]` are not installed.
    """
    require("onnx", "onnx", "onnxruntime")
    from onnxruntime import quantization

    kind = quantization.QuantType.QInt8
    products = ["MatMul", "Gemm"]
    with _quiet():
        if chips is None:
            quantization.quantize_dynamic(source, target, weight_type=kind, op_types_to_quantize=products)
            return
        reader = _reader(check_calibration(chips))
        quantization.quantize_static(
            source, target, reader, weight_type=kind, per_channel=True, op_types_to_quantize=products
        )


def _batches(chips: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Chips a few at a time; all of one length, which some kernels like."""
    for start in range(0, len(chips) - len(chips) % _BATCH or len(chips), _BATCH):
        yield np.ascontiguousarray(chips[start : start + _BATCH])


def _reader(chips: NDArray[np.float32]) -> Any:
    """Chips as onnxruntime's calibration reads them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """One batch after another, then None."""

        def __init__(self) -> None:
            self.batches = _batches(chips)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantisers' advice off the terminal, and their progress off stdout, which belongs to results."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        root.setLevel(level)
