"""The teacher's embeddings of photos, computed once and kept with the teacher's fingerprint.

Photos are embedded in parts. A part that is written is never computed again, so a killed run loses one part at
most, and photos that another stage embedded already are not embedded twice.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageOps

from geograft.errors import EmptyTable, MissingInput, UnreadableTable
from geograft.hashing import hash_ids
from geograft.models.teacher import Teacher
from geograft.pairs.vectors import Vectors, pack, unpack
from geograft.tables import Manifest, atomic, track, write_manifest

logger = logging.getLogger(__name__)

BATCH = 64
PART_BATCHES = 16
DECODERS = 4
"""Threads that decode photos while the teacher works."""

TABLE_BATCH = 2**16
"""Rows of a photo table that are held at once."""

MAX_SIDE = 1024
"""Photos are decoded to about this many pixels: no teacher sees more."""

Photo = tuple[str, str]
"""photo_id and uri."""


def embed_photos(folder: Path, teacher: Teacher) -> Path:
    """Embed the photos of a folder of pairs, or of its plan where it has one.

    Args:
        folder: what `geograft pairs plan` or `materialise` wrote.
        teacher: the frozen encoder of photos.

    Returns:
        The table `teacher-<fingerprint>.parquet`: photo_id, embedding (D float16, unit length), sorted by
        photo_id, and the unreadable photos left out; its manifest counts them.

    Raises:
        MissingInput: the folder holds neither pairs nor a plan.
        EmptyTable: no photo can be read.
        DiskFull: the parts written stay, to go on from.
    """
    folder = Path(folder)
    path = embeddings_path(folder, teacher.fingerprint)
    if path.exists():
        return path
    source = next((each for each in _photo_tables(folder) if each.is_file()), None)
    if source is None:
        raise MissingInput(f"{folder} holds no pairs: make them with `geograft pairs`.")
    total = int(pq.read_metadata(source).num_rows)
    parts = parts_folder(folder, teacher.fingerprint)
    embed_missing(photo_batches(source), parts, teacher, total)
    whole = [part for part in part_paths(parts) if pq.read_metadata(part).num_rows]
    if not whole:
        raise EmptyTable(f"None of the {total} photos of {folder} can be read: check the paths in {source}.")
    done = _write_sorted(path, source, pack(whole, folder, teacher.fingerprint), teacher)
    unpack(folder, teacher.fingerprint)
    counts = {"done": done, "skipped": {}, "failed": {"unreadable-photo": total - done}}
    about = {"teacher": teacher.name, "fingerprint": teacher.fingerprint, "dim": teacher.dim}
    write_manifest(path, Manifest("embeddings", {"pairs": str(folder)}, about, counts))
    return path


def _photo_tables(folder: Path) -> tuple[Path, Path]:
    """Where the photos of a folder of pairs are listed; the plan's are all that may be needed."""
    return folder / "plan" / "photos.parquet", folder / "photos.parquet"


def photo_batches(path: Path) -> Iterator[pd.DataFrame]:
    """photo_id and uri of a photo table, some thousand rows at a time.

    Raises:
        UnreadableTable: the table is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(TABLE_BATCH, columns=["photo_id", "uri"]):
                yield batch.to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{path} is damaged ({error}): write it again.") from error


def _write_sorted(path: Path, source: Path, vectors: Vectors, teacher: Teacher) -> int:
    """Write the embeddings of a table's photos in its order; gives their number."""
    schema = pa.schema([("photo_id", pa.string()), ("embedding", pa.list_(pa.float16(), teacher.dim))])
    schema = schema.with_metadata({"teacher": teacher.name, "fingerprint": teacher.fingerprint})
    done = 0
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in photo_batches(source):
            rows = vectors.find(batch["photo_id"])
            found = rows >= 0
            matrix = vectors.take(rows[found])
            writer.write_table(_table(batch["photo_id"][found].tolist(), matrix).cast(schema))
            done += int(found.sum())
    return done


def embeddings_path(folder: Path, fingerprint: str) -> Path:
    """Where the embeddings of a teacher lie."""
    return Path(folder) / f"teacher-{fingerprint}.parquet"


def parts_folder(folder: Path, fingerprint: str) -> Path:
    """Where the parts of unfinished embeddings lie."""
    return Path(folder) / f"teacher-{fingerprint}.parts"


def read_embeddings(path: Path) -> tuple[list[str], NDArray[np.float16]]:
    """Photo ids and embeddings (N, D) of a table or part.

    Raises:
        MissingInput: there is no such file.
        UnreadableTable: the file is damaged.
    """
    if not path.is_file():
        raise MissingInput(f"There are no embeddings {path}: embed the photos with this teacher first.")
    try:
        table = pq.read_table(path, columns=["photo_id", "embedding"]).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{path} is damaged: remove it and embed again.") from error
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
    return table["photo_id"].to_pylist(), flat.reshape(len(table), column.type.list_size)


def part_paths(parts: Path) -> list[Path]:
    """The parts of embeddings that are written, in order."""
    return sorted(parts.glob("part-*.parquet"))


def embed_missing(photos: Iterable[pd.DataFrame], parts: Path, teacher: Teacher, total: int | None = None) -> None:
    """Embed the photos that no part holds yet, part by part.

    Args:
        photos: tables of photo_id and uri, which may be streamed.
        parts: folder of parts; new ones are added. An unreadable photo is noted in its part.
        teacher: the encoder.
        total: the number of photos, for the progress bar.
    """
    for leftover in parts.glob(".*.part.*"):
        leftover.unlink(missing_ok=True)
    known = _known_keys(parts)
    for _ in track(_new_photos(photos, known, parts, teacher), "Embedding photos", total):
        pass


def _new_photos(
    photos: Iterable[pd.DataFrame], known: NDArray[np.uint64], parts: Path, teacher: Teacher
) -> Iterator[str]:
    """Embed what is not known, giving the ids of all photos as they are done."""
    for batch in photos:
        at = np.minimum(np.searchsorted(known, keys := hash_ids(batch["photo_id"], "photo")), max(0, len(known) - 1))
        fresh = batch[known[at] != keys] if len(known) else batch
        yield from batch["photo_id"].iloc[: len(batch) - len(fresh)]
        for ids, _, unreadable in _embed_parts(list(zip(fresh["photo_id"], fresh["uri"], strict=True)), parts, teacher):
            yield from (*ids, *unreadable)


def _known_keys(parts: Path) -> NDArray[np.uint64]:
    """Hashes of the photos that the parts hold, or note as unreadable, ascending."""
    found = [np.empty(0, np.uint64)]
    for path in part_paths(parts):
        try:
            ids = pq.read_table(path, columns=["photo_id"])["photo_id"]
        except (pa.ArrowException, OSError) as error:
            raise UnreadableTable(f"{path} is damaged: remove it and embed again.") from error
        found += [hash_ids(ids, "photo"), hash_ids(unreadable_photos(path), "photo")]
    return np.unique(np.concatenate(found))


def unreadable_photos(path: Path) -> list[str]:
    """The photos that a part notes as unreadable."""
    return list(json.loads((pq.read_schema(path).metadata or {}).get(b"unreadable", b"[]")))


def _embed_parts(
    missing: Sequence[Photo], parts: Path, teacher: Teacher
) -> Iterator[tuple[list[str], NDArray[np.float16], list[str]]]:
    """Embed photos part by part, writing each."""
    number = len(part_paths(parts))
    decoded = _decode(missing)
    for part in _chunks(missing, BATCH * PART_BATCHES):
        ids, matrix, unreadable = _embed_part(part, decoded, teacher)
        _write(parts / f"part-{number:05d}.parquet", ids, matrix, unreadable, teacher)
        number += 1
        yield ids, matrix, unreadable


def _embed_part(
    part: Sequence[Photo], decoded: Iterator[Image.Image | None], teacher: Teacher
) -> tuple[list[str], NDArray[np.float16], list[str]]:
    """Ids, embeddings and unreadable ids of the next photos."""
    ids: list[str] = []
    unreadable: list[str] = []
    vectors = [np.empty((0, teacher.dim), np.float16)]
    for batch in _chunks(part, BATCH):
        images = [(photo_id, next(decoded)) for photo_id, _ in batch]
        whole = [(photo_id, image) for photo_id, image in images if image is not None]
        unreadable += [photo_id for photo_id, image in images if image is None]
        if whole:
            ids += [photo_id for photo_id, _ in whole]
            vectors.append(teacher.encode_photos([image for _, image in whole]).astype(np.float16))
    return ids, np.concatenate(vectors), unreadable


def _chunks(photos: Sequence[Photo], size: int) -> Iterator[Sequence[Photo]]:
    """Photos in runs of a size; the last may be shorter."""
    return (photos[start : start + size] for start in range(0, len(photos), size))


def _decode(photos: Sequence[Photo]) -> Iterator[Image.Image | None]:
    """The photos' images in order, a few batches ahead; None for an unreadable one."""
    with ThreadPoolExecutor(DECODERS) as pool:
        for ahead in _chunks(photos, 4 * BATCH):
            yield from pool.map(lambda photo: open_photo(photo[1]), ahead)


def open_photo(uri: str) -> Image.Image | None:
    """A photo upright and in RGB, or None with a note in the log where it cannot be read."""
    try:
        with Image.open(uri) as image:
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        logger.debug("Photo %s left out: %s", uri, error)
        return None


def _write(path: Path, ids: list[str], matrix: NDArray[Any], unreadable: list[str], teacher: Teacher) -> None:
    """Write embeddings with the ids of the unreadable photos in the metadata."""
    meta = {"teacher": teacher.name, "fingerprint": teacher.fingerprint, "unreadable": json.dumps(unreadable)}
    with atomic(path) as temporary:
        pq.write_table(_table(ids, matrix).replace_schema_metadata(meta), temporary, compression="zstd")


def _table(ids: list[str], matrix: NDArray[Any]) -> pa.Table:
    """Ids and embeddings (N, D) as a table."""
    flat = pa.array(np.ascontiguousarray(matrix, np.float16).ravel(), pa.float16())
    column = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    return pa.table({"photo_id": pa.array(ids, pa.string()), "embedding": column})
