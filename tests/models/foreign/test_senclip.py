"""SenCLIP's checkpoints, as published and as its training writes them."""

import pytest
import torch
from torch import nn

from geograft.errors import CheckpointMismatch
from geograft.models.foreign import read_foreign, sniff


def training_state(original):
    """A checkpoint of SenCLIP's training: the CLIP inside, and what serves training only."""
    clip = {f"learner.encoder.model.{key}": value for key, value in original.state_dict().items()}
    head = nn.ModuleDict({"projection": nn.Linear(12, 12), "fc": nn.Linear(12, 12), "layer_norm": nn.LayerNorm(12)})
    return {
        "logit_scale": torch.tensor(2.66),
        **clip,
        **{f"learner.projection_head.{key}": value for key, value in head.state_dict().items()},
        "learner.pooling_layer.linear.weight": torch.zeros(1, 12),
        "learner.queue": torch.zeros(12, 256),
        "learner.queue_ptr": torch.zeros(1, dtype=torch.long),
    }


def test_published_file_is_a_clip_with_its_own_preprocessing(tmp_path, make_openclip):
    original = make_openclip(quick=True)
    path = tmp_path / "SenCLIP_AvgPool_ViTB32.ckpt"
    torch.save(original.state_dict(), path)
    foreign = read_foreign(path)
    assert sniff(path) == foreign.kind == "senclip"
    assert foreign.level is None
    assert foreign.notes["activation"] == "quick_gelu"
    assert foreign.notes["activation_certain"]
    assert foreign.notes["preprocess"]["mean"] == [0.347, 0.376, 0.296]
    assert foreign.notes["preprocess"]["resize"] == "squash"
    assert torch.equal(foreign.weights["visual_projection.weight"], original.visual.proj.T)


def test_checkpoint_of_the_training_holds_the_same_clip(tmp_path, make_openclip):
    original = make_openclip(quick=True)
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 4, "state_dict": training_state(original), "hyper_parameters": {"pooling": "avgpool"}}, path)
    torch.save(original.state_dict(), tmp_path / "SenCLIP.ckpt")
    foreign, plain = read_foreign(path), read_foreign(tmp_path / "SenCLIP.ckpt")
    assert sniff(path) == foreign.kind == "senclip"
    assert foreign.weights.keys() == plain.weights.keys()
    assert all(torch.equal(value, plain.weights[key]) for key, value in foreign.weights.items())
    assert foreign.notes["preprocess"] == plain.notes["preprocess"]
    assert foreign.notes["hyper_parameters"] == {"pooling": "avgpool"}
    assert "learner.queue" in foreign.notes["left_out"]


def test_weights_that_its_training_does_not_have(tmp_path, make_openclip):
    weights = training_state(make_openclip()) | {"learner.decoder.weight": torch.zeros(1)}
    torch.save({"state_dict": weights}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointMismatch, match=r"learner\.decoder\.weight"):
        read_foreign(tmp_path / "last.ckpt")


def test_its_resnet_is_refused_by_name(tmp_path):
    blocks = {1: 3, 2: 4, 3: 6, 4: 3}
    keys = [f"visual.layer{layer}.{block}.conv1.weight" for layer, count in blocks.items() for block in range(count)]
    torch.save({key: torch.zeros(1) for key in keys}, tmp_path / "SenCLIP_AttPool_RN50.ckpt")
    with pytest.raises(CheckpointMismatch, match="RN50"):
        read_foreign(tmp_path / "SenCLIP_AttPool_RN50.ckpt")
