"""Fixed pseudo-random numbers of ids, the same on every machine and in every order, at millions of ids a second.

SipHash-2-4 of the UTF-8 bytes (Aumasson and Bernstein, 2012) with the finaliser of SplitMix64, computed over Arrow's
own buffers: no Python string is made on the way.
"""

import hashlib
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def hash_ids(ids: Any, salt: str) -> Hashes:
    """A fixed pseudo-random number for each id, (N,).

    Args:
        ids: strings: an Arrow array, or anything that Arrow makes one of; none may be missing.
        salt: what the numbers are for, with the seed; another salt gives unrelated numbers.
    """
    text = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(ids, pa.large_string())
    if isinstance(text, pa.ChunkedArray):
        parts = [hash_ids(chunk, salt) for chunk in text.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)
    text = text.cast(pa.large_string())
    _, offsets, data = text.buffers()
    if not len(text):
        return np.empty(0, np.uint64)
    ends = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    low, high = np.frombuffer(_key(salt), np.uint64)
    return mix(_siphash(content, ends, low, high), np.zeros(1, np.uint64))


def _key(salt: str) -> bytes:
    """16 bytes of a salt: its own, or where it has more, a digest of all."""
    key = salt.encode()
    return key.ljust(16) if len(key) <= 16 else hashlib.blake2b(key, digest_size=16).digest()


def mix(left: Hashes, right: Hashes) -> Hashes:
    """One pseudo-random number of two, elementwise (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        z = left + right * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray(z, np.uint64)


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _rotate(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    """One SipRound."""
    v0 += v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 += v3
    v3 = _rotate(v3, 16) ^ v2
    v0 += v3
    v3 = _rotate(v3, 21) ^ v0
    v2 += v1
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _siphash(content: Any, ends: Any, low: np.uint64, high: np.uint64) -> Any:
    """SipHash-2-4 of each span of bytes between two ends."""
    out = np.empty(len(ends) - 1, np.uint64)
    for row in range(len(out)):
        start, stop = ends[row], ends[row + 1]
        v0, v1 = low ^ np.uint64(0x736F6D6570736575), high ^ np.uint64(0x646F72616E646F6D)
        v2, v3 = low ^ np.uint64(0x6C7967656E657261), high ^ np.uint64(0x7465646279746573)
        words = (stop - start) // 8
        for word in range(words + 1):
            block = np.uint64(0)
            at = start + 8 * word
            for byte in range(min(8, stop - at)):
                block |= np.uint64(content[at + byte]) << np.uint64(8 * byte)
            if word == words:
                block |= np.uint64(stop - start) << np.uint64(56)
            v3 ^= block
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0 ^= block
        v2 ^= np.uint64(0xFF)
        for _ in range(4):
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        out[row] = v0 ^ v1 ^ v2 ^ v3
    return out
