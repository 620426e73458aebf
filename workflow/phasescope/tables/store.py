"""The one writer and the one reader of Parquet tables; both check the declared schema."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phasescope.errors import PhasescopeError
from phasescope.tables.columns import Column
from phasescope.tables.files import atomic_file
from phasescope.tables.schemas import SCHEMAS, arrow_schema

_PREFIX = b"phasescope:"


def _check(frame: pd.DataFrame, columns: tuple[Column, ...], where: str) -> None:
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
                    f"{values.iloc[row]!r}; allowed: {', '.join(column.allowed)}"
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


def write_table(path: Path, frame: pd.DataFrame, table: str, provenance: dict[str, str]) -> None:
    """Write `frame` as the declared table `table`, atomically.

    `provenance` goes into the Parquet metadata. Raises PhasescopeError where the frame does not
    follow the schema; nothing is written then.
    """
    _check(frame, SCHEMAS[table], f"{path} ({table})")
    metadata = {_PREFIX + k.encode(): str(v).encode() for k, v in sorted(provenance.items())}
    metadata[_PREFIX + b"table"] = table.encode()
    schema = arrow_schema(table)
    try:
        arrow = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise PhasescopeError(f"{path} ({table}): {error}") from error
    with atomic_file(Path(path)) as temporary:
        pq.write_table(arrow.replace_schema_metadata(metadata), temporary)


def read_provenance(path: Path) -> dict[str, str]:
    """What the table's Parquet metadata says of where it came from."""
    metadata = _schema(path).metadata or {}
    return {
        k.removeprefix(_PREFIX).decode(): v.decode()
        for k, v in metadata.items()
        if k.startswith(_PREFIX)
    }


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise PhasescopeError(f"{path}: not a readable Parquet table: {error}") from error


def read_table(path: Path) -> pd.DataFrame:
    """Read one table as a pandas frame, checked against the schema its metadata names."""
    name = read_provenance(path).get("table")
    if name not in SCHEMAS:
        raise PhasescopeError(
            f"{path}: not a table of this instrument (metadata names {name!r}); "
            f"known: {', '.join(SCHEMAS)}"
        )
    try:
        frame = pq.read_table(path).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise PhasescopeError(f"{path}: not a readable Parquet table: {error}") from error
    _check(frame, SCHEMAS[name], f"{path} ({name})")
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
