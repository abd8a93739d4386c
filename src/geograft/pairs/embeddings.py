"""The teacher's embeddings of photos, computed once and kept with the teacher's fingerprint.

Photos are embedded in parts. A part that is written is never computed again, so a killed run loses one part at
most, and photos that another stage embedded already are not embedded twice.
"""

import json
import logging
from collections.abc import Iterator, Sequence
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
from geograft.models.teacher import Teacher
from geograft.tables import Manifest, atomic, read_table, track, write_manifest

logger = logging.getLogger(__name__)

BATCH = 64
PART_BATCHES = 16
DECODERS = 4
"""Threads that decode photos while the teacher works."""

MAX_SIDE = 1024
"""Photos are decoded to about this many pixels: no teacher sees more."""

Photo = tuple[str, str]
"""photo_id and uri."""


def embed_photos(folder: Path, teacher: Teacher) -> Path:
    """Embed the photos of a folder of pairs.

    Args:
        folder: what `make_pairs` wrote.
        teacher: the frozen encoder of photos.

    Returns:
        The table `teacher-<fingerprint>.parquet`: photo_id, embedding (D float16, unit length), sorted by
        photo_id, and the unreadable photos left out; its manifest counts them.

    Raises:
        MissingInput: the folder holds no pairs.
        EmptyTable: no photo can be read.
        DiskFull: the parts written stay, to go on from.
    """
    path = embeddings_path(folder, teacher.fingerprint)
    if path.exists():
        return path
    if not (Path(folder) / "photos.parquet").is_file():
        raise MissingInput(f"{folder} holds no finished pairs: make them with `geograft pairs`.")
    photos = read_table(Path(folder) / "photos.parquet", ["photo_id", "uri"]).sort_values("photo_id")
    found, unreadable = embed_table(photos, parts_folder(folder, teacher.fingerprint), teacher)
    if not len(found[0]):
        raise EmptyTable(
            f"None of the {len(photos)} photos of {folder} can be read: check the paths in photos.parquet."
        )
    _write(path, *found, unreadable, teacher)
    counts = {"done": len(found[0]), "skipped": {}, "failed": {"unreadable-photo": len(unreadable)}}
    about = {"teacher": teacher.name, "fingerprint": teacher.fingerprint, "dim": teacher.dim}
    write_manifest(path, Manifest("embeddings", {"pairs": str(folder)}, about, counts))
    return path


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


def embed_table(
    photos: pd.DataFrame, parts: Path, teacher: Teacher
) -> tuple[tuple[list[str], NDArray[np.float16]], list[str]]:
    """Embeddings of the photos of a table, those in `parts` reused.

    Args:
        photos: photo_id and uri.
        parts: folder of parts; new ones are added.
        teacher: the encoder.

    Returns:
        (photo ids, embeddings (N, D)) in the order of the table without the unreadable ones; and the ids of those.
    """
    for leftover in parts.glob(".*.part.*"):
        leftover.unlink(missing_ok=True)
    ids, vectors, unreadable = _known(parts, teacher.dim)
    known = {*ids, *unreadable}
    missing = [row for row in zip(photos["photo_id"], photos["uri"], strict=True) if row[0] not in known]
    for new_ids, new_vectors, new_unreadable in _embed_parts(missing, parts, teacher):
        ids.extend(new_ids)
        vectors.append(new_vectors)
        unreadable.update(new_unreadable)
    place = {photo_id: row for row, photo_id in enumerate(ids)}
    wanted = [photo_id for photo_id in photos["photo_id"] if photo_id in place]
    matrix = np.concatenate(vectors)[[place[photo_id] for photo_id in wanted]]
    return (wanted, matrix), [photo_id for photo_id in photos["photo_id"] if photo_id in unreadable]


def _known(parts: Path, dim: int) -> tuple[list[str], list[NDArray[np.float16]], set[str]]:
    """What the parts hold: ids, embeddings, ids of unreadable photos."""
    ids: list[str] = []
    vectors: list[NDArray[np.float16]] = [np.empty((0, dim), np.float16)]
    unreadable: set[str] = set()
    for path in sorted(parts.glob("part-*.parquet")):
        found, matrix = read_embeddings(path)
        ids.extend(found)
        vectors.append(matrix)
        unreadable.update(json.loads((pq.read_schema(path).metadata or {}).get(b"unreadable", b"[]")))
    return ids, vectors, unreadable


def _embed_parts(
    missing: Sequence[Photo], parts: Path, teacher: Teacher
) -> Iterator[tuple[list[str], NDArray[np.float16], list[str]]]:
    """Embed photos part by part, writing each."""
    number = len(list(parts.glob("part-*.parquet")))
    decoded = track(_decode(missing), "Embedding photos", len(missing))
    for part in _chunks(missing, BATCH * PART_BATCHES):
        ids, matrix, unreadable = _embed_part(part, decoded, teacher)
        _write(parts / f"part-{number:05d}.parquet", ids, matrix, unreadable, teacher)
        number += 1
        yield ids, matrix, unreadable
    next(decoded, None)


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
    flat = pa.array(np.ascontiguousarray(matrix, np.float16).ravel(), pa.float16())
    column = pa.FixedSizeListArray.from_arrays(flat, teacher.dim)
    table = pa.table({"photo_id": pa.array(ids, pa.string()), "embedding": column})
    meta = {"teacher": teacher.name, "fingerprint": teacher.fingerprint, "unreadable": json.dumps(unreadable)}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(meta), temporary, compression="zstd")
