"""Teachers: frozen encoders of ground photos, with the text that they answer to.

One interface stands before every teacher, so that pairs, training and tasks need not know which one it is.
`load_teacher` finds it by name, folder or file.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from geograft.errors import NoTextEncoder, UnknownModel

_FROZEN_SUFFIXES = frozenset({".onnx", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".torchscript"})
_ACTIVATIONS: dict[str, Literal["gelu", "quick_gelu"]] = {"gelu": "gelu", "quick_gelu": "quick_gelu"}


class Teacher(ABC):
    """A frozen encoder of ground photos.

    Attributes:
        name: what `load_teacher` takes to find it again.
    """

    name: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over weights and preprocessing: embeddings of equal fingerprints compare."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of the embeddings."""

    @abstractmethod
    def encode_photos(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Unit vectors of photos.

        Args:
            images: photos of any size and mode.

        Returns:
            (N, D) float32.
        """

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, in the space of the photos.

        Args:
            texts: whole phrases; nothing is put around them.

        Returns:
            (N, D) float32.

        Raises:
            NoTextEncoder: this teacher encodes images only.
        """
        raise NoTextEncoder(
            f"The teacher {self.name} encodes images only and cannot encode {len(texts)} texts: query by photo or "
            "chip, or use a teacher with a text encoder (mini, words, or a CLIP or SigLIP)."
        )

    def __repr__(self) -> str:
        """Name, length of the embeddings and fingerprint."""
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, fingerprint={self.fingerprint!r})"


def load_teacher(
    name: str | Path,
    *,
    architecture: str | None = None,
    activation: Literal["gelu", "quick_gelu"] | None = None,
) -> Teacher:
    """The teacher of a name, folder or file.

    What a file is, its content says, not its name.

    Args:
        name: one of

            * "mini" (shipped; a small CLIP trained on the simulated world), "words" (ImageNet classes through a
              sentence encoder; needs the extra `[words]`), or another name of the zoo (`geograft models`);
            * a folder or hub name ("org/name", "org/name@revision") of a CLIP, SigLIP or SigLIP 2, or of a tower of
              one, in transformers' format, or of a CLIP in open_clip's;
            * a file of a CLIP in open_clip's or OpenAI's layout;
            * an ONNX or TorchScript file of an image encoder with its `preprocess.yaml` beside it.
        architecture: of a file whose shapes do not tell it, in open_clip's spelling ("ViT-L-14").
        activation: of a file that does not say it; known for the usual projects.

    Raises:
        UnknownModel: nothing has that name; the sentence lists names that are near.
        MissingExtra: an optional dependency is needed and not installed.
        CheckpointMismatch: the weights are not those of the architecture.
    """
    path = Path(name)
    if str(name) == "words":
        from geograft.models.words import WordsTeacher

        return WordsTeacher()
    if str(name) == "mini":
        from geograft.models.clip import ClipTeacher

        return ClipTeacher(_shipped_mini(), name="mini")
    if str(name) and path.exists():
        return _of_path(path, architecture, activation)
    if path.suffix.lower() in _FROZEN_SUFFIXES:
        raise UnknownModel(f"There is no file {path}: check the path of the encoder.")
    return _of_name(str(name))


def _of_path(path: Path, architecture: str | None, activation: Literal["gelu", "quick_gelu"] | None) -> Teacher:
    """The teacher of a folder or file."""
    from geograft.models.clip import ClipTeacher, clip_of_foreign
    from geograft.models.foreign import read_foreign, sniff

    kind = sniff(path)
    if kind not in {None, "torchscript"}:
        foreign = read_foreign(path, architecture=architecture, activation=activation)
        return clip_of_foreign(foreign, name=str(path.resolve()))
    if path.is_dir():
        return ClipTeacher(path)
    from geograft.models.frozen import FrozenTeacher

    return FrozenTeacher(path)


def _of_name(name: str) -> Teacher:
    """The teacher of a name in the zoo or on the hub; it keeps that name."""
    from geograft.models.clip import ClipTeacher
    from geograft.models.folders import find_file, find_folder, is_hub_name
    from geograft.models.zoo import find_entry

    if is_hub_name(name):
        found = _of_path(find_folder(name), None, None)
    else:
        entry = find_entry(name)
        if not entry.hub:
            hint = entry.bring or f"It is a satellite model: geograft.load({name!r})."
            raise UnknownModel(f"{entry.title} is no teacher that can be fetched. {hint}")
        source = find_file(entry.hub, entry.file) if entry.file else find_folder(entry.hub)
        found = _of_path(source, entry.architecture or None, _ACTIVATIONS.get(entry.activation))
    assert isinstance(found, ClipTeacher)
    found.name = name
    return found


def _shipped_mini() -> Path:
    """The folder of the mini teacher inside the package."""
    folder = Path(str(resources.files("geograft"))) / "assets" / "teachers" / "mini"
    if not (folder / "config.json").is_file():
        raise UnknownModel(
            f"The mini teacher's weights are not at {folder}: this installation lacks them; "
            "train them with scripts/train_mini.py, or name another teacher."
        )
    return folder
