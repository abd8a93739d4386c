"""One encoder of two sensors, trained by the real loop on made-up batches of both."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from geograft.errors import BadSetting, ModelMismatch
from geograft.models.multi import MultiEncoder, MultiSettings, SensorView
from geograft.models.stems import SensorStem
from geograft.training.loop import LoopSettings, Share, fit
from geograft.training.scales import ScalesTask

FINE = SensorStem("fine", ("a", "b"), gsd=1.0, image_size=8, patch_size=4)
COARSE = SensorStem("coarse", ("a",), gsd=10.0, image_size=6, patch_size=2)


class Plain:
    """Draws chips of one sensor towards a direction that tells whether they are bright."""

    unit = "chips"

    def __init__(self, model, stem, *, steps):
        self.model, self.stem, self.steps = model, stem, steps

    def batches(self, epoch, *, skip=0):
        for number in range(skip, self.steps):
            yield [epoch, number]

    def members(self, batch):
        return [f"{self.stem.name}-{batch[0]}-{batch[1]}"]

    def prepare(self, batch, share):  # noqa: ARG002 - one process has it all
        draw = np.random.default_rng(batch)
        bright = torch.from_numpy(draw.choice([-1.0, 1.0], 8)).float()
        noise = torch.from_numpy(draw.normal(size=(8, len(self.stem.bands), *[self.stem.image_size] * 2))).float()
        return noise + bright[:, None, None, None], bright

    def rows(self, prepared):
        return len(prepared[0])

    def encode(self, model, prepared, rows):
        return model(prepared[0][rows], level="image")

    def compare(self, found, prepared):
        return (1 - found[:, 0] * prepared[1]).mean()

    def validate(self, model):
        prepared = self.prepare([99, 99], Share())
        loss = self.compare(self.encode(model, prepared, slice(None)), prepared)
        return {"val_loss": float(loss.detach())}


def make_task(*, seed=0, names=("fine", "coarse")):
    torch.manual_seed(seed)
    stems = {"fine": FINE, "coarse": COARSE}
    whole = MultiEncoder(MultiSettings(sensors=(FINE, COARSE), dim=4, width=16, depth=1, heads=2))
    steps = {"fine": 5, "coarse": 3}
    tasks = {name: Plain(SensorView(whole, name), stems[name], steps=steps[name]) for name in names}
    return ScalesTask(whole, tasks)


def test_both_sensors_are_learnt_by_one_encoder(tmp_path):
    task = make_task()
    before = task.validate(task.model)
    history = fit(task, tmp_path, LoopSettings(epochs=8, lr=1e-2), identity={})
    for name in ("fine", "coarse"):
        assert history.best[f"{name}/val_loss"] < before[f"{name}/val_loss"] / 2
    both = (history.best["fine/val_loss"], history.best["coarse/val_loss"])
    assert history.best["val_loss"] == pytest.approx(np.mean(both))
    chips = normalize(torch.randn(2, 1, 6, 6), dim=1)
    with torch.inference_mode():
        expected = task.model.embed(chips, sensor="coarse")
        torch.testing.assert_close(task.model.at("coarse").embed(chips), expected, atol=1e-6, rtol=0)


def test_an_epoch_has_every_batch_of_every_sensor_once():
    task = make_task()
    turns = list(task.batches(2))
    assert len(turns) == task.steps == 8
    members = [task.members(turn)[0] for turn in turns]
    assert sorted(members) == sorted([f"fine-2-{n}" for n in range(5)] + [f"coarse-2-{n}" for n in range(3)])
    assert [turn.sensor for turn in turns] != [turn.sensor for turn in task.batches(3)]


@pytest.mark.parametrize("skip", [0, 1, 4, 8])
def test_skipped_batches_leave_the_others_as_they_are(skip):
    task = make_task()
    assert list(task.batches(1, skip=skip)) == list(task.batches(1))[skip:]


def test_slices_of_a_batch_are_rows_of_the_whole():
    task = make_task()
    prepared = task.prepare(next(task.batches(0)), Share())
    with torch.no_grad():
        whole = task.encode(task.model, prepared, slice(None))
        parts = [task.encode(task.model, prepared, rows) for rows in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    assert task.rows(prepared) == 8


def test_figures_that_one_sensor_lacks_have_no_mean():
    task = make_task()
    task.tasks["coarse"].validate = lambda _model: {"val_loss": 3.0, "val_miou": 0.5}
    found = task.validate(task.model)
    assert "val_miou" not in found
    assert found["coarse/val_miou"] == 0.5
    assert found["val_loss"] == pytest.approx((found["fine/val_loss"] + 3) / 2)


def test_unknown_sensors_and_no_tasks_are_refused():
    task = make_task()
    with pytest.raises(ModelMismatch, match="radar"):
        ScalesTask(task.model, {"radar": task.tasks["fine"]})
    with pytest.raises(BadSetting, match="count the same"):
        ScalesTask(task.model, {})
