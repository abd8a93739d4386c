"""Open raster files: kept per process and thread, signed and tuned where they are on servers, failures named.

Files stay open per process and thread, so reading is safe in threads, forked loaders and spawned workers alike.
"""

import os
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geograft.errors import MissingInput, UnreachableScene, UnreadableScene
from geograft.raster import metadata, remote, signing

R = TypeVar("R")

OPEN_FILES = 32
"""The files that one thread keeps open; a scene of five bands and its mask takes six."""

_FAILURES = (RasterioError, CPLE_BaseError)
_STATUS = re.compile(r"HTTP (?:response|error) code ?: ?(\d{3})")


def with_file(path: str | Path, work: Callable[[Any], R], *, signer: str | None = None) -> R:
    """What a function gives of an open dataset.

    A file of a server whose signed address has expired is signed and opened once more.

    Args:
        path: a local path, or what GDAL finds: http(s)://, s3://, gs://, /vsi….
        work: a function of the dataset; it may be called twice.
        signer: the name of its signer (see `signing`); one is looked for by the host where None.

    Raises:
        MissingInput: there is no such local file.
        UnreadableScene: it is damaged or no raster, or its server refuses.
        UnreachableScene: its server is busy again and again, fails or does not answer.
    """
    far = remote.is_remote(path)
    if not far and not Path(path).is_file():
        hint = "it is a folder; name one raster in it" if Path(path).is_dir() else "check the path"
        raise MissingInput(f"There is no file {path}: {hint}.")
    try:
        return _attempt(path, work, signer)
    except _FAILURES as error:
        _open_files.drop(path)
        if not far:
            raise UnreadableScene(f"{path} cannot be read as a raster ({error}): fetch it again.") from error
        if not signing.forget(str(path), signer):
            raise _problem(str(path), str(path), error) from error
    try:
        return _attempt(path, work, signer)
    except _FAILURES as error:
        _open_files.drop(path)
        raise _problem(str(path), signing.signed(str(path), signer), error) from error


def absolute(path: str | Path) -> str:
    """A path that means the same wherever a later stage runs."""
    return str(path) if remote.is_remote(path) else str(Path(path).absolute())


def modified(path: str | Path) -> tuple[int, int]:
    """Time and size of a local file, so that a file written anew is opened anew."""
    if remote.is_remote(path):
        return (0, 0)
    try:
        about = Path(path).stat()
    except OSError:
        return (0, 0)
    return (about.st_mtime_ns, about.st_size)


def _attempt(path: str | Path, work: Callable[[Any], R], signer: str | None) -> R:
    """The function's result of the open file."""
    with remote.environment(path):
        return work(_open_files.get(path, signer))


def _problem(path: str, address: str, error: BaseException) -> UnreadableScene:
    """What is wrong with a file on a server, and what to do: by GDAL's words, else by asking the server."""
    match = _STATUS.search(str(error))
    status = int(match[1]) if match else remote.status_of(address) if remote.is_address(path) else 200
    if status is None or "timed out" in str(error).lower():
        return UnreachableScene(f"The server does not answer for {path}, or too slowly: try again later.")
    if status >= 400:
        return remote.refusal(path, status)
    return UnreadableScene(f"{path} cannot be read as a raster ({error}): fetch it again.")


class _OpenFiles(threading.local):
    """The files that this thread has open, by process, path and modification; the oldest is closed first."""

    def __init__(self) -> None:
        """Start with no open file."""
        self.files: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def get(self, path: str | Path, signer: str | None) -> Any:
        """An open dataset of a path."""
        key = (os.getpid(), str(path), *modified(path))
        if key not in self.files:
            address = signing.signed(str(path), signer) if remote.is_remote(path) else path
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self.files[key] = metadata.open_raster(address)
        self.files.move_to_end(key)
        while len(self.files) > OPEN_FILES:
            self._close(next(iter(self.files)))
        return self.files[key]

    def drop(self, path: str | Path) -> None:
        """Close a path's file, so that it is opened anew."""
        for key in [key for key in self.files if key[1] == str(path)]:
            self._close(key)

    def _close(self, key: tuple[Any, ...]) -> None:
        """Close a file of this process; one that a fork left is only forgotten."""
        file = self.files.pop(key)
        if key[0] == os.getpid():
            file.close()


_open_files = _OpenFiles()
