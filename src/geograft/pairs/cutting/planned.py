"""The plan as materialising reads it: a row group of chips and of their pairs is one shard."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geograft.errors import MissingInput, UnreadableTable
from geograft.pairs.cutting.chips import PlannedChip, Stack
from geograft.raster import Scene
from geograft.sensors import Sensor, get_sensor
from geograft.sources.scenes import scene_of
from geograft.tables import Manifest, read_manifest

CHIP_COLUMNS = ("chip_id", "epsg", "left", "top", "gsd", "size", "split", "stacks")


@dataclass(frozen=True)
class PlanFolder:
    """A folder whose `plan/` says what to cut.

    Attributes:
        out: the folder of pairs.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """Where the plan's tables are."""
        return self.out / "plan"

    @cached_property
    def manifest(self) -> Manifest:
        """What the plan was made of, and how.

        Raises:
            MissingInput: there is no plan.
        """
        try:
            return read_manifest(self.folder / "manifest.json")
        except MissingInput:
            raise MissingInput(f"There is no plan in {self.out}: make one with `geograft pairs plan`.") from None

    @property
    def digest(self) -> str:
        """What tells this plan from others."""
        return str(self.manifest.extra["plan"])

    @property
    def sensor(self) -> Sensor:
        """The sensor of the chips."""
        return get_sensor(str(self.manifest.extra["sensor"]))

    @property
    def encoding(self) -> str:
        """How pixels are stored."""
        return str(self.manifest.settings.get("encoding", "lossless"))

    @property
    def max_cloud(self) -> float:
        """The largest share of a footprint under clouds."""
        return float(self.manifest.settings["max_cloud"])

    @cached_property
    def shards(self) -> int:
        """The number of shards.

        Raises:
            MissingInput, UnreadableTable: a table of the plan is absent or damaged.
        """
        count = int(self.file("chips").metadata.num_row_groups)
        if count != self.file("pairs").metadata.num_row_groups:
            raise UnreadableTable(f"The tables of {self.folder} do not belong together: make the plan again.")
        return count

    @property
    def size(self) -> int:
        """Pixels along a chip's side."""
        return int(self.manifest.settings["chip_size"])

    @cached_property
    def _files(self) -> dict[str, pq.ParquetFile]:
        """The tables that are open: of millions of chips a footer alone takes a while to read."""
        return {}

    def file(self, table: str) -> pq.ParquetFile:
        """An open table of the plan.

        Raises:
            MissingInput, UnreadableTable: it is absent or damaged.
        """
        if table not in self._files:
            path = self.folder / f"{table}.parquet"
            if not path.is_file():
                raise MissingInput(f"The plan lacks {path}: make it again with `geograft pairs plan`.")
            try:
                self._files[table] = pq.ParquetFile(path)
            except (pa.ArrowException, OSError) as error:
                raise UnreadableTable(f"{path} is damaged ({error}): make the plan again.") from error
        return self._files[table]

    def rows(self, table: str, shard: int, columns: Iterable[str] | None = None) -> pa.Table:
        """The rows of a table (`chips` or `pairs`) that belong to a shard."""
        wanted = None if columns is None else list(columns)
        try:
            return self.file(table).read_row_group(shard, columns=wanted)
        except (pa.ArrowException, OSError) as error:
            raise UnreadableTable(
                f"{self.folder / table}.parquet is damaged ({error}): make the plan again."
            ) from error

    def chips(self, shard: int) -> list[PlannedChip]:
        """The chips of a shard, in order."""
        rows = self.rows("chips", shard, [name for name in CHIP_COLUMNS if name != "split"]).to_pylist()
        return [PlannedChip(**row | {"stacks": _stacks(row["stacks"])}) for row in rows]

    def scenes(self, names: Iterable[str]) -> "SceneShelf":
        """The scenes of some ids."""
        wanted = sorted(set(names))
        try:
            table = pq.read_table(self.folder / "scenes.parquet", filters=[("scene_id", "in", wanted)])
        except (pa.ArrowException, OSError) as error:
            raise UnreadableTable(f"{self.folder / 'scenes.parquet'} is damaged: make the plan again.") from error
        return SceneShelf({row["scene_id"]: row for row in table.to_pylist()})


def _stacks(rows: list[dict[str, Any]]) -> tuple[Stack, ...]:
    """The stacks of a chip's row."""
    return tuple(Stack(row["gap_days"], tuple(row["scenes"])) for row in rows)


@dataclass(frozen=True)
class SceneShelf:
    """Scenes by id, each opened when it is first asked for.

    Attributes:
        rows: the scene table's rows by scene_id.
    """

    rows: dict[str, dict[str, Any]]

    @cached_property
    def _open(self) -> dict[str, Scene]:
        """The scenes that were asked for."""
        return {}

    def find(self, name: str) -> Scene:
        """The scene of an id; safe in threads.

        Raises:
            GeograftError: it cannot be opened.
            UnreadableTable: the plan's scene table has no such id.
        """
        if name not in self._open:
            if name not in self.rows:
                raise UnreadableTable(f"The plan's scenes.parquet has no scene {name}: make the plan again.")
            self._open[name] = scene_of(self.rows[name])
        return self._open[name]
