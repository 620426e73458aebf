"""Survival of edits on one model: every edit through every format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlx.core as mx
import numpy as np

from phasescope.behave import Subject
from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene import Directions
from phasescope.intervene.activation_aware import calibration_set
from phasescope.intervene.activation_aware.sets import GENERAL, token_rows
from phasescope.model import ORGANISM_PARAMETERS, modules_of, next_token_logits
from phasescope.survival import behavior, gguf, measuring
from phasescope.survival.behavior import Grades
from phasescope.survival.edits import WeightEdit, additions, edited, projection
from phasescope.survival.rounding import (
    Format,
    RoundedAlone,
    as_array,
    formats_of,
    rounded_whole,
)

BFLOAT16 = {"format": "bfloat16"}
_WHOLE = (
    f"only single tensors are measured of a model over {ORGANISM_PARAMETERS:,} parameters: it is "
    "never put together with an edit, nor written"
)


@dataclass
class Survival:
    """Rows of the table `survival` (without the cell's keys) for one 16-bit model.

    source: folder of the checkpoint that the subject was loaded from; group_size: of
    activation-aware recipes; draws: random directions beside each edit; seed: of these.
    """

    subject: Subject
    directions: Directions
    source: Path
    group_size: int
    draws: int
    seed: int

    def run(self, formats: Sequence[str], llama_cpp: str | Path | None = None) -> list[dict]:
        """Follow the edits through the named formats: recipes of mlx-lm's, and 'gguf'.

        llama_cpp: folder that `make gguf` made. Raises NotRun where no direction was selected, and
        PhasescopeError when the model does not answer as before once all is undone.
        """
        probes = self.subject.rendered("select", thinking=False)[:4]
        before = next_token_logits(self.subject.lm, probes, len(probes))
        edits = self.edits
        rows = list(self._at_16_bit(edits))
        for name in formats:
            if name == gguf.GGUF:
                rows += gguf.rows(self, llama_cpp)
                continue
            for form in formats_of(name, self.group_size):
                rows += self._through(form, edits)
                mx.clear_cache()
        after = next_token_logits(self.subject.lm, probes, len(probes))
        if not np.array_equal(before, after):
            raise PhasescopeError("survival: the model is not what it was before")
        return [{"status": "run"} | row for row in rows]

    @cached_property
    def edits(self) -> list[WeightEdit]:
        """The edits that are followed; NotRun where no direction was selected."""
        lm, batch = self.subject.lm, self.subject.decoding.batch_size
        prompts = token_rows(self.subject.rendered("fit", thinking=False))
        return [projection(lm, self.directions), *additions(lm, self.directions, prompts, batch)]

    @cached_property
    def _tokens(self) -> mx.array:
        return calibration_set(self.subject, GENERAL).tokens

    def grades(self) -> Grades:
        """Of the model's answers to the evaluate split, as it is at the moment."""
        answers = self.subject.answers("evaluate", f"weights {self.subject.lm.weights_sha256()}")
        labels = self.subject.prompts("evaluate")["label"]
        return Grades.of(labels, [a.grade for a in answers])

    @cached_property
    def plain(self) -> Grades:
        """Grades at 16 bit without an edit."""
        return self.grades()

    @cached_property
    def at_16_bit(self) -> dict[str, Grades]:
        """Grades at 16 bit under each edit, by its key."""
        found = {}
        for edit in self.edits:
            with edited(self.subject.lm, edit):
                found[edit.key] = self.grades()
        return found

    @property
    def measures_behavior(self) -> bool:
        """Whether answers are measured: of organisms whose prompts a grader reads."""
        return self.subject.lm.is_organism and self.subject.grader is not None

    def _at_16_bit(self, edits: list[WeightEdit]) -> Iterator[dict]:
        """What the edits do before anything is rounded further."""
        if not self.measures_behavior:
            yield BFLOAT16 | {"statistic": "removal"} | not_run(self._no_behavior)
            return
        yield from self.unedited_rows(BFLOAT16, self.plain)
        for edit in edits:
            yield from self.edited_rows(BFLOAT16, edit, self.at_16_bit[edit.key])

    @property
    def _no_behavior(self) -> str:
        if not self.subject.lm.is_organism:
            return _WHOLE
        return f"no grader reads the prompts' language {self.subject.table.language!r}"

    def unedited_rows(self, keys: dict, found: Grades) -> list[dict]:
        """Behavior without an edit."""
        rows = [*behavior.shares(found), behavior.against(found, self.plain)]
        return [keys | row for row in rows]

    def edited_rows(self, keys: dict, edit: WeightEdit, found: Grades) -> list[dict]:
        """Behavior under an edit that was made at 16 bit."""
        own = self.at_16_bit[edit.key]
        rows = [*behavior.shares(found), *behavior.of_edit(self.plain, own, found)]
        return [keys | edit.columns | row for row in [*rows, behavior.against(found, own)]]

    def _through(self, form: Format, edits: list[WeightEdit]) -> list[dict]:
        measure = self._whole if self.subject.lm.is_organism else self._alone
        try:
            return list(measure(form, edits))
        except NotRun as reason:
            return [form.columns | not_run(reason)]

    def _alone(self, form: Format, edits: list[WeightEdit]) -> Iterator[dict]:
        """A real model: one tensor at a time."""
        tokens = None if form.recipe == "plain" else self._tokens
        alone = RoundedAlone(self.subject.lm, form, tokens, self.subject.decoding.batch_size)
        for edit in edits:
            parts = ((path, alone.parts(edit, path)) for path in edit.tensors)
            yield from self.tensor_rows(form.columns, edit, parts)
        yield form.columns | {"statistic": "removal"} | not_run(_WHOLE)

    def _whole(self, form: Format, edits: list[WeightEdit]) -> Iterator[dict]:
        """An organism: every weight, and what the whole answers."""
        lm, batch, keys = self.subject.lm, self.subject.decoding.batch_size, form.columns
        originals = self.originals
        with rounded_whole(lm, None, form, self._tokens, batch) as weights:
            unedited = {path: as_array(weights[path]) for path in originals if path in weights}
            if self.measures_behavior:
                yield from self.unedited_rows(keys, self.grades())
        for edit in edits:
            with rounded_whole(lm, edit, form, self._tokens, batch) as weights:
                made = {path: as_array(weights[path]) for path in edit.tensors if path in weights}
                if self.measures_behavior:
                    yield from self.edited_rows(keys, edit, self.grades())
            parts = (
                (path, [self.rounded(edit, path, unedited[path], made[path])]) for path in made
            )
            yield from self.tensor_rows(keys, edit, parts)
            if not made:
                said = f"what {form.recipe} makes of single weights cannot be told"
                yield keys | edit.columns | {"statistic": measuring.KEPT} | not_run(said)

    @cached_property
    def originals(self) -> dict[str, np.ndarray]:
        """The weights that edits change, as they are at 16 bit, by path."""
        modules = modules_of(self.subject.lm)
        return {p: as_array(modules[p].weight) for edit in self.edits for p in edit.tensors}

    def rounded(self, edit: WeightEdit, module: str, before, after) -> measuring.Rounded:
        """The weight of a module with what it was rounded to, without and with the edit."""
        weight = self.originals[module]
        changed = as_array(edit.tensors[module].after(mx.array(weight)))
        return measuring.Rounded(weight, changed, before, after)

    def tensor_rows(self, keys: dict, edit: WeightEdit, parts, more: Mapping = {}) -> list[dict]:
        """Statistics of single tensors, and their means. parts: by path the weight, or its
        experts; more: further columns by path."""
        rows, found = [], {}
        for number, (path, own) in enumerate(parts):
            rng = np.random.default_rng((self.seed, number))
            left = measuring.left_of(own, edit.tensors[path].directions, self.draws, rng)
            for statistic, value in left.items():
                found.setdefault(statistic, []).append(value)
                columns = {"tensor": path, "statistic": statistic, **measuring.columns(value)}
                rows.append(columns | more.get(path, {}))
        for statistic, values in found.items():
            mean = measuring.columns(measuring.mean_of(values))
            rows.append({"statistic": statistic, "n": len(values), **mean})
        return [keys | edit.columns | row for row in rows]


def not_run_row(reason: NotRun) -> dict:
    """The row that says why nothing was measured of a model."""
    return BFLOAT16 | not_run(reason)


def not_run(reason: NotRun | str) -> dict:
    """Columns of what did not run."""
    return {"status": "not_run", "reason": str(reason)}
