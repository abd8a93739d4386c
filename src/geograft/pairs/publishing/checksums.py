"""Checksums of files: SHA-256 lists that `sha256sum -c` reads, and the multihashes of STAC's file extension."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from geograft.errors import GeograftError
from geograft.tables import atomic, manifest_path, read_manifest

_SHA256 = "1220"
"""The multihash prefix of SHA-256: its code and its length."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stated_sha256(path: Path) -> str:
    """The SHA-256 that the manifest beside a file states for its present size; computed where none does."""
    beside = manifest_path(path)
    if path.suffix == ".parquet" and beside.is_file() and beside.stat().st_mtime_ns >= path.stat().st_mtime_ns:
        try:
            about = read_manifest(path).extra
        except GeograftError:
            about = {}
        if about.get("bytes") == path.stat().st_size and about.get("sha256"):
            return str(about["sha256"])
    return sha256_of(path)


def multihash(sha256: str) -> str:
    """A SHA-256 as STAC's `file:checksum` wants it."""
    return _SHA256 + sha256


def write_checksums(folder: Path, files: Iterable[Path]) -> Path:
    """Write SHA256SUMS, a line a file of a folder, sorted by name."""
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in sorted(files)]
    with atomic(folder / "SHA256SUMS") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return folder / "SHA256SUMS"
