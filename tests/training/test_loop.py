import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from geograft.errors import (
    BadSetting,
    CheckpointMismatch,
    DiskFull,
    OutOfMemory,
    OutputExists,
    TrainingDiverged,
    UnreadableTable,
)
from geograft.training.log import read_log
from geograft.training.loop import LoopSettings, fit

SETTINGS = LoopSettings(epochs=4, lr=0.05, weight_decay=0)


class Line:
    """Fits a line to points: three batches an epoch, with noise that each epoch draws anew."""

    unit = "points"
    steps = 3

    def __init__(self, *, broken_at=None, val_losses=None, unreadable=None):
        torch.manual_seed(7)
        self.model = torch.nn.Linear(1, 1)
        self.unreadable = unreadable
        self.broken_at, self.val_losses, self.seen = broken_at, list(val_losses or []), []

    def batches(self, epoch, *, skip=0):
        for step in range(skip, self.steps):
            if f"{epoch}.{step}" == self.unreadable:
                raise FileNotFoundError(2, "No such file or directory", "part-00003.parquet")
            yield torch.arange(4.0)[:, None] + step, f"{epoch}.{step}"

    def members(self, batch):
        return [f"point-{batch[1]}-{number}" for number in range(4)]

    def prepare(self, batch, share):
        x, name = batch
        self.seen.append(name)
        noise = torch.rand(4, 1, generator=torch.Generator().manual_seed(hash(float(name)) % 2**31))
        return x[share.of(4)], 3 * x + noise, name

    def rows(self, prepared):
        return len(prepared[0])

    def encode(self, model, prepared, rows):
        return model(prepared[0][rows])

    def compare(self, found, prepared):
        loss = ((found - prepared[1]) ** 2).mean()
        return loss * math.nan if prepared[2] == self.broken_at else loss

    def validate(self, _):
        return {"val_loss": self.val_losses.pop(0)} if self.val_losses else {}


def weights(task):
    return [value.tolist() for value in task.model.state_dict().values()]


def run(folder, task=None, settings=SETTINGS, **options):
    task = task or Line()
    return task, fit(task, folder, settings, identity={"data": "points"}, **options)


class Killed(BaseException):
    pass


class KilledAt(Line):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def prepare(self, batch, share):
        if batch[1] == self.name:
            raise Killed
        return super().prepare(batch, share)


@pytest.mark.parametrize("moment", ["0.1", "1.0", "2.2", "3.1"])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, moment):
    whole, unbroken = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", KilledAt(moment))
    task, history = run(tmp_path / "cut")
    assert weights(task) == weights(whole)
    assert history.epochs == unbroken.epochs
    assert task.seen[0] == f"{moment[0]}.0"


def test_the_log_of_a_resumed_run_tells_each_epoch_once(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, KilledAt("2.2"))
    run(tmp_path)
    assert [line["epoch"] for line in read_log(tmp_path / "log.jsonl")] == [0, 1, 2, 3]
    steps = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"loss", "lr", "points_per_s"} <= steps[0].keys()


def test_a_finished_run_trains_no_further(tmp_path):
    first, _ = run(tmp_path)
    again, history = run(tmp_path)
    assert again.seen == []
    assert weights(again) == weights(first)
    assert len(history.epochs) == 4


def test_the_epoch_that_validates_best_is_kept(tmp_path):
    task, history = run(tmp_path, Line(val_losses=[3.0, 1.0, 2.0, 1.5]))
    assert history.best_epoch == 1
    short, _ = run(tmp_path / "other", settings=SETTINGS)
    assert weights(task) != weights(short)
    best = torch.load(tmp_path / "best.pt", weights_only=True)["model"]
    assert [value.tolist() for value in best.values()] == weights(task)


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    run(tmp_path)
    with pytest.raises(OutputExists, match="another lr"):
        run(tmp_path, settings=LoopSettings(epochs=4, lr=0.01, weight_decay=0))
    run(tmp_path, settings=LoopSettings(epochs=4, lr=0.01, weight_decay=0), resume=False)


