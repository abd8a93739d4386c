"""TorchScript archives, as OpenAI publishes CLIP, are read for their tensors; their program is not loaded."""

import zipfile

import pytest
import torch

from geograft.errors import CheckpointMismatch
from geograft.models.foreign import read_foreign, sniff
from geograft.models.foreign.torchscript import read_torchscript

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


@pytest.fixture
def program(tmp_path, make_openclip, images, ids):
    """A small CLIP as OpenAI publishes its own: traced, with its sizes as buffers."""
    original = make_openclip(quick=True)
    for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 40)):
        original.register_buffer(name, torch.tensor(value))
    path = tmp_path / "ViT-tiny-8.pt"
    torch.jit.trace(original, (images, ids)).save(path)
    return path, original


def test_tensors_are_those_that_torch_reads(program):
    path, original = program
    found = read_torchscript(path)
    expected = torch.jit.load(path).state_dict()
    assert set(expected) <= set(found)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert all(torch.equal(found[key], value) for key, value in original.state_dict().items())


def test_openai_format_is_read_with_its_activation(program):
    path, original = program
    foreign = read_foreign(path)
    assert sniff(path) == foreign.kind == "openai-jit"
    assert foreign.notes["activation"] == "quick_gelu"
    assert foreign.notes["activation_certain"]
    assert {"input_resolution", "context_length", "vocab_size"} <= set(foreign.notes["left_out"])
    assert torch.equal(foreign.weights["visual_projection.weight"], original.visual.proj.T)


def test_the_program_is_not_loaded(program, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the program was loaded"))
    read_foreign(program[0])


def test_broken_code_does_not_matter(program, tmp_path):
    with zipfile.ZipFile(program[0]) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    path = tmp_path / "other.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, b"def broken(" if "/code/" in name else content)
    assert len(read_torchscript(path)) > 20


def test_half_precision_and_views(tmp_path):
    class Parts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.arange(24.0).reshape(4, 6)
            self.turned = torch.nn.Parameter(whole.T)
            self.part = torch.nn.Parameter(whole[1:3, 2:4])
            self.register_buffer("narrow", whole.half())
            self.register_buffer("flag", torch.tensor([True, False]))

        def forward(self, x):
            return x + self.part

    made = Parts()
    torch.jit.script(made).save(tmp_path / "parts.pt")
    found = read_torchscript(tmp_path / "parts.pt")
    assert all(
        torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in made.state_dict().items()
    )


def test_other_programs_are_told_apart(tmp_path):
    torch.jit.script(torch.nn.Linear(3, 2)).save(tmp_path / "other.pt")
    assert sniff(tmp_path / "other.pt") == "torchscript"
    with pytest.raises(CheckpointMismatch, match=r"no CLIP, GRAFT or SenCLIP.*preprocess\.yaml"):
        read_foreign(tmp_path / "other.pt")


def test_archive_without_its_tensors(program, tmp_path):
    with zipfile.ZipFile(program[0]) as archive:
        entries = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/data/3")}
    with zipfile.ZipFile(tmp_path / "lacking.pt", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointMismatch, match="damaged TorchScript"):
        read_torchscript(tmp_path / "lacking.pt")
