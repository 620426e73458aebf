"""Declared schemas, the one reader and writer, and where each number came from."""

from phasescope.tables.files import atomic_file, atomic_folder
from phasescope.tables.schemas import SCHEMAS, arrow_schema
from phasescope.tables.store import (
    check_frame,
    frame_of,
    join_tables,
    read,
    read_parts,
    read_provenance,
    read_rows,
    read_table,
    study_folder,
    write_table,
)

__all__ = [
    "SCHEMAS",
    "arrow_schema",
    "atomic_file",
    "atomic_folder",
    "check_frame",
    "frame_of",
    "join_tables",
    "read",
    "read_parts",
    "read_provenance",
    "read_rows",
    "read_table",
    "study_folder",
    "write_table",
]
