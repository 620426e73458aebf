"""The table `trajectories`: the safety signal token by token through the answer, and what comes
back after an answer whose first tokens were forced to comply."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from phasescope import stats
from phasescope.behave import Subject
from phasescope.errors import NotRun
from phasescope.graders import MISSING, REFUSAL
from phasescope.model import Site, record_sites, routes, selections, top_k
from phasescope.probe.separation import central
from phasescope.probe.sites import not_run
from phasescope.probe.streaming import stream_projections
from phasescope.probe.table import MIN_PAIRS
from phasescope.stats.intervals import Z

FORCED_TOKENS = 3
MOST_STEPS = 32
MOST_LAYERS = 12
DRAWS = 500


@dataclass(frozen=True)
class Course:
    """Sequences of one condition and where their answers begin."""

    condition: str
    sequences: list[list[int]]
    starts: list[int]

    def steps(self) -> np.ndarray:
        """Token index of each step (-1 the last before the answer), -1 behind the end:
        (sequences, steps)."""
        longest = max(len(s) - b for s, b in zip(self.sequences, self.starts, strict=True))
        index = np.array(self.starts)[:, None] + np.arange(-1, min(longest, MOST_STEPS))[None]
        ends = np.array([len(s) for s in self.sequences])[:, None]
        return np.where(index < ends, index, -1)


def _answered(subject: Subject, label: str) -> Course:
    """Prompts of the evaluate split with the model's own answers."""
    starts = subject.decided("evaluate", label)
    answers = subject.answers("evaluate", label=label, need_tokens=True)
    own = [a.tokens[a.thinking_tokens :] for a in answers]
    whole = [s + o for s, o in zip(starts, own, strict=True)]
    return Course(label, whole, [len(s) for s in starts])


def _forced(subject: Subject, benign: Course) -> tuple[Course, list[str]]:
    """Hazardous prompts whose answers open with the first tokens of their benign partners'
    answers, and go on as the model goes on; with the grades of what it goes on to say."""
    starts = subject.decided("evaluate", "hazardous")
    opened = [
        start + partner[begin : begin + FORCED_TOKENS]
        for start, partner, begin in zip(starts, benign.sequences, benign.starts, strict=True)
    ]
    answers = subject.continuations("evaluate", "hazardous", opened, f"forced {FORCED_TOKENS}")
    whole = [s + a.tokens for s, a in zip(opened, answers, strict=True)]
    course = Course("forced", whole, [len(s) for s in starts])
    return course, [a.grade for a in answers]


def trajectory_rows(subject: Subject, seed: int) -> list[dict]:
    """Rows of the table `trajectories` without the cell's keys, on the evaluate split.

    Directions and safety experts come from the fit split, at the token before the answer.
    """
    rng = np.random.default_rng((seed, 5))
    courses = [_answered(subject, label) for label in ("hazardous", "benign")]
    rows = []
    try:
        forced, grades = _forced(subject, courses[1])
        courses.append(forced)
        graded = [g for g in grades if g != MISSING]
        n = len(graded)
        returned = stats.wilson(sum(g == REFUSAL for g in graded), n)
        rows.append(_row("refusal_returns", returned, n, condition="forced"))
    except NotRun as reason:
        rows.append(not_run(reason, condition="forced", statistic="refusal_returns"))
    rows += _projection_rows(subject, courses, rng)
    if not routes(subject.lm):
        reason = "the model has no experts, so it routes nothing"
        return [*rows, not_run(reason, statistic="safety_expert_rate")]
    return rows + list(_routing_rows(subject, courses, rng))


def _row(statistic: str, value, n: int, **where) -> dict:
    estimate, low, high = map(float, value)
    kept = {"statistic": statistic, "estimate": estimate, "ci_low": low, "ci_high": high, "n": n}
    return where | kept | {"status": "run"}


def _fit(subject: Subject, read) -> list[np.ndarray]:
    """What `read(sequences, positions)` gives at the token before the answer, by label."""
    found = []
    for label in ("hazardous", "benign"):
        starts = subject.decided("fit", label)
        found.append(read(starts, [[len(s) - 1] for s in starts])[:, 0])
    return found


def _projection_rows(subject: Subject, courses: list[Course], rng) -> Iterator[dict]:
    """Projection at each step on the layer's direction: 0 at the benign mean before the answer, 1
    at the hazardous one."""
    lm, size = subject.lm, subject.decoding.batch_size
    hazardous, benign = _fit(
        subject, lambda s, p: record_sites(lm, ["residual"], s, p, size)["residual"]
    )
    means = hazardous.mean(axis=0), benign.mean(axis=0)
    direction = means[0] - means[1]
    scale = (direction**2).sum(axis=-1)
    count = min(MOST_LAYERS, len(direction))
    layers = [round(i) for i in np.linspace(0, len(direction) - 1, count)]
    sites = {Site("residual", i): direction[i][None] / max(scale[i], 1e-12) for i in layers}
    for course in courses:
        found = stream_projections(lm, sites, course.sequences, size)
        index = course.steps()
        for site, values in found.items():
            origin = float(means[1][site.layer] @ sites[site][0])
            steps = np.take_along_axis(values[..., 0], np.maximum(index, 0), axis=1) - origin
            steps[index < 0] = np.nan
            where = {"condition": course.condition, "layer": site.layer}
            where["layer_kind"] = lm.layer_kinds[site.layer]
            yield from _step_rows("projection", steps, **where)


