"""The tables of finished pairs: chips, pairs and the photos in them."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geograft.pairs.filters import utc
from geograft.pairs.grid import corners
from geograft.tables import write_table


def write_pairs(
    out: Path, chips: pd.DataFrame, pairs: pd.DataFrame, photos: gpd.GeoDataFrame, scenes: pd.DataFrame
) -> None:
    """Write chips.parquet, pairs.parquet and photos.parquet.

    Args:
        out: the folder of pairs.
        chips: chip_id, epsg, left, top, gsd, size, split, scene_id.
        pairs: chip_id, photo (row of `photos`), col, row.
        photos: the photos, with lon and lat.
        scenes: scene_id, uri, sensor, taken.
    """
    used = np.unique(pairs["photo"])
    write_table(photos.iloc[used].drop(columns=["lon", "lat"]), out / "photos.parquet")
    table = chip_table(chips, pairs, scenes)
    write_table(pair_table(table, pairs, photos), out / "pairs.parquet")
    write_table(table, out / "chips.parquet")


def chip_table(chips: pd.DataFrame, pairs: pd.DataFrame, scenes: pd.DataFrame) -> gpd.GeoDataFrame:
    """Chips with footprint, sensor, date of the scene and number of photos."""
    counts = pairs["chip_id"].value_counts()
    about = scenes.set_index("scene_id").loc[chips["scene_id"], ["sensor", "taken", "uri"]]
    table = chips.assign(
        scene_uri=about["uri"].to_numpy(object),
        sensor=about["sensor"].to_numpy(object),
        taken=utc(about["taken"].reset_index(drop=True)).to_numpy(),
        photos=counts.reindex(chips["chip_id"]).to_numpy(np.int64),
    )
    table["taken"] = utc(table["taken"])
    columns = [
        "chip_id",
        "epsg",
        "left",
        "top",
        "gsd",
        "size",
        "scene_id",
        "scene_uri",
        "sensor",
        "taken",
        "split",
        "photos",
    ]
    footprints = shapely.polygons(corners(chips))
    return gpd.GeoDataFrame(table[columns], geometry=footprints, crs=4326)


def pair_table(chips: pd.DataFrame, pairs: pd.DataFrame, photos: pd.DataFrame) -> pd.DataFrame:
    """Pairs with ids, offsets, the photo's accuracy and heading, and the days from scene to photo."""
    photo = photos.iloc[pairs["photo"]].reset_index(drop=True)
    scene_time = chips.set_index("chip_id")["taken"].reindex(pairs["chip_id"]).reset_index(drop=True)
    gap = (utc(photo["taken"]) - scene_time).dt.total_seconds() / 86_400
    return pd.DataFrame(
        {
            "chip_id": pairs["chip_id"].to_numpy(object),
            "photo_id": photo["photo_id"].to_numpy(object),
            "col": pairs["col"].to_numpy(np.float32),
            "row": pairs["row"].to_numpy(np.float32),
            "accuracy_m": pd.to_numeric(photo["accuracy_m"], errors="coerce").to_numpy(np.float32),
            "heading_deg": pd.to_numeric(photo["heading_deg"], errors="coerce").to_numpy(np.float32),
            "time_gap_days": gap.to_numpy(np.float32),
        }
    )
