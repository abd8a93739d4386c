import threading
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from geograft.errors import BadSetting, MissingInput, UnknownSensor, UnreadableTable
from geograft.sources.scenes import SceneSettings, read_scenes, scene_of
from geograft.tables import read_table


def matrix_set(name, *, crs="urn:ogc:def:crs:EPSG::3857", scale=559082264.0287178, prefix="", zooms=18):
    matrices = "".join(
        f"<TileMatrix><ows:Identifier>{prefix}{zoom}</ows:Identifier>"
        f"<ScaleDenominator>{scale / 2**zoom}</ScaleDenominator>"
        "<TopLeftCorner>-20037508.3427892 20037508.3427892</TopLeftCorner>"
        "<TileWidth>256</TileWidth><TileHeight>256</TileHeight></TileMatrix>"
        for zoom in range(zooms)
    )
    about = f"<ows:Identifier>{name}</ows:Identifier><ows:SupportedCRS>{crs}</ows:SupportedCRS>"
    return f"<TileMatrixSet>{about}{matrices}</TileMatrixSet>"


def layer(
    name, sets, *, url="https://tiles.example.org/{Style}/{Time}/{TileMatrixSet}/{TileMatrix}/{TileRow}/{TileCol}.jpg"
):
    links = "".join(f"<TileMatrixSetLink><TileMatrixSet>{each}</TileMatrixSet></TileMatrixSetLink>" for each in sets)
    resource = f'<ResourceURL format="image/jpeg" resourceType="tile" template="{url}"/>' if url else ""
    return (
        f"<Layer><ows:Identifier>{name}</ows:Identifier><ows:WGS84BoundingBox><ows:LowerCorner>5 44</ows:LowerCorner>"
        "<ows:UpperCorner>10 48</ows:UpperCorner></ows:WGS84BoundingBox><Style isDefault='true'><ows:Identifier>plain"
        "</ows:Identifier></Style><Format>image/jpeg</Format><Dimension><ows:Identifier>Time</ows:Identifier>"
        f"<Default>2023-05-01</Default><Value>2022-05-01</Value><Value>2023-05-01</Value></Dimension>{links}{resource}</Layer>"
    )


def capabilities(folder, layers, sets):
    get = '<ows:DCP><ows:HTTP><ows:Get xlink:href="https://tiles.example.org/wmts?"/></ows:HTTP></ows:DCP>'
    spaces = 'xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1"'
    operations = f'<ows:OperationsMetadata><ows:Operation name="GetTile">{get}</ows:Operation></ows:OperationsMetadata>'
    content = f"{operations}<Contents>{layers}{sets}</Contents>"
    text = f'<Capabilities {spaces} xmlns:xlink="http://www.w3.org/1999/xlink">{content}</Capabilities>'
    (folder / "caps.xml").write_text(text)
    return folder / "caps.xml"


def wmts_row(source, tmp_path, **settings):
    out = tmp_path / "w.parquet"
    read_scenes(source, out, sensor="map-tiles", settings=SceneSettings(**{"zoom": 12, **settings}))
    return read_table(out).iloc[0]


def test_a_wmts_layer_becomes_a_tile_scene_of_its_default_date(tmp_path):
    source = capabilities(
        tmp_path, layer("ortho", ["Lambert", "Web"]), matrix_set("Lambert", crs="EPSG:2154") + matrix_set("Web")
    )
    row = wmts_row(source, tmp_path)
    assert row.uri == "https://tiles.example.org/plain/2023-05-01/Web/12/{y}/{x}.jpg"
    assert (row.scene_id, row.kind, row.epsg) == ("ortho-12", "xyz", 3857)
    assert row.taken == datetime(2023, 5, 1, tzinfo=UTC)
    assert row.geometry.bounds == (5, 44, 10, 48)
    assert scene_of(row).tiles.zoom == 12
    chosen = wmts_row(source, tmp_path, datetime="2022-05-01", bounds=(6, 45, 7, 46))
    assert "/2022-05-01/" in chosen.uri
    assert chosen.geometry.bounds == (6, 45, 7, 46)


