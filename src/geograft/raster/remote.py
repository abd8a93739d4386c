"""Files on servers: GDAL's range reads tuned in one place, answers asked for politely, failures said in words."""

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import rasterio
from rasterio.env import getenv, hasenv

from geograft.errors import MissingInput, UnreachableScene, UnreadableScene
from geograft.raster import signing

TIMEOUT_S = 20.0
RETRIES = 3
"""How often a request is repeated that a server could not answer just then."""
DELAY_S = 0.5
"""The wait before the first repetition; it doubles, and a server's `Retry-After` comes first."""
LONGEST_WAIT_S = 60.0
BUSY = frozenset({429, 500, 502, 503, 504})
"""The statuses that may pass."""
ABSENT = frozenset({204, 404, 410})

OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no looking for side files, each a request that mostly finds none
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the whole header of most COGs in one request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MULTIRANGE": "YES",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
    "GDAL_HTTP_MAX_RETRY": str(RETRIES),
    "GDAL_HTTP_RETRY_DELAY": str(DELAY_S),
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
}
"""GDAL's options for files on servers; those that the environment or an open `rasterio.Env` sets are left alone."""


def is_remote(path: str | Path) -> bool:
    """Whether GDAL, not the file system, finds a path."""
    return str(path).startswith(("http://", "https://", "s3://", "gs://", "az://", "/vsi"))


def is_address(path: str | Path) -> bool:
    """Whether a path is an http(s) address."""
    return str(path).startswith(("http://", "https://"))


def environment(path: str | Path) -> Any:
    """A context in which GDAL reads a path well: the options above for a file on a server, nothing for a local one."""
    if not is_remote(path):
        return nullcontext()
    active = getenv() if hasenv() else {}
    return rasterio.Env(
        **{name: value for name, value in OPTIONS.items() if name not in os.environ and name not in active}
    )


def fetch(address: str, *, signer: str | None = None) -> bytes | None:
    """The bytes of an http(s) address, or None where the server has none.

    A server that is busy or fails is asked again, after the time that it names or a growing one.

    Raises:
        UnreadableScene: it refuses.
        UnreachableScene: it is busy again and again, or does not answer.
    """
    for attempt in range(RETRIES + 1):
        try:
            with _opened(signing.signed(address, signer)) as answer:
                content: bytes = answer.read()
                return content or None
        except urllib.error.HTTPError as error:
            if error.code in ABSENT:
                return None
            again = error.code in BUSY or (
                error.code in {401, 403} and attempt == 0 and signing.forget(address, signer)
            )
            if not again or attempt == RETRIES:
                raise refusal(address, error.code) from error
            time.sleep(0 if error.code in {401, 403} else _wait(error.headers.get("Retry-After"), attempt))
        except OSError as error:
            raise UnreachableScene(f"The server does not answer for {address} ({error}): try again later.") from error
    raise AssertionError  # the last attempt returns or raises


def get(address: str, *, signer: str | None = None) -> bytes:
    """The bytes of an http(s) address that must be there.

    Raises:
        MissingInput: the server has no such file.
        UnreadableScene: it refuses, or does not answer.
    """
    content = fetch(address, signer=signer)
    if content is None:
        raise MissingInput(f"There is nothing at {address}: check the address.")
    return content


def refusal(address: str, status: int) -> UnreadableScene:
    """The error of a server's status for an address, which says what to do; an `UnreachableScene` where it may pass."""
    if status in {401, 403}:
        return UnreadableScene(
            f"The server refuses {address} ({status}): its address may have expired or need signing; "
            "name a `signer`, or ask for access."
        )
    if status in ABSENT:
        return UnreadableScene(
            f"There is nothing at {address} ({status}): check the address, or make the scene table again."
        )
    if status in BUSY:
        return UnreachableScene(
            f"The server answered {status} for {address}, {RETRIES + 1} times: try again later, with fewer workers."
        )
    return UnreadableScene(f"The server answered {status} for {address}: check the address.")


def status_of(address: str) -> int | None:
    """The status of an http(s) address asked for one byte; None where no answer comes."""
    try:
        with _opened(address, {"Range": "bytes=0-0"}) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


@contextmanager
def _opened(address: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
    """An open answer."""
    request = urllib.request.Request(address, headers={"User-Agent": "geograft", **(headers or {})})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - only http(s) comes here
        yield answer


def _wait(stated: str | None, attempt: int) -> float:
    """Seconds to wait: as the server states it, in seconds or as a date, else twice as long each time."""
    try:
        seconds = float(stated) if stated else DELAY_S * 2**attempt
    except ValueError:
        try:
            seconds = parsedate_to_datetime(stated or "").timestamp() - time.time()
        except ValueError:
            seconds = DELAY_S * 2**attempt
    return min(max(0.0, seconds), LONGEST_WAIT_S)
