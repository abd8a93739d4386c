import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from geograft.errors import EmptySplit
from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.training import estimate as module
from geograft.training.estimate import estimate, free_memory
from geograft.training.loop import LoopSettings

SCRIPT = Path(__file__).with_name("ragged.py")
ragged = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
SETTINGS = LoopSettings(epochs=5, lr=0.01)


def weights(task):
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def test_the_model_is_left_as_it_was():
    task = ragged.Ragged()
    before = weights(task)
    task.model.eval()
    estimate(task, dataclasses.replace(SETTINGS, freeze=1))
    assert all(torch.equal(value, before[name]) for name, value in weights(task).items())
    assert not task.model.training
    assert all(value.requires_grad and value.grad is None for value in task.model.parameters())


def test_sizes_are_those_of_the_model():
    task = ragged.Ragged()
    count = sum(value.numel() for value in task.model.parameters())
    found = estimate(task, SETTINGS)
    assert found.parameters == found.trained == count
    assert found.weights == 8 * count
    assert found.optimiser == 3 * found.weights
    assert (found.rows, found.steps, found.epochs) == (3, 3, 5)
    assert found.hours == pytest.approx(found.seconds * 15 / 3600, abs=1e-4)
    frozen = estimate(task, dataclasses.replace(SETTINGS, freeze=1, ema=0.9))
    assert frozen.trained < count
    assert frozen.optimiser == 3 * 8 * frozen.trained
    assert frozen.weights == 2 * found.weights


def test_rows_keep_what_autograd_saves_for_them():
    """Naive: a larger batch is encoded whole, and what its graph keeps is counted by hand."""
    task = ragged.Ragged()
    task.model = SatelliteEncoder(EncoderSettings(("red", "nir"), 8, 16, 4, 32, 2, 2)).double()
    found = estimate(task, SETTINGS)
    kept = {}
    known = {value.untyped_storage().data_ptr() for value in task.model.state_dict().values()}
    chips = torch.randn(40, 2, 16, 16, dtype=torch.float64)

    def keep(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        alive = task.model(chips)
    saved = sum(size for where, size in kept.items() if where not in known)
    del alive
    assert found.row * 40 == pytest.approx(saved, rel=0.1)


def test_a_chunk_is_found_that_fits(monkeypatch):
    task = ragged.Ragged()
    roomy = estimate(task, SETTINGS)
    assert roomy.fits
    assert roomy.chunk is None
    standing = roomy.whole - 3 * roomy.row
    monkeypatch.setattr(module, "free_memory", lambda _: int((standing + 2.5 * roomy.row) / 0.85) - roomy.weights)
    tight = estimate(task, SETTINGS)
    assert not tight.fits
    assert tight.chunk == 2
    assert estimate(task, dataclasses.replace(SETTINGS, chunk=2)).fits
    monkeypatch.setattr(module, "free_memory", lambda _: 0)
    assert estimate(task, SETTINGS).chunk == 0


def test_nothing_to_train_on_is_named():
    class Empty(ragged.Ragged):
        def batches(self, *_, **__):
            return iter(())

    with pytest.raises(EmptySplit):
        estimate(Empty(), SETTINGS)


def test_this_machine_has_free_memory():
    assert 0 < free_memory(torch.device("cpu")) < 2**50
