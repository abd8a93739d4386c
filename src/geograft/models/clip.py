"""CLIP, SigLIP and SigLIP 2 as teachers, of a folder in transformers' format or of parts in memory.

A text is read out at its end-of-text token as the tokeniser names it, which is right for every vocabulary (see
`ClipTeacher`).
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from transformers import CLIPModel

from geograft.errors import CheckpointMismatch, NoPhotoEncoder, NoTextEncoder
from geograft.models.folders import ClipParts, find_folder, quiet, read_model, read_parts, read_vision_tower
from geograft.models.foreign.result import Foreign
from geograft.models.numerics import inference, to_unit, weights_digest
from geograft.models.preprocess import NaflexPreprocess, clip_preprocess
from geograft.models.teacher import Teacher
from geograft.models.tokeniser import clip_tokenizer

__all__ = ["ClipParts", "ClipTeacher", "clip_of_foreign", "find_folder", "read_model", "read_vision_tower"]


class ClipTeacher(Teacher):
    """A CLIP or SigLIP, or a tower of one.

    CLIP's text vector is read at the first end-of-text token. transformers finds it by the configuration's
    `eos_token_id`, whose old value 2 means "the highest id in the text" and whose default, 49407, exists in
    the original vocabulary only; here the tokeniser decides, which gives the same for the released models and
    the right answer for small vocabularies.

    A text tower alone answers texts and refuses photos, an image tower alone the other way round.

    Args:
        source: a folder, a name on the hub ("org/name", "org/name@revision"), or the parts themselves.
        name: what the teacher is called; where None the folder's absolute path, or the hub name.
        batch: photos or texts that are encoded at once.

    Raises:
        UnknownModel: there is no such folder or name.
        CheckpointMismatch: the folder holds another architecture, lacks weights or has unknown ones.
    """

    def __init__(self, source: str | Path | ClipParts, *, name: str | None = None, batch: int = 64) -> None:
        if isinstance(source, ClipParts):
            self.parts, found = source, "unnamed"
        else:
            folder = find_folder(source)
            self.parts, found = read_parts(folder), str(folder.resolve() if Path(source).is_dir() else source)
        self.name = name if name is not None else found
        self.batch = batch
        self.model, self.tokenizer, self.preprocess = self.parts.model, self.parts.tokenizer, self.parts.preprocess
        self.model.eval().requires_grad_(requires_grad=False)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over weights, preprocessing and vocabulary."""
        vocabulary = "" if self.tokenizer is None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        preprocessing = "" if self.preprocess is None else self.preprocess.digest
        return weights_digest(self.model.state_dict(), (preprocessing, vocabulary))

    @property
    def dim(self) -> int:
        """Length of the embeddings."""
        config = self.model.config
        if self.parts.is_clip:
            return int(config.projection_dim)
        text_alone = self.parts.kind.endswith("_text_model")
        return int(config.projection_size if text_alone else getattr(config, "vision_config", config).hidden_size)

    def encode_photos(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Unit vectors of photos, (N, D) float32.

        Raises:
            NoPhotoEncoder: this is a text tower alone.
        """
        if self.preprocess is None:
            raise NoPhotoEncoder(
                f"The teacher {self.name} is a text encoder alone and cannot encode {len(images)} photos: "
                "name the whole model, or query by words."
            )
        return self._in_batches(images, self._photos, bf16=None)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, (N, D) float32; texts longer than the encoder takes are cut.

        Raises:
            NoTextEncoder: this is an image tower alone.
        """
        if self.tokenizer is None:
            raise NoTextEncoder(
                f"The teacher {self.name} is an image encoder alone and cannot encode {len(texts)} texts: "
                "name the whole model, or query by photo or chip."
            )
        return self._in_batches(texts, self._clip_texts if self.parts.is_clip else self._siglip_texts, bf16=False)

    def _in_batches(self, items: Sequence[Any], encode: Any, *, bf16: bool | None) -> NDArray[np.float32]:
        """`encode` over the items, batch by batch."""
        starts = range(0, len(items), self.batch)
        with inference(self.model.device, bf16=bf16):
            parts = [to_unit(encode(list(items[start : start + self.batch]))) for start in starts]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def _photos(self, images: list[Image]) -> Tensor:
        """Vectors of one batch of photos."""
        assert self.preprocess is not None
        tower = getattr(self.model, "vision_model", self.model)
        if isinstance(self.preprocess, NaflexPreprocess):
            pixels, mask, shapes = (torch.from_numpy(part).to(self.model.device) for part in self.preprocess(images))
            return tower(pixels, pixel_attention_mask=mask, spatial_shapes=shapes).pooler_output  # type: ignore[no-any-return]
        pixels = torch.from_numpy(self.preprocess(images)).to(self.model.device)
        pooled: Tensor = tower(pixel_values=pixels).pooler_output
        return self.model.visual_projection(pooled) if self.parts.is_clip else pooled

    def _clip_texts(self, texts: list[str]) -> Tensor:
        """Vectors of one batch of texts, read at the end-of-text token."""
        ids = self._tokens(texts, padding="longest")
        hidden = self.model.text_model(input_ids=ids).last_hidden_state
        ends = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)  # type: ignore[union-attr]
        return self.model.text_projection(hidden[torch.arange(len(ids)), ends])  # type: ignore[no-any-return]

    def _siglip_texts(self, texts: list[str]) -> Tensor:
        """Vectors of one batch of texts, padded to their full length without a mask, as SigLIP was trained."""
        ids = self._tokens(texts, padding="max_length")
        tower = getattr(self.model, "text_model", self.model)
        return tower(input_ids=ids).pooler_output  # type: ignore[no-any-return]

    def _tokens(self, texts: list[str], *, padding: str) -> Tensor:
        """Token ids, (N, T)."""
        assert self.tokenizer is not None
        config = self.model.config
        length = getattr(config, "text_config", config).max_position_embeddings
        cleaned = [self.parts.clean(text) for text in texts]
        batch = self.tokenizer(cleaned, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        ids: Tensor = batch["input_ids"].to(self.model.device)
        return ids


def clip_of_foreign(foreign: Foreign, *, name: str) -> ClipTeacher:
    """The teacher of a whole CLIP that came in another project's layout (open_clip's, OpenAI's).

    Such files carry no tokeniser and mean CLIP's own; preprocessing is CLIP's where they say no other.

    Raises:
        CheckpointMismatch: it is no whole CLIP, or reads another vocabulary than CLIP's.
    """
    config = foreign.config
    if foreign.level is not None:
        raise CheckpointMismatch(
            f"{name} is a satellite encoder without text, no teacher: load it by geograft.load, or name the CLIP."
        )
    if config.text_config.vocab_size != len(clip_tokenizer()):
        raise CheckpointMismatch(
            f"{name} reads {config.text_config.vocab_size} tokens, CLIP's tokeniser has {len(clip_tokenizer())}: "
            "bring it as a folder in transformers' format with its own tokeniser."
        )
    with quiet():
        model = CLIPModel.from_pretrained(
            None, config=config, state_dict=foreign.weights, dtype=torch.float32, attn_implementation="sdpa"
        )
    preprocess = clip_preprocess(config.vision_config.image_size, foreign.notes.get("preprocess"), source=name)
    return ClipTeacher(ClipParts(model, clip_tokenizer(), preprocess), name=name)