def test_a_loss_that_is_not_finite_names_the_batch_and_spoils_nothing(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"step 7.*point-2\.1-0, point-2\.1-1"):
        run(tmp_path, Line(broken_at="2.1"))
    task, history = run(tmp_path)
    assert len(history.epochs) == 4
    assert all(math.isfinite(record["loss"]) for record in history.epochs)
    assert task.seen[0] == "2.0"


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        run(tmp_path, KilledAt("2.0"))
    before = (tmp_path / "last.pt").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(DiskFull):
            run(tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / "last.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointMismatch, match="delete it to start anew"):
        run(tmp_path)


OFTEN = dataclasses.replace(SETTINGS, save_steps=1)


@pytest.mark.parametrize("moment", ["0.1", "1.0", "2.2"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_killed_inside_an_epoch_goes_on_from_that_step(tmp_path, moment, ema):
    settings = dataclasses.replace(OFTEN, ema=ema)
    whole, unbroken = run(tmp_path / "whole", settings=settings)
    with pytest.raises(Killed):
        run(tmp_path / "cut", KilledAt(moment), settings=settings)
    task, history = run(tmp_path / "cut", settings=settings)
    assert task.seen[0] == moment
    assert weights(task) == weights(whole)
    assert history.epochs == unbroken.epochs
    assert (tmp_path / "cut" / "best.pt").read_bytes() == (tmp_path / "whole" / "best.pt").read_bytes()
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    assert len(logs[0]) == len(logs[1])


def test_checkpoints_inside_an_epoch_come_by_the_clock(tmp_path):
    never, always = (dataclasses.replace(SETTINGS, save_minutes=minutes) for minutes in (60, 1e-9))
    for settings, first in ((never, "2.0"), (always, "2.2")):
        folder = tmp_path / first
        with pytest.raises(Killed):
            run(folder, KilledAt("2.2"), settings=settings)
        assert run(folder, settings=settings)[0].seen[0] == first


def test_a_run_may_go_on_in_smaller_slices(tmp_path):
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", KilledAt("1.1"))
    task, _ = run(tmp_path / "cut", settings=dataclasses.replace(SETTINGS, chunk=1, save_minutes=1))
    for found, wanted in zip(weights(task), weights(whole), strict=True):
        assert np.asarray(found) == pytest.approx(np.asarray(wanted), abs=1e-6)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_shard_that_is_gone_is_named_and_the_run_goes_on_once_it_is_back(tmp_path, ahead):
    whole, _ = run(tmp_path / "whole")
    settings = dataclasses.replace(SETTINGS, ahead=ahead)
    with pytest.raises(UnreadableTable, match=r"step 7 .*part-00003\.parquet.*go on from this step"):
        run(tmp_path / "cut", Line(unreadable="2.1"), settings=settings)
    task, _ = run(tmp_path / "cut")
    assert task.seen[0] == "2.1"
    assert weights(task) == weights(whole)


def test_a_gradient_that_is_not_finite_is_named(tmp_path):
    class Steep(Line):
        def compare(self, found, prepared):
            return (found.sum() * 0).sqrt() if prepared[2] == "1.1" else super().compare(found, prepared)

    with pytest.raises(TrainingDiverged, match=r"gradient of a loss of 0 is not finite at step 4.*point-1\.1-0"):
        run(tmp_path, Steep())


def test_weights_that_are_not_finite_are_not_trained(tmp_path):
    task = Line()
    torch.nn.init.constant_(task.model.bias, math.inf)
    with pytest.raises(CheckpointMismatch, match="not finite: bias"):
        run(tmp_path, task)
    with pytest.raises(Killed):
        run(tmp_path, KilledAt("1.0"))
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["model"]["weight"].fill_(math.nan)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(CheckpointMismatch, match="weight is not finite"):
        run(tmp_path)


def test_full_memory_is_named(tmp_path):
    class Large(Line):
        def encode(self, model, prepared, rows):
            return super().encode(model, prepared, rows) + torch.empty(2**60, dtype=torch.uint8).sum()

    with pytest.raises(OutOfMemory, match=r"4 rows, 4 encoded at once\. Set chunk: 2"):
        run(tmp_path, Large())


def test_the_average_is_what_is_validated_and_kept(tmp_path):
    class Watched(Line):
        def validate(self, model):
            self.validated = model.weight.item()
            return {}

    task, history = run(tmp_path, Watched(), settings=dataclasses.replace(SETTINGS, ema=0.99))
    plain, _ = run(tmp_path / "plain")
    assert history.best_epoch == 3
    assert task.model.weight.item() == task.validated != plain.model.weight.item()
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert last["model"]["weight"].item() == plain.model.weight.item()
    assert last["average"]["weight"].item() == task.validated


def test_what_was_drawn_before_changes_nothing(tmp_path):
    class Busy(Line):
        def validate(self, _):
            torch.rand(17)
            return {}

    assert weights(run(tmp_path / "a")[0]) == weights(run(tmp_path / "b", Busy())[0])


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"lr": 0}, {"warmup": 1}, {"weight_decay": -1}, {"chunk": 0}, {"ema": 1}, {"layer_decay": 0},
     {"freeze": -1}, {"save_minutes": 0}, {"save_steps": 0}, {"seed": -1}],
)  # fmt: skip
def test_settings_that_train_nothing_are_refused(wrong):
    with pytest.raises(BadSetting):
        LoopSettings(**wrong)
