"""Teachers: frozen encoders of ground photos, with the text that they answer to.

One interface stands before every teacher, so that pairs, training and tasks need not know which one it is.
`load_teacher` finds it by name, folder or file.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from geograft.errors import NoTextEncoder, UnknownModel

TEACHER_NAMES: tuple[str, ...] = ("mini", "words")
"""Teachers that have a name of their own; all others are a folder, a file or a name on the hub."""

_FROZEN_SUFFIXES = frozenset({".onnx", ".pt", ".torchscript"})


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


def load_teacher(name: str | Path) -> Teacher:
    """The teacher of a name, folder or file.

    Args:
        name: "mini" (shipped; a small CLIP trained on the simulated world), "words" (ImageNet classes through a
            sentence encoder; needs the extra `[words]`), a folder or hub name ("org/name", "org/name@revision")
            of a CLIP or SigLIP in transformers' format, or an `.onnx` or TorchScript `.pt` file with its
            `preprocess.yaml` beside it.

    Raises:
        UnknownModel: nothing has that name.
        MissingExtra: an optional dependency is needed and not installed.
        CheckpointMismatch: the weights are not those of the architecture.
    """
    if str(name) == "words":
        from geograft.models.words import WordsTeacher

        return WordsTeacher()
    if Path(name).suffix.lower() in _FROZEN_SUFFIXES:
        from geograft.models.frozen import FrozenTeacher

        return FrozenTeacher(Path(name))
    from geograft.models.clip import ClipTeacher

    return ClipTeacher(_shipped_mini(), name="mini") if str(name) == "mini" else ClipTeacher(name)


def _shipped_mini() -> Path:
    """The folder of the mini teacher inside the package."""
    folder = Path(str(resources.files("geograft"))) / "assets" / "teachers" / "mini"
    if not (folder / "config.json").is_file():
        raise UnknownModel(
            f"The mini teacher's weights are not at {folder}: this installation lacks them; "
            "train them with scripts/train_mini.py, or name another teacher."
        )
    return folder
