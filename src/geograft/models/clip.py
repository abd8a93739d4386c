"""CLIP and SigLIP in transformers' format as teachers.

Loading is strict: every key of the architecture must be there and no other. A text is read out at its
end-of-text token as the tokeniser names it, which is right for every vocabulary (see `ClipTeacher`).
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, SiglipModel
from transformers.utils import logging as transformers_logging

from geograft.errors import CheckpointMismatch, UnknownModel
from geograft.models.numerics import inference, to_unit, weights_digest
from geograft.models.preprocess import read_preprocessor
from geograft.models.teacher import Teacher

logger = logging.getLogger(__name__)

_MODELS: dict[str, Any] = {"clip": CLIPModel, "siglip": SiglipModel}
_HUB_NAME = re.compile(r"(?:hf-hub:)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_SMALL_FILES = ["*.json", "*.txt", "*.model"]


class ClipTeacher(Teacher):
    """A CLIP or SigLIP in transformers' format.

    CLIP's text vector is read at the first end-of-text token. transformers finds it by the configuration's
    `eos_token_id`, whose old value 2 means "the highest id in the text" and whose default, 49407, exists in
    the original vocabulary only; here the tokeniser decides, which gives the same for the released models and
    the right answer for small vocabularies.

    Args:
        source: a folder, or a name on the hub ("org/name", "org/name@revision").
        name: what the teacher is called; where None the folder's absolute path, or the hub name.
        batch: photos or texts that are encoded at once.

    Raises:
        UnknownModel: there is no such folder or name.
        CheckpointMismatch: the folder holds another architecture, lacks weights or has unknown ones.
    """

    def __init__(self, source: str | Path, *, name: str | None = None, batch: int = 64) -> None:
        folder = find_folder(source)
        self.name = name if name is not None else str(folder.resolve() if Path(source).is_dir() else source)
        self.batch = batch
        self.model = read_model(folder).eval().requires_grad_(requires_grad=False)
        self.preprocess = read_preprocessor(folder)
        with _reading(folder):
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer.padding_side = "right"
        if self.model.config.model_type == "clip":
            _check_end_of_text(self.model.config.text_config.eos_token_id, self.tokenizer, folder)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over weights, preprocessing and vocabulary."""
        vocabulary = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        return weights_digest(self.model.state_dict(), (self.preprocess.digest, vocabulary))

    @property
    def dim(self) -> int:
        """Length of the embeddings."""
        config = self.model.config
        size = config.projection_dim if config.model_type == "clip" else config.vision_config.hidden_size
        return int(size)

    def encode_photos(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Unit vectors of photos, (N, D) float32."""
        return self._in_batches(images, self._photos, bf16=None)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, (N, D) float32; texts longer than the encoder takes are cut."""
        encode = self._clip_texts if self.model.config.model_type == "clip" else self._siglip_texts
        return self._in_batches(texts, encode, bf16=False)

    def _in_batches(self, items: Sequence[Any], encode: Any, *, bf16: bool | None) -> NDArray[np.float32]:
        """`encode` over the items, batch by batch."""
        starts = range(0, len(items), self.batch)
        with inference(self.model.device, bf16=bf16):
            parts = [to_unit(encode(list(items[start : start + self.batch]))) for start in starts]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def _photos(self, images: list[Image]) -> Tensor:
        """Vectors of one batch of photos."""
        pixels = torch.from_numpy(self.preprocess(images)).to(self.model.device)
        return self.model.get_image_features(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

    def _clip_texts(self, texts: list[str]) -> Tensor:
        """Vectors of one batch of texts, read at the end-of-text token."""
        ids = self._tokens(texts, padding="longest")
        hidden = self.model.text_model(input_ids=ids).last_hidden_state
        ends = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)
        return self.model.text_projection(hidden[torch.arange(len(ids)), ends])  # type: ignore[no-any-return]

    def _siglip_texts(self, texts: list[str]) -> Tensor:
        """Vectors of one batch of texts; SigLIP was trained on lower case, padded to its full length."""
        ids = self._tokens([text.lower() for text in texts], padding="max_length")
        return self.model.get_text_features(input_ids=ids).pooler_output  # type: ignore[no-any-return]

    def _tokens(self, texts: list[str], *, padding: str) -> Tensor:
        """Token ids, (N, T)."""
        length = self.model.config.text_config.max_position_embeddings
        batch = self.tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        ids: Tensor = batch["input_ids"].to(self.model.device)
        return ids


def _check_end_of_text(configured: int, tokenizer: Any, folder: Path) -> None:
    """Refuse a tokeniser without an end-of-text token, or one whose model was trained to read elsewhere."""
    end = tokenizer.eos_token_id
    if end is None or tokenizer("a")["input_ids"][-1] != end:
        raise CheckpointMismatch(f"The tokeniser of {folder} does not end a text with an end-of-text token.")
    if configured == end == 2 and max(tokenizer.get_vocab().values()) > 2:
        raise CheckpointMismatch(
            f"{folder} ends texts with token 2, which transformers takes as the sign of an old checkpoint: it was "
            "trained to read texts at their highest token id. Give the end-of-text token another id."
        )


# --- folders ----------------------------------------------------------------------------------------------


def find_folder(source: str | Path) -> Path:
    """The local folder of a path or hub name; what lies in the hub's cache is taken without asking the network.

    Raises:
        UnknownModel: there is no such folder, or the hub has no such model or cannot be reached.
    """
    if str(source) and Path(source).is_dir():
        return Path(source)
    match = _HUB_NAME.fullmatch(str(source))
    if match is None:
        raise UnknownModel(
            f"There is no model {str(source)!r}: give a folder, a hub name like org/name, or the name of a shipped one."
        )
    return _from_hub(match["repo"], match["revision"])


def _from_hub(repo: str, revision: str | None) -> Path:
    """The cached or downloaded folder of a model on the hub."""
    problem = ""
    for offline in (True, False):
        try:
            return _snapshot(repo, revision, offline=offline)
        except (OSError, ValueError, RuntimeError) as error:
            problem = str(error).strip().splitlines()[0]
    raise UnknownModel(f"The model {repo} is neither a folder, nor cached, nor downloadable: {problem}")


def _snapshot(repo: str, revision: str | None, *, offline: bool) -> Path:
    """The folder of a hub model's small files and weights, safetensors where it has them."""
    from huggingface_hub import snapshot_download

    for weights in ("*.safetensors", "pytorch_model*.bin"):
        patterns = [*_SMALL_FILES, weights]
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=offline))
        if any(folder.glob(weights)):
            return folder
    raise FileNotFoundError("it has no weights in transformers' format")


