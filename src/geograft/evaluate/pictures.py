"""Pictures for reports: maps with photo positions, chips with their photos, maps beside truth, loss curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
ACCENT: Colour = (255, 196, 0)


def enlarge(rgb: NDArray[np.uint8], times: int) -> Image.Image:
    """An (H, W, 3) uint8 array as an image whose pixels are repeated `times` times each way."""
    image = Image.fromarray(rgb)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def with_points(
    rgb: NDArray[np.uint8], positions: NDArray[np.floating[Any]], *, times: float = 1.0, radius: float = 2.0
) -> Image.Image:
    """An image scaled by `times` with a dot at each position.

    Args:
        rgb: (H, W, 3) uint8.
        positions: (P, 2), row and column in pixels of `rgb`.
        times: scale of the output.
        radius: of the dots, in pixels of the output.
    """
    image = Image.fromarray(rgb)
    resampling = Image.Resampling.NEAREST if times > 1 else Image.Resampling.LANCZOS
    image = image.resize((round(image.width * times), round(image.height * times)), resampling)
    draw = ImageDraw.Draw(image)
    for row, col in positions * times:
        draw.ellipse((col - radius, row - radius, col + radius, row + radius), fill=ACCENT, outline=(0, 0, 0))
    return image


def class_picture(labels: NDArray[np.uint8], colours: Mapping[int, Colour]) -> Image.Image:
    """A class raster (H, W) painted with its colours; values without a colour, such as nodata, are white."""
    palette = np.full((256, 3), 255, np.uint8)
    for value, colour in colours.items():
        palette[value] = colour
    return Image.fromarray(palette[labels])


def boxed(image: Image.Image, box: tuple[float, float, float, float], *, colour: Colour = ACCENT) -> Image.Image:
    """A copy with a rectangle (left, top, right, bottom) in pixels drawn on it."""
    copy = image.copy()
    ImageDraw.Draw(copy).rectangle(box, outline=colour, width=max(2, image.width // 250))
    return copy


def side_by_side(images: Sequence[Image.Image], *, gap: int = 8) -> Image.Image:
    """Images of one height in a row on white, `gap` pixels apart."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


def loss_curve(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Training and validation loss by epoch, a panel for each run.

    Args:
        runs: by name, one mapping an epoch with `epoch`, `loss` and, where measured, `val_loss`.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * max(len(runs), 1), 2.8))
    for panel, (name, epochs) in enumerate(runs.items(), start=1):
        axes = figure.add_subplot(1, len(runs), panel)
        for key, label, style in (("loss", "training", "-"), ("val_loss", "validation", "--")):
            points = [(row["epoch"], row[key]) for row in epochs if row.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1.8, marker="o", markersize=3)
        axes.set(title=name, xlabel="epoch", ylabel="loss")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.tight_layout()
    return figure
