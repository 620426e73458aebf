"""Checkpoints: headers and integrity, fetching, quantization."""

from phasescope.checkpoint.fetch import Checkpoint, content_hash, fetch
from phasescope.checkpoint.headers import check, model_type, read_header, shards
from phasescope.checkpoint.quantize import quantize

__all__ = [
    "Checkpoint",
    "check",
    "content_hash",
    "fetch",
    "model_type",
    "quantize",
    "read_header",
    "shards",
]
