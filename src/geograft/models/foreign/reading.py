"""One foreign checkpoint from file to result: contents, layout, architecture, activation, checks."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from geograft.errors import CheckpointMismatch
from geograft.models.foreign import clip_state, openclip, senclip
from geograft.models.foreign.architectures import Architecture, identify, measure
from geograft.models.foreign.configuration import NAME, read_configuration
from geograft.models.foreign.containers import find_file
from geograft.models.foreign.graft import Level, is_graft, read_graft
from geograft.models.foreign.pickles import read_tree, split_tree
from geograft.models.foreign.projects import SENCLIP, Activation, Choice, choose_activation, find_project
from geograft.models.foreign.result import Foreign, check_satellite, check_whole
from geograft.models.foreign.satellite_layout import as_satellite

logger = logging.getLogger(__name__)


def read(path: Path, *, architecture: str | None, activation: Activation | None, level: Level | None) -> Foreign:
    """What `read_foreign` gives."""
    file = find_file(path)
    form, tree = read_tree(file)
    weights, notes = split_tree(tree, source=str(file))
    if is_graft(weights):
        return _warned(read_graft(weights, notes, path=file, architecture=architecture, level=level), file)
    clip = _Clip(file, architecture, activation, notes)
    if clip_state.is_clip_state(weights):
        return _warned(clip.of_transformers(weights), file)
    if senclip.is_training(weights):
        return _warned(clip.of_senclip(weights), file)
    if openclip.is_openclip(weights) or "class_embedding" in weights:
        return _warned(clip.of_openclip(weights, tree, "openai-jit" if form == "torchscript" else "openclip"), file)
    raise CheckpointMismatch(
        f"{file} is no CLIP, GRAFT or SenCLIP: its first weights are {', '.join(list(weights)[:3])}. An image encoder "
        "of another kind can be a teacher as ONNX or TorchScript with a preprocess.yaml beside it."
    )


def _warned(foreign: Foreign, file: Path) -> Foreign:
    """The result, after a warning where something of it is a guess."""
    notes = foreign.notes
    if not notes.get("activation_certain", True):
        logger.warning(
            "%s: its activation is not certain; %s is taken (%s). Give activation=... if you know better.",
            file,
            notes["activation"],
            notes["activation_source"],
        )
    if not notes.get("level_certain", True):
        logger.warning(
            "%s: nothing tells which level it was trained for; image is taken. Give level='pixel' if it is not.", file
        )
    return foreign


class _Clip:
    """A CLIP in one of its layouts, on its way to the result.

    Args:
        file: where it lies.
        named: the architecture that the caller names.
        said: the activation that the caller names.
        notes: what else the file says.
    """

    def __init__(self, file: Path, named: str | None, said: Activation | None, notes: dict[str, Any]) -> None:
        self._file, self._named, self._said, self._notes = file, named, said, notes

    def of_openclip(self, weights: Mapping[str, Tensor], tree: Any, kind: str) -> Foreign:
        """A CLIP of open_clip's or OpenAI's layout."""
        project = find_project(self._file)
        original = kind == "openai-jit" or openclip.is_original(tree if isinstance(tree, Mapping) else weights)
        converted, left_out = openclip.convert(weights, source=str(self._file))
        kind = "senclip" if project is SENCLIP and kind == "openclip" else kind
        return self._result(kind, converted, left_out, original=original)

    def of_senclip(self, weights: Mapping[str, Tensor]) -> Foreign:
        """The CLIP inside a checkpoint of SenCLIP's training."""
        clip, left_out = senclip.take_clip(weights, source=str(self._file))
        converted, more = openclip.convert(clip, source=str(self._file))
        self._notes |= {"project": SENCLIP.name, "preprocess": SENCLIP.preprocess}
        return self._result("senclip", converted, [*left_out, *more], original=True)

    def of_transformers(self, weights: Mapping[str, Tensor]) -> Foreign:
        """A CLIP of transformers' layout without its configuration."""
        kept, left_out = clip_state.without_buffers(weights)
        return self._result("clip-transformers-state", kept, left_out, default="quick_gelu")

    def _result(
        self,
        kind: str,
        weights: dict[str, Tensor],
        left_out: list[str],
        *,
        original: bool = False,
        default: Activation = "gelu",
    ) -> Foreign:
        """The result of weights under transformers' keys."""
        source = str(self._file)
        measured = measure(weights, source=source)
        architecture, configured, preprocess = self._architecture(measured)
        choice = choose_activation(
            self._file,
            architecture.name,
            said=self._said,
            named=self._named,
            configured=configured,
            original=original,
            default=default,
        )
        config = architecture.config(choice.activation)
        notes = self._told(architecture, choice, left_out, preprocess)
        if architecture.text_width:
            checked = check_whole(openclip.with_scale(weights), config, source=source)
            return Foreign(kind, None, config, checked, None, notes)
        weights.pop("logit_scale", None)
        checked = check_satellite(as_satellite(weights), config, source=source)
        return Foreign(kind, "image", config, checked, None, notes)

    def _architecture(self, measured: Architecture) -> tuple[Architecture, bool | None, dict[str, Any] | None]:
        """The architecture; whether a configuration beside the file asks for QuickGELU; its preprocessing."""
        beside = self._file.parent / NAME
        if self._named is None and beside.is_file():
            described = read_configuration(beside, measured, source=str(self._file))
            return described.architecture, described.quick_gelu, described.preprocess
        return identify(measured, named=self._named, source=str(self._file)), None, None

    def _told(
        self, architecture: Architecture, choice: Choice, left_out: list[str], preprocess: dict[str, Any] | None
    ) -> dict[str, Any]:
        """What is known beside the weights, as plain values."""
        project = find_project(self._file)
        notes = {"project": project.name if project else None} | self._notes
        notes |= {
            "architecture": architecture.name,
            "activation": choice.activation,
            "activation_source": choice.source,
            "activation_certain": choice.certain,
            "left_out": [*self._notes.get("left_out", []), *left_out],
        }
        preprocess = preprocess or (project.preprocess if project else None)
        return notes | ({"preprocess": preprocess} if preprocess and "preprocess" not in notes else {})
