"""WMTS: the tile template of a layer, from a capabilities document or from a template in WMTS's own words."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from geograft.errors import BadSetting, UnreadableTable
from geograft.raster import remote
from geograft.raster.globe import EDGE, box_of
from geograft.sources.imagery.rows import SceneSettings

_SCALE = 559082264.0287178
"""The scale denominator of the one tile of zoom 0 of GoogleMapsCompatible."""
_WORDS = {"tilematrix": "{z}", "tilerow": "{y}", "tilecol": "{x}"}
_GOOGLE = "GoogleMapsCompatible"


@dataclass(frozen=True)
class Layer:
    """A layer to read.

    Attributes:
        name: its identifier.
        template: its tiles, with `{x}` and `{y}`, and `#zoom=` where the path does not say the zoom.
        footprint: what it covers, in longitude and latitude.
        taken: the date that its tiles are asked for, or None.
    """

    name: str
    template: str
    footprint: Any
    taken: datetime | None


def is_wmts(source: str) -> bool:
    """Whether a source is a capabilities document, its address, or a template with `{TileMatrix}`."""
    text = source.lower()
    if "{tilematrix}" in text:
        return True
    if remote.is_address(source):
        return "request=getcapabilities" in text or "wmtscapabilities" in text or "service=wmts" in text
    return text.endswith(".xml") and Path(source).is_file()


def find_layer(source: str, settings: SceneSettings) -> Layer:
    """The layer of a source that the settings choose.

    Args:
        source: see `is_wmts`.
        settings: `zoom`, and `layer` and `datetime` where there are several.

    Raises:
        BadSetting: the zoom is not given, the layer is unclear, or no tile matrix set of it is GoogleMapsCompatible.
        UnreadableTable: the document is no WMTS capabilities.
        MissingInput: there is nothing at the address.
        UnreadableScene: the server refuses, fails or does not answer.
    """
    if settings.zoom is None:
        raise BadSetting(f"Say which zoom of {source} to read: write `zoom: 15` into a YAML file for --config.")
    if "{tilematrix}" in source.lower():
        template = _filled(source, {**_WORDS, "tilematrixset": _GOOGLE, "style": "default"}, settings)
        name = urlsplit(source).hostname or "wmts"
        area = settings.area or box_of((-180, -85, 180, 85))
        return Layer(name, _at_zoom(template, str(settings.zoom), settings.zoom), area, _date(settings.when))
    root = _document(source, settings)
    try:
        return _layer_of(root, source, settings)
    except ValueError as error:
        raise UnreadableTable(f"{source} holds a number that is none ({error}): use another service.") from error


def _document(source: str, settings: SceneSettings) -> ET.Element:
    """The root of a capabilities document."""
    address = (
        source if "?" not in source or "getcapabilities" in source.lower() else f"{source}&REQUEST=GetCapabilities"
    )
    content = remote.get(address, signer=settings.signer) if remote.is_address(source) else Path(source).read_bytes()
    try:
        root = ET.fromstring(content)  # noqa: S314 - the parser resolves no external entity
    except ET.ParseError as error:
        raise UnreadableTable(f"{source} is no XML ({error}): give the address of a GetCapabilities answer.") from error
    if root.find("{*}Contents") is None:
        raise UnreadableTable(f"{source} is no capabilities document of a WMTS: check the address.")
    return root


def _layer_of(root: ET.Element, source: str, settings: SceneSettings) -> Layer:
    """The chosen layer of a capabilities document."""
    layers = {_text(each, "Identifier"): each for each in root.findall("{*}Contents/{*}Layer")}
    name = settings.layer or (next(iter(layers)) if len(layers) == 1 else None)
    if name is None or name not in layers:
        known = ", ".join(sorted(layers)[:20]) + (" …" if len(layers) > 20 else "")
        raise BadSetting(f"Say which layer of {source} to read by `layer` in a YAML file for --config: {known}.")
    layer, zoom = layers[name], settings.zoom or 0
    matrix_set, matrix = _matrix(root, layer, name, zoom)
    dimension, value = _dimension(layer, settings.when)
    words = {"tilematrixset": matrix_set, "style": _style(layer), **({dimension.lower(): value} if dimension else {})}
    template = _filled(_resource(root, layer, name), {**_WORDS, **words}, settings)
    return Layer(name, _at_zoom(template, matrix, zoom), _covered(layer), _date(value))


def _matrix(root: ET.Element, layer: ET.Element, name: str, zoom: int) -> tuple[str, str]:
    """The layer's Web Mercator matrix set and the name of its matrix at a zoom."""
    linked = [_text(link, "TileMatrixSet") for link in layer.findall("{*}TileMatrixSetLink")]
    sets = {_text(each, "Identifier"): each for each in root.findall("{*}Contents/{*}TileMatrixSet")}
    for each in linked:
        if each in sets and (matrix := _matrix_at(sets[each], zoom)) is not None:
            return each, matrix
        if each not in sets and each.startswith(_GOOGLE):
            return each, str(zoom)
    google = [each for each in linked if each in sets and _matrix_at(sets[each], None) is not None]
    if google:
        raise BadSetting(f"The layer {name} has no zoom {zoom} in its tile matrix set {google[0]}: choose a lower one.")
    raise BadSetting(
        f"The layer {name} comes in the tile matrix sets {', '.join(linked) or 'of no name'}; only {_GOOGLE} "
        "(Web Mercator, EPSG:3857, tiles of 256 px) can be read: choose a layer or service that has it."
    )


