"""The threads that fetch: each takes a turn, asks, and says what came of it."""

import hashlib
import logging
import queue
import random
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd

from geograft.sources.fetching.download import AGAIN, UNWELCOME, Downloader, Limits, Refusal
from geograft.sources.fetching.fetched import photo_path
from geograft.sources.fetching.journal import Outcome
from geograft.sources.fetching.photofile import StoredPhoto, store_photo
from geograft.sources.fetching.polite import Pace, Turn, Turns
from geograft.sources.fetching.settings import FetchSettings

logger = logging.getLogger(__name__)


class Crew:
    """Fetches photos in threads that keep a pace by host.

    Args:
        todo: key, uri, host.
        out: the folder below which photos are written.
        settings: pace, limits and form.
    """

    def __init__(self, todo: pd.DataFrame, out: Path, settings: FetchSettings) -> None:
        self._keys, self._uris = todo["key"].to_numpy(object), todo["uri"].to_numpy(object)
        self._out = out
        self._settings = settings
        pace = Pace(settings.per_second, settings.per_host, settings.stop_after)
        self._turns = Turns(todo.groupby("host", sort=False).indices, pace)
        self._changed = threading.Condition()
        self._closed = False
        self._results: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
        count = min(settings.workers, len(todo))
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]

    def outcomes(self) -> Iterator[Outcome]:
        """What came of each photo, as it happens; nothing of those whose host is not asked any more.

        Raises:
            DiskFull: the disk filled up.
        """
        working = len(self._threads)
        while working:
            result = self._results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                working -= 1
            else:
                yield result

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Begin no more turns; requests under way end by themselves, and nobody waits for them after an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads if error is None else ():
            thread.join()

    # --- in the threads -----------------------------------------------------------------------------------

    def _work(self) -> None:
        """Take turns until none is left."""
        limits = Limits(
            self._settings.timeout_s,
            self._settings.max_seconds,
            self._settings.max_bytes,
            self._settings.max_redirects,
            self._settings.allow_private,
        )
        downloader = Downloader(limits, agent=user_agent(self._settings.contact), hop=self._hop)
        try:
            while (turn := self._next()) is not None:
                outcome = self._attempt(turn, downloader)
                if outcome is not None:
                    self._results.put(outcome)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the outcomes are read
            self._results.put(error)
        finally:
            downloader.close()
            self._results.put(None)

    def _next(self) -> Turn | None:
        """Wait for a turn; None when there is none any more."""
        with self._changed:
            while not self._closed:
                found = self._turns.take(time.monotonic())
                if isinstance(found, Turn):
                    return found
                if found is None:
                    self._changed.notify_all()
                    return None
                self._changed.wait(min(found, threading.TIMEOUT_MAX))
        return None

    def _attempt(self, turn: Turn, downloader: Downloader) -> Outcome | None:
        """Ask once; None where the photo is to be asked for again or left."""
        key = self._keys[turn.job]
        try:
            content = downloader.get(self._uris[turn.job])
            stored = self._stored(content, key)
        except Refusal as refusal:
            again = self._refused(turn, refusal)
            failed = Outcome(key, "failed", refusal.reason, refusal.http_status, attempts=turn.attempt)
            return None if again else failed
        with self._changed:
            self._turns.refused(turn.host, refused=False)
            self._turns.end(turn, time.monotonic())
            self._changed.notify_all()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        got = (stored.size, stored.width, stored.height)
        return Outcome(key, "done", None, 200, len(content), digest, turn.attempt, *got)

    def _stored(self, content: bytes, key: str) -> StoredPhoto:
        """The photo's file, written."""
        path = photo_path(self._out, key)
        return store_photo(content, path, max_side=self._settings.max_side, quality=self._settings.quality)

    def _refused(self, turn: Turn, refusal: Refusal) -> bool:
        """Put a photo back or give it up; whether it is asked for again, in this run or another."""
        again = refusal.reason in AGAIN and turn.attempt < self._settings.attempts
        wait = refusal.wait_s or 0.0
        with self._changed:
            now = time.monotonic()
            self._turns.hold(turn.host, now + wait)
            self._turns.end(turn, now, again_in=max(wait, self._pause(turn.attempt)) if again else None)
            too_often = self._turns.refused(turn.host, refused=refusal.reason in UNWELCOME)
            if too_often or wait > self._settings.max_wait_s:
                self._stop(turn.host, refusal)
            self._changed.notify_all()
        return again

    def _pause(self, attempt: int) -> float:
        """Seconds before the next attempt: twice as long each time, shaken so that not all come at once."""
        pause = self._settings.backoff_s * 2.0 ** (attempt - 1)
        return float(min(pause, self._settings.max_wait_s) * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    def _stop(self, host: str, refusal: Refusal) -> None:
        """Ask a host nothing more, and say so."""
        if left := self._turns.stop(host):
            logger.warning(
                "%s is not asked any more, %d photos are left: it %s. Wait, lower per_second, or write to its keepers; "
                "then run again.",
                host,
                left,
                f"asks to wait {refusal.wait_s:.0f} s"
                if (refusal.wait_s or 0) > self._settings.max_wait_s
                else f"refused {self._settings.stop_after} requests in a row (the last: {refusal.reason})",
            )

    def _hop(self, host: str) -> None:
        """Wait for a redirect's turn."""
        with self._changed:
            wait = self._turns.hop(host, time.monotonic())
        time.sleep(min(wait, self._settings.max_seconds))


def user_agent(contact: str | None) -> str:
    """What servers are told about who asks."""
    return f"geograft/{version('geograft')} (photo fetcher{'; ' + contact if contact else ''})"
