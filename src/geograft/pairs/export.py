"""A benchmark to publish: each split's chips with their photos in files that others read, card and checksums."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geograft.engine import open_engine
from geograft.errors import BadSetting, MissingInput, OutputExists, UnreadableTable
from geograft.pairs.card import CardSettings, Evidence, folder_of, write_card_of
from geograft.pairs.collection import collection, save_collection, slug
from geograft.pairs.leakage import leakage, save_leakage
from geograft.pairs.publishing.checksums import sha256_of, write_checksums
from geograft.pairs.publishing.exporting import ShardTask, write_split_shards
from geograft.pairs.publishing.facts import facts_of
from geograft.pairs.publishing.folder import PairFolder, column, open_folder, stream
from geograft.pairs.publishing.items import shard_numbers, write_items
from geograft.pairs.publishing.privacy import Privacy, clean_chips, clean_photos
from geograft.pairs.publishing.writers import FORMS, image_kind
from geograft.sensors import get_sensor
from geograft.tables import Manifest, atomic, read_manifest, track, write_manifest

_CLAIM = "export.json"


@dataclass(frozen=True)
class ExportSettings:
    """How pairs are published.

    Attributes:
        form: "parquet" (rows with images and photos), "webdataset" (tar shards), or "images" (files and CSVs).
        image: "png", "tif" or "jpg"; None for PNG where it holds all bands as they are, else GeoTIFF. A JPEG is a
            picture of the chip, not its values.
        strip_private: leave out users' names, tags, local paths, and addresses of photos whose licence is not free.
        salt: with `strip_private`, users become a keyed hash under this secret instead; it is written nowhere.
        title: of the dataset; the source folder's name where None.
        description: a paragraph of the card, Markdown.
        imagery_licence: under which licence the imagery may be passed on, in words, for the card.
    """

    form: str = "parquet"
    image: str | None = None
    strip_private: bool = False
    salt: str = ""
    title: str | None = None
    description: str = ""
    imagery_licence: str | None = None

    def __post_init__(self) -> None:
        """Refuse forms that are none."""
        if self.form not in FORMS:
            raise BadSetting(f"Pairs are exported as {', '.join(FORMS)}, not {self.form!r}.")
        if self.salt and not self.strip_private:
            raise BadSetting("A salt hides users' names, which are kept: set strip_private too.")


@dataclass(frozen=True)
class ExportSummary:
    """What was published.

    Attributes:
        folder: where.
        form: how.
        chips: number of chips.
        splits: chips a split.
        files: number of files, SHA256SUMS apart.
        size_mb: of all of them, in millions of bytes.
        leaks: what splits share that they should not, by name.
    """

    folder: Path
    form: str
    chips: int
    splits: Mapping[str, int]
    files: int
    size_mb: float
    leaks: Mapping[str, int]


def export(
    folder: str | Path,
    out: str | Path,
    *,
    settings: ExportSettings | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> ExportSummary:
    """Publish finished pairs as a benchmark, with a card, a STAC collection, id lists and checksums.

    Writes `train/`, `val/` and `test/` with a shard for each shard of the pairs that holds chips of the split,
    `train.txt` and so on with chip ids, chips.parquet, pairs.parquet, photos.parquet, leakage.json, README.md,
    collection.json, items.parquet, manifest.json and SHA256SUMS. The same pairs and settings give the same bytes,
    whatever the engine; a run that was killed goes on from the shards that are whole.

    Args:
        folder: finished pairs.
        out: a new or empty folder, or one of an earlier run of the same export.
        settings: see `ExportSettings`.
        engine: "local", "ray" or "ray:HOST:PORT".
        workers: tasks at once; as many as there are cores where None.

    Raises:
        MissingInput: the folder holds no pairs, or no pixels yet.
        BadSetting: the images asked for cannot hold the sensor's bands.
        OutputExists: `out` holds something else.
        UnreadableTable, MissingColumns: a table or a shard is damaged.
        DiskFull: what was written stays, to go on from.
    """
    settings = settings or ExportSettings()
    out, tables = Path(out), open_folder(folder)
    if not tables.shards:
        raise MissingInput(f"{tables.root} holds no pixels yet: run `geograft pairs materialise {tables.root}` first.")
    privacy = Privacy(settings.strip_private, settings.salt)
    _claim(out, _digest(tables, settings, privacy))
    if (out / "SHA256SUMS").is_file() and _is_whole(out):
        return _summary(out)
    _remove_leftovers(out)
    _write_tables(tables, out, privacy)
    _write_pixels(tables, out, settings, engine, workers)
    _write_lists(tables, out)
    leaks = _describe(tables, out, settings)
    counts = {"done": len(column(out / "chips.parquet", "chip_id")), "skipped": {}, "failed": {}}
    about = {"leaks": leaks, "source": tables.manifest.extra.get("plan"), "splits": _chips_a_split(tables)}
    told = asdict(settings) | {"salt": bool(settings.salt)}
    write_manifest(out / "manifest.json", Manifest("pairs export", {}, told, counts, extra=about))
    write_checksums(out, _published(out))
    return _summary(out)


# --- the claim --------------------------------------------------------------------------------------------


def _digest(tables: PairFolder, settings: ExportSettings, privacy: Privacy) -> str:
    """What the output depends on, in 16 hex digits."""
    digest = hashlib.sha256(json.dumps(asdict(settings) | {"salt": privacy.mark}).encode())
    for path in (tables.chips, tables.pairs, tables.photos, *tables.shards):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
    for path in (tables.chips, tables.pairs, tables.photos):
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()[:16]


def _claim(out: Path, digest: str) -> None:
    """Take a new or empty folder, or one of the same export.

    Raises:
        OutputExists: the folder holds something else.
    """
    claim = out / _CLAIM
    if claim.is_file():
        if claim.read_text(encoding="utf-8").strip() != json.dumps({"digest": digest}):
            raise OutputExists(f"{out} holds an export of other pairs or settings: name another folder or remove it.")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExists(f"{out} holds something else: name a new or empty folder.")
    with atomic(claim) as temporary:
        temporary.write_text(json.dumps({"digest": digest}) + "\n", encoding="utf-8")


def _is_whole(out: Path) -> bool:
    """Whether all files that the checksums name are there."""
    lines = (out / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return all((out / line[66:]).is_file() for line in lines)


def _published(out: Path) -> list[Path]:
    """The files of an export, SHA256SUMS and what a killed run left apart."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(out).parts)]


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed run left half written."""
    for path in out.rglob(".*.part*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


# --- tables and pixels ------------------------------------------------------------------------------------


def _write_tables(tables: PairFolder, out: Path, privacy: Privacy) -> None:
    """The three tables, as they may be published."""
    for path, clean in ((tables.chips, clean_chips), (tables.photos, clean_photos), (tables.pairs, None)):
        if (out / path.name).is_file():
            continue
        schema = pq.read_schema(path).remove_metadata()
        kept = {key: value for key, value in (pq.read_schema(path).metadata or {}).items() if key == b"geo"}
        for name in ("user", "uri", "tags", "scene_uri"):
            if clean and name in schema.names:
                schema = schema.set(schema.get_field_index(name), pa.field(name, pa.string()))
        with (
            atomic(out / path.name) as temporary,
            pq.ParquetWriter(temporary, schema.with_metadata(kept or None), compression="zstd") as writer,
        ):
            for rows in stream(path, schema.names):
                published = clean(rows, privacy) if clean else rows
                writer.write_table(published.cast(schema).replace_schema_metadata(kept or None))


def _write_pixels(tables: PairFolder, out: Path, settings: ExportSettings, engine: str, workers: int | None) -> None:
    """Every split's shards."""
    sensors = column(tables.chips, "sensor").unique().to_pylist()
    kinds = {image_kind(get_sensor(name), settings.image) for name in sensors}
    if len(kinds) != 1:
        raise BadSetting(f"The chips are of {', '.join(sensors)}, which differ: name one kind of image for all.")
    kind = kinds.pop()
    tasks = [ShardTask(path, out, number, settings.form, kind) for number, path in enumerate(tables.shards)]
    with open_engine(engine, workers=workers) as running:
        written = sum(track(running.map(write_split_shards, tasks), "Exporting shards", len(tasks)))
    if written != len(column(tables.chips, "chip_id")):
        raise UnreadableTable(
            f"The shards of {tables.root} hold {written} of the chip table's chips: "
            "run `geograft pairs materialise` again."
        )


