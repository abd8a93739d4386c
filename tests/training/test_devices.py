import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from geograft.errors import BadSetting, OutOfMemory
from geograft.training.devices import Devices, Share, alone, named_memory

SCRIPT = Path(__file__).with_name("ragged.py")
ragged = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two processes of torchrun come to."""
    out = tmp_path_factory.mktemp("two")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    ended = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    """What one process comes to."""
    out = tmp_path_factory.mktemp("one")
    ragged.main(out)
    return out


def read(folder, name, rank=0):
    return json.loads((folder / f"{name}-{rank}.json").read_text())


def furthest(one, other):
    """The largest difference between two runs' weights."""
    pairs = zip(one["weights"].values(), other["weights"].values(), strict=True)
    return max(float((torch.tensor(a).double() - torch.tensor(b).double()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("name", ragged.RUNS)
def test_two_processes_end_with_the_weights_of_one(one_rank, two_ranks, name):
    one, two = read(one_rank, name), read(two_ranks, name)
    assert (one["world"], two["world"]) == (1, 2)
    assert furthest(one, two) < 1e-9
    for figures, others in zip(one["epochs"], two["epochs"], strict=True):
        assert figures == pytest.approx(others, abs=1e-9)


@pytest.mark.parametrize("name", ragged.RUNS)
def test_all_processes_end_with_the_same_weights_and_figures(two_ranks, name):
    first, second = read(two_ranks, name, 0), read(two_ranks, name, 1)
    assert furthest(first, second) == 0
    assert first["epochs"] == second["epochs"]


def test_slices_end_with_the_weights_of_whole_batches(one_rank, two_ranks):
    whole = read(one_rank, "whole")
    assert furthest(whole, read(one_rank, "chunks")) < 1e-9
    assert furthest(whole, read(two_ranks, "chunks")) < 1e-9


def test_the_loop_does_what_plain_steps_do(one_rank):
    """Naive: each batch whole, the loss written out, AdamW; the level's unused head gets no gradient and stays."""
    from geograft.training.schedule import make_optimiser, set_rate, warmup_cosine

    task = ragged.Ragged()
    optimiser = make_optimiser(task.model, lr=0.01, weight_decay=0.05)
    best, kept = float("inf"), None
    for epoch in range(2):
        for at, batch in enumerate(task.batches(epoch)):
            set_rate(optimiser, 0.01 * warmup_cosine(3 * epoch + at, 6, 0))
            prepared = task.prepare(batch, Share())
            optimiser.zero_grad()
            task.compare(task.encode(task.model, prepared, slice(0, len(batch))), prepared).backward()
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
            optimiser.step()
        with torch.no_grad():
            figure = task.validate(task.model)["val_loss"]
        if figure < best:
            best, kept = figure, {key: value.tolist() for key, value in task.model.state_dict().items()}
    assert furthest({"weights": kept}, read(one_rank, "whole")) < 1e-9


def test_only_the_first_process_writes(two_ranks):
    files = {path.name for path in (two_ranks / "whole").iterdir()}
    assert files == {"last.pt", "best.pt", "log.jsonl"}
    lines = [json.loads(line) for line in (two_ranks / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "step" not in line] == [0, 1]


@pytest.mark.parametrize(("count", "world"), [(7, 2), (1, 4), (0, 3), (128, 8), (5, 5)])
def test_shares_cover_all_rows_once_and_differ_by_one_at_most(count, world):
    shares = [range(count)[Share(rank, world).of(count)] for rank in range(world)]
    assert [row for share in shares for row in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_exchanges_nothing():
    devices = Devices()
    assert devices.share == Share(0, 1)
    assert devices.main
    assert float(devices.total(torch.tensor(2.0))) == 2
    assert devices.from_main(lambda: "found") == "found"
    with devices.first():
        pass


def test_a_task_for_one_process_refuses_more():
    alone(Share(), "The mini teacher")
    with pytest.raises(BadSetting, match="one process, not by 2"):
        alone(Share(1, 2), "The mini teacher")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 90 bytes"),
        MemoryError(),
    ],
)
def test_full_memory_is_named_with_what_would_help(error):
    with pytest.raises(OutOfMemory, match=r"64 rows, 32 encoded at once\. Set chunk: 16 .*bf16: true"):  # noqa: SIM117
        with named_memory(64, chunk=32, bf16=False):
            raise error


def test_memory_that_this_machine_does_not_have_is_named():
    with pytest.raises(OutOfMemory, match="Set chunk: 4"), named_memory(8, chunk=None, bf16=True):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="shapes"), named_memory(8, chunk=None, bf16=False):
        raise RuntimeError("shapes do not fit")
