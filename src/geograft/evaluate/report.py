"""Reports: one self-contained HTML file of text, pictures, plots and tables.

A report is a list of sections, a section a list of blocks; `write_report` embeds every picture, so that the file can
be mailed or archived by itself.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from geograft.tables import atomic


@dataclass(frozen=True)
class Picture:
    """An image with its caption.

    Attributes:
        image: what is shown.
        caption: text under it; may be empty.
        alt: what a screen reader says; the caption when empty.
        small: the image is enlarged by whole pixels, not smoothed.
    """

    image: Image.Image
    caption: str = ""
    alt: str = ""
    small: bool = False


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, each at least `width` CSS pixels wide."""

    pictures: Sequence[Picture]
    width: int = 280
    note: str = ""
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Strip:
    """A label, such as a query, with the small pictures that belong to it."""

    label: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Strips:
    """Labelled rows of small pictures."""

    strips: Sequence[Strip]
    note: str = ""
    kind: ClassVar[str] = "strips"


@dataclass(frozen=True)
class Cell:
    """A table cell; the best of its column is marked."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Plot:
    """A plot as inline SVG, made by `svg_of`."""

    svg: str
    alt: str
    note: str = ""
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Legend:
    """Class names with their colours, (R, G, B) of 0 to 255."""

    entries: Sequence[tuple[str, tuple[int, int, int]]]
    note: str = ""
    kind: ClassVar[str] = "legend"


@dataclass(frozen=True)
class Code:
    """Commands or code to copy."""

    text: str
    note: str = ""
    kind: ClassVar[str] = "code"


Block = Pictures | Strips | Table | Plot | Legend | Code


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: Sequence[Block]
    text: str = ""


def write_report(path: Path, title: str, sections: Sequence[Section], *, lead: str = "", footer: str = "") -> Path:
    """Write a self-contained HTML report, atomically.

    Args:
        path: the file to write.
        title: the page's title.
        sections: what it shows, in order.
        lead: a sentence under the title.
        footer: versions, commands, sources.

    Returns:
        `path`.

    Raises:
        DiskFull: the disk filled up; nothing is left at `path`.
    """
    import jinja2

    template = files("geograft").joinpath("assets/report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(
        title=title, lead=lead, footer=footer, sections=[_section(section) for section in sections]
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def svg_of(figure: Any) -> str:
    """A matplotlib figure as an SVG element without prologue, the same bytes for the same figure."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "geograft", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def rows_with_best(rows: Sequence[tuple[str, Sequence[float | None]]], *, digits: int = 1) -> list[list[Cell]]:
    """Table rows of percentages with the best value of each column marked.

    Args:
        rows: (label, values) per row; values are fractions of 0 to 1, None where there is none.
        digits: decimals shown.
    """
    columns = list(zip(*(values for _, values in rows), strict=True))
    best = [max((value for value in column if value is not None), default=None) for column in columns]
    return [
        [Cell(label)]
        + [
            Cell("–") if value is None else Cell(f"{100 * value:.{digits}f}", value == top)
            for value, top in zip(values, best, strict=True)
        ]
        for label, values in rows
    ]


def _section(section: Section) -> dict[str, Any]:
    return {"title": section.title, "text": section.text, "blocks": [_block(block) for block in section.blocks]}


def _block(block: Block) -> Any:
    if isinstance(block, Pictures):
        shown = [_picture(item) for item in block.pictures]
        return {"kind": block.kind, "width": block.width, "pictures": shown, "note": block.note}
    if isinstance(block, Strips):
        strips = [{"label": s.label, "pictures": [_picture(item) for item in s.pictures]} for s in block.strips]
        return {"kind": block.kind, "strips": strips, "note": block.note}
    return block


def _picture(item: Picture) -> dict[str, Any]:
    width, height = item.image.size
    return {
        "uri": _data_uri(item.image, lossless=item.small),
        "caption": item.caption,
        "alt": item.alt or item.caption,
        "small": item.small,
        "width": width,
        "height": height,
    }


def _data_uri(image: Image.Image, *, lossless: bool) -> str:
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.convert("RGB").save(buffer, format="JPEG", quality=88)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