def _write_lists(tables: PairFolder, out: Path) -> None:
    """Each split's chip ids, sorted, one a line."""
    split = column(tables.chips, "split").to_pylist()
    ids = column(tables.chips, "chip_id").to_pylist()
    for name in sorted(set(split)):
        mine = sorted(chip_id for chip_id, of in zip(ids, split, strict=True) if of == name)
        with atomic(out / f"{folder_of(name)}.txt") as temporary:
            temporary.write_text("".join(f"{chip_id}\n" for chip_id in mine), encoding="utf-8")


# --- card and collection ----------------------------------------------------------------------------------


def _describe(tables: PairFolder, out: Path, settings: ExportSettings) -> dict[str, int]:
    """Write leakage report, card and collection; gives what leaks."""
    facts, leaks = facts_of(tables), leakage(tables)
    title = settings.title or tables.root.absolute().name
    save_leakage(leaks, out / "leakage.json")
    about = CardSettings(title, settings.description, settings.imagery_licence, settings.form, _private(settings))
    write_card_of(Evidence(tables, facts, leaks, about), out)
    published = PairFolder(out, out)
    items = write_items(published, slug(title), hrefs=_hrefs(tables, settings.form))
    files = {"items": items} | dict(_pixel_files(out, settings.form, list(facts.splits)))
    save_collection(collection(published, facts, title=title, extra=files), out / "collection.json")
    return {name: count for name, count in leaks.leaks.items() if count}


