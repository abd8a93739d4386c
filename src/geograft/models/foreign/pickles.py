"""Reading torch's files without running what they hold.

torch reads them with `weights_only`, which builds tensors and plain containers alone; what else checkpoints are known
to carry is on the list of `geograft.models.foreign.inert`, as stand-ins that do nothing. Any other name is refused
before anything of it is built.
"""

import pickle  # only the name of its error; torch's own restricted reader does the work
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geograft.errors import CheckpointMismatch, MissingInput, UnsafeCheckpoint
from geograft.models.foreign.containers import Form, form_of, read_index, refuse_form
from geograft.models.foreign.inert import ALLOWED, plain
from geograft.models.foreign.torchscript import read_torchscript

_GLOBAL = re.compile(r"GLOBAL (?P<name>[\w.]+)")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_PREFIXES = ("module.", "model.", "_orig_mod.", "clip.", "clip_model.")
_NOTED = ("epoch", "global_step", "name", "hyper_parameters", "pytorch-lightning_version")


def read_tree(path: Path) -> tuple[Form, Any]:
    """A file's form and all that it holds, as plain containers of tensors on the CPU.

    The tensors of a large file stay on the disk until they are used.

    Args:
        path: a file, not a folder (`containers.find_file`).

    Raises:
        UnsafeCheckpoint: it holds pickled objects that are not on the list of harmless ones.
        CheckpointMismatch: it is cut off, damaged, or no file of weights.
        MissingInput: a part of a model in several files is missing.
    """
    form = form_of(path)
    refuse_form(path, form)
    if form == "index":
        return form, _read_parts(path)
    if form == "safetensors":
        return form, _read_safetensors(path)
    if form == "torchscript":
        return form, read_torchscript(path)
    return form, _read_torch(path, mmap=form == "torch")


def _read_torch(path: Path, *, mmap: bool) -> Any:
    """The content of a torch file."""
    try:
        with torch.serialization.safe_globals(list(ALLOWED)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # wrong bytes raise whatever they happen to mean, a want of memory among it
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointMismatch(f"{path} was cut off or is damaged: {reason}") from error


def _refusal(path: Path, reason: str) -> Exception:
    """The error of a pickle that holds more than weights, or of what is no pickle."""
    match = _GLOBAL.search(reason)
    if match is None:
        return CheckpointMismatch(f"{path} is no torch file, or one that was cut off or damaged.")
    return UnsafeCheckpoint(
        f"{path} holds pickled objects of the kind {match['name']}, which is not on the list of harmless ones; "
        "nothing was run. If you trust its maker, save the tensors alone where that library is installed: "
        "torch.save(torch.load(file, weights_only=False)['state_dict'], 'weights.pt')."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointMismatch(f"{path} was cut off or is damaged ({error}): copy or download it again.") from error
    return tensors


def _read_parts(path: Path) -> dict[str, Any]:
    """The weights of a model in several files."""
    where = read_index(path)
    weights: dict[str, Any] = {}
    for name in sorted(set(where.values())):
        part = path.parent / Path(name).name
        if not part.is_file():
            raise MissingInput(f"{path} names the part {name}, which is not beside it.")
        weights.update(read_tree(part)[1])
    if missing := [key for key in where if key not in weights]:
        raise CheckpointMismatch(f"The parts of {path} lack {missing[0]} that it names: copy all of them again.")
    return weights


# --- weights and what lies beside them --------------------------------------------------------------------


def split_tree(tree: Any, *, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a checkpoint without wrappers and common prefixes, and plain notes of what lies beside.

    `{"state_dict": {...}, "epoch": 20, "optimizer": ...}` is opened; `module.`, `model.` and the like are taken off
    where every key begins so.

    Raises:
        CheckpointMismatch: there is no table of tensors.
    """
    notes: dict[str, Any] = {}
    while isinstance(tree, Mapping) and not any(isinstance(value, Tensor) for value in tree.values()):
        inner = next((name for name in _WRAPPERS if isinstance(tree.get(name), Mapping)), None)
        if inner is None:
            break
        notes |= {name: plain(tree[name]) for name in _NOTED if name in tree}
        if left := sorted(str(name) for name in tree if name != inner and name not in notes):
            notes["left_out"] = [*notes.get("left_out", []), *left]
        tree = tree[inner]
    if not isinstance(tree, Mapping):
        raise CheckpointMismatch(f"{source} holds no table of weights but a {type(tree).__name__}.")
    weights = {str(key): value for key, value in tree.items() if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointMismatch(f"{source} holds no tensors under {', '.join(_WRAPPERS)} or at its top.")
    return _without_prefixes(weights), notes


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefixes that all of them share."""
    while prefix := next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights
