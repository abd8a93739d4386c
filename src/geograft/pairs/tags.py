"""What people wrote beside their photos, through the teacher's text side: one phrase a photo, embedded once and kept.

A photo's phrase is its title, where its table has one, and its tags, joined by commas. Empty tags, tags that occur
twice and machine tags (`geo:lat=45.1`) are dropped; words and language are left as they are.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import EmptyTable, MissingInput, UnreadableTable
from geograft.hashing import Hashes, hash_ids
from geograft.models.teacher import Teacher
from geograft.tables import Manifest, atomic, manifest_path, read_manifest, read_schema, track, write_manifest

PART = 8192
"""Phrases of a part: what a killed run loses at most."""

ROWS = 2**16
"""Rows of a photo table that are held at once."""

_SALT = "photo"
_MACHINE = re.compile(r"\w+:\w+=(?:\"[^\"]*\"|[^\s,;|]*)")
_BETWEEN = re.compile(r"[,;|\n\r]+")

Found = tuple[list[str], list[str]]
"""Ids of photos and their phrases."""


@dataclass(frozen=True)
class TagSummary:
    """What came of embedding tags.

    Attributes:
        path: the table: photo_id, embedding (D float16, unit length).
        photos: photos of the pairs.
        tagged: those with a phrase.
    """

    path: Path
    photos: int
    tagged: int


def embed_tags(pairs: Path, teacher: Teacher, *, photos: Path | str | Sequence[Path | str] | None = None) -> TagSummary:
    """Embed the tags of the photos of a folder of pairs; a run that was killed goes on from its last part.

    Args:
        pairs: what `geograft pairs plan` or `materialise` wrote.
        teacher: has a text side.
        photos: the photo tables that hold the tags (columns photo_id, `tags` and maybe `title`). Where None, the
            pairs' own photo table, or else those that the pairs were made of, as their manifest names them.

    Returns:
        Where the table `teacher-<fingerprint>.tags.parquet` lies, and counts, which its manifest holds too.

    Raises:
        NoTextEncoder: the teacher encodes images only.
        MissingInput: the folder holds no pairs, or no table holds tags.
        UnreadableTable: a table is damaged.
        EmptyTable: no photo has tags.
        DiskFull: the parts written stay, to go on from.
    """
    pairs = Path(pairs)
    path = tags_path(pairs, teacher.fingerprint)
    if path.exists() and manifest_path(path).is_file():
        return _summary(path)
    teacher.encode_text(["a place"])
    tables = _tables(pairs, photos)
    keys = _photo_keys(pairs)
    parts = path.with_suffix(".parts")
    _embed_missing(tables, keys, parts, teacher)
    tagged = _join(parts, path, teacher)
    if not tagged:
        raise EmptyTable(f"No photo of {pairs} has tags in {', '.join(map(str, tables))}: name tables that hold them.")
    counts = {"done": tagged, "skipped": {"no-tags": len(keys) - tagged}, "failed": {}}
    about = {"teacher": teacher.name, "fingerprint": teacher.fingerprint, "dim": teacher.dim}
    write_manifest(path, Manifest("tags", {"photos": [str(table) for table in tables]}, about, counts))
    shutil.rmtree(parts, ignore_errors=True)
    return _summary(path)


def tags_path(folder: Path, fingerprint: str) -> Path:
    """Where the embeddings of tags of a teacher lie."""
    return Path(folder) / f"teacher-{fingerprint}.tags.parquet"


def _summary(path: Path) -> TagSummary:
    """What a finished run came to."""
    counts = read_manifest(path).counts
    return TagSummary(path, counts["done"] + counts["skipped"]["no-tags"], counts["done"])


# --- words ------------------------------------------------------------------------------------------------


def phrase_of(tags: Any, title: str | None = None) -> str:
    """One phrase of a photo's title and tags; "" where nothing is left.

    Args:
        tags: a list, a JSON list, or text with commas, semicolons, bars or line ends between the tags. Text with
            none of these is one tag: spaces may be inside a tag.
        title: goes first.
    """
    seen: dict[str, str] = {}
    for text in (title or "", *_listed(tags)):
        plain = " ".join(_MACHINE.sub(" ", str(text)).split()).strip(" ,")
        if plain:
            seen.setdefault(plain.casefold(), plain)
    return ", ".join(seen.values())


def _listed(tags: Any) -> list[Any]:
    """Tags one by one."""
    if tags is None:
        return []
    if not isinstance(tags, str):
        return [tag for tag in tags if tag is not None]
    text = tags.strip()
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list):
            return [tag for tag in found if tag is not None]
    return _BETWEEN.split(_MACHINE.sub(" ", text))


# --- tables -----------------------------------------------------------------------------------------------


def _tables(folder: Path, given: Path | str | Sequence[Path | str] | None) -> list[Path]:
    """The photo tables that hold tags."""
    if given is not None:
        tables = [Path(given)] if isinstance(given, (str, Path)) else [Path(each) for each in given]
        for table in tables:
            if not {"tags", "title"} & set(read_schema(table).names):
                raise MissingInput(f"{table} has no column tags: name a photo table that has one.")
        return tables
    own = [folder / "photos.parquet", folder / "plan" / "photos.parquet"]
    for table in own:
        if table.is_file() and _has_words(table):
            return [table]
    made_of = [Path(each) for each in _inputs(folder)]
    if found := [table for table in made_of if table.is_file() and _has_words(table)]:
        return found
    raise MissingInput(f"No photo table of {folder} holds tags: name one that does (photos=...).")


def _inputs(folder: Path) -> list[str]:
    """The photo tables that pairs were made of."""
    for manifest in (folder / "manifest.json", folder / "plan" / "manifest.json"):
        if manifest.is_file():
            found = read_manifest(manifest).inputs.get("photos", [])
            return [found] if isinstance(found, str) else list(found)
    return []


def _has_words(table: Path) -> bool:
    """Whether a table has tags or titles in any row."""
    names = [name for name in ("tags", "title") if name in read_schema(table).names]
    return any(
        batch.column(number).null_count < len(batch)
        for batch in (_batches(table, names) if names else ())
        for number in range(len(names))
    )


def _batches(table: Path, names: Sequence[str]) -> Iterator[Any]:
    """Some columns of a table, some thousand rows at a time.

    Raises:
        UnreadableTable: the table is damaged.
    """
    try:
        with pq.ParquetFile(table) as file:
            yield from file.iter_batches(ROWS, columns=list(names))
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{table} is damaged ({error}): write it again.") from error


def _photo_keys(folder: Path) -> Hashes:
    """Hashes of the photos of pairs, ascending.

    Raises:
        MissingInput: the folder holds no pairs.
    """
    for table in (folder / "pairs.parquet", folder / "plan" / "pairs.parquet"):
        if table.is_file():
            parts = [np.unique(hash_ids(batch["photo_id"], _SALT)) for batch in _batches(table, ["photo_id"])]
            return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
    raise MissingInput(f"{folder} holds no pairs: make them with `geograft pairs`.")


# --- embedding --------------------------------------------------------------------------------------------


def _embed_missing(tables: Sequence[Path], keys: Hashes, parts: Path, teacher: Teacher) -> None:
    """Embed the phrases of photos that no part holds yet, part by part."""
    for leftover in parts.glob(".*.part.*"):
        leftover.unlink(missing_ok=True)
    wanted = np.ones(len(keys), np.bool_)
    for part in _parts(parts):
        for batch in _batches(part, ["photo_id"]):
            wanted[np.searchsorted(keys, hash_ids(batch["photo_id"], _SALT))] = False
    number = len(_parts(parts))
    total = sum(-(-pq.read_metadata(table).num_rows // ROWS) for table in tables)
    ids: list[str] = []
    phrases: list[str] = []
    for some, texts in track(_phrases(tables, keys, wanted), "Embedding tags", total):
        ids, phrases = ids + some, phrases + texts
        while len(ids) >= PART:
            _write(parts / f"part-{number:05d}.parquet", ids[:PART], phrases[:PART], teacher)
            ids, phrases, number = ids[PART:], phrases[PART:], number + 1
    if ids:
        _write(parts / f"part-{number:05d}.parquet", ids, phrases, teacher)


def _parts(parts: Path) -> list[Path]:
    """The parts that are written, in order."""
    return sorted(parts.glob("part-*.parquet"))


def _phrases(tables: Sequence[Path], keys: Hashes, wanted: NDArray[np.bool_]) -> Iterator[Found]:
    """Ids and phrases of wanted photos that have one, batch by batch; they are not wanted any more."""
    for table in tables:
        names = [name for name in ("tags", "title") if name in read_schema(table).names]
        for batch in _batches(table, ["photo_id", *names]):
            some = batch.filter(pc.is_valid(batch["photo_id"]))
            some = some.filter(pa.array(_wanted(hash_ids(some["photo_id"], _SALT), keys, wanted)))
            found: dict[str, str] = {}
            for row in some.to_pylist():
                if text := phrase_of(row.get("tags"), row.get("title")):
                    found.setdefault(row["photo_id"], text)
            wanted[np.searchsorted(keys, hash_ids(list(found), _SALT))] = False
            yield list(found), list(found.values())


def _wanted(found: Hashes, keys: Hashes, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of some photos are wanted."""
    if not len(keys):
        return np.zeros(len(found), np.bool_)
    at = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
    return np.asarray((keys[at] == found) & wanted[at])


