"""Two workers of a Ray of this machine train what one process trains."""

import json
import os
import runpy
from pathlib import Path

import pytest
import torch

from geograft.errors import BadSetting, EngineFailed, TrainingDiverged
from geograft.training.raytrain import _until_done, train_on_ray

ray = pytest.importorskip("ray")

SCRIPT = Path(__file__).with_name("ragged.py")


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two cores."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_two_workers_train_what_one_process_trains(cluster, tmp_path):
    def work(script, out):
        from geograft.training.devices import Devices

        runpy.run_path(script)["main"](out, names=["whole"])
        return Devices().share.world

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert train_on_ray(work, {"script": str(SCRIPT), "out": tmp_path / "two"}, workers=2, retries=0) == 2
    runpy.run_path(str(SCRIPT))["main"](tmp_path / "one", names=["whole"])
    one, two = (json.loads((tmp_path / name / "whole-0.json").read_text())["weights"] for name in ("one", "two"))
    for name, values in one.items():
        torch.testing.assert_close(torch.tensor(two[name]), torch.tensor(values), atol=1e-9, rtol=0)


def failing(*failures):
    """A training that ends as Ray ends those of failing workers, each time with the next failure, and then well."""
    from ray.train.v2.api.exceptions import WorkerGroupError

    left = list(failures)

    def run():
        if left:
            raise WorkerGroupError("some worker failed", left.pop(0))
        return "done"

    return run


def test_a_training_whose_worker_died_begins_again():
    dead = {0: RuntimeError("connection reset"), 1: ray.exceptions.RayActorError(error_msg="the node is gone")}
    assert _until_done(failing(dead, dead), retries=2) == "done"
    with pytest.raises(EngineFailed, match="Workers died 2 times"):
        _until_done(failing(dead, dead), retries=1)


def test_an_error_of_a_worker_arrives_as_it_was_raised():
    named = {0: RuntimeError("connection reset"), 1: TrainingDiverged("The loss is nan at step 3.")}
    with pytest.raises(TrainingDiverged, match="step 3"):
        _until_done(failing(named), retries=3)
    with pytest.raises(TypeError, match="no such"):
        _until_done(failing({0: TypeError("no such keyword")}), retries=3)


def test_a_cluster_without_room_is_named(cluster):
    with pytest.raises(EngineFailed, match="2 CPUs for 5 workers"):
        train_on_ray(print, {}, workers=5)
    with pytest.raises(EngineFailed, match="0 GPUs for 1 workers"):
        train_on_ray(print, {}, workers=1, gpus=True)


@pytest.mark.parametrize(("workers", "engine"), [(0, "ray"), (2, "local"), (2, "raymond:1")])
def test_what_is_not_ray_is_refused(workers, engine):
    with pytest.raises(BadSetting, match="ray:HOST:PORT"):
        train_on_ray(print, {}, workers=workers, engine=engine)
