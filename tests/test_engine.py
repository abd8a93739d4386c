import math
import os

import pytest

from geograft.engine import AHEAD, LocalEngine, open_engine
from geograft.errors import BadSetting, EngineFailed, UnknownSensor
from geograft.sensors import get_sensor


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    with open_engine("local", workers=workers) as engine:
        assert list(engine.map(math.factorial, range(20))) == [math.factorial(n) for n in range(20)]
        assert list(engine.map(math.factorial, [])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_raised_as_it_is(workers):
    with open_engine("local", workers=workers) as engine, pytest.raises(UnknownSensor, match="moon"):
        list(engine.map(get_sensor, ["moon"]))


def test_a_worker_that_was_killed_is_a_named_error():
    with open_engine("local", workers=2) as engine, pytest.raises(EngineFailed, match="fewer workers"):
        list(engine.map(os._exit, [9, 9]))


def test_tasks_are_handed_out_a_little_ahead_only():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    with LocalEngine(2) as engine:
        results = engine.map(math.factorial, items())
        next(results)
        assert len(taken) <= 2 * (AHEAD + 1) + 2


@pytest.mark.parametrize(("name", "workers"), [("spark", None), ("local:1", None), ("local", 0)])
def test_an_engine_that_cannot_be_is_refused(name, workers):
    with pytest.raises(BadSetting):
        open_engine(name, workers=workers)


def test_the_environment_may_say_how_many_workers(monkeypatch):
    monkeypatch.setenv("GEOGRAFT_WORKERS", "3")
    assert open_engine().workers == 3
    monkeypatch.setenv("GEOGRAFT_WORKERS", "many")
    with pytest.raises(BadSetting, match="GEOGRAFT_WORKERS"):
        open_engine()
