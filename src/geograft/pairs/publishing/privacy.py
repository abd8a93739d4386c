"""Tables that may be published: no users' names, no local paths, no addresses of photos that are not free."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from geograft.sources.licences import FREE_LICENCES, licence_name


@dataclass(frozen=True)
class Privacy:
    """What is taken out of published tables.

    Attributes:
        strip: take it out; False leaves the tables as they are.
        salt: users become a keyed hash under this secret, so that photos of one user stay together and no list of
            names gives the names back; they are left out where it is empty. It is written nowhere.
        licences: names (see `licence_name`) of the licences whose photos' addresses are kept.
    """

    strip: bool = False
    salt: str = ""
    licences: tuple[str, ...] = FREE_LICENCES

    @property
    def mark(self) -> str:
        """What an output depends on, without giving the salt away: a hash that takes a while to compute."""
        if not self.salt:
            return f"{self.strip}"
        key = hashlib.scrypt(self.salt.encode(), salt=b"geograft pairs export", n=2**14, r=8, p=1, dklen=8)
        return f"{self.strip} {key.hex()}"


def clean_photos(photos: pa.Table, privacy: Privacy) -> pa.Table:
    """Photos as they are published: no names and no tags; addresses of free photos on the web alone."""
    if not privacy.strip:
        return photos
    licences = _column(photos, "licence")
    free = _mapped(licences, lambda text: "yes" if licence_name(text) in privacy.licences else None)
    uris = pc.if_else(pc.is_valid(free), _column(photos, "uri"), pa.scalar(None, pa.string()))
    photos = _replace(photos, "uri", _mapped(uris, _web_only))
    photos = _replace(photos, "user", _mapped(_column(photos, "user"), lambda name: _hashed(name, privacy.salt)))
    return _replace(photos, "tags", pa.nulls(len(photos), pa.string()))


def clean_chips(chips: pa.Table, privacy: Privacy) -> pa.Table:
    """Chips as they are published: of local scenes the file's name alone."""
    if not privacy.strip:
        return chips
    return _replace(chips, "scene_uri", _mapped(_column(chips, "scene_uri"), lambda uri: _web_only(uri) or _name(uri)))


def _hashed(name: str, salt: str) -> str | None:
    """A user's name as a keyed hash."""
    if not salt:
        return None
    return "u" + hashlib.blake2b(name.encode(), key=hashlib.sha256(salt.encode()).digest(), digest_size=8).hexdigest()


def _web_only(uri: str) -> str | None:
    """An address on the web without user, query or fragment, which may hold keys; None for anything else."""
    if not uri.startswith(("http://", "https://")):
        return None
    scheme, _, rest = uri.split("?", 1)[0].split("#", 1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _name(uri: str) -> str:
    """The last part of a path."""
    return PurePath(uri.replace("\\", "/")).name


def _column(table: pa.Table, name: str) -> Any:
    """A column as text; nulls where it is absent."""
    return table[name].cast(pa.string()) if name in table.column_names else pa.nulls(len(table), pa.string())


def _mapped(values: Any, function: Callable[[str], str | None]) -> Any:
    """A function of each distinct text."""
    encoded = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = encoded.dictionary_encode()
    texts = pa.array([None if text is None else function(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return texts.take(encoded.indices)


def _replace(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with other values in a column that it has."""
    if name not in table.column_names:
        return table
    place = table.column_names.index(name)
    return table.set_column(place, pa.field(name, pa.string()), values.cast(pa.string()))
