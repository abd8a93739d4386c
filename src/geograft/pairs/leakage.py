"""A proof that splits share nothing, made of the written tables and pixels alone."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geograft.pairs.publishing.folder import PairFolder, codes, column, lon_lat, names, numbers, open_folder
from geograft.pairs.publishing.nearness import nearest_of_other_kind
from geograft.pairs.publishing.overlaps import Footprints, overlaps
from geograft.pairs.publishing.twins import shared_patterns
from geograft.tables import atomic

_MINUTE_US = 60_000_000

Masks = NDArray[np.uint64]


@dataclass(frozen=True)
class Leakage:
    """What the splits of a folder of pairs share.

    Attributes:
        footprints: pairs of chips of different splits that overlap on the ground.
        shared_ground: those of them that were cut of the same scene, so that they share pixels.
        photos: photos in chips of several splits.
        user_minutes: minutes in which one user took photos of several splits.
        identical: different chip pictures that occur in several splits, pixel for pixel.
        blank: chips of one colour, such as open water on a map, that occur in several splits; they say nothing of
            a place, so they are no leak.
        places: values of the photos' `place` that occur in several splits (harmless where the split is by blocks).
        scenes: scenes that chips of several splits were cut of; a leak only where the split is by scene.
        nearest_m: the distance between the nearest two photos of different splits, infinite with one split.
        split_by: what the split goes by: "blocks", "place" or "scene"; None without a split.
        pixels: whether the chips' pixels were compared.
    """

    footprints: int
    shared_ground: int
    photos: int
    user_minutes: int
    identical: int
    blank: int
    places: int
    scenes: int
    nearest_m: float
    split_by: str | None
    pixels: bool

    @property
    def leaks(self) -> dict[str, int]:
        """What counts as a leak, by name, zeros included."""
        found = {name: getattr(self, name) for name in ("footprints", "photos", "user_minutes", "identical")}
        return found | ({"scenes": self.scenes} if self.split_by == "scene" else {})

    @property
    def none(self) -> bool:
        """Whether no footprint, photo, user's minute or picture is shared, and no scene in a split by scene."""
        return not any(self.leaks.values())


def leakage(folder: str | Path | PairFolder, *, pixels: bool = True) -> Leakage:
    """Look for anything that the splits of a folder of pairs share.

    Memory holds a few numbers a photo and a chip, and the ids of both once; pixels stream.

    Args:
        folder: finished pairs, or a plan of pairs.
        pixels: compare the chips' pixels too, where there are shards: all of them are read.

    Raises:
        MissingInput: the folder holds no pairs.
        MissingColumns, UnreadableTable: a table or a shard is damaged.
    """
    tables = open_folder(folder)
    split = codes(column(tables.chips, "split"))[0].astype(np.uint8)
    ground = _footprints(tables, split)
    found = overlaps(ground)
    twins = shared_patterns(tables, split) if pixels else None
    return Leakage(
        footprints=found.count,
        shared_ground=found.same_scene,
        **_shared_photos(tables, split),
        identical=twins.pictures if twins else 0,
        blank=twins.blank if twins else 0,
        scenes=_in_several(ground.scene, np.uint64(1) << split.astype(np.uint64)),
        split_by=tables.split_by,
        pixels=twins is not None,
    )


def write_leakage(folder: str | Path, *, pixels: bool = True) -> Path:
    """Write what `leakage` finds as leakage.json beside the pairs' tables; the same pairs give the same bytes.

    Returns:
        The path of the file.
    """
    found = leakage(folder, pixels=pixels)
    return save_leakage(found, open_folder(folder).tables / "leakage.json")


def save_leakage(found: Leakage, path: Path) -> Path:
    """Write a leakage report; a distance that does not exist becomes null."""
    values = {"none": found.none, "leaks": found.leaks, **asdict(found)}
    if not math.isfinite(found.nearest_m):
        values["nearest_m"] = None
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return path


# --- chips ------------------------------------------------------------------------------------------------


