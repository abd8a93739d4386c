"""CLIPs as their own projects write them: plain torch modules in open_clip's layout, small and random."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import dataclasses
import json
import zipfile

import pytest
import torch
from torch import nn
from torch.nn import functional

from geograft.models.foreign import architectures

TINY = architectures.Architecture(
    "ViT-tiny-8", patch=8, width=24, layers=2, dim=12, text_width=16, text_layers=3, image_size=32, head_width=8,
    text_heads=2, context=77, vocabulary=40,
)  # fmt: skip


class QuickGELU(nn.Module):
    """OpenAI's activation."""

    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A layer of open_clip's and OpenAI's transformers."""

    def __init__(self, width, heads, mlp, activation):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, mlp))
        self.mlp.add_module("gelu", activation())
        self.mlp.add_module("c_proj", nn.Linear(mlp, width))

    def forward(self, x, mask):
        normal = self.ln_1(x)
        x = x + self.attn(normal, normal, normal, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of layers."""

    def __init__(self, width, layers, heads, mlp, activation):
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, heads, mlp, activation) for _ in range(layers)))

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    """The image tower."""

    def __init__(self, one, activation):
        super().__init__()
        tokens = (one.image_size // one.patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, one.width, one.patch, one.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(one.width))
        self.positional_embedding = nn.Parameter(torch.randn(tokens, one.width))
        self.ln_pre = nn.LayerNorm(one.width)
        self.transformer = Transformer(one.width, one.layers, one.width // one.head_width, one.mlp, activation)
        self.ln_post = nn.LayerNorm(one.width)
        self.proj = nn.Parameter(torch.randn(one.width, one.dim) / 4)

    def tokens(self, images):
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.transformer(self.ln_pre(x))

    def forward(self, images):
        return self.ln_post(self.tokens(images)[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """A CLIP of open_clip's layout."""

    def __init__(self, one=TINY, activation=nn.GELU):
        super().__init__()
        self.visual = Visual(one, activation)
        self.transformer = Transformer(one.text_width, one.text_layers, one.text_heads, one.text_mlp, activation)
        self.token_embedding = nn.Embedding(one.vocabulary, one.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(one.context, one.text_width))
        self.ln_final = nn.LayerNorm(one.text_width)
        self.text_projection = nn.Parameter(torch.randn(one.text_width, one.dim) / 4)
        self.logit_scale = nn.Parameter(torch.tensor(4.0))
        mask = torch.full((one.context, one.context), float("-inf")).triu(1)
        self.register_buffer("attn_mask", mask, persistent=False)

    def encode_text(self, ids):
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, self.attn_mask[:length, :length]))
        return x[torch.arange(len(x)), ids.argmax(dim=-1)] @ self.text_projection

    def forward(self, images, ids):
        return self.visual(images), self.encode_text(ids)


def spread(model):
    """Weights large enough that different inputs give clearly different outputs."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name != "logit_scale":
                value.normal_(std=0.3 if value.ndim > 1 else 0.2)
            if "ln_" in name and name.endswith("weight"):
                value.add_(1)
    return model.eval()


@pytest.fixture(autouse=True)
def tiny_architecture(monkeypatch):
    """The tests' small CLIP among the known architectures."""
    monkeypatch.setattr(architectures, "KNOWN", (*architectures.KNOWN, TINY))


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture
def make_openclip():
    """A factory of small CLIPs in open_clip's layout."""

    def make(*, quick=False, **changes):
        return spread(OpenClip(dataclasses.replace(TINY, **changes), QuickGELU if quick else nn.GELU))

    return make


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ids():
    """Texts of several lengths that end with the highest id, filled up with zeros."""
    draw = torch.Generator().manual_seed(2)
    rows = torch.zeros(4, 20, dtype=torch.long)
    for row, end in enumerate((3, 9, 14, 19)):
        rows[row, 0] = TINY.vocabulary - 2
        rows[row, 1:end] = torch.randint(1, TINY.vocabulary - 2, (end - 1,), generator=draw)
        rows[row, end] = TINY.vocabulary - 1
    return rows


@pytest.fixture
def write_config():
    """A factory of `open_clip_config.json`: that of the small CLIP with changes."""

    def write(folder, *, vision=None, text=None, model=None, preprocess=None):
        content = {
            "model_cfg": {
                "embed_dim": TINY.dim,
                "vision_cfg": {
                    "image_size": 32, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8, **(vision or {}),
                },
                "text_cfg": {
                    "context_length": 77, "vocab_size": 40, "width": 16, "heads": 2, "layers": 3, **(text or {}),
                },
                **(model or {}),
            },
            **({"preprocess_cfg": preprocess} if preprocess else {}),
        }  # fmt: skip
        (folder / "open_clip_config.json").write_text(json.dumps(content))

    return write


@pytest.fixture
def large():
    """A factory of state dicts in open_clip's layout at full size that weigh nothing: every tensor is one number."""

    def make(one):
        with torch.device("meta"):
            shapes = OpenClip(one).state_dict()
        return {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}

    return make


@pytest.fixture
def repack():
    """A factory of torch files with another pickle inside: `pickled` takes the place of the original."""

    def write(path, pickled):
        torch.save({"state_dict": {"weight": torch.zeros(2)}}, path)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in entries.items():
                archive.writestr(name, pickled if name.endswith("data.pkl") else content)
        return path

    return write


def cosine(one, other):
    """The smallest cosine between the rows of two arrays."""
    return float(functional.cosine_similarity(one, other).min())
