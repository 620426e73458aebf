"""What writers do to a small checkpoint, and how much memory quantizing takes."""

from pathlib import Path

from phasescope.checkpoint import WRITERS, memory_rows, round_trip
from phasescope.jobs import job, provenance
from phasescope.tables import frame_of, write_table

with job(snakemake):
    folder = Path(snakemake.params.folder)
    where = provenance({"writers": str(folder)})
    rows = [
        r for name, write in WRITERS.items() for r in round_trip(folder, folder.name, name, write)
    ]
    for table, found in (("roundtrips", rows), ("quantization", list(memory_rows()))):
        write_table(Path(snakemake.output[table]), frame_of(table, found), table, where)
