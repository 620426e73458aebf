"""A cell's job: its subject opened, its tables written with where they came from."""

from pathlib import Path

from phasescope.attempts import batch_size
from phasescope.behave import Decoding, Subject
from phasescope.checkpoint import verify
from phasescope.jobs import provenance
from phasescope.prompts import rendered_hash
from phasescope.tables import frame_of, write_table
from phasescope.tables.scratch import load_facts


class CellJob:
    """What a stage's script has in hand: everything that Snakemake gave it, opened."""

    def __init__(self, snakemake):
        self.settings = dict(snakemake.params.settings)
        self.keys = {"model": snakemake.wildcards.model, "precision": snakemake.wildcards.precision}
        self.facts = load_facts(snakemake.input.facts)
        verify(snakemake.input.folder, self.facts)
        s = self.settings
        self.subject = Subject.open(
            snakemake.input.folder,
            snakemake.input.prompts,
            s["limits"],
            Decoding(
                s["thinking"] != "off",
                s["max_thinking_tokens"],
                s["max_answer_tokens"],
                batch_size(Path(snakemake.log[0]), s["batch_size"]),
            ),
            Path(snakemake.params.journal),
            self.facts["sha256"],
            s["judge"],
        )

    def write(self, path: str, table: str, rows: list[dict]) -> None:
        """Write rows (without the cell's keys) as a declared table with its provenance."""
        prompts = self.subject.rendered("evaluate", thinking=self.subject.decoding.thinking)
        frame = frame_of(table, [self.keys | row for row in rows])
        where = provenance(
            self.settings,
            model_revision=self.facts["revision"],
            checkpoint_sha256=self.facts["sha256"],
            weights_from=self.facts["weights_from"],
            compute_dtype=self.subject.lm.compute_dtype,
            seed=str(self.settings["seed"]),
            batch_size=str(self.subject.decoding.batch_size),
            prompts_sha256=self.subject.table.sha256,
            rendered_prompts_sha256=rendered_hash(prompts),
        )
        write_table(Path(path), frame, table, where)

    def finish(self) -> None:
        """Drop the answers' tokens from the journal, unless the study keeps text; a judge that
        failed can still be asked again."""
        if not self.settings["keep_text"]:
            grader = self.subject.grader
            self.subject.journal.seal(keep_missing=bool(grader and grader.fallible))
