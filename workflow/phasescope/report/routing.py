"""What routers select on hazardous and benign prompts: every expert's difference, and the experts
that lead."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from phasescope.report import formats
from phasescope.report.names import FAINT, PAPER, pretty
from phasescope.report.panels import Row, categories, finish, grid, key, nice, say_why
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style

TABLE = "routing"
_PROMPT = "prompt"
_MOMENTS = ("end_of_thinking", "last_prompt")  # the later one stands for the decision
_LEADING = 6  # experts with a line of their own
_MOST_POINTS = 3000  # rows of the page's download; beyond it: of leading experts only
_LEFT, _BETWEEN = 2.3, 0.55  # inches
HAZARDOUS, BENIGN = "#d55e00", "#0072b2"
_DOT = {"ls": "", "ms": 4.4, "mew": 1.1}
_LOOKS = {
    "hazardous": {**_DOT, "color": HAZARDOUS, "marker": "o"},
    "benign": {**_DOT, "color": BENIGN, "marker": "s", "mfc": PAPER},
}
_WHERE = ["layer", "expert"]


def routing(study: Study, model: Model) -> Drawing | None:
    """Differences of selection rates by block and expert, with the leading experts' rates; None
    where nothing ran."""
    rows = study.surveyed(TABLE, model.id, ("selection_rate", "rate_difference"))
    ran = rows[rows["status"] == "run"]
    differences = ran[ran["statistic"] == "rate_difference"]
    if differences.empty:
        return None
    spans = [_PROMPT, *[m for m in _MOMENTS if (differences["span"] == m).any()][:1]]
    leaders = {span: leading(differences[differences["span"] == span]) for span in spans}
    experts = int(differences["expert"].max()) + 1
    lines = []
    for span in spans:
        over = "over the whole prompt" if span == _PROMPT else f"at the {pretty(span)}"
        height = min(1.9, max(0.9, 0.1 * experts))
        lines += [
            Row(f"All experts, {over}", "expert number; color: difference of rates", height),
            Row(
                f"Leading experts, {over}",
                "block · expert; share of tokens that select it"
                if span == _PROMPT
                else "block · expert; rate on hazardous less benign prompts",
                0.2 * len(leaders[span]) + 0.1,
            ),
        ]
    with style():
        figure, axes = grid(lines, study.precisions, _LEFT, _BETWEEN)
        for place, span in enumerate(spans):
            strongest = differences.loc[differences["span"] == span, "estimate"].abs().max()
            for column, precision in enumerate(study.precisions):
                own = ran[ran["precision"] == precision]
                above, below = axes[2 * place][column], axes[2 * place + 1][column]
                drawn = own[own["span"] == span]
                if drawn.empty:
                    why = _why(study, model, precision, rows, own)
                    say_why(above, why)
                    say_why(below, why)
                    continue
                _map(above, drawn, strongest)
                _leaders(below, own, span, leaders[span])
            finish([axes[2 * place]], "block, counted from 0", nice(8, integer=True), False)
            _expert_ticks(axes[2 * place])
            unit = "share of tokens" if span == _PROMPT else "difference of shares of prompts"
            finish([axes[2 * place + 1]], unit, nice(5), False)
            categories(axes[2 * place + 1], [f"{a} · {b}" for a, b in leaders[span]])
        key(figure, _key())
        return drawing(
            figure,
            f"fig-routing-{model.slug}",
            f"{model.id}: what routers select",
            f"Selection rates of experts on hazardous and benign prompts. {_first(ran, leaders)}.",
            _caption(ran, spans, leaders),
            points(ran, spans, leaders),
        )


def leading(differences: pd.DataFrame) -> list[tuple[int, int]]:
    """(block, expert) of the experts whose rate differs most at any precision, largest first."""
    size = differences["estimate"].abs().groupby([differences[c] for c in _WHERE]).max()
    order = size.sort_values(ascending=False, kind="stable").index[:_LEADING]
    return [(int(layer), int(expert)) for layer, expert in order]


def points(ran: pd.DataFrame, spans: list[str], leaders: dict) -> pd.DataFrame:
    """The rows that are drawn; of many experts those of the leading ones alone."""
    drawn = ran[ran["span"].isin(spans) | ran["text"].isin(_LOOKS)]
    if len(drawn) > _MOST_POINTS:
        wanted = {where for own in leaders.values() for where in own}
        drawn = drawn[[where in wanted for where in _places(drawn)]]
    return drawn.drop(columns=["topic", "status", "reason"])


def _why(study: Study, model: Model, precision: str, rows: pd.DataFrame, own: pd.DataFrame) -> str:
    if len(own):
        return "too few pairs of prompts reach this moment"
    return study.why_unsurveyed(TABLE, rows, model.id, precision)


def _map(ax: Axes, drawn: pd.DataFrame, strongest: float) -> None:
    """Blocks across, experts up: the sign of a difference is its color, its size the opacity, so
    that the card shows through where there is none, in either theme."""
    shape = int(drawn["expert"].max()) + 1, int(drawn["layer"].max()) + 1
    size = np.zeros(shape)
    size[drawn["expert"].astype(int), drawn["layer"].astype(int)] = drawn["estimate"]
    image = np.zeros((*shape, 4))
    image[size > 0, :3], image[size < 0, :3] = to_rgb(HAZARDOUS), to_rgb(BENIGN)
    image[..., 3] = np.abs(size) / (strongest or 1.0)
    edges = (-0.5, shape[1] - 0.5, -0.5, shape[0] - 0.5)
    ax.grid(False)
    ax.imshow(image, origin="lower", aspect="auto", interpolation="none", extent=edges)


def _expert_ticks(line: list[Axes]) -> None:
    for ax in [ax for ax in line if ax.axison][:1]:
        ax.yaxis.set_major_locator(nice(4, integer=True))
        ax.tick_params(labelleft=True)


def _leaders(ax: Axes, own: pd.DataFrame, span: str, leaders: list[tuple[int, int]]) -> None:
    """Rates on both kinds of prompt; at one moment, of which no rates are kept, the difference."""
    ax.axvline(0, color=FAINT, lw=0.8, ls=(0, (4, 3)), zorder=0.9)
    if span == _PROMPT:
        rates = own[own["statistic"] == "selection_rate"]
        sides = {text: rates[rates["text"] == text] for text in _LOOKS}
    else:
        found = own[own["span"] == span]
        sides = {"hazardous": found[found["estimate"] > 0], "benign": found[found["estimate"] <= 0]}
    apart = 0.17 if span == _PROMPT else 0.0
    for shift, (text, rows) in zip((-apart, apart), sides.items(), strict=True):
        places = [leaders.index(w) if w in leaders else -1 for w in _places(rows)]
        rows = rows.assign(y=np.array(places) + shift)[np.array(places) >= 0]
        ax.hlines(rows["y"], rows["ci_low"], rows["ci_high"], color=_LOOKS[text]["color"], lw=1.2)
        ax.plot(rows["estimate"], rows["y"], **_LOOKS[text])


def _places(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """(block, expert) of each row."""
    return [(int(a), int(b)) for a, b in rows[_WHERE].itertuples(index=False, name=None)]


def _key() -> list[tuple[str, dict]]:
    words = {"hazardous": "hazardous prompts, or more on them", "benign": "benign, or more on them"}
    return [(words[text], look) for text, look in _LOOKS.items()]


def _first(ran: pd.DataFrame, leaders: dict) -> str:
    """The leading expert of each span at each precision, in words."""
    words = []
    for span, own in leaders.items():
        layer, expert = own[0]
        rows = ran[(ran["span"] == span) & (ran["layer"] == layer) & (ran["expert"] == expert)]
        for row in rows.to_dict("records"):
            value = formats.estimate(row["estimate"], row["ci_low"], row["ci_high"])
            over = "over the prompt" if span == _PROMPT else f"at the {pretty(span)}"
            words.append(
                f"{pretty(row['precision'])}: block {layer}, expert {expert} {value} {over}"
            )
    return "; ".join(words)


def _caption(ran: pd.DataFrame, spans: list[str], leaders: dict) -> str:
    differences = ran[ran["statistic"] == "rate_difference"]
    parts = [
        "How much oftener an expert is selected on hazardous than on benign prompts of the "
        "evaluate split."
    ]
    for span in spans:
        own = differences.loc[differences["span"] == span, "estimate"]
        over = "over the prompt's tokens" if span == _PROMPT else f"at the {pretty(span)}"
        parts.append(f"Full color {over}: {formats.number(own.abs().max())}.")
    parts.append(
        f"Leading: the {len(leaders[spans[0]])} experts with the largest difference at any "
        "precision, picked on the same prompts, so that their differences are rather too large "
        "than too small. Lines: 95 % intervals, clustered by prompt."
    )
    n = formats.span(differences["n"], formats.count)
    return " ".join([*parts, f"{_first(ran, leaders)}. n = {n} prompts, both labels together."])
