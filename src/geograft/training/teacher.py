"""The mini teacher: a small CLIP trained from captioned photos of simulated regions, as CLIP was from the web.

Nothing here knows a satellite: the teacher sees photos and what people say of them, and is frozen when GRAFT begins.
Words and phrasings that `geograft.world.classes` holds out never occur in its captions, so what it makes of them
measures how open its vocabulary is.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from geograft.models.numerics import has_bfloat16
from geograft.tables import Manifest, atomic, write_manifest
from geograft.training.captioned import CaptionedPhotos, all_texts, augment_photos, read_captioned, statistics
from geograft.training.loop import LoopSettings, Share, alone, fit, plain_attention
from geograft.training.probe import zero_shot
from geograft.training.teacher_card import write_card
from geograft.training.tokens import END, PAD, SPECIAL, START, BrokenWords, learn_tokenizer, tokenise

_LARGEST_SCALE = math.log(100)


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
    """The mini teacher's shape and training.

    Attributes:
        image_size: width and height of photos, px.
        patch_size: of the vision transformer, px.
        width: of the vision transformer.
        depth: of the vision transformer.
        heads: of the vision transformer.
        text_width: of the text transformer.
        text_depth: of the text transformer.
        dim: length of the embeddings.
        vocabulary: the most tokens.
        context: the most tokens of a text.
        epochs: passes over the photos.
        batch: photos a step.
        lr: highest learning rate.
        weight_decay: AdamW's.
        keep: the share of patches that a training step looks at (FLIP, Li et al. 2023); 1 is all.
        broken: the share of word pieces' merges left out in training.
        held_out: the share of the photos kept apart to measure on.
        seed: of everything random.
    """

    image_size: int = 64
    patch_size: int = 8
    width: int = 192
    depth: int = 4
    heads: int = 3
    text_width: int = 128
    text_depth: int = 3
    dim: int = 128
    vocabulary: int = 1000
    context: int = 32
    epochs: int = 10
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.1
    keep: float = 0.5
    broken: float = 0.1
    held_out: float = 0.04
    seed: int = 0

    @property
    def patches(self) -> int:
        """Patches of a photo."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class TeacherSummary:
    """What training a teacher came to.

    Attributes:
        folder: of the teacher, in transformers' format.
        photos: how many it learnt from.
        metrics: its figures on photos kept apart (see `geograft.training.probe.zero_shot`).
        seconds: spent training.
    """

    folder: Path
    photos: int
    metrics: dict[str, float]
    seconds: float


def train_teacher(
    regions: Sequence[Path], out: Path, *, settings: TeacherSettings | None = None, work: Path | None = None
) -> TeacherSummary:
    """Train the mini teacher from scratch on captioned photos.

    Args:
        regions: folders of simulated regions that nothing else is trained or measured on.
        out: the folder to write, in transformers' format, fp16, with tokeniser, preprocessing and card.
        settings: shape and training.
        work: where checkpoints and the log lie (a killed run goes on from there); beside `out` where None.

    Returns:
        Where it lies and what it reaches on photos kept apart.

    Raises:
        MissingInput: a region has no captions.
        TrainingDiverged: the loss is not finite.
    """
    settings = settings or TeacherSettings()
    work = work or out.with_name(f"{out.name}.work")
    photos = read_captioned(regions, size=settings.image_size)
    learn, apart = photos.split(settings.held_out, seed=settings.seed)
    task = _TeacherTask(learn, apart, settings)
    identity = {"regions": [Path(region).name for region in regions], "photos": len(learn), **_shape(settings)}
    history = fit(task, work, _loop(settings), identity=identity)
    metrics = zero_shot(task.encode_photos, task.encode_text, apart)
    summary = TeacherSummary(out, len(learn), metrics, history.seconds)
    _save(task, out, summary, settings, [Path(region).name for region in regions])
    return summary


def _loop(settings: TeacherSettings) -> LoopSettings:
    return LoopSettings(
        epochs=settings.epochs,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        bf16=has_bfloat16(),
    )