def test_a_wmts_of_key_value_form_keeps_its_zoom_in_the_address(tmp_path):
    source = capabilities(tmp_path, layer("ortho", ["Web"], url=None), matrix_set("Web", prefix="EPSG:3857:"))
    row = wmts_row(source, tmp_path)
    assert row.uri.startswith("https://tiles.example.org/wmts?SERVICE=WMTS&REQUEST=GetTile&VERSION=1.0.0&LAYER=ortho&")
    assert "TILEMATRIX=EPSG:3857:12&TILEROW={y}&TILECOL={x}&TIME=2023-05-01#zoom=12" in row.uri
    assert (scene_of(row).tiles.zoom, scene_of(row).tiles.address) == (12, row.uri)
    assert "#" not in scene_of(row).tiles.template


def test_another_tile_matrix_set_is_refused_by_name(tmp_path):
    lambert = capabilities(tmp_path, layer("ortho", ["Lambert"]), matrix_set("Lambert", crs="EPSG:2154"))
    with pytest.raises(BadSetting, match="matrix sets Lambert; only GoogleMapsCompatible"):
        wmts_row(lambert, tmp_path)
    odd = capabilities(tmp_path, layer("ortho", ["Odd"]), matrix_set("Odd", scale=5e8))
    with pytest.raises(BadSetting, match="only GoogleMapsCompatible"):
        wmts_row(odd, tmp_path)
    shallow = capabilities(tmp_path, layer("ortho", ["Web"]), matrix_set("Web", zooms=10))
    with pytest.raises(BadSetting, match="no zoom 12"):
        wmts_row(shallow, tmp_path)


def test_a_wmts_says_what_is_missing(tmp_path):
    two = capabilities(tmp_path, layer("b", ["Web"]) + layer("a", ["Web"]), matrix_set("Web"))
    with pytest.raises(BadSetting, match=r"`layer` .*: a, b"):
        wmts_row(two, tmp_path)
    assert wmts_row(two, tmp_path, layer="a").scene_id == "a-12"
    with pytest.raises(BadSetting, match="zoom: 15"):
        wmts_row(two, tmp_path, zoom=None)
    with pytest.raises(BadSetting, match="which Time"):
        wmts_row(two, tmp_path, layer="a", datetime="1999-01-01")
    (tmp_path / "page.xml").write_text("<html/>")
    with pytest.raises(UnreadableTable, match="no capabilities"):
        wmts_row(tmp_path / "page.xml", tmp_path)
    with pytest.raises(UnknownSensor):
        read_scenes(two, tmp_path / "o.parquet", settings=SceneSettings(zoom=12, layer="a"))


def test_a_template_in_the_words_of_wmts_is_read(tmp_path):
    url = "https://tiles.example.org/wmts/l/{Style}/{TileMatrixSet}/{TileMatrix}/{TileRow}/{TileCol}.png"
    row = wmts_row(url, tmp_path, bounds=(170, -20, -170, -10))
    assert row.uri == "https://tiles.example.org/wmts/l/default/GoogleMapsCompatible/12/{y}/{x}.png"
    assert row.geometry.geom_type == "MultiPolygon"
    with pytest.raises(BadSetting, match="braces"):
        wmts_row(url.replace("{Style}", "{Elevation}"), tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, saying nothing."""

    def log_message(self, *args):
        """Stay quiet."""


def test_the_capabilities_of_a_server_are_fetched(tmp_path):
    capabilities(tmp_path, layer("ortho", ["Web"]), matrix_set("Web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert wmts_row(f"{url}/caps.xml?service=WMTS", tmp_path).scene_id == "ortho-12"
        with pytest.raises(MissingInput, match="nothing at"):
            wmts_row(f"{url}/none.xml?SERVICE=WMTS&REQUEST=GetCapabilities", tmp_path)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
