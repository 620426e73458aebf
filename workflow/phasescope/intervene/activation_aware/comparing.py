"""Calibration sets compared: every recipe, set and number of bits on one model."""

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np

from phasescope.behave import Subject
from phasescope.errors import NotRun, PhasescopeError
from phasescope.graders import MISSING
from phasescope.intervene.activation_aware import measuring
from phasescope.intervene.activation_aware.folding import Factors, left_plain
from phasescope.intervene.activation_aware.recipes import PLAIN, RECIPES, quantized
from phasescope.intervene.activation_aware.scaling import effective, search_factors, settings_of
from phasescope.intervene.activation_aware.sets import (
    GENERAL,
    SETS,
    CalibrationSet,
    calibration_set,
)
from phasescope.model import ORGANISM_PARAMETERS, modules_of, next_token_logits
from phasescope.stats import rank_among
from phasescope.tables.columns import LABELS

_WHOLE = (
    f"only single tensors are measured of a model over {ORGANISM_PARAMETERS:,} parameters: it is "
    "never put together from them"
)


class Comparison:
    """Rows of the table `calibration_sets` (without the cell's keys) for one 16-bit model.

    draws: bootstrap resamples of each set; seed: of these draws. Those of the general set are the
    null. A resample holds fewer different sequences than its set, and recipes do worse with it:
    resamples are compared with resamples, never with a set itself.
    """

    def __init__(self, subject: Subject, group_size: int, draws: int, seed: int):
        self.subject, self.group_size, self.draws, self.seed = subject, group_size, draws, seed
        self.lm, self.batch = subject.lm, subject.decoding.batch_size
        self.held_out = measuring.HeldOut.of(subject)
        self.plain_reasons = left_plain(self.lm)
        self.weights = {p: m.weight for p, m in modules_of(self.lm).items() if "weight" in m}

    def run(self, names: Sequence[str], bits: Sequence[int]) -> list[dict]:
        """Compare the named sets at each number of bits.

        Raises PhasescopeError for an unknown set, and when the model does not answer as before once
        all is undone.
        """
        probes = self.subject.rendered("select", thinking=False)[:4]
        before = next_token_logits(self.lm, probes, len(probes))
        rows, sets = [], []
        for name in names:
            try:
                sets.append(calibration_set(self.subject, name))
            except NotRun as reason:
                rows.append({"calibration_set": name, **_not_run(reason)})
        for number in bits:
            for recipe in RECIPES:
                rows += self._recipe(recipe, sets, number)
        if not np.array_equal(before, next_token_logits(self.lm, probes, len(probes))):
            raise PhasescopeError("calibration sets: the model is not what it was before")
        return rows

    def _runs(self, recipe: str, sets: list[CalibrationSet]) -> Iterator[tuple]:
        """What is quantized: (set or none, number of the draw or none)."""
        if recipe == PLAIN:
            yield None, None
            return
        for one in sets:
            yield one, 0
            for draw in range(1, self.draws + 1):
                rng = np.random.default_rng((self.seed, SETS.index(one.name), draw))
                yield one.resample(rng), draw

    def _recipe(self, recipe: str, sets: list[CalibrationSet], bits: int) -> list[dict]:
        keys = {"recipe": recipe, "bits": bits, "group_size": self.group_size}
        rows = []
        try:
            for one, draw in self._runs(recipe, sets):
                own = keys | {"calibration_set": one.name if one else None, "draw": draw}
                tokens = one.tokens if one else None
                measure = self._whole if self.lm.is_organism else self._tensors_alone
                rows += [own | row for row in measure(recipe, tokens, bits, draw)]
                mx.clear_cache()
        except NotRun as reason:
            return [keys | _not_run(reason)]
        return _compared(rows)

    def _whole(self, recipe: str, tokens, bits: int, draw: int | None) -> Iterator[dict]:
        """An organism, quantized as a whole."""
        with quantized(self.lm, recipe, tokens, bits, self.group_size, self.batch) as made:
            for label in LABELS:
                kl = self.held_out.divergence(self.lm, label, self.batch)
                n = len(self.held_out.sequences[label])
                yield {"statistic": "kl_nats", "label": label, "estimate": kl, "n": n}
            yield from self._graded(draw)
            if not draw:
                for writer, alpha in made.alphas.items():
                    yield {"statistic": "alpha", "tensor": writer, "estimate": alpha}
            yield from self._tensors(recipe, made.weights, draw)

    def _graded(self, draw: int | None) -> Iterator[dict]:
        """Generated and graded; benign answers of the sets themselves only."""
        wanted = [("refusal", "hazardous", "refusal")]
        wanted += [("accuracy", "benign", "full")] if not draw else []
        for statistic, label, grade in wanted:
            if self.subject.grader:
                found = self.subject.answers(
                    "evaluate", f"quantized {self.lm.weights_sha256()}", label=label
                )
                found = [a for a in found if a.grade != MISSING]
                share = float(np.mean([a.grade == grade for a in found])) if found else np.nan
                yield {
                    "statistic": statistic,
                    "label": label,
                    "estimate": share,
                    "n": len(found),
                }

    def _tensors_alone(self, recipe: str, tokens, bits: int, draw: int | None) -> Iterator[dict]:
        """A real model: what each tensor would become, one at a time, and nothing of the whole."""
        if recipe not in (PLAIN, "scaled"):
            raise NotRun(_WHOLE)
        settings = settings_of(self.lm, bits, self.group_size)
        factors = Factors()
        if recipe != PLAIN:
            factors, _ = search_factors(self.lm, tokens, settings, self.batch)
        modules = modules_of(self.lm)
        made = ((path, effective(modules, path, factors, settings)) for path in settings)
        yield from self._tensors(recipe, made, draw)
        if not draw:
            yield {"statistic": "kl_nats", **_not_run(_WHOLE)}

    def _tensors(self, recipe: str, made, draw: int | None) -> Iterator[dict]:
        """Statistics of single tensors (of the sets themselves), and their means."""
        found: dict[tuple, list[float]] = {}
        for path, weight in made.items() if isinstance(made, dict) else made:
            reason = self.plain_reasons.get(path) if recipe == "scaled" else None
            for (statistic, label), value in self._tensor(path, weight).items():
                found.setdefault((statistic, label), []).append(value)
                row = {"statistic": statistic, "label": label, "tensor": path, "estimate": value}
                if not draw:
                    yield row | {"reason": reason}
        for (statistic, label), values in found.items():
            yield {
                "statistic": statistic,
                "label": label,
                "estimate": float(np.mean(values)),
                "n": len(values),
            }

    def _tensor(self, path: str, made: mx.array) -> dict[tuple, float]:
        weight = self.weights[path]
        found = {("weight_distance", None): measuring.distance(weight, made)}
        for label, inputs in self.held_out.inputs.items():
            if path in inputs:
                own = weight, made, inputs[path]
                found["output_error", label] = measuring.output_error(*own)
                found["outlier_energy_kept", label] = measuring.outlier_energy_kept(*own)
        return found


def _not_run(reason: NotRun | str) -> dict:
    return {"status": "not_run", "reason": str(reason)}


def _compared(rows: list[dict]) -> list[dict]:
    """Rows of one recipe; those of a set other than the general one also say where the median over
    its resamples stands among the general set's resamples."""
    drawn: dict[tuple, list[float]] = {}
    for row in rows:
        if row["draw"] and "estimate" in row:
            key = row["calibration_set"], row["statistic"], row["label"]
            drawn.setdefault(key, []).append(row["estimate"])
    for row in rows:
        row.setdefault("status", "run")
        key = row["statistic"], row.get("label")
        null, own = drawn.get((GENERAL, *key)), drawn.get((row["calibration_set"], *key))
        other = row["calibration_set"] != GENERAL and row["draw"] == 0
        if null and own and other and not row.get("tensor") and "estimate" in row:
            row["difference"] = float(np.median(own) - np.median(null))
            row["percentile"], row["p"] = rank_among(float(np.median(own)), np.array(null))
    return rows