def _footprints(tables: PairFolder, split: NDArray[np.uint8]) -> Footprints:
    """The chips' squares, with the scene that each was cut of."""
    gsd, size = numbers(tables.chips, "gsd"), numbers(tables.chips, "size")
    return Footprints(
        epsg=numbers(tables.chips, "epsg").astype(np.int64),
        left=numbers(tables.chips, "left").astype(np.float64),
        top=numbers(tables.chips, "top").astype(np.float64),
        side=gsd.astype(np.float64) * size,
        split=split,
        scene=codes(_scenes(tables))[0],
    )


def _scenes(tables: PairFolder) -> Any:
    """The scene of each chip: the one that it was cut of, or the first that the plan names."""
    if not tables.planned:
        return column(tables.chips, "scene_id")
    parts = [_first_scene(chunk) for chunk in column(tables.chips, "stacks").chunks]
    return pa.chunked_array(parts, pa.string())


def _first_scene(stacks: Any) -> Any:
    """The first scene of the first stack of each row, null where there is none."""
    stack = pc.list_slice(stacks, 0, 1, return_fixed_size_list=True).flatten()
    scenes = pc.list_slice(pc.struct_field(stack, "scenes"), 0, 1, return_fixed_size_list=True).flatten()
    return scenes.cast(pa.string())


# --- photos -----------------------------------------------------------------------------------------------


def _shared_photos(tables: PairFolder, split: NDArray[np.uint8]) -> dict[str, Any]:
    """Photos, users' minutes and places that several splits hold, and the least distance."""
    masks = _photo_masks(tables, split)
    used = masks > 0
    lon, lat = lon_lat(column(tables.photos, "geometry"))
    one = (masks & (masks - np.uint64(1))) == 0
    kinds = np.log2(np.where(used & one, masks, 1)).astype(np.uint8)
    apart = nearest_of_other_kind(lon[used], lat[used], kinds[used]) if one.all() else 0.0
    return {
        "photos": int((~one).sum()),
        "user_minutes": _in_several(_user_minutes(tables), masks),
        "places": _in_several(_codes_of(tables, "place"), masks),
        "nearest_m": apart,
    }


def _photo_masks(tables: PairFolder, split: NDArray[np.uint8]) -> Masks:
    """The splits that each photo lies in, a bit a split, (P,)."""
    chip, photo = tables.chip_of_pair, tables.photo_of_pair
    masks = np.zeros(len(column(tables.photos, "photo_id")), np.uint64)
    known = (chip >= 0) & (photo >= 0)
    of_pair = split[chip[known]]
    photo = photo[known]
    for kind in np.unique(of_pair):
        here = np.zeros(len(masks), np.bool_)
        here[photo[of_pair == kind]] = True
        masks |= here.astype(np.uint64) << np.uint64(kind)
    return masks


def _user_minutes(tables: PairFolder) -> NDArray[np.int64]:
    """A number for the user and minute of each photo, -1 where either is unknown, (P,)."""
    user = _codes_of(tables, "user").astype(np.int64)
    taken = column(tables.photos, "taken").cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64())
    known = np.asarray(pc.is_valid(taken).to_numpy())
    minute = np.asarray(pc.fill_null(taken, 0).to_numpy()) // _MINUTE_US
    return np.where(known & (user >= 0), (user << 31) + (minute & 0x7FFFFFFF), -1)


def _codes_of(tables: PairFolder, name: str) -> NDArray[Any]:
    """A number for each photo's value of a column, -1 where it has none, (P,)."""
    if name not in names(tables.photos):
        return np.full(len(column(tables.photos, "photo_id")), -1)
    return codes(column(tables.photos, name))[0]


def _in_several(values: NDArray[Any], masks: Masks) -> int:
    """How many values, those below 0 apart, occur with several bits of the masks."""
    splits = np.bitwise_or.reduce(masks) if len(masks) else np.uint64(0)
    by_split = [
        _distinct(values[(values >= 0) & ((masks >> np.uint64(bit)) & np.uint64(1) == 1)])
        for bit in range(int(splits).bit_length())
    ]
    together = np.sort(np.concatenate([*by_split, np.empty(0, values.dtype)]))
    return len(_distinct(together[1:][together[1:] == together[:-1]]))


def _distinct(values: NDArray[Any]) -> NDArray[Any]:
    """The distinct values, by sorting: at tens of millions several times as fast as numpy's hash table."""
    values = np.sort(values)
    return values[np.r_[True, values[1:] != values[:-1]]] if len(values) else values