def read_model(folder: Path) -> Any:
    """The CLIP or SigLIP of a folder in float32, every key accounted for.

    Raises:
        CheckpointMismatch: the folder holds another architecture, lacks weights or has unknown ones, or a
            weight is not finite.
    """
    kind = _model_type(folder)
    if kind not in _MODELS:
        raise CheckpointMismatch(
            f"{folder} holds a model of the type {kind!r}; teachers are of the types {', '.join(_MODELS)}."
        )
    with _reading(folder), _quiet():
        model, report = _MODELS[kind].from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, attn_implementation="sdpa"
        )
    problems = [f"missing {key}" for key in sorted(report["missing_keys"])]
    problems += [f"unknown {key}" for key in sorted(report["unexpected_keys"]) if not key.endswith("position_ids")]
    problems += [f"{key} is not finite" for key, value in model.state_dict().items() if not value.isfinite().all()]
    if problems:
        raise CheckpointMismatch(
            f"The weights of {folder} are not those of its config.json: {'; '.join(problems[:5])}."
        )
    return model


def read_vision_tower(source: str | Path) -> dict[str, Tensor]:
    """The weights of a CLIP's image tower under the keys of `CLIPVisionModelWithProjection`.

    Raises:
        UnknownModel: there is no such folder or name.
        CheckpointMismatch: it is no CLIP, or its weights are incomplete.
    """
    model = read_model(find_folder(source))
    if model.config.model_type != "clip":
        raise CheckpointMismatch(f"{source} is a {model.config.model_type}; the image tower of a CLIP is needed.")
    towers = ("vision_model.", "visual_projection.")
    return {key: value for key, value in model.state_dict().items() if key.startswith(towers)}


def _model_type(folder: Path) -> str:
    """The architecture that a folder's config.json names."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(
            f"{folder} is no model folder in transformers' format ({error!r}): a teacher is a CLIP or SigLIP."
        ) from error


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn what goes wrong inside transformers into a sentence about the folder."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointMismatch(f"The model in {folder} cannot be read: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' loading bar and report off the terminal."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
