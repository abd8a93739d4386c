"""Whose turn it is to be asked: no server gets more requests than it may bear, and none that refuses is hammered.

The rules are kept apart from threads and clocks: every method is told what time it is.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pace:
    """What a server may bear.

    Attributes:
        per_second: requests a second to one host.
        per_host: requests to one host at once.
        stop_after: a host that refuses so many requests in a row is not asked any more.
    """

    per_second: float
    per_host: int
    stop_after: int


@dataclass(frozen=True)
class Turn:
    """One request that may be made now.

    Attributes:
        host: whom to ask.
        job: what for.
        attempt: the how-manieth, from 1.
    """

    host: str
    job: int
    attempt: int


@dataclass
class _Host:
    """What is known of one host; times are seconds of whatever clock the caller has."""

    fresh: Sequence[int] = ()
    begun: int = 0  # of the fresh ones
    again: list[tuple[float, int, int]] = field(default_factory=list)  # a heap of when, job, attempt
    running: int = 0
    next_at: float = -math.inf
    refused: int = 0
    queued_at: float = math.inf  # of its one valid entry in the queue

    def ready_at(self) -> float:
        """When the host may be asked next; infinite where nothing is left to ask."""
        due = -math.inf if self.begun < len(self.fresh) else self.again[0][0] if self.again else math.inf
        return max(self.next_at, due)

    def next_job(self, now: float) -> tuple[int, int]:
        """The next job and its attempt: one that waits to be tried again first, once it is due."""
        if self.again and (self.begun == len(self.fresh) or self.again[0][0] <= now):
            _, job, attempt = heapq.heappop(self.again)
            return job, attempt
        self.begun += 1
        return self.fresh[self.begun - 1], 1


class Turns:
    """Hands out turns: evenly spaced for each host (a token bucket of one token), hosts side by side.

    Args:
        jobs: by host.
        pace: what a host may bear.
    """

    def __init__(self, jobs: Mapping[str, Sequence[int]], pace: Pace) -> None:
        self._pace = pace
        self._hosts = {name: _Host(numbers) for name, numbers in jobs.items()}
        self._running = 0
        self._queue: list[tuple[float, str]] = []  # a heap; entries other than of a host's `queued_at` are void
        for name, host in self._hosts.items():
            self._enqueue(name, host)

    def take(self, now: float) -> Turn | float | None:
        """A turn; or how many seconds to wait for one, infinite until a running one ends; None when all is done."""
        while self._queue:
            at, name = self._queue[0]
            host = self._hosts[name]
            if at == host.queued_at and at > now and host.ready_at() < math.inf:
                return at - now
            heapq.heappop(self._queue)
            if at != host.queued_at:
                continue
            host.queued_at = math.inf
            if host.running < self._pace.per_host and host.ready_at() <= now:
                return self._begin(name, host, now)
            self._enqueue(name, host)
        return math.inf if self._running else None

    def _begin(self, name: str, host: _Host, now: float) -> Turn:
        """A turn of a host that may be asked."""
        job, attempt = host.next_job(now)
        host.next_at = now + 1 / self._pace.per_second
        host.running += 1
        self._running += 1
        self._enqueue(name, host)
        return Turn(name, job, attempt)

    def _enqueue(self, name: str, host: _Host) -> None:
        """Remember when a host may be asked next, unless a turn must end before."""
        at = host.ready_at()
        if host.running < self._pace.per_host and at < host.queued_at:
            host.queued_at = at
            heapq.heappush(self._queue, (at, name))

    def end(self, turn: Turn, now: float, *, again_in: float | None = None) -> None:
        """A turn is over; its job is tried again after some seconds, or done with where None."""
        host = self._hosts[turn.host]
        host.running -= 1
        self._running -= 1
        if again_in is not None:
            heapq.heappush(host.again, (now + again_in, turn.job, turn.attempt + 1))
        self._enqueue(turn.host, host)

    def hop(self, name: str, now: float) -> float:
        """How many seconds to wait before a redirect's request to a host, which then counts as one of its own."""
        host = self._hosts.setdefault(name, _Host())
        at = max(now, host.next_at)
        host.next_at = at + 1 / self._pace.per_second
        return at - now

    def hold(self, name: str, until: float) -> None:
        """Ask a host nothing before a time."""
        host = self._hosts[name]
        host.next_at = max(host.next_at, until)

    def refused(self, name: str, refused: bool) -> bool:
        """Count a refusal, or forget them after an answer; whether the host has refused too often in a row."""
        host = self._hosts[name]
        host.refused = host.refused + 1 if refused else 0
        return host.refused >= self._pace.stop_after

    def stop(self, name: str) -> int:
        """Ask a host nothing more; how many of its jobs are left undone."""
        host = self._hosts[name]
        left = len(host.fresh) - host.begun + len(host.again)
        host.begun = len(host.fresh)
        host.again.clear()
        return left
