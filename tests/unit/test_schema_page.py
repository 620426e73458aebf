"""The page of schemas and the commands about claims."""

import pytest

from phasescope.cli import main
from phasescope.errors import PhasescopeError
from phasescope.tables import SCHEMAS
from phasescope.tables.describing import schema_page


def test_every_column_is_on_the_page():
    """A user who reads a column's name in a frame must find what it means."""
    page = schema_page()
    for name, columns in SCHEMAS.items():
        own = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for column in columns:
            assert f"| `{column.name}` |" in own
            assert column.description.split("|")[0] in own


def test_an_unknown_table_is_named():
    """A typo must not print an empty page."""
    with pytest.raises(PhasescopeError, match="'phase'"):
        schema_page(["phase"])


def test_commands_about_claims(capsys):
    """What claims there are, and what each rests on, must be readable without a study."""
    assert main(["claims"]) == 0
    assert "f26" in capsys.readouterr().out
    assert main(["explain", "xs-7"]) == 0
    assert "max_part_removal" in capsys.readouterr().out
    assert main(["explain", "zz-1"]) == 1
    assert main(["schema", "phases"]) == 0
    assert "`probability`" in capsys.readouterr().out
