"""The items of a STAC source: files and addresses walked by their links, an API searched, stac-geoparquet read.

Items are plain dictionaries, so that one that breaks the standard costs itself alone. A server is asked politely: a
busy one is asked again after the time that it names, and a failing page ends the run with a sentence.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import pyarrow.parquet as pq

from geograft.errors import BadSetting, DownloadFailed, GeograftError, MissingColumns, MissingInput, UnreadableTable
from geograft.raster.remote import BUSY, is_address, is_remote
from geograft.sources.imagery.rows import THREADS, SceneSettings

Item = dict[str, Any]

TIMEOUT_S = 30.0
RETRIES = 4
BACKOFF_S = 0.5
"""The wait before the second repetition; it doubles, and a server's `Retry-After` comes first."""
PAGE = 100
"""Items a page of an API's answer."""
_NOT_PROPERTIES = frozenset(
    {"id", "type", "stac_version", "stac_extensions", "geometry", "bbox", "links", "assets", "collection"}
)


def items_of(
    source: str, settings: SceneSettings, collections: tuple[str, ...], failed: Counter[str]
) -> Iterator[Item]:
    """The items of a STAC source, each with its address under `self` and absolute addresses of its assets.

    Args:
        source: a .json file or address, an API, or a Parquet file of items.
        settings: `collection`, `bounds`, `datetime`, `max_cloud` and `limit` for an API.
        collections: those that usually hold what is looked for, named in the sentence that asks for one.
        failed: filled with counts by reason of what a catalogue names and its server does not give.

    Raises:
        MissingInput: there is no such file.
        UnreadableTable: the source is no STAC.
        BadSetting: an API is not told which collection.
        DownloadFailed: the server refuses, fails or does not answer.
    """
    if source.endswith(".parquet"):
        yield from _parquet_items(Path(source))
        return
    client = _Client()
    root = client.read(source)
    static = not is_address(source) or source.endswith((".json", ".geojson"))
    if not static and ("conformsTo" in root or "/collections/" in source or _links(root, "search")):
        yield from _api_items(source, settings, collections, client)
    else:
        yield from _walk(root, source, client, failed)


# --- static catalogues ------------------------------------------------------------------------------------


def _walk(node: Item, address: str, client: "_Client", failed: Counter[str]) -> Iterator[Item]:
    """The items of a node and of everything that it links to, in the order of the links."""
    waiting, seen = [(node, address)], {address}
    while waiting:
        node, address = waiting.pop(0)
        if node.get("type") == "Feature":
            yield _located(node, address)
        yield from (_located(each, address) for each in node.get("features") or [] if isinstance(each, Mapping))
        linked = [each for each in _linked(node, address) if each not in seen]
        seen.update(linked)
        for each, child in zip(linked, client.read_all(linked), strict=True):
            if isinstance(child, GeograftError):
                failed["unreadable-item"] += 1
            else:
                waiting.append((child, each))


def _linked(node: Item, address: str) -> list[str]:
    """The addresses of a node's items and children, each once."""
    found = [*_links(node, "item"), *_links(node, "child")] if node.get("type") != "Feature" else []
    return list(dict.fromkeys(_absolute(each, address) for each in found))


def _links(node: Mapping[str, Any], relation: str) -> list[str]:
    """The targets of a node's links of a relation."""
    links = [link for link in node.get("links") or [] if isinstance(link, Mapping)]
    return [str(link["href"]) for link in links if link.get("rel") == relation and link.get("href")]


# --- APIs -------------------------------------------------------------------------------------------------


def _api_items(source: str, settings: SceneSettings, collections: tuple[str, ...], client: "_Client") -> Iterator[Item]:
    """The items that a STAC API finds, page by page."""
    from pystac_client import Client
    from pystac_client.exceptions import APIError

    root, _, named = source.rstrip("/").partition("/collections/")
    collection = settings.collection or named.split("/")[0]
    if not collection:
        hint = f", such as {collections[0]}" if collections else ""
        raise BadSetting(
            f"Say which collection of {source} to search by `collection` in a YAML file for --config{hint}."
        )
    try:
        api = Client.open(root, stac_io=client.io, timeout=TIMEOUT_S)
        clear = settings.max_cloud is not None and api.conforms_to("QUERY")
        query = {"eo:cloud_cover": {"lte": 100 * (settings.max_cloud or 0)}} if clear else None
        search = api.search(
            collections=[collection],
            bbox=settings.bounds,
            datetime=settings.when,
            max_items=settings.limit,
            limit=min(PAGE, settings.limit or PAGE),
            query=query,
        )
        for item in search.items_as_dicts():
            yield _located(item, source)
    except APIError as error:
        raise DownloadFailed(_said(source, error)) from error
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise UnreadableTable(f"{source} does not answer as a STAC API does ({error}): check the address.") from error


