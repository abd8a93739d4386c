"""CLIPs in the layout of open_clip and OpenAI, as transformers' `CLIPModel`.

The layouts differ in names, in the fused projection of queries, keys and values (`in_proj`), and in the two heads,
which OpenAI multiplies from the right. A text is read at its highest token id in both, which with CLIP's
vocabulary is its end token.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from geograft.errors import CheckpointMismatch

_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TURNED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_BLOCK = re.compile(r"(?P<visual>visual\.)?transformer\.resblocks\.(?P<layer>\d+)\.(?P<part>.+)")
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_LEFT_OUT = re.compile(
    r"(.+\.)?attn_mask|(.+\.)?position_ids|logit_bias|input_resolution|context_length|vocab_size|mask[12]"
)
_OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
_ALIASES = (("image_backbone.", "visual."), ("text_backbone.", ""), ("text.", ""))  # ITRA, ITRA, open_clip's own
_START_OF_SCALE = 2.6592  # where CLIP's scale of logits starts; embeddings do not depend on it
_SHORT = 20  # positions that Long-CLIP keeps as CLIP learnt them

_REFUSED: dict[str, str] = {
    r"(visual|image_backbone)\.layer1\.": (
        "a CLIP with a ResNet as its image tower ({resnet}), which is not read. Take the ViT checkpoint of the same "
        "project (RemoteCLIP, SenCLIP and OpenAI publish ViT-B-32), or export the image tower to ONNX"
    ),
    r"visual\.trunk\.": (
        "a CLIP whose image tower is one of timm's (visual.trunk), which is not read. Take the model in transformers' "
        "format where there is one, as of SigLIP, or export the image tower to ONNX"
    ),
    r"text\.transformer\.(embeddings|encoder|shared|layer)\.": (
        "a CLIP whose text tower is a language model of transformers (text.transformer.embeddings), which is not "
        "read. Take one with CLIP's own text tower"
    ),
    r"text_decoder\.|visual\.attn_pool|text\.cls_emb": "a CoCa, whose towers differ from CLIP's. Take a CLIP",
    r"image_encoder\.model\.": "a MobileCLIP, which is not read. Take a CLIP with a plain vision transformer",
    r".*\.ls_[12]\.gamma": "a transformer with scaled layers (as ViT-M-16-alt), which transformers' CLIP lacks",
    r".*\.attn\.(ln_[qk]|head_scale|logit_scale)": "a transformer with altered attention, which CLIP lacks",
    r"(text\.)?text_projection\.(weight|bias)": (
        "a CLIP whose text head is a layer with a bias, as SigLIP's. Take the model in transformers' format"
    ),
}
"""Layouts that look alike but are of other towers: a pattern of their keys, and what they are and what to do."""


def is_openclip(weights: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of open_clip or OpenAI, of a whole CLIP or an image tower."""
    starts = ("visual.", "image_backbone.", "text_backbone.", "text.transformer.", "transformer.resblocks.")
    return any(key.startswith(starts) for key in weights)


def is_original(weights: Mapping[str, Any]) -> bool:
    """Whether OpenAI's own extra entries are there."""
    return any(key in _OPENAI for key in weights)


def convert(weights: Mapping[str, Tensor], *, source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under the keys of `CLIPModel`, and the keys that were left out since no vector depends on them.

    Args:
        weights: open_clip's or OpenAI's; the image tower alone, with the prefix `visual.` or without, is fine.
        source: what an error calls the weights.

    Returns:
        The weights, of the file's dtypes; keys that were left out.

    Raises:
        CheckpointMismatch: the towers are not CLIP's plain transformers, or a key is unknown.
    """
    _refuse(weights, source)
    weights = _renamed(weights)
    left_out = [key for key in weights if _LEFT_OUT.fullmatch(key)]
    weights = _joined_positions({key: value for key, value in weights.items() if key not in set(left_out)})
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, value in weights.items():
        if pairs := list(_converted(key, value)):
            converted.update(pairs)
        else:
            unknown.append(key)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise CheckpointMismatch(f"{source} holds weights that no CLIP has: {', '.join(unknown[:5])}{more}.")
    _refuse_averaging(converted, source)
    return converted, left_out


def with_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the scale of logits as one number, CLIP's first value where it is missing."""
    scale = weights.get("logit_scale", torch.tensor(_START_OF_SCALE))
    return {**weights, "logit_scale": scale.reshape(()) if scale.numel() == 1 else scale}


def _refuse(weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse by name what looks like open_clip's but has other towers."""
    for pattern, what in _REFUSED.items():
        if any(re.match(pattern, key) for key in weights):
            raise CheckpointMismatch(f"{source} is {what.format(resnet=_resnet(weights))}.")


def _resnet(weights: Mapping[str, Tensor]) -> str:
    """The name of a ResNet by its blocks and its width."""
    blocks = [len({key.split(".")[2] for key in weights if key.startswith(f"visual.layer{n}.")}) for n in (1, 2, 3, 4)]
    names = {
        (3, 4, 6, 3): "RN50",
        (3, 4, 23, 3): "RN101",
        (4, 6, 10, 6): "RN50x4",
        (6, 8, 18, 8): "RN50x16",
        (3, 15, 36, 10): "RN50x64",
    }
    return names.get(tuple(blocks), f"{'-'.join(map(str, blocks))} blocks")  # type: ignore[arg-type]


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under OpenAI's names, whatever they are called in the layouts that descend from it."""
    if "class_embedding" in weights and "conv1.weight" in weights:
        return {f"visual.{key}": value for key, value in weights.items()}
    renamed = {}
    for key, value in weights.items():
        old, new = next(((old, new) for old, new in _ALIASES if key.startswith(old)), ("", ""))
        renamed[new + key.removeprefix(old)] = value
    return renamed


def _joined_positions(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with Long-CLIP's two tables of positions as the one that it adds up (arXiv 2403.15378).

    The first 20 positions come from the one, all later ones from the other.
    """
    later = weights.pop("positional_embedding_res", None)
    if later is None or "positional_embedding" not in weights:
        return weights
    weights["positional_embedding"] = torch.cat([weights["positional_embedding"][:_SHORT], later[_SHORT:]])
    return weights


def _converted(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What a weight becomes; nothing where its name is unknown."""
    if key in _NAMES:
        yield _NAMES[key], value
    elif key in _TURNED:
        yield _TURNED[key], value.T.contiguous() if value.ndim == 2 else value
    elif match := _BLOCK.fullmatch(key):
        tower = "vision_model" if match["visual"] else "text_model"
        for part, piece in _block_part(match["part"], value):
            yield f"{tower}.encoder.layers.{match['layer']}.{part}", piece


def _block_part(part: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What a weight of a layer becomes."""
    name, _, kind = part.rpartition(".")
    if part in {"attn.in_proj_weight", "attn.in_proj_bias"}:
        kind = part.rpartition("_")[2]
        for letter, piece in zip("qkv", value.chunk(3), strict=False):
            yield f"self_attn.{letter}_proj.{kind}", piece
    elif name in _PARTS and kind in {"weight", "bias"}:
        yield f"{_PARTS[name]}.{kind}", value


def _refuse_averaging(converted: Mapping[str, Tensor], source: str) -> None:
    """Refuse CLIPA, which has no normalisation before its layers and averages its tokens."""
    has_tower = "vision_model.embeddings.patch_embedding.weight" in converted
    if has_tower and "vision_model.pre_layrnorm.weight" not in converted:
        raise CheckpointMismatch(
            f"{source} lacks visual.ln_pre: it is a CLIPA, which averages its tokens, or it is incomplete. "
            "Take a CLIP with the plain layout."
        )
