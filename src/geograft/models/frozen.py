"""Image-only teachers from an exported file: ONNX or TorchScript, with a `preprocess.yaml` beside it.

Any encoder of photos can teach; without text the satellite encoder then answers to photos and chips only.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from geograft.errors import CheckpointMismatch, MissingExtra, UnknownModel
from geograft.models.numerics import inference, to_unit
from geograft.models.preprocess import read_spec
from geograft.models.teacher import Teacher

SPEC = "preprocess.yaml"
"""Name of the specification that lies beside an exported encoder."""

_SCRIPT_SUFFIXES = frozenset({".pt", ".pth", ".torchscript"})

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class FrozenTeacher(Teacher):
    """An image encoder of an ONNX or TorchScript file; the content tells which, a TorchScript being a zip archive.

    The specification says what the encoder expects (see `PhotoPreprocess`) and, where the encoder has several
    outputs, which one holds the vectors (N, D): `output: 0` by position, or by name for ONNX.

    Args:
        path: the file; `preprocess.yaml` lies in its folder.
        batch: photos that are encoded at once; an ONNX file with a fixed batch takes its own.

    Raises:
        UnknownModel: there is no such file.
        MissingInput: the specification is missing.
        MissingExtra: the file is ONNX and onnxruntime is not installed.
        CheckpointMismatch: the file is damaged, of another format, or gives no vectors.
    """

    def __init__(self, path: str | Path, *, batch: int = 32) -> None:
        self.path = Path(path)
        self.name = str(self.path.resolve())
        if not self.path.is_file():
            raise UnknownModel(f"There is no file {self.path}: check the path of the exported encoder.")
        self.preprocess, self._options = read_spec(self.path.with_name(SPEC))
        if strangers := set(self._options) - {"output"}:
            raise CheckpointMismatch(f"{self.path.with_name(SPEC)} has an unknown entry {min(strangers)!r}.")
        output = self._options.get("output", 0)
        script = zipfile.is_zipfile(self.path) or self.path.suffix.lower() in _SCRIPT_SUFFIXES
        self._run, fixed = _open_script(self.path, output) if script else _open_onnx(self.path, output)
        self.batch, self._fixed = fixed or batch, fixed is not None

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over the file, the preprocessing and the chosen output."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update((self.preprocess.digest + json.dumps(self._options, sort_keys=True)).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def dim(self) -> int:
        """Length of the embeddings, found by encoding one black picture."""
        from PIL import Image as Pictures

        rows, columns = self.preprocess.size
        return int(self.encode_photos([Pictures.new("RGB", (columns, rows))]).shape[1])

    def encode_photos(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Unit vectors of photos, (N, D) float32."""
        if not images:
            return np.zeros((0, self.dim), np.float32)
        starts = range(0, len(images), self.batch)
        return np.concatenate([self._encode(images[start : start + self.batch]) for start in starts])

    def _encode(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """One batch; a fixed batch is filled up with its last photo."""
        inputs = self.preprocess(images)
        if self._fixed and len(inputs) < self.batch:
            inputs = np.concatenate([inputs, np.repeat(inputs[-1:], self.batch - len(inputs), axis=0)])
        vectors = self._run(inputs)
        if vectors.ndim != 2 or len(vectors) != len(inputs) or not np.isfinite(vectors).all():
            raise CheckpointMismatch(
                f"{self.path} gives an array of the shape {vectors.shape} for {len(inputs)} photos; finite vectors "
                f"(N, D) are needed. Name another output in {SPEC}, or export the encoder with its pooling."
            )
        return to_unit(torch.from_numpy(vectors[: len(images)]))


def _open_onnx(path: Path, output: int | str) -> tuple[Run, int | None]:
    """How to run an ONNX file, and its batch size where that is fixed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(f"{path} needs onnxruntime: pip install 'geograft[onnx]'.") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises classes of its own that share no base but Exception.
        raise CheckpointMismatch(f"{path} is not an ONNX encoder that can be run: {error}") from error
    names = [value.name for value in session.get_outputs()]
    name = _choose(names, output, path)
    entry = session.get_inputs()[0]

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run([name], {entry.name: inputs})[0], np.float32)

    return _guarded(run, path), entry.shape[0] if isinstance(entry.shape[0], int) else None


def _choose(names: list[str], output: int | str, path: Path) -> str:
    """The name of an output given by name or position."""
    if isinstance(output, int) and output < len(names):
        return names[output]
    if output in names:
        return str(output)
    raise CheckpointMismatch(f"{path} has no output {output!r}; its outputs are {', '.join(names)}.")


def _open_script(path: Path, output: int | str) -> tuple[Run, int | None]:
    """How to run a TorchScript file; nothing is unpickled in Python."""
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise CheckpointMismatch(
            f"{path} is not a TorchScript file: export the encoder with torch.jit.trace."
        ) from error

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with inference(torch.device("cpu"), bf16=False):
            tensor = _pick(module(torch.from_numpy(inputs)), output)
        return np.asarray(tensor.float().numpy())

    return _guarded(run, path), None


def _pick(found: Any, output: int | str) -> Any:
    """One output of several, or the only one."""
    return found if isinstance(found, torch.Tensor) else found[output]


def _guarded(run: Run, path: Path) -> Run:
    """`run`, with what a runtime says about a wrong input turned into a sentence about the specification."""

    def guarded(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return run(inputs)
        except Exception as error:
            # The runtimes' errors share no base but Exception.
            raise CheckpointMismatch(
                f"{path} does not take an input of the shape {inputs.shape}: check size and layout in {SPEC} ({error})."
            ) from error

    return guarded
