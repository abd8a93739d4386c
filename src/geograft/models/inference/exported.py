"""Exported folders read back as models: the same questions, answered by a graph instead of weights."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch
from geograft.models.inference.backends import GraphBackend, OnnxRunner, OpenVinoRunner, Runner
from geograft.models.model import Model
from geograft.models.satellite import Encoder, EncoderShape, Level


class ExportedEncoder(nn.Module):
    """An encoder whose weights are in a graph.

    Args:
        settings: the shape of the encoder that was exported.
        backend: what runs the graph.
    """

    def __init__(self, settings: EncoderShape, backend: GraphBackend) -> None:
        super().__init__()
        self.settings = settings
        self.backend = backend

    def embed(self, chips: Tensor) -> Tensor:
        """One unit vector a chip: normalised pixels (N, C, S, S) to (N, D)."""
        return torch.from_numpy(self.backend.embed(_array(chips)))

    def tokens(self, chips: Tensor, *, level: Level = "pixel") -> Tensor:
        """One unit vector a patch: normalised pixels (N, C, S, S) to (N, D, h, w)."""
        return torch.from_numpy(self.backend.tokens(_array(chips), level=level))


class ExportedModel(Model):
    """A model whose vectors come of graphs; it embeds, it does not train.

    Its fingerprint is that of the model that was exported where the export's vectors keep a cosine of 0.999 to it, so
    that tables of both may be mixed and searched; otherwise it is one of its own, and tables refuse the mixture.

    Args:
        encoders: level to encoder; the same object twice where one serves both.
        backend: what runs the graphs.
        fingerprint: what tables know the vectors by.
        parts: the other arguments of `Model`.
    """

    def __init__(
        self, encoders: dict[Level, Encoder], *, backend: GraphBackend, fingerprint: str, parts: dict[str, Any]
    ) -> None:
        super().__init__(encoders, **parts)
        self._backend = backend
        self._own_fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        """16 hex digits that tables know the vectors by."""
        return self._own_fingerprint

    def weights(self) -> dict[str, Tensor]:
        """Nothing that could be saved.

        Raises:
            ModelMismatch: always.
        """
        raise ModelMismatch(f"{self.name} is an export without weights to save: copy its folder as it is.")

    def use_backend(self, name: str = "auto", *, calibration: NDArray[Any] | None = None) -> str:  # noqa: ARG002
        """Its own backend, which cannot be changed.

        Raises:
            BadSetting: another is asked for.
        """
        if name not in {"auto", self._backend.name}:
            raise BadSetting(f"{self.name} is an export that {self._backend.name} runs; export the model again.")
        return self._backend.name


def load_exported(folder: str | Path) -> ExportedModel:
    """The model of a folder that `export_model` wrote.

    Raises:
        MissingExtra: the library that runs it is not installed.
        CheckpointMismatch: the folder is no export, or its files are damaged.
    """
    from geograft.models.checkpoints import CONFIG, model_parts, read_config, settings_of

    folder = Path(folder)
    config = read_config(folder)
    try:
        about = config["export"]
        settings = settings_of(config)
        files = {name: folder / name for name in about["files"]}
        _check_files(files, about["files"])
        runners = dict(_runners(files, about["format"]))
        backend = GraphBackend(about["backend"], runners, next(iter(settings.values())))
        encoders = _encoders(settings, backend, joint=bool(config.get("joint")))
        return ExportedModel(encoders, backend=backend, fingerprint=config["fingerprint"], parts=model_parts(config))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(f"{folder / CONFIG} is no export's configuration ({error!r}).") from error


def _array(chips: Tensor) -> NDArray[np.float32]:
    """Chips as an array."""
    found: NDArray[np.float32] = chips.detach().cpu().float().numpy()
    return found


def file_digest(content: bytes) -> str:
    """The SHA-256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def _check_files(files: dict[str, Path], digests: dict[str, str]) -> None:
    """Refuse files that are missing or not those that were exported."""
    for name, path in files.items():
        try:
            whole = file_digest(path.read_bytes()) == digests[name]
        except OSError:
            whole = False
        if not whole:
            raise CheckpointMismatch(f"{path} is missing or damaged: copy the folder again.")


def _runners(files: dict[str, Path], form: str) -> Iterator[tuple[str, Runner]]:
    """The graphs, by name."""
    for path in files.values():
        if path.suffix == ".onnx" and form == "onnx":
            yield path.stem, OnnxRunner(path)
        elif path.suffix == ".xml" and form == "openvino":
            yield path.stem, OpenVinoRunner(path)


def _encoders(settings: dict[Level, EncoderShape], backend: GraphBackend, *, joint: bool) -> dict[Level, Encoder]:
    """The encoders of the levels, one object where one graph serves both."""
    made: dict[Level, Encoder] = {level: ExportedEncoder(shape, backend) for level, shape in settings.items()}
    return dict.fromkeys(made, next(iter(made.values()))) if joint else made
