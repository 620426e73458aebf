"""The declared schemas as a page for people."""

from collections.abc import Sequence

import pyarrow as pa

from phasescope.errors import PhasescopeError
from phasescope.tables.schemas import SCHEMAS

_TYPES = {pa.string(): "text", pa.int64(): "whole number", pa.float64(): "number"}
_TYPES[pa.bool_()] = "true or false"


def schema_page(tables: Sequence[str] = ()) -> str:
    """Columns of the named tables (all without any) as Markdown: name, type, meaning, values.

    Raises PhasescopeError for a table that is not declared.
    """
    for name in tables:
        if name not in SCHEMAS:
            raise PhasescopeError(f"table {name!r}: not declared; declared: {', '.join(SCHEMAS)}")
    parts = ["# Tables\n\n`phasescope.read(study)` gives them as pandas frames by name.\n"]
    for name in tables or SCHEMAS:
        parts.append(f"## {name}\n\n| column | type | meaning |\n|---|---|---|\n")
        parts += [f"| `{c.name}` | {_type(c)} | {_meaning(c)} |\n" for c in SCHEMAS[name]]
        parts.append("\n")
    return "\n".join(parts[:1]) + "\n" + "".join(parts[1:]).rstrip("\n") + "\n"


def _type(column) -> str:
    return _TYPES[column.type] + (", may be empty" if column.nullable else "")


def _meaning(column) -> str:
    words = column.description.replace("|", "\\|")
    return f"{words} ({', '.join(f'`{v}`' for v in column.allowed)})" if column.allowed else words
