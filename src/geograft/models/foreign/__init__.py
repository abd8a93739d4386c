"""Checkpoints of other projects in this package's layout: strictly, offline, and without running what they hold.

CLIPs of open_clip and OpenAI (LAION, DataComp, RemoteCLIP, GeoRSCLIP, SkyCLIP, FarSLIP, Long-CLIP, ...), GRAFT's
and SenCLIP's own files, and CLIPs of transformers without their configuration. `sniff` says which of them a file is,
`read_foreign` reads it.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geograft.errors import BadSetting, GeograftError
from geograft.models.foreign.containers import find_file, form_of, names_in
from geograft.models.foreign.projects import SENCLIP, Activation, find_project

if TYPE_CHECKING:
    from geograft.models.foreign.result import Foreign as Foreign

_PREFIX = r"(module\.|model\.|_orig_mod\.|clip\.|clip_model\.)*"
_SIGNS: tuple[tuple[str, str], ...] = (
    (r"satellite_image_backbone\.", "graft"),
    (r"learner\.encoder\.model\.", "senclip"),
    (r"visual\.(class_embedding|conv1\.|transformer\.|trunk\.|layer1\.)", "openclip"),
    (r"image_backbone\.(class_embedding|conv1\.|layer1\.)", "openclip"),
    (r"transformer\.resblocks\.0\.", "openclip"),
    (r"vision_model\.embeddings\.class_embedding", "clip-transformers-state"),
)
_OPENAI = frozenset({"visual", "token_embedding", "positional_embedding", "text_projection"})


def __getattr__(name: str) -> object:
    """`Foreign`, whose libraries are imported when it is asked for."""
    if name == "Foreign":
        from geograft.models.foreign.result import Foreign

        return Foreign
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def sniff(path: Path) -> str | None:
    """Which project's layout a file, or a folder with one checkpoint, holds; None if it is none that is read here.

    Only names are looked at; nothing of the file is built or run. A file that is cut off or damaged gives None
    where its names cannot be read; `read_foreign` says what is wrong with it.

    Args:
        path: a file or folder.

    Returns:
        "openclip", "openai-jit", "graft", "senclip", "clip-transformers-state", "torchscript" (a program that is
        none of these), or None.
    """
    path = Path(path)
    if path.is_dir() and _says_its_type(path / "config.json"):
        return None
    try:
        file = find_file(path)
        names = names_in(file)
        kind = _of_program(names) if form_of(file) == "torchscript" else _of_names(names)
    except (GeograftError, OSError):
        return None
    return "senclip" if kind == "openclip" and find_project(file) is SENCLIP else kind


def _says_its_type(config: Path) -> bool:
    """Whether a folder is transformers' own or a model of this package; timm's, too, has a `config.json`."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and ("model_type" in content or "levels" in content)


def _of_names(names: Iterable[str]) -> str | None:
    """The layout of the first name that tells it."""
    patterns = [(re.compile(_PREFIX + pattern), kind) for pattern, kind in _SIGNS]
    for name in names:
        for pattern, kind in patterns:
            if pattern.match(name):
                return kind
    return None


def _of_program(names: Iterable[str]) -> str:
    """Whether a TorchScript program has CLIP's attributes."""
    return "openai-jit" if set(names) >= _OPENAI else "torchscript"


def read_foreign(
    path: Path,
    *,
    architecture: str | None = None,
    activation: Activation | None = None,
    level: Literal["image", "pixel"] | None = None,
) -> "Foreign":
    """A checkpoint of another project in the layout that this package reads.

    Args:
        path: a file, the index of a model in several files, or a folder with one checkpoint.
        architecture: its name in open_clip's spelling ("ViT-L-14"); None finds it from the shapes, or reads it from
            an `open_clip_config.json` beside the file.
        activation: what its feed-forward layers were trained with; None finds it (`projects.choose_activation`) and
            logs a warning where it is a guess.
        level: of a GRAFT checkpoint, whose two levels have the same keys; None finds it.

    Raises:
        BadSetting: there is no such activation or level.
        MissingInput: there is no such file, or a part of it is missing.
        UnsafeCheckpoint: it holds pickled objects that are not on the list of harmless ones.
        UnknownModel: no architecture has that name.
        CheckpointMismatch: it is cut off, damaged, of another architecture, or of a layout that is not read; the
            sentence says what it is and what to do.
    """
    if activation not in {None, "gelu", "quick_gelu"} or level not in {None, "image", "pixel"}:
        raise BadSetting(
            f"An activation is 'gelu' or 'quick_gelu', a level 'image' or 'pixel'; these are {activation!r}, {level!r}."
        )
    from geograft.models.foreign.reading import read

    return read(Path(path), architecture=architecture, activation=activation, level=level)


__all__ = ["Foreign", "read_foreign", "sniff"]
