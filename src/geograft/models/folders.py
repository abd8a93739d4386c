"""Models in transformers' format: where they lie, and what is in them, strictly read.

Whole models (CLIP, SigLIP, SigLIP 2) and towers alone. Every key of the architecture must be there and no other.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    Siglip2Model,
    Siglip2TextModel,
    SiglipModel,
    SiglipTextModel,
    SiglipVisionModel,
)
from transformers.utils import logging as transformers_logging

from geograft.errors import CheckpointMismatch, UnknownModel
from geograft.models.preprocess import NaflexPreprocess, PhotoPreprocess, read_naflex, read_preprocessor
from geograft.models.tokeniser import canonical, clip_tokenizer

_TYPES: dict[str, Any] = {
    "clip": CLIPModel,
    "siglip": SiglipModel,
    "siglip2": Siglip2Model,
    "clip_text_model": CLIPTextModelWithProjection,
    "siglip_text_model": SiglipTextModel,
    "siglip2_text_model": Siglip2TextModel,
    "clip_vision_model": CLIPVisionModelWithProjection,
    "siglip_vision_model": SiglipVisionModel,
}
_CLASSES = {kind.__name__: kind for kind in _TYPES.values()}
_HUB_NAME = re.compile(r"(?:hf-hub:)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_SMALL_FILES = ["*.json", "*.txt", "*.model"]
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "open_clip*.safetensors", "open_clip*.bin")
_TOKENISER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")


@dataclasses.dataclass(frozen=True)
class ClipParts:
    """What a CLIP or SigLIP is made of.

    Attributes:
        model: one of transformers' models or towers: CLIP, SigLIP, SigLIP 2.
        tokenizer: a tokeniser as transformers has them; None where texts are not encoded.
        preprocess: what happens to a photo first; None where photos are not encoded.
        clean: what happens to a text before the tokeniser sees it.
    """

    model: Any
    tokenizer: Any | None
    preprocess: PhotoPreprocess | NaflexPreprocess | None
    clean: Callable[[str], str] = str

    @property
    def kind(self) -> str:
        """The model's type in transformers' words, such as "clip" or "siglip_text_model"."""
        return str(self.model.config.model_type)

    @property
    def is_clip(self) -> bool:
        """Whether texts are read at their end-of-text token and vectors go through a projection, as CLIP's do."""
        return self.kind.startswith("clip")


def read_parts(folder: Path) -> ClipParts:
    """The model, tokeniser and preprocessing of a folder in transformers' format.

    Raises:
        CheckpointMismatch: the folder holds another architecture, or lacks weights, tokeniser or preprocessing.
    """
    model = read_model(folder).eval().requires_grad_(requires_grad=False)
    kind = model.config.model_type
    tokenizer = None if kind.endswith("_vision_model") else _read_tokenizer(folder, model.config)
    preprocess: PhotoPreprocess | NaflexPreprocess | None = None
    if not kind.endswith("_text_model"):
        preprocess = read_naflex(folder) if kind == "siglip2" else read_preprocessor(folder)
    return ClipParts(model, tokenizer, preprocess, _cleaning(folder, kind))


def _read_tokenizer(folder: Path, config: Any) -> Any:
    """The tokeniser of a folder; CLIP's own where the folder has none and the model reads CLIP's vocabulary."""
    text = getattr(config, "text_config", config)
    absent = not any((folder / name).is_file() for name in _TOKENISER_FILES)
    if absent and config.model_type.startswith("clip") and text.vocab_size == len(clip_tokenizer()):
        return clip_tokenizer()
    with reading(folder), quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "right"
    _check_vocabulary(text.vocab_size, tokenizer, folder)
    if config.model_type.startswith("clip"):
        _check_end_of_text(text.eos_token_id, tokenizer, folder)
    return tokenizer


