import json
import sys

import pytest

from geograft.errors import MissingExtra
from geograft.training.log import Journal, Meter, read_log


def steps_and_epochs(path):
    return [(line["epoch"], line.get("step")) for line in map(json.loads, path.read_text().splitlines())]


def test_a_resumed_journal_forgets_what_will_be_done_again(tmp_path):
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    for epoch in (0, 1):
        for step in (0, 1, 2):
            journal.write({"epoch": epoch, "step": 3 * epoch + step, "loss": 1 / 3}, step=3 * epoch + step)
        journal.write({"epoch": epoch, "loss": 0.5}, step=3 * epoch + 2)
    with path.open("a") as file:
        file.write('{"epoch": 2, "st')
    Journal(path, keep=1, steps=5)
    assert steps_and_epochs(path) == [(0, 0), (0, 1), (0, 2), (0, None), (1, 3), (1, 4)]
    assert json.loads(path.read_text().splitlines()[0])["loss"] == 0.333333
    assert [line["epoch"] for line in read_log(path)] == [0]


def test_curves_are_drawn_and_cut_where_a_run_goes_on(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Journal(tmp_path / "log.jsonl", tensorboard=True)
    for step in range(6):
        first.write({"epoch": 0, "step": step, "loss": 1.0 + step}, step=step)
    first.close()
    second = Journal(tmp_path / "log.jsonl", steps=3, tensorboard=True)
    second.write({"epoch": 0, "step": 3, "loss": 9.0}, step=3)
    second.write({"epoch": 0, "loss": 5.0, "seconds": 1.0}, step=4)
    second.close()
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(curves.Tags()["scalars"]) == {"step/loss", "epoch/loss", "epoch/seconds"}
    assert [(event.step, event.value) for event in curves.Scalars("step/loss")] == [(0, 1), (1, 2), (2, 3), (3, 9)]


def test_curves_without_tensorboard_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"geograft\[tensorboard\]"):
        Journal(tmp_path / "log.jsonl", tensorboard=True)


def test_the_meter_counts_a_resumed_epoch_on(caplog):
    caplog.set_level("INFO")
    with Meter("chips", 3, 10, done=14) as meter:
        assert meter.step(2.0, 64) > 0
        meter.epoch({"loss": 2.0})
    assert "epoch 2 of 3: loss 2" in caplog.text


def test_one_process_of_many_speaks(caplog):
    caplog.set_level("INFO")
    with Meter("chips", 3, 10, shown=False) as meter:
        meter.epoch({"loss": 2.0})
    assert not caplog.text
