import heapq
import math
from itertools import pairwise

import pytest

from geograft.sources.fetching.polite import Pace, Turn, Turns


class Run:
    """A fake clock: turns begin as soon as they may, and each ends `lasts` seconds later."""

    def __init__(self, jobs, *, per_second=2.0, per_host=2, stop_after=20, lasts=0.0, again=None, hold=None):
        self.turns = Turns(jobs, Pace(per_second, per_host, stop_after))
        self.begun = []
        self.most_at_once = 0
        now, ends = 0.0, []
        while True:
            found = self.turns.take(now)
            if isinstance(found, Turn):
                self.begun.append((now, found))
                heapq.heappush(ends, (now + lasts, len(self.begun), found))
                running = [turn.host for *_, turn in ends]
                self.most_at_once = max(self.most_at_once, *map(running.count, running))
                continue
            if found is None and not ends:
                break
            wait = math.inf if found is None else now + found
            if ends and ends[0][0] <= wait:
                now, _, turn = heapq.heappop(ends)
                if hold:
                    self.turns.hold(turn.host, now + hold.pop())
                self.turns.end(turn, now, again_in=again(turn) if again else None)
            else:
                now = wait

    def times(self, host):
        return [at for at, turn in self.begun if turn.host == host]


def test_a_host_is_never_asked_more_often_than_its_rate():
    run = Run({"a": range(20), "b": range(20, 25)}, per_second=4, per_host=8, lasts=0.9)
    for host in "ab":
        times = run.times(host)
        assert all(later - earlier >= 0.25 for earlier, later in pairwise(times))
    assert max(sum(start <= at < start + 1 for at in run.times("a")) for start in run.times("a")) == 4


def test_hosts_are_asked_side_by_side_and_each_job_once():
    run = Run({"a": range(10), "b": range(10, 20)}, per_second=2)
    assert run.begun[-1][0] == pytest.approx(4.5)
    assert sorted(turn.job for _, turn in run.begun) == list(range(20))


def test_a_slow_host_has_no_more_requests_at_once_than_allowed():
    assert Run({"a": range(30)}, per_second=100, per_host=3, lasts=5).most_at_once == 3


def test_a_job_that_is_tried_again_waits_and_counts_its_attempts():
    run = Run({"a": [7, 8]}, per_second=10, again=lambda turn: 3.0 if turn.job == 7 and turn.attempt < 3 else None)
    assert [(at, turn.job, turn.attempt) for at, turn in run.begun] == [
        (0.0, 7, 1),
        (pytest.approx(0.1), 8, 1),
        (3.0, 7, 2),
        (6.0, 7, 3),
    ]


def test_a_host_that_asks_to_wait_is_left_alone_and_others_go_on():
    run = Run({"a": [1, 2], "b": [3, 4]}, per_second=10, per_host=1, hold=[0, 0, 0, 60])
    assert run.times("a")[1] == 60.0
    assert run.times("b")[1] == pytest.approx(0.1)


def test_a_host_that_refuses_in_a_row_is_stopped_and_answers_start_the_count_anew():
    turns = Turns({"a": range(100)}, Pace(1000, 1, 3))
    refusals = [True, True, False, True, True, True]
    assert [turns.refused("a", refused=each) for each in refusals] == [False] * 5 + [True]
    turn = turns.take(0)
    assert turns.stop("a") == 99
    turns.end(turn, 0)
    assert turns.take(1) is None


def test_a_redirect_to_another_host_keeps_that_hosts_pace():
    turns = Turns({"a": [1]}, Pace(2, 1, 3))
    assert [turns.hop("b", 10.0) for _ in range(3)] == [0.0, 0.5, 1.0]


def test_a_stopped_host_is_not_waited_for():
    turns = Turns({"a": range(10), "b": [10]}, Pace(1, 2, 3))
    first, other = turns.take(0.0), turns.take(0.0)
    turns.hold("a", 7200.0)
    turns.end(first, 0.0, again_in=7200.0)
    assert turns.stop("a") == 10
    assert turns.take(0.1) == math.inf
    turns.end(other, 0.1)
    assert turns.take(0.1) is None


def test_what_is_remembered_does_not_grow_with_the_jobs():
    turns, most = Turns({"a": range(2000), "b": range(2000, 4000)}, Pace(1000, 3, 3)), 0
    now, running = 0.0, []
    while (found := turns.take(now)) is not None:
        if isinstance(found, Turn):
            running.append(found)
        if running and (len(running) > 3 or not isinstance(found, Turn)):
            turns.end(running.pop(0), now, again_in=0.01 if running and running[0].attempt == 1 else None)
        now += 0.0005
        most = max(most, len(turns._queue))
    assert most <= 12