def _check_vocabulary(size: int, tokenizer: Any, folder: Path) -> None:
    """Refuse a tokeniser of another model, or an empty one, which transformers makes where files are missing."""
    last = max(tokenizer.get_vocab().values())
    if not size / 2 <= last + 1 <= size:
        raise CheckpointMismatch(
            f"The tokeniser of {folder} numbers its tokens up to {last}, but the model knows {size}: "
            "copy all of the model's tokeniser files."
        )


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


def _cleaning(folder: Path, kind: str) -> Callable[[str], str]:
    """What a SigLIP's texts went through in training; CLIP's tokenisers do it themselves.

    The first version read no punctuation, which only its own tokeniser takes away; the second, which has Gemma's
    vocabulary, was trained on lower case.
    """
    if kind.startswith("clip"):
        return str
    try:
        named = str(_json(folder / "tokenizer_config.json").get("tokenizer_class"))
    except OSError:
        named = ""
    return canonical if named.startswith("SiglipTokenizer") else str.lower


# --- where a model lies -----------------------------------------------------------------------------------


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
    return Path(_offline_first(match["repo"], lambda offline: _snapshot(match["repo"], match["revision"], offline)))


def find_file(repo: str, file: str, revision: str | None = None) -> Path:
    """One file of a model on the hub, from its cache or downloaded.

    Raises:
        UnknownModel: the hub has no such file or cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    def get(offline: bool) -> str:
        return hf_hub_download(repo, file, revision=revision, local_files_only=offline)

    return Path(_offline_first(f"{file} of {repo}", get))


def is_hub_name(name: str) -> bool:
    """Whether a text has the form of a model on the hub: "org/name", "hf-hub:org/name@revision"."""
    return _HUB_NAME.fullmatch(name) is not None


def _offline_first(what: str, get: Callable[[bool], str | Path]) -> str | Path:
    """What `get` finds without the network, or with it."""
    problem = ""
    for offline in (True, False):
        try:
            return get(offline)
        except (OSError, ValueError, RuntimeError) as error:
            problem = str(error).strip().splitlines()[0]
    raise UnknownModel(f"The model {what} is neither a folder, nor cached, nor downloadable: {problem}")


def _snapshot(repo: str, revision: str | None, offline: bool) -> Path:
    """The folder of a hub model's small files and weights, transformers' and safetensors where it has them."""
    from huggingface_hub import snapshot_download

    for weights in _WEIGHTS:
        patterns = [*_SMALL_FILES, weights]
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=offline))
        if any(folder.glob(weights)):
            return folder
    raise FileNotFoundError("it has no weights in transformers' or open_clip's format")


# --- weights ----------------------------------------------------------------------------------------------


def read_model(folder: Path) -> Any:
    """The CLIP or SigLIP of a folder, or a tower of one, in float32, every key accounted for.

    Raises:
        CheckpointMismatch: the folder holds another architecture, lacks weights or has unknown ones, or a
            weight is not finite.
    """
    kind = _class_of(folder)
    with reading(folder), quiet():
        model, report = kind.from_pretrained(
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
    if model.config.model_type not in {"clip", "clip_vision_model"}:
        raise CheckpointMismatch(f"{source} is a {model.config.model_type}; the image tower of a CLIP is needed.")
    towers = ("vision_model.", "visual_projection.")
    return {key: value for key, value in model.state_dict().items() if key.startswith(towers)}


def _class_of(folder: Path) -> Any:
    """The class of transformers that a folder's config.json names, by its architecture or its type."""
    try:
        config = _json(folder / "config.json")
        kind, named = str(config["model_type"]), config.get("architectures") or [None]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(
            f"{folder} is no model folder in transformers' format ({error!r}): a teacher is a CLIP or SigLIP."
        ) from error
    if kind not in _TYPES:
        raise CheckpointMismatch(
            f"{folder} holds a model of the type {kind!r}; teachers are of the types {', '.join(_TYPES)}."
        )
    return _CLASSES.get(str(named[0]), _TYPES[kind])


def _json(path: Path) -> dict[str, Any]:
    """The object of a JSON file."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what goes wrong inside transformers into a sentence about the folder."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointMismatch(f"The model in {folder} cannot be read: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
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
