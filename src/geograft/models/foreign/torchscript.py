"""The tensors of a TorchScript archive, read without loading the program that it carries.

OpenAI publishes CLIP as TorchScript. `torch.jit.load` would compile the archive's code and may run parts of it to
restore objects. Here only the table of attributes is read, by an unpickler that knows a handful of names; every class
of the program becomes a bag of attributes.
"""

import pickle  # the subclass below looks names up in its own short list only
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geograft.errors import CheckpointMismatch, UnsafeCheckpoint

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DEEPEST = 60


class _Bag:
    """An object of the program: its attributes and nothing else."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        self.attributes: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _Reader(pickle.Unpickler):
    """An unpickler of attribute tables; a name that is not listed here is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: Path) -> None:
        super().__init__(archive.open(f"{root}data.pkl"))
        self._archive, self._root, self._path = archive, root, path
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._first,
            **{
                ("torch.jit._pickle", name): self._first
                for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
            },
            ("torch.jit._pickle", "restore_type_tag"): self._first,
        }

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for a class of the program, or one of the few functions of tensors."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _Bag
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) not in self._known:
            raise UnsafeCheckpoint(
                f"{self._path} holds pickled objects of the kind {module}.{name}, which no TorchScript model needs; "
                "nothing was run."
            )
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """The flat tensor of a storage, `("storage", type, key, device, elements)`."""
        _, dtype, key, _, count = pid
        data = bytearray(self._archive.read(f"{self._root}data/{key}"))
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if not isinstance(count, int) or len(flat) < count:
            raise CheckpointMismatch(f"{self._path} is damaged: storage {key} is too short.")
        return flat

    def _tensor(self, flat: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
        """A tensor that lies in a storage."""
        return torch.as_strided(flat, tuple(size), tuple(stride), offset)

    def _first(self, value: Any, *_: Any) -> Any:
        """The value itself, without its type."""
        return value


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive by their dotted names; its code is not even parsed.

    Raises:
        UnsafeCheckpoint: its table uses names that no such archive needs.
        CheckpointMismatch: it is damaged, or holds no tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("data.pkl")).removesuffix("data.pkl")
            _refuse_order(archive, root, path)
            top = _Reader(archive, root, path).load()
            tensors = dict(_tensors(top, "", path, 0))
    except (UnsafeCheckpoint, CheckpointMismatch):
        raise
    except Exception as error:  # a damaged pickle raises whatever its wrong bytes happen to mean
        raise CheckpointMismatch(f"{path} is a damaged TorchScript archive ({error!r}).") from error
    if not tensors:
        raise CheckpointMismatch(f"{path} is a TorchScript archive without weights.")
    return tensors


def _refuse_order(archive: zipfile.ZipFile, root: str, path: Path) -> None:
    """Refuse numbers whose bytes are the other way round."""
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big":
        raise CheckpointMismatch(f"{path} was written on a machine of the other byte order.")


def _tensors(value: Any, name: str, path: Path, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Pairs of dotted name and tensor below a value."""
    if depth > _DEEPEST:
        raise CheckpointMismatch(f"{path} is damaged: its modules do not end.")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Bag) and isinstance(value.attributes, dict):
        for key, item in value.attributes.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key), path, depth + 1)
