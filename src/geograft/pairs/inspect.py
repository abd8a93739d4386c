"""A page to look at pairs: a map, what was left out and why, and random chips beside their photos."""

from pathlib import Path

from geograft.errors import BadSetting, EmptySplit
from geograft.pairs.leakage import leakage
from geograft.pairs.publishing.facts import facts_of
from geograft.pairs.publishing.folder import open_folder
from geograft.pairs.publishing.page import inspection_page
from geograft.pairs.publishing.sampling import sample_chips
from geograft.tables import atomic, check_output

_MOST = 500


def inspect(
    folder: str | Path, out: str | Path | None = None, *, count: int = 24, seed: int = 0, split: str | None = None
) -> Path:
    """Write one self-contained HTML page about a folder of pairs: no server, no network, opened from the disk.

    It has a map of the chips by split, the numbers left out by stage and reason, histograms of photos a chip, time
    gaps and accuracy, and chips drawn at random with their photos' positions and headings. Of a plan it shows the map
    and the numbers; photos that lie elsewhere than on this machine are links.

    Args:
        folder: finished pairs, or a plan of pairs.
        out: the page, .html; `inspect.html` in the folder where None.
        count: chips drawn at random, the splits in turn.
        seed: another one draws other chips.
        split: draw chips of this split only.

    Returns:
        The path of the page.

    Raises:
        MissingInput: the folder holds no pairs.
        BadSetting: the count is below 0 or above 500, or the name of the page does not end in .html.
        EmptySplit: there is no such split.
        MissingColumns, UnreadableTable, EmptyTable: a table is damaged or empty.
    """
    tables = open_folder(folder)
    path = tables.root / "inspect.html" if out is None else Path(out)
    check_output(path, (".html", ".htm"))
    if not 0 <= count <= _MOST:
        raise BadSetting(f"count is the number of chips to show, 0 to {_MOST}, not {count}.")
    facts = facts_of(tables)
    if split is not None and split not in facts.splits:
        raise EmptySplit(f"{tables.root} has no split {split!r}; it has {', '.join(facts.splits)}.")
    chips = sample_chips(tables, dict(facts.sensors), count=count, seed=seed, split=split)
    title = f"Pairs in {tables.root.absolute().name}"
    page = inspection_page(tables, facts, leakage(tables, pixels=False), chips, title=title)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path
