"""What a file of weights is, and which names it holds, found without building a single object of it.

Names come from the header of a safetensors file, or from the strings among a pickle's instructions; no
instruction is carried out. torch is not needed here.
"""

import json
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from geograft.errors import CheckpointMismatch, MissingInput

Form = Literal["safetensors", "torch", "torch-old", "torchscript", "index", "zip", "pointer", "page", "unknown"]
"""Kinds of files: tensors alone; torch's zip or its older pickle; a compiled program with its weights; the index of
a model in several files; an archive still packed; the stand-in that git-lfs leaves; a web page saved by mistake."""

_FOLDER_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "pytorch_model.bin",
)
_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.bin|\.safetensors)")
_MOST_NAMES = 50 << 20  # bytes of names; a header of a million tensors is smaller


def find_file(path: Path) -> Path:
    """The file that holds the weights, or the index of its parts, of a named file, folder or part.

    Raises:
        MissingInput: there is no such file, or the folder holds no weights.
        CheckpointMismatch: the folder holds several checkpoints, or a part lies without its index.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise MissingInput(f"There is no file {path}.")
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return path
    index = path.with_name(f"{match['stem']}{match['suffix']}.index.json")
    if index.is_file():
        return index
    raise CheckpointMismatch(
        f"{path} is one part of {int(match['count'])}, and {index.name}, which says what is where, is not beside it."
    )


def _in_folder(folder: Path) -> Path:
    """The one file of weights in a folder."""
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        raise MissingInput(f"The folder {folder} holds no weights ({', '.join(_SUFFIXES)}).")
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise CheckpointMismatch(f"The folder {folder} holds {len(found)} checkpoints ({names}): name one of them.")
    return found[0]


def form_of(path: Path) -> Form:
    """What a file is, by its first bytes and, of an archive, its table of contents.

    Raises:
        CheckpointMismatch: it is empty, or an archive that was cut off.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise CheckpointMismatch(f"{path} is empty: copy or download it again.")
    if start[:4] == b"PK\x03\x04":
        return _form_of_zip(path)
    if start.startswith(b"version https://git-lfs"):
        return "pointer"
    if start.lstrip()[:1] == b"<":
        return "page"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors"
    if start.lstrip()[:1] == b"{":
        return "index"
    return "torch-old" if start[0] == 0x80 else "unknown"


def _form_of_zip(path: Path) -> Form:
    """Whether a zip archive is torch's, a TorchScript program, or only an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointMismatch(f"{path} was cut off or is damaged ({error}): copy or download it again.") from error
    if "data.pkl" not in names:
        return "zip"
    return "torchscript" if "constants.pkl" in names else "torch"


def read_index(path: Path) -> dict[str, str]:
    """Which part each weight of a model in several files lies in.

    Raises:
        CheckpointMismatch: the file is no index.
    """
    try:
        weights = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(key): str(file) for key, file in weights.items()}
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise CheckpointMismatch(f"{path} is neither weights nor the index of a model in parts.") from error


# --- names ------------------------------------------------------------------------------------------------


def names_in(path: Path) -> Iterator[str]:
    """The strings that a file of weights holds, among them the names of its weights, in the file's order.

    Raises:
        CheckpointMismatch: the file is empty, cut off, or no file of weights.
    """
    form = form_of(path)
    if form == "safetensors":
        yield from _header(path)
    elif form == "index":
        yield from read_index(path)
    elif form in {"torch", "torchscript"}:
        yield from _strings(_pickled(path))
    elif form == "torch-old":
        yield from _old_strings(path)


def _header(path: Path) -> Iterator[str]:
    """The names in a safetensors header."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(size, _MOST_NAMES)))
        except ValueError as error:
            raise CheckpointMismatch(f"{path} was cut off or is damaged: copy or download it again.") from error
    yield from (name for name in header if name != "__metadata__")


def _pickled(path: Path) -> bytes:
    """The pickle inside torch's zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl"))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise CheckpointMismatch(f"{path} was cut off or is damaged ({error}): copy or download it again.") from error


def _old_strings(path: Path) -> Iterator[str]:
    """The strings of torch's older format: a magic number, a version, the machine's sizes, then the object."""
    with path.open("rb") as file:
        for _ in range(4):
            yield from _strings(file)


def _strings(pickled: object) -> Iterator[str]:
    """The strings among a pickle's instructions."""
    try:
        for _, value, _ in pickletools.genops(pickled):  # type: ignore[arg-type]
            if isinstance(value, str):
                yield value
    except (ValueError, EOFError, UnicodeDecodeError):
        return  # cut off or no pickle; reading it tells


def refuse_form(path: Path, form: Form) -> None:
    """Say what a file is that holds no weights, and what to do.

    Raises:
        CheckpointMismatch: it is a packed archive, a git-lfs pointer, a web page, or unknown.
    """
    if form == "zip":
        raise CheckpointMismatch(f"{path} is a packed archive: unpack it and name the checkpoint inside.")
    if form == "pointer":
        raise CheckpointMismatch(f"{path} is a git-lfs pointer, not the weights: fetch them by `git lfs pull`.")
    if form == "page":
        raise CheckpointMismatch(f"{path} is a web page, not weights: download the file itself.")
    if form == "unknown":
        raise CheckpointMismatch(f"{path} is no file of weights that is known here (safetensors or torch).")
