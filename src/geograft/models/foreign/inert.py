"""Harmless stand-ins for the objects of other libraries that checkpoints carry beside their weights.

GRAFT's checkpoints were written by Lightning and hold hyper-parameters of OmegaConf; training checkpoints of
open_clip hold numpy scalars. None of these libraries is needed to read the weights. `ALLOWED` is the whole list of
names, beyond torch's own, that a checkpoint may use: every one becomes an object of this module that keeps what it is
given and does nothing.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Self

import numpy as np


class Inert:
    """An object of a library that is not needed: it keeps its arguments and its state and does nothing."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Self:
        """An object that is whole: pickles do not call `__init__`."""
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.state = state


class PlainDict:
    """What makes a plain dict of a library's kind of dict."""

    def __new__(cls, *_: Any) -> Any:
        """An empty dict, whatever it is given: a factory of defaults is dropped."""
        return {}


def number(kind: Any, data: Any = b"") -> float | int | bool | None:
    """A numpy scalar as Python's number, None where it is no number."""
    code = kind.args[0] if isinstance(kind, Inert) and kind.args else ""
    if not isinstance(code, str) or not isinstance(data, bytes) or code[:1] not in set("biuf"):
        return None
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    dtype = np.dtype(code).newbyteorder(">" if order == ">" else "<")
    return np.frombuffer(data, dtype, count=1)[0].item()  # type: ignore[no-any-return]


def _stand_in(name: str) -> type[Inert]:
    """A class of its own, so that a checkpoint's classes stay apart."""
    return type(name.rpartition(".")[2], (Inert,), {})


_OMEGACONF = (
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "UnionNode")),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Interpolation", "Path", "String")
    ),
)
_TYPES = (
    *(f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "int", "list", "str", "tuple")),
    *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Tuple", "Union")),
    *("operator.getitem", "_operator.getitem"),  # how List[int] is pickled
)
_VALUES = (
    "argparse.Namespace",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    "torch.torch_version.TorchVersion",
    *("numpy.dtype", "numpy.ndarray"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
)
_LIGHTNING = tuple(
    f"{library}.callbacks.{name}"
    for library in ("pytorch_lightning", "lightning.pytorch")
    for name in (
        "early_stopping.EarlyStopping",
        "lr_monitor.LearningRateMonitor",
        "model_checkpoint.ModelCheckpoint",
    )
)
_DICTS = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
_NUMBERS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")

ALLOWED: tuple[tuple[Any, str], ...] = (
    *((_stand_in(name), name) for name in (*_OMEGACONF, *_TYPES, *_VALUES, *_LIGHTNING)),
    *((PlainDict, name) for name in _DICTS),
    *((number, name) for name in _NUMBERS),
)
"""Stand-in and the name it stands for."""


def plain(value: Any, *, depth: int = 20) -> Any:
    """A checkpoint's value in plain Python: numbers, strings, lists, dicts; None for everything else.

    OmegaConf's containers and nodes are opened; a tensor of one number becomes that number.
    """
    if depth == 0 or value is None or isinstance(value, (bool, int, float, str)):
        return value if depth else None
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth=depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth=depth - 1) for item in value]
    if isinstance(value, Inert):
        return _opened(value, depth)
    if getattr(value, "ndim", None) == 0:
        return value.item()
    return None


def _opened(value: Inert, depth: int) -> Any:
    """What an OmegaConf container or node holds, or the parts of a path."""
    if type(value).__name__.endswith("Path"):
        return str(PurePosixPath(*map(str, value.args)))
    state = value.state if isinstance(value.state, dict) else {}
    return plain(state.get("_content", state.get("_val")), depth=depth - 1)