def _shape(settings: TeacherSettings) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def make_clip(settings: TeacherSettings, vocabulary: int) -> CLIPModel:
    """A CLIP of random weights for a vocabulary of that many tokens."""
    common = {"projection_dim": settings.dim, "hidden_act": "gelu"}
    vision = {
        **common,
        "hidden_size": settings.width,
        "intermediate_size": settings.width * 4,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "image_size": settings.image_size,
        "patch_size": settings.patch_size,
    }
    text = {
        **common,
        "hidden_size": settings.text_width,
        "intermediate_size": settings.text_width * 4,
        "num_hidden_layers": settings.text_depth,
        "num_attention_heads": settings.text_width // 32,
        "max_position_embeddings": settings.context,
        "vocab_size": vocabulary,
        "pad_token_id": SPECIAL.index(PAD),
        "bos_token_id": SPECIAL.index(START),
        "eos_token_id": SPECIAL.index(END),
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=settings.dim)
    model = CLIPModel(config)
    plain_attention(model)
    return model


class _Prepared(NamedTuple):
    """Photos (N, 3, S, S), their chosen tokens, and token ids and mask of distinct captions, `which` of each photo."""

    photos: Tensor
    chosen: Tensor | None
    ids: Tensor
    mask: Tensor
    which: Tensor


