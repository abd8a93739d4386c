"""The same stages on a Ray cluster of two nodes on this machine, one of which dies in the middle."""

import threading
import time

import pytest

from geograft.engine import RayEngine, open_engine
from geograft.errors import EngineFailed, UnknownSensor
from geograft.pairs.materialise import materialise
from geograft.pairs.plan import PairSettings, plan_pairs
from geograft.sensors import get_sensor

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

MANY_SHARDS = PairSettings(chip_size=256, gsd=0.125, shard_mb=1, block_m=96, buffer_m=8, fractions=(0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def cluster():
    """A head and a second node, each with one core."""
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


def contents(folder):
    """Every file and its bytes; manifests name folders, and are compared by their counts elsewhere."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {path.relative_to(folder): path.read_bytes() for path in sorted(files)}


def end_node(cluster, shards, ended):
    """Kill the second node once a few shards are written."""
    deadline = time.monotonic() + 60
    while len(list(shards.glob("part-*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    cluster.remove_node(cluster.second, allow_graceful=False)
    ended.append(len(list(shards.glob("part-*.parquet"))))


def test_a_cluster_that_loses_a_node_gives_the_bytes_of_this_machine(cluster, scattered, make_ground, tmp_path):
    photos, scenes, engine = scattered(400), make_ground(400), f"ray:{cluster.address}"
    here, there = tmp_path / "here" / "pairs", tmp_path / "there" / "pairs"
    plan_pairs(photos, scenes, here, settings=MANY_SHARDS, workers=1)
    summary = materialise(here, workers=1)
    plan_pairs(photos, scenes, there, settings=MANY_SHARDS, engine=engine)
    ended = []
    killer = threading.Thread(target=end_node, args=(cluster, there / "shards", ended))
    killer.start()
    found = materialise(there, engine=engine)
    killer.join()
    assert contents(here) == contents(there)
    shards = len(list((there / "shards").glob("part-*.parquet")))
    assert ended[0] < shards > 10
    assert (found.chips, found.photos, found.splits) == (summary.chips, summary.photos, summary.splits)
    assert len(cluster.list_all_nodes()) == 1


def test_an_error_of_a_task_arrives_as_it_was_raised(cluster):
    with open_engine(f"ray:{cluster.address}") as engine:
        assert isinstance(engine, RayEngine)
        assert [sensor.name for sensor in engine.map(get_sensor, ["rgb", "naip"])] == ["rgb", "naip"]
        with pytest.raises(UnknownSensor, match="moon"):
            list(engine.map(get_sensor, ["moon"]))


def test_a_cluster_that_does_not_answer_is_a_named_error(monkeypatch):
    ray.shutdown()
    monkeypatch.setenv("RAY_gcs_rpc_server_connect_timeout_s", "1")
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("refused")))
    with pytest.raises(EngineFailed, match="ray start --head"):
        open_engine("ray:127.0.0.1:1")
