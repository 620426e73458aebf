"""Phasescope: how safety behavior is built into language models, and how well it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phasescope import fast_blas

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__version__ = "0.1.0"

# Before anything imports mlx.core, which binds its BLAS once, when it is first imported.
fast_blas.load()


def read(study: str | Path) -> dict[str, pd.DataFrame]:
    """Every study-wide table of a study (its id, or its folder), by table name."""
    # Imported here because pandas takes longer to import than most commands run.
    from phasescope.tables import read as read_tables

    return read_tables(study)