class _Client:
    """Reads JSON of files and servers; busy servers are asked again."""

    def __init__(self) -> None:
        from pystac_client.stac_api_io import StacApiIO
        from urllib3.util.retry import Retry

        again = Retry(
            total=RETRIES,
            backoff_factor=BACKOFF_S,
            status_forcelist=sorted(BUSY),
            allowed_methods=None,
            raise_on_status=False,
            respect_retry_after_header=True,
        )
        self.io = StacApiIO(timeout=TIMEOUT_S, max_retries=again, headers={"User-Agent": "geograft"})

    def read(self, address: str) -> Item:
        """The JSON object of a path or address."""
        from pystac_client.exceptions import APIError

        try:
            found = json.loads(self.io.read_text(address))
        except APIError as error:
            raise DownloadFailed(_said(address, error)) from error
        except FileNotFoundError as error:
            raise MissingInput(f"There is no file {address}: check the path.") from error
        except ValueError as error:
            raise UnreadableTable(f"{address} is no JSON ({error}): check the path or address.") from error
        if not isinstance(found, dict):
            raise UnreadableTable(f"{address} is no STAC item, collection or catalogue: check the path or address.")
        return found

    def read_all(self, addresses: list[str]) -> Iterator[Item | GeograftError]:
        """The JSON objects of many, in order, or the error of each that cannot be read."""
        if not any(is_remote(each) for each in addresses):
            yield from map(self._attempt, addresses)
            return
        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(self._attempt, addresses)

    def _attempt(self, address: str) -> Item | GeograftError:
        try:
            return self.read(address)
        except GeograftError as error:
            return error


def _said(address: str, error: Exception) -> str:
    """What a server's refusal or silence means, and what to do."""
    status = getattr(error, "status_code", None)
    if status in {401, 403}:
        return f"The server refuses {address} ({status}): ask for access, or use an open catalogue."
    if status in BUSY:
        return f"The server answered {status} for {address}, {RETRIES + 1} times: try again later, or ask for less."
    if status == 404:
        return f"There is nothing at {address} (404): check the address and the collection."
    if status is not None:
        return f"The server answered {status} for {address} ({_short(error)}): check collection, bounds and datetime."
    return f"The server does not answer for {address} ({_short(error)}): check the address, or try again later."


def _short(error: Exception) -> str:
    """The first 200 characters of an error."""
    return " ".join(str(error).split())[:200]


# --- stac-geoparquet --------------------------------------------------------------------------------------


def _parquet_items(path: Path) -> Iterator[Item]:
    """The items of a Parquet file of items, as stac-geoparquet writes it."""
    if not path.is_file():
        raise MissingInput(f"There is no file {path}: check the path.")
    try:
        file = pq.ParquetFile(path)
        if missing := {"id", "assets", "geometry"} - set(file.schema_arrow.names):
            raise MissingColumns(f"{path} has no column {', '.join(sorted(missing))}: it is no table of STAC items.")
        for batch in file.iter_batches(batch_size=1000):
            yield from (_located(_nested(row), str(path)) for row in batch.to_pylist())
    except (OSError, ValueError) as error:
        raise UnreadableTable(f"{path} is damaged ({error}): fetch it again.") from error


def _nested(row: Mapping[str, Any]) -> Item:
    """A row of stac-geoparquet as an item: absent fields left out, the rest of the columns as properties."""
    about = {name: value for name, value in row.items() if name in _NOT_PROPERTIES}
    properties = {name: value for name, value in row.items() if name not in _NOT_PROPERTIES and value is not None}
    assets = row.get("assets") or {}
    if isinstance(assets, str):
        assets = json.loads(assets)
    named = {key: {k: v for k, v in asset.items() if v is not None} for key, asset in assets.items() if asset}
    return {**about, "assets": named, "properties": properties}


# --- addresses --------------------------------------------------------------------------------------------


def _located(item: Mapping[str, Any], address: str) -> Item:
    """An item with its own address under `self` and absolute addresses of its assets.

    Relative ones count from where the item says that it lies on a server, else from where it was read; a copy on
    this machine beside its files is read from here.
    """
    own = next((each for each in _links(item, "self") if is_remote(each)), address)
    stated = item.get("assets")
    assets = {
        key: {**asset, "href": _href(str(asset["href"]), own, address)}
        for key, asset in (stated.items() if isinstance(stated, Mapping) else ())
        if isinstance(asset, Mapping) and asset.get("href")
    }
    return {**item, "assets": assets, "self": own if own != address else f"{address}#{item.get('id')}"}


def _href(href: str, own: str, address: str) -> str:
    """An asset's absolute address or path."""
    near = _absolute(href, address)
    return near if own == address or Path(near).exists() else _absolute(href, own)


def _absolute(href: str, base: str) -> str:
    """An address or absolute path; relative ones count from the file that names them."""
    if is_remote(href) or Path(href).is_absolute():
        return href
    if href.startswith("file://"):
        return href.removeprefix("file://")
    if is_address(base):
        return urljoin(base, href)
    if is_remote(base):
        return f"{base.rsplit('/', maxsplit=1)[0]}/{href.removeprefix('./')}"
    return str((Path(urldefrag(base).url).parent / href).absolute())