def _private(settings: ExportSettings) -> str:
    """What was taken out, in a sentence for the card."""
    if not settings.strip_private:
        return ""
    users = "a keyed hash of their names" if settings.salt else "left out"
    return f"Users are {users}; tags, local paths and addresses of photos that are not free on the web are left out."


def _hrefs(tables: PairFolder, form: str) -> Any:
    """The relative address of the shard that holds each chip."""
    ending = "/metadata.csv" if form == "images" else FORMS[form]
    shard = shard_numbers(tables).tolist()
    split = column(tables.chips, "split").to_pylist()
    return pa.array([f"./{folder_of(name)}/{number:05d}{ending}" for name, number in zip(split, shard, strict=True)])


def _pixel_files(out: Path, form: str, splits: list[str]) -> Iterator[tuple[str, Path]]:
    """The files that hold pixels, or list the images, by asset name."""
    pattern = "*/metadata.csv" if form == "images" else f"*{FORMS[form]}"
    for split in map(folder_of, splits):
        for path in sorted((out / split).glob(pattern)):
            number = path.parent.name if form == "images" else path.stem
            yield f"{split}-{number}", path


def _chips_a_split(tables: PairFolder) -> dict[str, int]:
    """Chips by split."""
    counts = column(tables.chips, "split").value_counts().to_pylist()
    return {each["values"]: each["counts"] for each in sorted(counts, key=lambda each: str(each["values"]))}


def _summary(out: Path) -> ExportSummary:
    """What a finished export says of itself."""
    manifest = read_manifest(out / "manifest.json")
    files = _published(out)
    size = sum(path.stat().st_size for path in files) / 1e6
    form, splits = str(manifest.settings["form"]), manifest.extra["splits"]
    return ExportSummary(out, form, manifest.counts["done"], splits, len(files), size, manifest.extra["leaks"])
