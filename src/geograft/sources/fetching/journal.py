"""What came of each photo, one line of JSON each, appended as it happens: a killed run goes on from here."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.json as pa_json

from geograft.errors import OutputExists, UnreadableTable, UnwritableOutput

_LINES, _SECONDS = 64, 2.0
"""How many lines, and for how long, may be lost when the machine itself stops."""


@dataclass(frozen=True)
class Outcome:
    """What came of one photo.

    Attributes:
        key: the photo's key, which names its file.
        status: `done` or `failed`.
        reason: why it failed.
        http_status: of the last answer, where there was one.
        bytes: downloaded.
        content_hash: blake2b of what was downloaded, 32 hex digits.
        attempts: requests made, redirects not counted.
        size: bytes of the file.
        width: pixels of the file, as displayed.
        height: pixels of the file, as displayed.
    """

    key: str
    status: str
    reason: str | None = None
    http_status: int | None = None
    bytes: int | None = None
    content_hash: str | None = None
    attempts: int = 0
    size: int | None = None
    width: int | None = None
    height: int | None = None


_NUMBERS = frozenset({"http_status", "bytes", "attempts", "size", "width", "height"})
_SCHEMA = pa.schema([(each.name, pa.int64() if each.name in _NUMBERS else pa.string()) for each in fields(Outcome)])
_PANDAS = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype("pyarrow")}


class Journal:
    """A file of outcomes that only one run writes to at a time.

    Args:
        path: the file; made where it is not there.
        about: settings that decide what files hold; they stand in the first line and must stay.

    Raises:
        OutputExists: it was begun with other settings.
        UnwritableOutput: another run writes to it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        self._unsaved, self._saved_at = 0, time.monotonic()
        try:
            self._lock()
            _drop_torn_line(self._file)
            self._begin(about)
        except BaseException:
            self._file.close()
            raise

    def append(self, outcome: Outcome) -> None:
        """Write an outcome; it outlives this process at once, and the machine within seconds."""
        self._write(asdict(outcome))
        if self._unsaved >= _LINES or time.monotonic() - self._saved_at > _SECONDS:
            self.save()

    def save(self) -> None:
        """Make sure that all lines outlive the machine."""
        os.fsync(self._file.fileno())
        self._unsaved, self._saved_at = 0, time.monotonic()

    def outcomes(self) -> pd.DataFrame:
        """The last outcome of each photo, with the fields of `Outcome` as columns, in no special order.

        Raises:
            UnreadableTable: a line is damaged.
        """
        options = pa_json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore")
        try:
            table = pa_json.read_json(self._path, parse_options=options).to_pandas(types_mapper=_PANDAS.get)
        except pa.ArrowInvalid as error:
            raise UnreadableTable(
                f"{self._path} is damaged ({error}): mend its lines, or use another folder."
            ) from error
        return table[table["key"].notna()].drop_duplicates("key", keep="last")  # the first line has no key

    def _lock(self) -> None:
        """Keep other runs out, until this one ends in whatever way."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnwritableOutput(f"Another run writes to {self._path.parent}: wait for it, or stop it.") from error

    def _begin(self, about: Mapping[str, Any]) -> None:
        """Write the first line, or see that it is the same."""
        self._file.seek(0)
        first = self._file.readline()
        if not first:
            self._write(about)
            self.save()
        elif first != _line(about):
            before = first.decode(errors="replace").strip()
            raise OutputExists(f"{self._path.parent} was begun with {before}: use that again, or another folder.")

    def _write(self, values: Mapping[str, Any]) -> None:
        """Append a line; the system has it when this returns."""
        self._file.write(_line(values))
        self._file.flush()
        self._unsaved += 1

    def __enter__(self) -> Self:
        """The journal, to be closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Save what was written, and let other runs in."""
        self.save()
        self._file.close()


def _line(values: Mapping[str, Any]) -> bytes:
    """Values as one line."""
    return json.dumps(dict(values)).encode() + b"\n"


def _drop_torn_line(file: Any) -> None:
    """Cut off a last line that a killed run did not finish."""
    file.seek(0, os.SEEK_END)
    end = file.tell()
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            file.truncate(start + at + 1)
            return
        end = start
    file.truncate(0)