def _matrix_at(matrix_set: ET.Element, zoom: int | None) -> str | None:
    """The name of the matrix of a set that is a zoom of GoogleMapsCompatible, any zoom where None, or None."""
    if not re.search(r"(?<!\d)(3857|900913|3785|102100)(?!\d)", _text(matrix_set, "SupportedCRS")):
        return None
    for matrix in matrix_set.findall("{*}TileMatrix"):
        corner = [float(value) for value in _text(matrix, "TopLeftCorner").split()]
        fits = len(corner) == 2 and abs(corner[0] + EDGE) < 1 and abs(corner[1] - EDGE) < 1
        fits = fits and _text(matrix, "TileWidth") == _text(matrix, "TileHeight") == "256"
        level = math.log2(_SCALE / float(_text(matrix, "ScaleDenominator") or 1))
        if fits and abs(level - (round(level) if zoom is None else zoom)) < 1e-4:
            return _text(matrix, "Identifier")
    return None


def _dimension(layer: ET.Element, wanted: str | None) -> tuple[str | None, str | None]:
    """The name and value of a layer's date dimension: as wanted, else its default."""
    dimension = layer.find("{*}Dimension")
    if dimension is None:
        return None, None
    name, default = _text(dimension, "Identifier"), _text(dimension, "Default")
    values = [(value.text or "").strip() for value in dimension.findall("{*}Value")]
    plain = bool(values) and not any("/" in value for value in values)
    if (wanted is None and not default) or (wanted is not None and plain and wanted not in values):
        raise BadSetting(f"Say which {name} to read by `datetime`: the service has {', '.join(values[-5:]) or 'any'}.")
    return name, wanted or default


def _resource(root: ET.Element, layer: ET.Element, name: str) -> str:
    """A layer's template: its ResourceURL, else one of the key-value form."""
    for resource in layer.findall("{*}ResourceURL"):
        if resource.get("resourceType") == "tile" and resource.get("template"):
            return str(resource.get("template"))
    operations = root.findall("{*}OperationsMetadata/{*}Operation")
    gets = [each.find(".//{*}Get") for each in operations if each.get("name") == "GetTile"]
    address = next((get.get("{http://www.w3.org/1999/xlink}href") for get in gets if get is not None), None)
    if address is None:
        raise BadSetting(
            f"The layer {name} states neither a ResourceURL nor an address of GetTile: use another service."
        )
    dimension = layer.find("{*}Dimension")
    words = {
        "SERVICE": "WMTS",
        "REQUEST": "GetTile",
        "VERSION": "1.0.0",
        "LAYER": name,
        "FORMAT": _text(layer, "Format"),
    }
    open_words = ["STYLE", "TILEMATRIXSET", "TILEMATRIX", "TILEROW", "TILECOL"]
    if dimension is not None:
        open_words.append(_text(dimension, "Identifier").upper())
    asked = "&".join([urlencode(words), *(f"{word}={{{word}}}" for word in open_words)])
    return f"{address}{'' if address.endswith(('?', '&')) else '&' if '?' in address else '?'}{asked}"


def _filled(template: str, words: dict[str, str | None], settings: SceneSettings) -> str:
    """A template in WMTS's words with those that are known put in; case does not count."""
    known = {"time": settings.when, "date": settings.when, **words}
    return re.sub(r"\{(\w+)\}", lambda match: known.get(match[1].lower()) or match[0], template)


def _at_zoom(template: str, matrix: str, zoom: int) -> str:
    """A template at one matrix, which says its zoom where its path does not."""
    from geograft.raster.tiles import TileSource

    return TileSource(template.replace("{z}", matrix), zoom).address


def _style(layer: ET.Element) -> str:
    """A layer's default style."""
    styles: Sequence[ET.Element] = layer.findall("{*}Style")
    chosen = next((each for each in styles if each.get("isDefault") == "true"), styles[0] if styles else None)
    return "default" if chosen is None else _text(chosen, "Identifier") or "default"


def _covered(layer: ET.Element) -> Any:
    """What a layer covers, by its stated bounds, as far as Web Mercator goes."""
    box = layer.find("{*}WGS84BoundingBox")
    if box is None:
        return box_of((-180, -85, 180, 85))
    west, south = (float(value) for value in _text(box, "LowerCorner").split())
    east, north = (float(value) for value in _text(box, "UpperCorner").split())
    return box_of((max(west, -180.0), max(south, -85.0), min(east, 180.0), min(north, 85.0)))


def _date(text: str | None) -> datetime | None:
    """The day or time that a dimension's value names, UTC, or None."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _text(element: ET.Element, name: str) -> str:
    """The text of a child element, empty where there is none."""
    return (element.findtext(f"{{*}}{name}") or "").strip()
