"""The one writer and the one reader of Parquet tables; both check the declared schema."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phasescope.errors import Damaged, PhasescopeError, plainly, shown
from phasescope.tables.columns import Column
from phasescope.tables.files import atomic_file
from phasescope.tables.schemas import SCHEMAS, arrow_schema

_PREFIX = b"phasescope:"
_SEAL = _PREFIX + b"sha256"
_UNSEALED = b"phasescope: the SHA-256 of this file will stand here".ljust(64, b".")
_PART_ROWS = 100_000
_UNREADABLE = (pa.ArrowException, OSError, ValueError, UnicodeDecodeError)


def check_frame(frame: pd.DataFrame, columns: tuple[Column, ...], where: str) -> None:
    """Raises PhasescopeError, which begins with `where`, for a frame that does not follow a schema:
    names and order of columns, gaps, values that are not allowed."""
    declared = [c.name for c in columns]
    if list(frame.columns) != declared:
        missing = [c for c in declared if c not in frame.columns]
        unknown = [c for c in frame.columns if c not in declared]
        raise PhasescopeError(
            f"{where}: columns do not follow the schema: missing {missing or 'none'}, "
            f"unknown {unknown or 'none'}; allowed, in this order: {', '.join(declared)}"
        )
    for column in columns:
        values = frame[column.name]
        if not column.nullable and values.isna().any():
            row = int(values.isna().to_numpy().argmax())
            raise PhasescopeError(f"{where}: row {row}, column {column.name}: empty, but required")
        if column.allowed is not None:
            wrong = (values.notna() & ~values.isin(column.allowed)).to_numpy()
            if wrong.any():
                row = int(wrong.argmax())
                raise PhasescopeError(
                    f"{where}: row {row}, column {column.name}: found "
                    f"{shown(values.iloc[row])}; allowed: {', '.join(column.allowed)}"
                )


def frame_of(table: str, rows: list[dict]) -> pd.DataFrame:
    """Rows as dicts to a frame with all declared columns in order; what a row lacks is missing."""
    unknown = {k for row in rows for k in row} - {c.name for c in SCHEMAS[table]}
    if unknown:
        raise PhasescopeError(f"table {table}: unknown columns {sorted(unknown)}")
    columns = {}
    for c in SCHEMAS[table]:
        values = [row.get(c.name) for row in rows]
        try:
            columns[c.name] = pa.array(values, type=c.type, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise PhasescopeError(f"table {table}: column {c.name}: {error}") from None
    return pa.table(columns).to_pandas()


def _metadata(table: str, provenance: dict[str, str]) -> dict[bytes, bytes]:
    found = {_PREFIX + k.encode(): str(v).encode() for k, v in sorted(provenance.items())}
    return found | {_PREFIX + b"table": table.encode(), _SEAL: _UNSEALED}


def _seal(path: Path) -> None:
    """Put the hash of a written table into its metadata: of all its bytes, as they were without."""
    content = path.read_bytes()
    assert content.count(_UNSEALED) == 1
    with open(path, "r+b") as handle:
        handle.seek(content.index(_UNSEALED))
        handle.write(hashlib.sha256(content).hexdigest().encode())


def _check_seal(path: Path, content: bytes, seal: bytes | None) -> None:
    """Raises Damaged where a table's bytes are not those that its hash was taken of."""
    if seal is not None:
        found = hashlib.sha256(content.replace(seal, _UNSEALED)).hexdigest()
        if found.encode() != seal:
            raise Damaged(path, f"{path}: not the table that was written: SHA-256 {found}")


def write_table(path: Path, frame: pd.DataFrame, table: str, provenance: dict[str, str]) -> None:
    """Write `frame` as the declared table `table`, atomically.

    `provenance` goes into the Parquet metadata. Raises PhasescopeError where the frame does not
    follow the schema; nothing is written then.
    """
    check_frame(frame, SCHEMAS[table], f"{path} ({table})")
    metadata = _metadata(table, provenance)
    schema = arrow_schema(table)
    try:
        arrow = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise PhasescopeError(f"{path} ({table}): {error}") from error
    with atomic_file(Path(path)) as temporary:
        pq.write_table(arrow.replace_schema_metadata(metadata), temporary)
        _seal(temporary)


def join_tables(
    paths: Iterable[Path],
    path: Path,
    table: str,
    provenance: dict[str, str],
    more: Iterable[dict] = (),
) -> list[dict[str, str]]:
    """Write the rows of several tables as one, in their order, and `more` rows after them;
    atomically, and a part at a time, so that memory does not grow with their number.

    Gives the provenance of each of them. Raises as `read_table` does.
    """
    schema = arrow_schema(table).with_metadata(_metadata(table, provenance))
    found, rows = [], list(more)
    with atomic_file(Path(path)) as temporary:
        with pq.ParquetWriter(temporary, schema) as writer:
            for part in _parts(paths, table):
                found += [_provenance(one.schema.metadata) for one in part]
                whole = pa.concat_tables(one.replace_schema_metadata() for one in part)
                writer.write_table(whole.replace_schema_metadata(schema.metadata))
            if rows:
                last = pa.Table.from_pandas(frame_of(table, rows), schema, preserve_index=False)
                writer.write_table(last.replace_schema_metadata(schema.metadata))
        _seal(temporary)
    return found


