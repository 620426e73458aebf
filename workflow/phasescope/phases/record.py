"""The record of calibration that ships: cells whose phase was planted, and what came out."""

from pathlib import Path

import numpy as np
import pandas as pd

from phasescope.errors import PhasescopeError, shown
from phasescope.phases.calibration import NAMED
from phasescope.tables import atomic_file, check_frame, frame_of
from phasescope.tables.provenance import sha256_json
from phasescope.tables.schemas import SCHEMAS

RECORD = Path(__file__).parents[3] / "resources" / "calibration" / "phases.tsv"
_LIMITS = ("clean", "phases")  # sections of the thresholds that decide a phase
_CELL = ["organism", "seed", "precision"]
_COLUMNS = ["limits", "made_by"]  # beside those of the table `calibration`


def limits_of(thresholds: dict) -> str:
    """Hash of the thresholds that phases were decided by: a record holds for no others."""
    return sha256_json({section: thresholds[section] for section in _LIMITS})[:12]


def with_record(
    found: pd.DataFrame, thresholds: dict, made_by: str, record: pd.DataFrame
) -> pd.DataFrame:
    """The record with a study's table `calibration`, which replaces what the record has of the
    same cells (organism, seed, precision). Plants at half strength, where `indeterminate` is right,
    are left out: how probable a phase should be there is not known."""
    whole = found[found["truth"].isin(NAMED)]
    own = whole.assign(limits=limits_of(thresholds), made_by=made_by)
    together = pd.concat([record, own], ignore_index=True)
    kept = together.drop_duplicates(_CELL, keep="last")
    bits = kept["precision"].astype(int)
    return kept.iloc[np.lexsort((-bits, kept["seed"], kept["organism"]))].reset_index(drop=True)


def write_record(path: Path, record: pd.DataFrame) -> None:
    """Write the record that ships."""
    with atomic_file(path) as temporary:
        record.to_csv(temporary, sep="\t", index=False, float_format="%.6g")


def read_record(path: Path = RECORD) -> pd.DataFrame:
    """The record: rows as of the table `calibration`, with `limits` and `made_by`.

    Raises PhasescopeError for one that is missing or no such table.
    """
    try:
        frame = pd.read_csv(
            path, sep="\t", dtype={"precision": str}, keep_default_na=False, na_values=[""]
        )
        own = frame_of("calibration", frame.drop(columns=_COLUMNS).to_dict("records"))
        check_frame(own, SCHEMAS["calibration"], "table calibration")
    except (OSError, ValueError, KeyError, PhasescopeError) as error:
        message = shown(str(error).splitlines()[0])
        raise PhasescopeError(f"{path}: not a record of calibrated phases: {message}") from None
    return own.assign(**{name: frame[name] for name in _COLUMNS})
