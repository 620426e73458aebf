"""Checkpoints: headers and integrity, fetching, audit, quantization."""

from phasescope.checkpoint.audit import Audit, audit
from phasescope.checkpoint.fetch import Checkpoint, content_hash, fetch
from phasescope.checkpoint.headers import check, model_type, read_header, shards
from phasescope.checkpoint.hub import download_data
from phasescope.checkpoint.integrity import verify
from phasescope.checkpoint.memory import QUANTIZERS, memory_rows
from phasescope.checkpoint.quantize import quantize
from phasescope.checkpoint.release import passing_source
from phasescope.checkpoint.roundtrip import WRITERS, round_trip

__all__ = [
    "QUANTIZERS",
    "WRITERS",
    "Audit",
    "Checkpoint",
    "audit",
    "check",
    "content_hash",
    "download_data",
    "fetch",
    "memory_rows",
    "model_type",
    "passing_source",
    "quantize",
    "read_header",
    "round_trip",
    "shards",
    "verify",
]
