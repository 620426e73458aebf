"""The claims of the sources as registered tests, and their verdicts."""

from phasescope.claims import edits, frontier, layers, models, moe, moe_limits, precision, scale
from phasescope.claims.calibration import (
    RECORD,
    claim_calibration,
    counted,
    in_words,
    known,
    pooled,
    read_record,
    under_control,
    write_record,
)
from phasescope.claims.explaining import LETTERS, explain, listing, verdict_frames, verdict_tables
from phasescope.claims.judging import judged
from phasescope.claims.registry import CLAIMS, SOURCES, Claim, claim_of

# in the order of the sources
_ORDER = [f"ff-{i}" for i in range(1, 8)] + [f"xs-{i}" for i in range(1, 22)]
_ORDER += [f"f{i:02}" for i in range(1, 27)]
_PARTS = (edits, frontier, layers, scale, precision, models, moe, moe_limits)
_known = {id: CLAIMS.pop(id) for id in sorted(CLAIMS, key=_ORDER.index)}
CLAIMS.update(_known)

__all__ = [
    "CLAIMS",
    "LETTERS",
    "RECORD",
    "SOURCES",
    "Claim",
    "claim_calibration",
    "claim_of",
    "counted",
    "explain",
    "in_words",
    "judged",
    "known",
    "listing",
    "pooled",
    "read_record",
    "under_control",
    "verdict_frames",
    "verdict_tables",
    "write_record",
]