def _parts(paths: Iterable[Path], table: str) -> Iterator[list[pa.Table]]:
    """The tables, as many at a time as have the rows that one part should have, checked."""
    waiting: dict[Path, pa.Table] = {}
    for path in map(Path, paths):
        waiting[path] = _read(path)[1]
        if sum(map(len, waiting.values())) >= _PART_ROWS:
            yield _checked(waiting, table)
            waiting = {}
    if waiting:
        yield _checked(waiting, table)


def _checked(tables: dict[Path, pa.Table], table: str) -> list[pa.Table]:
    """Tables that follow the schema: Damaged, by the path of the first that does not."""
    for path, one in tables.items():
        if not one.schema.equals(arrow_schema(table)):
            read_table(path)  # says what is wrong with it, unless only a type is
            raise Damaged(path, f"{path} ({table}): types of columns do not follow the schema")
    bare = [one.replace_schema_metadata() for one in tables.values()]
    try:
        check_frame(pa.concat_tables(bare).to_pandas(), SCHEMAS[table], table)
    except PhasescopeError:
        for path in tables:
            read_table(path)
        raise
    return list(tables.values())


def read_provenance(path: Path) -> dict[str, str]:
    """What the table's Parquet metadata says of where it came from."""
    try:
        return _provenance(pq.read_schema(path).metadata)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _provenance(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {
        k.removeprefix(_PREFIX).decode(): v.decode()
        for k, v in (metadata or {}).items()
        if k.startswith(_PREFIX) and k != _SEAL
    }


def _unreadable(path: Path, error: Exception) -> PhasescopeError:
    message = f"{path}: not a readable Parquet table: {plainly(str(error))}"
    if isinstance(error, OSError) and error.errno:  # not there, not ours to read, a broken disk
        return PhasescopeError(message)
    return Damaged(path, message)


def _read(path: Path) -> tuple[str, pa.Table]:
    """A table and its name; Damaged where its bytes are not those that were written."""
    try:
        content = Path(path).read_bytes()
        file = pq.ParquetFile(pa.BufferReader(content))
        metadata = file.metadata.metadata or {}
        name = _provenance(metadata).get("table")
        if name not in SCHEMAS:
            raise Damaged(
                path,
                f"{path}: not a table of this instrument (metadata names {shown(name)}); "
                f"known: {', '.join(SCHEMAS)}",
            )
        _check_seal(path, content, metadata.get(_SEAL))
        return name, file.read(use_threads=False)  # small, and there are thousands
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_table(path: Path) -> pd.DataFrame:
    """Read one table as a pandas frame, checked against the schema its metadata names.

    Raises Damaged where its bytes are not those that were written (their hash stands in its
    metadata), or do not follow the schema.
    """
    name, table = _read(path)
    try:
        frame = table.to_pandas()
        check_frame(frame, SCHEMAS[name], f"{path} ({name})")
    except (PhasescopeError, *_UNREADABLE) as error:
        raise Damaged(path, str(error)) from None
    return frame


def read_parts(path: Path, by: str) -> Iterator[pd.DataFrame]:
    """Rows of a table that is grouped by a column, about 100,000 at a time; those of one value
    come together."""
    rest = None
    for batch in pq.ParquetFile(path).iter_batches(_PART_ROWS):
        frame = pd.concat([rest, batch.to_pandas()], ignore_index=True)
        last = frame[by] == frame[by].iloc[-1]
        rest = frame[last]
        if not last.all():
            yield frame[~last]
    if rest is not None:
        yield rest


def read_rows(path: Path, keep: pc.Expression) -> pd.DataFrame:
    """The rows of a table that an expression of its columns keeps; the others never are in memory
    all together, and the file's hash is not compared.

    Raises Damaged where the table cannot be read, or what is kept does not follow the schema.
    """
    try:
        table = pq.read_table(path, filters=keep, use_threads=False)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    name, frame = _provenance(table.schema.metadata).get("table"), table.to_pandas()
    try:
        check_frame(frame, SCHEMAS.get(name, ()), f"{path} ({name})")
    except PhasescopeError as error:
        raise Damaged(path, str(error)) from None
    return frame


def study_folder(study: str | Path) -> Path:
    """Folder of a study's tables, by its id (looked for in results/) or the folder itself."""
    folder = Path(study)
    return folder if folder.is_dir() else Path("results") / str(study)


def read(study: str | Path) -> dict[str, pd.DataFrame]:
    """Every study-wide table of a study as pandas frames, by table name.

    `study` is a study's id (looked for in results/) or its folder. Raises PhasescopeError when
    the folder has no table.
    """
    folder = study_folder(study)
    paths = {p.stem: p for p in sorted(folder.glob("*.parquet"))}
    if not paths:
        found = sorted(p.name for p in Path("results").glob("*") if p.is_dir())
        raise PhasescopeError(
            f"{folder}: no tables of a study here; "
            f"studies in results/: {', '.join(found) or 'none'}"
        )
    return {name: read_table(path) for name, path in paths.items()}
