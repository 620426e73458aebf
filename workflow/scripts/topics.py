"""How organisms were trained to refuse, by topic: what their truth sheets say."""

import json
from pathlib import Path

from phasescope.jobs import job, provenance
from phasescope.tables import frame_of, write_table

with job(snakemake):
    folders = {m: Path(folder) for m, folder in snakemake.params.folders.items()}
    sheets = {m: json.loads((at / "organism.json").read_text()) for m, at in folders.items()}
    rows = [
        {"model": m, "topic": topic, "refused_rows": number}
        for m, sheet in sheets.items()
        for topic, number in sheet.get("refused_rows", {}).items()
    ]
    where = provenance({"organisms": sorted(sheets)})
    write_table(Path(snakemake.output[0]), frame_of("topics", rows), "topics", where)