class _TeacherTask:
    """Photos and their captions as the loop's task."""

    unit = "photos"

    def __init__(self, learn: CaptionedPhotos, apart: CaptionedPhotos, settings: TeacherSettings) -> None:
        self.settings, self.learn, self.apart = settings, learn, apart
        texts = all_texts(learn.captions)
        self.tokenizer: PreTrainedTokenizerFast = learn_tokenizer(
            texts, vocabulary=settings.vocabulary, context=settings.context
        )
        torch.manual_seed(settings.seed)
        self.model = make_clip(settings, len(self.tokenizer))
        self.words = BrokenWords(self.tokenizer, broken=settings.broken, seed=settings.seed)
        self.mean, self.std = statistics(learn.pixels)
        self.steps = len(learn) // settings.batch

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device  # type: ignore[no-any-return]

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Rows of the photos of each step, and the seed of what is drawn for them."""
        draw = np.random.default_rng([self.settings.seed, epoch])
        order = draw.permutation(len(self.learn))
        for step in range(self.steps):
            rows = order[step * self.settings.batch : (step + 1) * self.settings.batch]
            seed = int(draw.integers(2**31))
            if step >= skip:
                yield rows, seed

    def members(self, batch: tuple[NDArray[np.int64], int]) -> Sequence[str]:
        """The photos' ids."""
        return self.learn.ids[batch[0]].tolist()  # type: ignore[no-any-return]

    def prepare(self, batch: tuple[NDArray[np.int64], int], share: Share) -> _Prepared:
        """Augmented photos with the patches to look at, and the tokens of what is said of them."""
        alone(share, "The mini teacher")
        rows, seed = batch
        draw = np.random.default_rng(seed)
        texts = [self.learn.captions[row][draw.integers(len(self.learn.captions[row]))] for row in rows]
        unique, which = np.unique(texts, return_inverse=True)
        ids, mask = self.words(unique.tolist(), draw)
        photos = torch.from_numpy(self.learn.pixels[rows]).permute(0, 3, 1, 2).float() / 255
        dice = torch.Generator().manual_seed(seed)
        photos = self._normalise(augment_photos(photos, dice))
        chosen, there = self._chosen(len(photos), dice), self.device
        seen = None if chosen is None else chosen.to(there)
        return _Prepared(photos.to(there), seen, ids.to(there), mask.to(there), torch.from_numpy(which).to(there))

    def rows(self, prepared: _Prepared) -> int:
        """The number of photos."""
        return len(prepared.photos)

    def encode(self, model: nn.Module, prepared: _Prepared, rows: slice) -> Tensor:
        """Unit vectors of photos."""
        assert model is self.model
        return self._see(prepared.photos[rows], None if prepared.chosen is None else prepared.chosen[rows])

    def compare(self, found: Tensor, prepared: _Prepared) -> Tensor:
        """Symmetric InfoNCE of photos and captions; the same caption twice is right both times."""
        said = self._read(prepared.ids, prepared.mask)
        scale = self.model.logit_scale.clamp(max=_LARGEST_SCALE).exp()
        return caption_loss(found, said, prepared.which, scale)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Zero-shot figures on the photos kept apart; `val_loss` is the share not recognised."""
        assert model is self.model
        figures = zero_shot(self.encode_photos, self.encode_text, self.apart)
        return {"val_loss": 1 - figures["top1_seen"], **figures}

    def encode_photos(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors of photos (N, S, S, 3), (N, dim)."""
        with torch.inference_mode():
            parts = [
                self._see(self._prepare(part).to(self.device))
                for part in np.array_split(pixels, len(pixels) // 256 + 1)
            ]
        return torch.cat(parts).float().cpu().numpy()

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, (N, dim)."""
        with torch.inference_mode():
            ids, mask = tokenise(self.tokenizer, texts)
            return self._read(ids.to(self.device), mask.to(self.device)).float().cpu().numpy()

    def _prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        return self._normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)

    def _normalise(self, photos: Tensor) -> Tensor:
        return (photos - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def _chosen(self, count: int, dice: torch.Generator) -> Tensor | None:
        """The tokens that a step looks at, the class token and a random share of the patches; None for all."""
        if self.settings.keep >= 1:
            return None
        patches = self.settings.patches
        order = torch.rand(count, patches, generator=dice).argsort(dim=1)[:, : round(self.settings.keep * patches)] + 1
        return torch.cat([torch.zeros(count, 1, dtype=order.dtype), order], dim=1)

    def _see(self, photos: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Unit vectors of normalised photos; of the chosen tokens (N, n) only where given."""
        vision = self.model.vision_model
        tokens = vision.pre_layrnorm(vision.embeddings(photos))
        if chosen is not None:
            tokens = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
        first = vision.encoder(inputs_embeds=tokens).last_hidden_state[:, 0]
        return functional.normalize(self.model.visual_projection(vision.post_layernorm(first)).float(), dim=-1)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors of token ids."""
        pooled = self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return functional.normalize(self.model.text_projection(pooled).float(), dim=-1)


def caption_loss(photos: Tensor, captions: Tensor, which: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE between photos and the distinct captions of a batch.

    A caption that several photos share is right for each of them, and each of them is equally right for it.

    Args:
        photos: unit vectors, (P, D).
        captions: unit vectors of the distinct captions, (C, D), C <= P.
        which: the caption of each photo, (P,), values in [0, C); each caption has a photo.
        scale: what cosines are multiplied by.

    Returns:
        Scalar: the mean of photo → caption and caption → photo.
    """
    scores = photos @ captions.T * scale
    counts = torch.bincount(which, minlength=len(captions)).to(scores.dtype)
    among = scores + counts.log()  # a caption said n times stands n times in the denominator, as in CLIP
    to_caption = functional.cross_entropy(among, which) + (counts.log()[which]).mean()
    to_photo = functional.log_softmax(scores, dim=0)[torch.arange(len(which)), which]
    return 0.5 * (to_caption - to_photo.mean())


# --- writing ----------------------------------------------------------------------------------------------


def _save(
    task: _TeacherTask, out: Path, summary: TeacherSummary, settings: TeacherSettings, regions: list[str]
) -> None:
    """Write the teacher's folder whole, in transformers' format."""
    with atomic(out) as folder:
        folder.mkdir()
        with torch.no_grad():
            task.model.logit_scale.clamp_(max=_LARGEST_SCALE)
        task.model.half().save_pretrained(folder)
        task.tokenizer.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(_preprocessing(task), encoding="utf-8")
        write_card(folder, summary, settings, regions)
        manifest = Manifest(
            "teacher",
            inputs={"regions": regions},
            settings=settings,
            counts={"done": summary.photos, "skipped": {}, "failed": {}},
            extra={"metrics": summary.metrics, "seconds": round(summary.seconds)},
        )
        write_manifest(folder / "manifest.json", manifest)


def _preprocessing(task: _TeacherTask) -> str:
    """How a photo becomes the model's input, as transformers writes it."""
    size = task.settings.image_size
    values = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": task.mean,
        "image_std": task.std,
    }
    return json.dumps(values, indent=2) + "\n"
