"""Small random models in the formats that people bring, written by the tests themselves."""

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTextModel,
)

from geograft.models.model import Model
from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.models.teacher import Teacher
from geograft.sensors import Sensor

WORDS = ("a", "photo", "of", "forest", "river", "lake", "harbour", "with", "boats", "the", "town")


def word_tokenizer(*, end: int, length: int, start: bool = True) -> PreTrainedTokenizerFast:
    """Whole lower-case words; the end-of-text token has the id `end`, all other ids follow on."""
    vocabulary = ["<pad>", "<start>", "<unk>", *WORDS]
    vocabulary.insert(end, "<end>")
    ids = {word: number for number, word in enumerate(vocabulary)}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    single = "<start> $A <end>" if start else "$A <end>"
    core.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<start>", ids["<start>"]), ("<end>", ids["<end>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=length,
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def clip_config(*, end: int, vocabulary: int, channels: int = 3) -> CLIPConfig:
    """A CLIP of a few thousand weights."""
    body = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPConfig(
        vision_config={**body, "image_size": 32, "patch_size": 8, "num_channels": channels},
        text_config={**body, "vocab_size": vocabulary, "max_position_embeddings": 12, "eos_token_id": end},
        projection_dim=16,
    )


def spread(model):
    """Weights large enough that different inputs give clearly different outputs."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.mul_(4)
            elif name.endswith("bias"):
                value.normal_(std=0.1)
    return model


@pytest.fixture
def make_clip(tmp_path):
    """A factory of CLIP folders: `end` is the tokeniser's end-of-text id, `configured` the configuration's."""

    def make(name="clip", *, end=3, configured=None, seed=0, change=None):
        folder = tmp_path / name
        tokenizer = word_tokenizer(end=end, length=12)
        torch.manual_seed(seed)
        config = clip_config(end=end if configured is None else configured, vocabulary=len(tokenizer))
        model = spread(CLIPModel(config))
        if change is not None:
            change(model)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def make_original_clip(tmp_path):
    """A factory of CLIP folders with CLIP's own byte-pair tokeniser, whose end-of-text id is the highest."""

    def make(*, configured):
        folder = tmp_path / "original"
        letters = "abcdefghijklmnopqrstuvwxyz"
        pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        tokenizer = CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
        torch.manual_seed(0)
        spread(CLIPModel(clip_config(end=configured, vocabulary=len(pieces)))).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def siglip_folder(tmp_path):
    """A small SigLIP with a tokeniser of words, padded to 64 tokens."""
    folder = tmp_path / "siglip"
    tokenizer = word_tokenizer(end=3, length=64, start=False)
    body = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = SiglipConfig(
        vision_config={**body, "image_size": 32, "patch_size": 8},
        text_config={**body, "vocab_size": len(tokenizer), "max_position_embeddings": 64},
    )
    spread(SiglipModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def make_siglip2(tmp_path):
    """A factory of small SigLIP 2 of native aspect ratio: 16 patches of 8 px, Gemma's tokeniser with few words."""

    def make(name="siglip2"):
        folder = tmp_path / name
        body = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        torch.manual_seed(0)
        config = Siglip2Config(
            vision_config={**body, "patch_size": 8, "num_patches": 16},
            text_config={**body, "vocab_size": 40, "max_position_embeddings": 16},
        )
        spread(Siglip2Model(config)).save_pretrained(folder)
        gemma_tokenizer().save_pretrained(folder)
        Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)
        return folder

    return make


def gemma_tokenizer():
    """A tokeniser of Gemma's kind over letters, ended by <eos>, as SigLIP 2 has it."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Siglip2Tokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


@pytest.fixture
def make_text_tower(make_clip, siglip_folder, tmp_path):
    """A factory of folders that hold the text tower of a CLIP or SigLIP alone, and the whole models' folders."""

    def make(kind):
        whole = make_clip() if kind == "clip" else siglip_folder
        tower_class = CLIPTextModelWithProjection if kind == "clip" else SiglipTextModel
        model = (CLIPModel if kind == "clip" else SiglipModel).from_pretrained(whole)
        config = model.config.text_config
        if kind == "clip":
            config.projection_dim = model.config.projection_dim
        tower = tower_class(config)
        weights = model.state_dict()
        prefix = "" if kind == "clip" else "text_model."
        tower.load_state_dict({key: weights[prefix + key] for key in tower.state_dict()})
        folder = tmp_path / f"{kind}-text"
        tower.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(whole / name, folder)
        return folder, whole

    return make


@pytest.fixture
def pictures():
    """Random pictures of several shapes and modes, smooth enough to be resized sensibly."""
    draw = np.random.default_rng(0)
    shapes = ((40, 60, 3), (97, 33, 3), (32, 32, 3), (21, 19, 3), (50, 50))
    coarse = [Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]
    return [*coarse, coarse[0].convert("RGBA"), coarse[1].convert("P")]


# --- satellite models -------------------------------------------------------------------------------------


class NamedTeacher(Teacher):
    """A teacher whose text vectors are fixed by the text."""

    def __init__(self, dim=16, fingerprint="0123456789abcdef"):
        self.name = "named"
        self._dim, self._fingerprint = dim, fingerprint

    @property
    def fingerprint(self):
        return self._fingerprint

    @property
    def dim(self):
        return self._dim

    def encode_photos(self, images):
        raise NotImplementedError

    def encode_text(self, texts):
        rows = [np.random.default_rng(sum(text.encode())).normal(size=self._dim) for text in texts]
        vectors = np.asarray(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def teacher():
    return NamedTeacher()


@pytest.fixture
def small_sensor():
    """Three bands of 16 bits with a scale, an offset and nodata."""
    return Sensor(
        name="small",
        bands=("green", "red", "nir"),
        gsd=2.0,
        dtype="uint16",
        scale=0.001,
        offset=-0.1,
        nodata=0,
        mean=(0.2, 0.3, 0.4),
        std=(0.1, 0.15, 0.2),
        display=(0.0, 1.0),
    )


@pytest.fixture
def make_encoder(small_sensor):
    """A factory of encoders of a few thousand weights for chips of 16 px in patches of 4."""

    def make(*, seed=0, **changes):
        shape = {"dim": 16, "image_size": 16, "patch_size": 4, "width": 24, "depth": 2, "heads": 2, **changes}
        torch.manual_seed(seed)
        return SatelliteEncoder(EncoderSettings(**{"bands": small_sensor.bands, **shape})).eval()

    return make


@pytest.fixture
def make_model(make_encoder, small_sensor, teacher):
    """A factory of models of both levels."""

    def make(*, levels=("image", "pixel"), seed=0, **changes):
        encoders = {level: make_encoder(seed=seed + number) for number, level in enumerate(levels)}
        return Model(encoders, **{"sensor": small_sensor, "teacher": teacher, "name": "small", **changes})

    return make


@pytest.fixture
def chips():
    """Seven chips of the small sensor, native values."""
    return np.random.default_rng(1).integers(1, 1000, (7, 3, 16, 16)).astype(np.uint16)