def _step_rows(statistic: str, steps: np.ndarray, **where) -> Iterator[dict]:
    """Mean over sequences at each step (sequences, steps), NaN where one has ended."""
    for step, values in enumerate(steps.T, start=-1):
        known = values[~np.isnan(values)]
        if len(known) >= MIN_PAIRS:
            half = Z * known.std(ddof=1) / np.sqrt(len(known))
            mean = known.mean()
            yield _row(statistic, (mean, mean - half, mean + half), len(known), step=step, **where)


def _safety_experts(subject: Subject) -> np.ndarray:
    """In each layer the k experts with the largest rise of the selection rate from benign to
    hazardous prompts (SteerMoE 2025): int (layers, k)."""
    lm, size = subject.lm, subject.decoding.batch_size
    chosen = _fit(subject, lambda s, p: selections(lm, s, p, size))
    experts = lm.adapter.router_of(lm.blocks[0]).gate.weight.shape[0]
    rates = [(own[..., None] == np.arange(experts)).any(axis=-2).mean(axis=0) for own in chosen]
    return np.argsort(-(rates[0] - rates[1]), axis=1, kind="stable")[:, : top_k(lm, 0)]


def _routing_rows(subject: Subject, courses: list[Course], rng) -> Iterator[dict]:
    """Share of the selections at each step that go to safety experts, and where it changes."""
    lm, size = subject.lm, subject.decoding.batch_size
    safety, means = _safety_experts(subject), {}
    for course in courses:
        index = course.steps()
        wanted = np.maximum(index, 0).tolist()
        chosen = selections(lm, course.sequences, wanted, size)
        hits = (chosen[..., None] == safety[None, None, :, None]).any(axis=-1).mean(axis=-1)
        hits[index < 0] = np.nan
        for layer in range(hits.shape[2]):
            where = {"condition": course.condition, "layer": layer}
            where["layer_kind"] = lm.layer_kinds[layer]
            yield from _step_rows("safety_expert_rate", hits[:, :, layer], **where)
        means[course.condition] = hits.mean(axis=2)[:, 1:]
    if "forced" in means:
        yield change_row(_above(means["forced"], means["benign"]), rng) | {"condition": "forced"}


def _above(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differences step by step of two courses (sequences, steps), NaN where either has ended: what
    is said at a step calls experts of its own, whoever says it."""
    length = min(first.shape[1], second.shape[1])
    return first[:, :length] - second[:, :length]


def change_point(means: np.ndarray) -> tuple[int, float]:
    """Where a course (steps,) changes its level most, by least squares: the first step of the new
    level, and the rise."""
    best = (np.inf, 0, 0.0)
    for cut in range(1, len(means)):
        before, after = means[:cut], means[cut:]
        error = ((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum()
        best = min(best, (error, cut, after.mean() - before.mean()))
    return best[1], best[2]


def change_row(steps: np.ndarray, rng) -> dict:
    """The step at which safety experts come back, with its interval over resampled sequences.

    steps: (sequences, steps) from the first answer token, their rate after a forced opening less
    that of the benign partner; NaN behind an end.
    """
    enough = (~np.isnan(steps)).sum(axis=0) >= MIN_PAIRS
    steps = steps[:, : len(enough) if enough.all() else int(enough.argmin())]
    n, length = steps.shape
    if length <= FORCED_TOKENS:
        reason = f"answers of {length} tokens, of which {FORCED_TOKENS} were forced"
        return not_run(reason, statistic="change_point")

    def rise(rows: np.ndarray) -> tuple[int, float]:
        known = ~np.isnan(steps[rows])
        sums = np.where(known, steps[rows], 0).sum(axis=0)
        return change_point(sums / np.maximum(known.sum(axis=0), 1))

    step, height = rise(np.arange(n))
    draws = [rise(rows) for rows in rng.integers(0, n, (DRAWS, n))]
    low = central(np.array([d[1] for d in draws]))[0]
    if low <= 0:
        reason = f"safety experts do not come back: rise {height:.2f}, interval from {low:.2f}"
        return not_run(reason, statistic="change_point")
    first, last = central(np.array([d[0] for d in draws], dtype=float))
    return _row("change_point", (step, min(first, step), max(last, step)), n)