def _write(path: Path, ids: Sequence[str], phrases: Sequence[str], teacher: Teacher) -> None:
    """Embed phrases, each distinct one once, and write them as a part."""
    distinct = list(dict.fromkeys(phrases))
    vectors = np.asarray(teacher.encode_text(distinct), np.float16).reshape(len(distinct), teacher.dim)
    at = {text: row for row, text in enumerate(distinct)}
    matrix = vectors[[at[text] for text in phrases]] if phrases else vectors
    flat = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float16()), teacher.dim)
    with atomic(path) as temporary:
        pq.write_table(pa.table([pa.array(ids, pa.string()), flat], schema=_schema(teacher)), temporary)


def _schema(teacher: Teacher) -> Any:
    """The schema of embeddings."""
    fields = [("photo_id", pa.string()), ("embedding", pa.list_(pa.float16(), teacher.dim))]
    return pa.schema(fields, metadata={"teacher": teacher.name, "fingerprint": teacher.fingerprint})


def _join(parts: Path, path: Path, teacher: Teacher) -> int:
    """Write all parts as one table; gives its rows."""
    count = sum(int(pq.read_metadata(part).num_rows) for part in _parts(parts))
    if count:
        with atomic(path) as temporary, pq.ParquetWriter(temporary, _schema(teacher), compression="zstd") as writer:
            for part in _parts(parts):
                for batch in _batches(part, ["photo_id", "embedding"]):
                    writer.write_table(pa.Table.from_batches([batch]).cast(_schema(teacher)))
    return count
