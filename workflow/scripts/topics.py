"""How organisms were trained to refuse, by topic: what their truth sheets say."""

import json
from pathlib import Path

from phasescope.jobs import job, provenance
from phasescope.tables import frame_of, write_table

with job(snakemake):
    folders = {m: Path(folder) for m, folder in snakemake.params.folders.items()}
    sheets = {m: json.loads((at / "organism.json").read_text()) for m, at in folders.items()}
    rows = [
        {"model": m, "topic": topic, "refused_share": share}
        for m, sheet in sheets.items()
        for topic, share in sheet.get("refused_shares", {}).items()
    ]
    where = provenance({"organisms": sorted(sheets)})
    write_table(Path(snakemake.output[0]), frame_of("topics", rows), "topics", where)
