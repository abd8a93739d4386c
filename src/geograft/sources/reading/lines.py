"""Text files as blocks of whole lines, so that a table of any size, and a line of any length, needs little memory."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from geograft.errors import UnreadableTable

CHUNK = 2**23
"""Bytes read at a time."""

LONGEST = 2**20
"""Bytes; a longer line is no record of a photo."""

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSED = frozenset(_OPENERS)


@dataclass(frozen=True)
class Block:
    """Some lines of a text file.

    Attributes:
        data: whole lines in UTF-8, each with its end.
        broken: lines left out before or among them: too long, or with NUL bytes.
    """

    data: bytes
    broken: int = 0


def blocks(path: Path, encoding: str | None = None, *, quotes: bool = True) -> Iterator[Block]:
    """A text file (plain, .gz, .bz2, .xz) as blocks of whole records.

    Args:
        path: the file.
        encoding: as Python names it; UTF-8, with or without a byte order mark, where None.
        quotes: a line end between double quotes ends no record, as in CSV. A quote that is never closed does not
            swallow the file: after `LONGEST` bytes the next line end counts again.

    Raises:
        UnreadableTable: the file is in another encoding, or its compressed form is cut short or damaged.
    """
    rest, broken, dropping = b"", 0, False
    for chunk in _chunks(path, encoding):
        if dropping:
            _, end, chunk = chunk.partition(b"\n")  # noqa: PLW2901 - the rest of it is what is left to read
            dropping = not end
        data = rest + chunk
        cut = _last_end(data, quotes=quotes)
        if len(data) - cut > LONGEST:
            cut = data.rfind(b"\n") + 1
        data, rest = data[:cut], data[cut:]
        if len(rest) > LONGEST:
            rest, broken, dropping = b"", broken + 1, True
        data, left_out = _sound(data)
        yield Block(data, broken + left_out)
        broken = 0
    data, left_out = _sound(rest + b"\n" if rest else b"")
    yield Block(data, broken + left_out)


def whole_text(path: Path, encoding: str | None = None) -> bytes:
    """A whole text file (plain, .gz, .bz2, .xz) in UTF-8.

    Raises:
        UnreadableTable: see `blocks`.
    """
    return b"".join(_chunks(path, encoding))


def _last_end(data: bytes, *, quotes: bool) -> int:
    """Behind the last line end that lies outside quotes; 0 where there is none."""
    end = data.rfind(b"\n") + 1
    if not quotes or data.count(b'"', 0, end) % 2 == 0:
        return end
    while end:
        earlier = data.rfind(b"\n", 0, end - 1) + 1
        if data.count(b'"', earlier, end) % 2:
            return earlier
        end = earlier
    return 0


def _sound(data: bytes) -> tuple[bytes, int]:
    """Lines without those that are too long or hold a NUL byte, and how many those were."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    long = len(ends) > 0 and np.diff(ends, prepend=-1).max() > LONGEST
    if not long and b"\0" not in data:
        return data, 0
    lines = [line for line in data.split(b"\n") if line.strip(b"\r")]
    kept = [line for line in lines if len(line) <= LONGEST and b"\0" not in line]
    return b"".join(line + b"\n" for line in kept), len(lines) - len(kept)


# --- bytes in ---------------------------------------------------------------------------------------------


def open_bytes(path: Path) -> IO[bytes]:
    """A file to read, unpacked by its suffix."""
    opener = _OPENERS.get(path.suffix.lower())
    return cast("IO[bytes]", opener(path, "rb") if opener else path.open("rb"))


def _chunks(path: Path, encoding: str | None) -> Iterator[bytes]:
    """A file's text in UTF-8, without a byte order mark, piece by piece.

    Raises:
        UnreadableTable: see `blocks`.
    """
    try:
        decoder = codecs.getincrementaldecoder(encoding or "utf-8-sig")()
        with open_bytes(path) as file:
            while chunk := file.read(CHUNK):
                yield decoder.decode(chunk).encode()
            yield decoder.decode(b"", final=True).encode()
    except (UnicodeError, LookupError) as error:
        name = encoding or "UTF-8"
        raise UnreadableTable(f"{path} is not in {name} ({error}): {_encoding_advice(path)}.") from error
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise UnreadableTable(f"{path} is cut short or damaged ({error}): get the file again.") from error


def _encoding_advice(path: Path) -> str:
    """What to do about a table that is not text in the expected encoding, by its first bytes."""
    with open_bytes(path) as file:
        head = file.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is in UTF-16; write `encoding: utf-16` into a YAML file and pass it with --config"
    if b"\0" in head:
        return "it is no text; give a CSV file, or a folder of photos"
    return "write its encoding, such as `encoding: latin-1`, into a YAML file and pass it with --config"
