"""Captioned photos of simulated regions: what the mini teacher learns from, as CLIP learnt from the web."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from geograft.errors import EmptyTable, MissingInput
from geograft.tables import read_table, track


@dataclasses.dataclass(frozen=True)
class CaptionedPhotos:
    """Photos with what people said of them.

    Attributes:
        ids: photo ids, (N,).
        pixels: (N, S, S, 3) uint8.
        captions: one or several of each photo.
        subjects: class name of each photo's subject, "" where it has none (indoors).
    """

    ids: NDArray[np.str_]
    pixels: NDArray[np.uint8]
    captions: list[list[str]]
    subjects: NDArray[np.str_]

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> "CaptionedPhotos":
        """Some of the photos, by rows."""
        captions = [self.captions[row] for row in rows]
        return CaptionedPhotos(self.ids[rows], self.pixels[rows], captions, self.subjects[rows])

    def split(self, share: float, *, seed: int) -> tuple["CaptionedPhotos", "CaptionedPhotos"]:
        """Two parts by a seeded draw: what stays, and `share` of the photos, kept apart."""
        order = np.random.default_rng(seed).permutation(len(self))
        cut = round(len(self) * share)
        return self.take(np.sort(order[cut:])), self.take(np.sort(order[:cut]))


def read_captioned(regions: Sequence[Path], *, size: int = 64) -> CaptionedPhotos:
    """The readable photos of regions that have captions.

    Args:
        regions: region folders with `photos/`, `photos.csv` and `truth/`.
        size: width and height that the pictures are brought to, px.

    Raises:
        MissingInput: a region has no captions.
        EmptyTable: no photo of any region could be read.
    """
    rows: list[tuple[str, NDArray[np.uint8], list[str], str]] = []
    for region in regions:
        table = _captions(Path(region))
        for row in track(table.itertuples(), f"Reading photos of {Path(region).name}", len(table)):
            pixels = _read_pixels(row.path, size)
            if pixels is not None:
                rows.append((row.photo_id, pixels, row.captions, row.subject))
    if not rows:
        raise EmptyTable("None of the regions has a readable photo with a caption: generate them again.")
    pictures = np.stack([row[1] for row in rows])
    ids, subjects = np.array([row[0] for row in rows]), np.array([row[3] for row in rows])
    return CaptionedPhotos(ids, pictures, [row[2] for row in rows], subjects)


def _captions(region: Path) -> pd.DataFrame:
    """photo_id, path, captions and subject of a region's photos."""
    path = region / "truth" / "captions.jsonl"
    if not path.is_file():
        raise MissingInput(f"There is no {path}: the mini teacher learns from captioned regions only.")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    captions = {line["photo_id"]: _texts(line) for line in lines}
    files = pd.read_csv(region / "photos.csv", dtype=str, usecols=["id", "file"])
    truth = read_table(region / "truth" / "photos.parquet", ["photo_id", "subject", "dirt"]).set_index("photo_id")
    outdoors = truth.loc[truth["dirt"] != "indoor", "subject"]
    table = pd.DataFrame({"photo_id": files["id"], "path": [_find(region, name) for name in files["file"]]})
    table["captions"] = table["photo_id"].map(captions)
    table["subject"] = table["photo_id"].map(outdoors).fillna("").astype(str)
    return table.dropna(subset=["captions"]).drop_duplicates("photo_id")


def _texts(line: dict[str, Any]) -> list[str]:
    found = line["captions"] if "captions" in line else [line["caption"]]
    return [str(text) for text in found]


def _find(region: Path, name: str) -> Path:
    """A photo's file, named relative to the region or to its folder of photos."""
    return region / name if (region / name).is_file() else region / "photos" / name


def _read_pixels(path: Path, size: int) -> NDArray[np.uint8] | None:
    """A photo as (S, S, 3), or None where it cannot be read."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BICUBIC)
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError):
        return None


def statistics(pixels: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over 0..1, rounded to 3 digits."""
    sample = pixels[:: max(1, len(pixels) // 2000)].reshape(-1, 3) / 255
    return sample.mean(0).round(3).tolist(), sample.std(0).round(3).tolist()


def augment_photos(photos: Tensor, draw: torch.Generator) -> Tensor:
    """Photos as another photographer might have taken them: mirrored, closer, in other light.

    Args:
        photos: (N, 3, S, S) in 0..1.
        draw: the source of randomness.

    Returns:
        The same shape; each photo mirrored with probability 1/2, cut to 70-100 % of its side, its brightness,
        contrast and colour changed by up to a quarter.
    """
    count = len(photos)
    rand = torch.rand(7, count, generator=draw)
    side = 0.7 + 0.3 * rand[0]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = side * torch.where(rand[1] < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = side
    theta[:, :, 2] = ((rand[2:4] * 2 - 1) * (1 - side)).T
    grid = functional.affine_grid(theta, list(photos.shape), align_corners=False)
    cut = functional.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)
    mean = cut.mean((1, 2, 3), keepdim=True)
    contrast = (0.8 + 0.4 * rand[4])[:, None, None, None]
    light = (0.8 + 0.4 * rand[5])[:, None, None, None]
    tint = 1 + 0.08 * torch.randn(count, 3, 1, 1, generator=draw)
    return (((cut - mean) * contrast + mean) * light * tint).clamp(0, 1)


def all_texts(captions: Iterable[Sequence[str]]) -> list[str]:
    """Every caption once, sorted, so that what is learnt of them does not depend on the photos' order."""
    return sorted({text for texts in captions for text in texts})
