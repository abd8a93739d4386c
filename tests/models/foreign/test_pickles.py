"""Files are read for their tensors only: nothing in them runs, and what is wrong with them is said."""

import contextlib
import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections import defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geograft.errors import CheckpointMismatch, MissingInput, UnsafeCheckpoint
from geograft.models.foreign import read_foreign, sniff
from geograft.models.foreign.containers import find_file
from geograft.models.foreign.pickles import read_tree, split_tree


class Command:
    """A pickle that starts a program when it is opened carelessly."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it-ran"


def commands(marker):
    """Ways in which a pickle can run something."""
    touch = f"touch {marker}"
    return {
        "a shell": Command(os.system, touch),
        "eval": Command(eval, f"open({str(marker)!r}, 'w')"),
        "a factory of defaults": defaultdict(os.system, {touch: 1}),
        "an object's class": {"state_dict": {"w": torch.zeros(1)}, "hyper_parameters": Command(os.system, touch)},
    }


@pytest.mark.parametrize("way", ["a shell", "eval", "a factory of defaults", "an object's class"])
@pytest.mark.parametrize("form", ["zip", "old", "program"])
def test_no_pickle_runs_anything(tmp_path, marker, repack, way, form):
    path = tmp_path / "weights.pt"
    if form == "old":
        torch.save(commands(marker)[way], path, _use_new_zipfile_serialization=False)
    elif form == "zip":
        torch.save(commands(marker)[way], path)
    else:
        repack(path, pickle.dumps(Command(os.system, f"touch {marker}"), protocol=2))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("weights/constants.pkl", b"")
    sniff(path)
    with pytest.raises(UnsafeCheckpoint, match=r"(posix\.system|nt\.system|eval).*not(hing was run)?"):
        read_foreign(path)
    assert not marker.exists()


def test_the_command_would_have_run(tmp_path, marker):
    torch.save(Command(os.system, f"touch {marker}"), tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert marker.exists()


def test_class_of_another_library_is_named_with_what_to_do(tmp_path, monkeypatch):
    module = types.ModuleType("somewhere")
    module.Loss = type("Loss", (), {"__module__": "somewhere"})
    monkeypatch.setitem(sys.modules, "somewhere", module)
    torch.save({"state_dict": {"w": torch.zeros(1)}, "loss": module.Loss()}, tmp_path / "run.ckpt")
    with pytest.raises(UnsafeCheckpoint, match=r"somewhere\.Loss.*weights_only=False"):
        read_foreign(tmp_path / "run.ckpt")


# --- what may lie beside the weights ----------------------------------------------------------------------


@pytest.fixture
def fake_library(monkeypatch):
    """A factory of classes that pickles know under the name of a library that is not installed."""

    def make(name, base=object):
        module_name, _, qualified = name.rpartition(".")
        parts = module_name.split(".")
        for end in range(1, len(parts) + 1):
            dotted = ".".join(parts[:end])
            if dotted not in sys.modules:
                monkeypatch.setitem(sys.modules, dotted, types.ModuleType(dotted))
        made = type(qualified, (base,), {"__module__": module_name})
        monkeypatch.setattr(sys.modules[module_name], qualified, made, raising=False)
        return made

    return make


def omega(fake_library, values):
    """Hyper-parameters as OmegaConf pickles them."""
    config = fake_library("omegaconf.dictconfig.DictConfig")
    listed = fake_library("omegaconf.listconfig.ListConfig")
    node = fake_library("omegaconf.nodes.AnyNode")
    metadata = fake_library("omegaconf.base.ContainerMetadata")

    def build(value):
        kind = config if isinstance(value, dict) else listed if isinstance(value, list) else node
        made = kind()
        made.__dict__["_metadata"] = metadata()
        made.__dict__["_metadata"].__dict__.update(object_type=dict, resolver_cache=defaultdict(dict))
        if isinstance(value, dict):
            made.__dict__["_content"] = {key: build(item) for key, item in value.items()}
        elif isinstance(value, list):
            made.__dict__["_content"] = [build(item) for item in value]
        else:
            made.__dict__["_val"] = value
        return made

    return build(values)


def test_hyper_parameters_of_omegaconf_are_read_without_it(tmp_path, fake_library):
    values = {"model": {"name": "graft", "lr": 1e-5}, "sizes": [1, 2]}
    hyper_parameters = omega(fake_library, values)
    callback = fake_library("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    attributes = fake_library("pytorch_lightning.utilities.parsing.AttributeDict", dict)
    content = {
        "epoch": 9,
        "state_dict": {"model.w": torch.ones(2)},
        "callbacks": {callback: {"best_model_path": "x"}},
        "hyper_parameters": hyper_parameters,
        "hparams_type": type(hyper_parameters),
        "loops": attributes({"fit": 1}),
    }
    torch.save(content, tmp_path / "last.ckpt")
    weights, notes = split_tree(read_tree(tmp_path / "last.ckpt")[1], source="last")
    assert list(weights) == ["w"]
    assert notes["hyper_parameters"] == values
    assert notes["epoch"] == 9
    assert notes["left_out"] == ["callbacks", "hparams_type", "loops"]


def test_numpy_scalars_and_paths_beside_the_weights(tmp_path):
    from argparse import Namespace
    from pathlib import Path

    content = {
        "epoch": np.int64(7),
        "global_step": np.float32(2.5),
        "name": np.float64(0.25),
        "state_dict": {"w": torch.zeros(1)},
        "args": Namespace(path=Path("a/b"), values=np.arange(3)),
    }
    torch.save(content, tmp_path / "run.pt")
    _, notes = split_tree(read_tree(tmp_path / "run.pt")[1], source="run")
    assert (notes["epoch"], notes["global_step"], notes["name"]) == (7, 2.5, 0.25)
    assert notes["left_out"] == ["args"]


def test_weights_under_several_wrappers(tmp_path):
    torch.save({"model": {"state_dict": {"module.model.w": torch.zeros(1)}}, "epoch": 3}, tmp_path / "run.pt")
    weights, notes = split_tree(read_tree(tmp_path / "run.pt")[1], source="run")
    assert list(weights) == ["w"]
    assert notes == {"epoch": 3}


@pytest.mark.parametrize(("content", "said"), [([1, 2], "no table of weights"), ({"a": {"b": 1}}, "no tensors")])
def test_file_without_weights(tmp_path, content, said):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match=said):
        read_foreign(tmp_path / "other.pt")


def test_other_model_is_told_by_its_first_weights(tmp_path):
    torch.save({"backbone.stem.weight": torch.zeros(1)}, tmp_path / "other.pt")
    assert sniff(tmp_path / "other.pt") is None
    with pytest.raises(CheckpointMismatch, match=r"no CLIP, GRAFT or SenCLIP.*backbone\.stem\.weight"):
        read_foreign(tmp_path / "other.pt")


# --- damage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_file_that_was_cut_off(tmp_path, make_openclip, share, form):
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pt")
    weights = make_openclip().state_dict()
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    sniff(path)
    with pytest.raises(CheckpointMismatch, match=r"cut off|damaged|no (torch )?file"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x89PNG\r\n\x1a\n0000", "no file of weights"),
        (b'{"a": 1}', "neither weights nor the index"),
        (b"\x80\x02garbage", "damaged|cut off"),
    ],
)
def test_file_that_is_something_else(tmp_path, content, said):
    (tmp_path / "model.pt").write_bytes(content)
    assert sniff(tmp_path / "model.pt") is None
    with pytest.raises(CheckpointMismatch, match=said):
        read_foreign(tmp_path / "model.pt")


def test_archive_still_packed(tmp_path):
    with zipfile.ZipFile(tmp_path / "SkyCLIP_ViT_B32_top50pct.zip", "w") as archive:
        archive.writestr("SkyCLIP_ViT_B32_top50pct/epoch_20.pt", b"weights")
    with pytest.raises(CheckpointMismatch, match="unpack it"):
        read_foreign(tmp_path / "SkyCLIP_ViT_B32_top50pct.zip")


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_give_an_error_or_the_weights(tmp_path, make_openclip, seed):
    buffer = io.BytesIO()
    torch.save(make_openclip().state_dict(), buffer)
    content = bytearray(buffer.getvalue())
    draw = np.random.default_rng(seed)
    for place in draw.integers(0, min(len(content), 30_000), 40):
        content[place] ^= 1 << int(draw.integers(8))
    (tmp_path / "model.pt").write_bytes(content)
    sniff(tmp_path / "model.pt")
    with contextlib.suppress(CheckpointMismatch, UnsafeCheckpoint):
        read_foreign(tmp_path / "model.pt")


# --- several files ----------------------------------------------------------------------------------------


def in_parts(folder, weights, suffix):
    """Write a model in two files and their index."""
    stem = "pytorch_model" if suffix == ".bin" else "model"
    keys, where = list(weights), {}
    for number in (1, 2):
        name = f"{stem}-0000{number}-of-00002{suffix}"
        part = {key: weights[key].contiguous() for key in keys[number - 1 :: 2]}
        where |= dict.fromkeys(part, name)
        torch.save(part, folder / name) if suffix == ".bin" else save_file(part, folder / name)
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": where}))
    return folder / f"{stem}{suffix}.index.json"


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_model_in_parts(tmp_path, make_openclip, suffix):
    weights = make_openclip().state_dict()
    index = in_parts(tmp_path, weights, suffix)
    part = next(tmp_path.glob(f"*-00002-of-00002{suffix}"))
    whole = read_foreign(index).weights
    for name in (part, tmp_path):
        assert sniff(name) == "openclip"
        assert all(torch.equal(value, whole[key]) for key, value in read_foreign(name).weights.items())


def test_part_without_the_others(tmp_path, make_openclip):
    index = in_parts(tmp_path, make_openclip().state_dict(), ".bin")
    part = tmp_path / "pytorch_model-00001-of-00002.bin"
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(MissingInput, match=r"pytorch_model-00002-of-00002\.bin"):
        read_foreign(part)
    index.unlink()
    with pytest.raises(CheckpointMismatch, match="one part of 2"):
        read_foreign(part)


def test_index_cannot_point_out_of_its_folder(tmp_path, make_openclip):
    inside = tmp_path / "inside"
    inside.mkdir()
    torch.save({"w": torch.zeros(1)}, tmp_path / "outside.bin")
    (inside / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": "../outside.bin"}}))
    with pytest.raises(MissingInput):
        read_foreign(inside)


def test_folders(tmp_path, make_openclip):
    with pytest.raises(MissingInput, match="holds no weights"):
        find_file(tmp_path)
    with pytest.raises(MissingInput, match="no file"):
        find_file(tmp_path / "nowhere.pt")
    assert sniff(tmp_path / "nowhere.pt") is None
    torch.save(make_openclip().state_dict(), tmp_path / "one.pt")
    assert find_file(tmp_path) == tmp_path / "one.pt"
    torch.save({}, tmp_path / "two.pt")
    with pytest.raises(CheckpointMismatch, match=r"2 checkpoints \(one\.pt, two\.pt\)"):
        find_file(tmp_path)
