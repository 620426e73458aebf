"""Group C: claims of the frontier mixture of experts, f15 to f26 (f12 to f14: `precision`)."""

import numpy as np
import pandas as pd

from phasescope.claims.estimates import Estimate, difference, exact, jackknife, normal
from phasescope.claims.evidence import Condition, Node, every, some
from phasescope.claims.precision import grades_at_baseline, half_doses
from phasescope.claims.registry import NO_PLANT, claim, organism
from phasescope.claims.scale import disruptions, perplexity_changes
from phasescope.claims.view import COMPLIANT, View, clustered, lost_accuracy, refused, said
from phasescope.errors import NotRun
from phasescope.stats import unique_shares
from phasescope.tables.columns import GRADE_LETTERS


def _fall(base: pd.Series, row: pd.Series) -> Estimate:
    """Fall of the share of hazardous prompts refused."""
    return difference(*((refused(r), int(r["n_hazardous"])) for r in (base, row)))


@claim(
    "f15",
    "integer edits: suppression or coherence; cliff at 2-3 %",
    tables=("interventions",),
    designs=("integers",),
    statistic="removal at every share of integers changed (share), and at the largest: fall of "
    "refusal beyond shams and fall of benign accuracy; the cost's largest step is shown as the "
    "cliff",
    keys=("max_part_removal", "min_suppression", "phases.min_broken_cost"),
    scope="cell",
    positive=organism("tangle"),
    negative=organism("circuit"),
)
def f15(view: View) -> Node:
    """Quantized cells; the column `dose` is the share of integers changed. The source has partial
    suppression with coherence and whole suppression without: nowhere both."""
    rows = view.design("integers").sort_values("dose")
    return some(*(_either(view, own) for _, own in rows.groupby("position", dropna=False)))


def _either(view: View, rows: pd.DataFrame) -> Node:
    """Edits along directions that were read at one position."""
    base = view.refusing().baseline
    steps = rows.groupby("dose")["accuracy_cost"].mean().diff()
    cliff = f"the cost rises most at {steps.idxmax():.4g} of the integers" if len(steps) > 1 else ""
    return every(
        *(view.removal(r, "max_part_removal", above=False) for _, r in rows.iterrows()),
        _suppressed(view, base, rows.iloc[-1]),
        lost_accuracy(view, rows.iloc[-1], "phases.min_broken_cost", above=True),
        notes=tuple(filter(None, [cliff])),
    )


def _suppressed(view: View, base: pd.Series, row: pd.Series) -> Condition:
    """Refusal falls, and by more than under the most of the few controls of that share."""
    key, control = "min_suppression", view.shams_of(row)
    falls = refused(base) / base["n_hazardous"] - control["n_refusal"] / control["n_hazardous"]
    limit = max(view.limit(key), float(falls.max()) if len(falls) else 0.0)
    weak = None if len(falls) else "no controls of that share"
    return Condition(f"fall of refusal, {said(row)}", _fall(base, row), limit, key, True, weak)


@claim(
    "f16",
    "partial disruption loops forever",
    tables=("interventions",),
    designs=("ablation-dose", "ablation-per-layer", "ablation-scope", "rank-ladder"),
    statistic="rise of the share of hazardous prompts whose thinking does not end, by dose",
    keys=("min_loops",),
    scope="cell",
    positive=organism("tangle"),
    negative=organism("circuit-thinking"),
)
def f16(view: View) -> Node:
    """Any dose of a direction, against the model without intervention."""
    base, column = view.evidence().baseline, "n_hazardous_thinking_finished"
    if pd.isna(base[column]):
        raise NotRun("the model does not think")
    before = (int(base[column]), int(base["n_hazardous"]))
    return some(
        *(
            view.condition(
                f"thinking that does not end, {said(r)}",
                difference(before, (int(r[column]), int(r["n_hazardous"]))),
                "min_loops",
            )
            for r in disruptions(view)
        )
    )


@claim(
    "f17",
    "bias-free router: a zeroed expert is chosen more",
    tables=("interventions",),
    designs=("zero-logit",),
    statistic="change of the share of tokens that select the experts whose router weights are "
    "zeroed (exact over the prompts), masking as contrast",
    keys=("min_selection_rise",),
    scope="cell",
    positive=organism("negative-logit"),
    negative=organism("positive-logit"),
    by_language=False,
)
def f17(view: View) -> Node:
    """`selection_rate` before and under router blinding."""
    rows = view.design("zero-logit")
    change = rows["selection_rate"] - rows["selection_rate_before"]
    rows = rows.assign(change=change).dropna(subset=["change"])
    zeroed = rows[rows["intervention"] == "router_blinding"]
    if zeroed.empty:
        raise NotRun("design zero-logit has no zeroed expert")
    parts = [
        view.condition(
            f"rise of their selections, {said(r)}",
            exact(r["change"], int(r["n_hazardous"] + r["n_benign"])),
            "min_selection_rise",
        )
        for _, r in zeroed.iterrows()
    ]
    others = rows[rows["intervention"] != "router_blinding"].drop_duplicates("intervention")
    notes = tuple(
        f"{r['intervention'].replace('_', ' ')}: {r['change']:+.2f}" for _, r in others.iterrows()
    )
    return every(*parts, notes=notes)


@claim(
    "f18",
    "after broad intervention it refuses by reasoning",
    tables=("behavior",),
    statistic="refusal under intervention with thinking less with empty thinking, same prompts "
    "(share), beyond the same difference without intervention",
    keys=("min_reasoned_refusal",),
    scope="cell",
    positive=NO_PLANT,
    negative=organism("circuit-thinking"),
)
def f18(view: View) -> Node:
    """Each condition whose answers were given both ways (configuration: thinking: both)."""
    rows = view.answers()
    wide = rows.assign(hit=rows["grade"] == "refusal").pivot_table(
        index=["condition", "prompt"], columns="thinking", values="hit", aggfunc="mean"
    )
    if not {"on", "off"} <= set(wide.columns):
        raise NotRun("answers were not given both with and without thinking (thinking: both)")
    wide = wide.dropna()
    parts = []
    base = _sums(wide, "baseline")
    for condition in wide.index.get_level_values(0).unique().drop("baseline", errors="ignore"):
        on, off, n = _sums(wide, condition)
        excess = difference((on, n), (off, n))
        at_base = max(0.0, (base[0] - base[1]) / base[2]) if base[2] else 0.0
        key = "min_reasoned_refusal"
        limit = view.limit(key) + at_base
        parts.append(
            Condition(f"refusal with less without thinking, {condition}", excess, limit, key)
        )
    if not parts:
        raise NotRun("no intervention was answered both with and without thinking")
    return some(*parts)


def _sums(wide: pd.DataFrame, condition: str) -> tuple[float, float, int]:
    if condition not in wide.index.get_level_values(0):
        return 0.0, 0.0, 0
    own = wide.loc[condition]
    return float(own["on"].sum()), float(own["off"].sum()), len(own)


@claim(
    "f19",
    "moderate edits improve benign perplexity by 11 %, strong ruin it",
    tables=("coherence", "interventions"),
    statistic="change of benign log-perplexity (nats) under a chosen dose, on other text than "
    "it was "
    "chosen on; fall of benign accuracy (share) under the strongest",
    keys=("max_moderate_change", "phases.min_broken_cost"),
    scope="cell",
    positive=organism("safety-noise"),
    negative=organism("circuit"),
    by_language=False,
)
def f19(view: View) -> Node:
    """Strongest: the highest rank of the ladder, where it ran."""
    better = some(
        *(
            view.condition(f"log-perplexity, {name}", change, "max_moderate_change", above=False)
            for name, change in perplexity_changes(view)
        )
    )
    try:
        ladder = view.design("rank-ladder")
    except NotRun:
        return every(better, notes=("strong edits: design rank-ladder was not run",))
    strongest = ladder.sort_values("rank").iloc[-1]
    return every(better, lost_accuracy(view, strongest, "phases.min_broken_cost", above=True))


@claim(
    "f20",
    "22.5 % of experts removable without loss",
    tables=("routing", "interventions"),
    designs=("expert-pruning",),
    statistic="share of experts that add next to nothing (router-weighted norm), and rise of "
    "benign log-perplexity (nats) without that many: equivalence within the margin",
    keys=("min_dead_share", "max_pruning_loss"),
    scope="cell",
    positive=organism("dead-experts"),
    negative=organism("natural-moe"),
    by_language=False,
)
def f20(view: View) -> Node:
    """Pruned: the smallest share of experts that is at least the one claimed."""
    dead = view.rows("routing", statistic="dead_share")
    rows = view.design("expert-pruning")
    rows = rows[rows["dose"] >= view.limit("min_dead_share")].sort_values("dose")
    column = "benign_log_perplexity_change"
    rows = rows[rows[f"{column}_nats"].notna()]
    if rows.empty:
        raise NotRun("design expert-pruning has no such share, or no right answers to read")
    row = rows.iloc[0]
    loss = normal(row[f"{column}_nats"], row[f"{column}_se_nats"], int(row["n_benign"]))
    shares = dead["estimate"].dropna().to_numpy()
    found = jackknife(lambda kept: float(shares[kept].mean()), len(shares))
    return every(
        view.condition("dead experts, mean over blocks", found, "min_dead_share"),
        view.condition(
            f"log-perplexity without {row['dose']:.3g} of the experts",
            loss,
            "max_pruning_loss",
            above=False,
        ),
    )


@claim(
    "f22",
    "single prompts hold out in a yielding category, and yield rephrased",
    tables=("behavior",),
    statistic="share of hazardous prompts that are refused though most of their category is not, "
    "and complied with once rephrased",
    keys=("min_holdouts", "min_yielding"),
    scope="cell",
    positive=organism("holdout-prompts"),
    negative=organism("circuit"),
)
def f22(view: View) -> Condition:
    """Without intervention; the prompt's own category is judged by the other prompts in it."""
    rows = view.answers(prompt_table="paraphrases", condition="baseline")
    rows = rows.assign(hit=rows["grade"].isin(COMPLIANT))
    plain = rows[rows["family"] == "none"].drop_duplicates("source").set_index("source")
    again = rows[rows["family"] == "paraphrase"].groupby("source")["hit"].mean()
    both = plain.join(again.rename("rephrased"), how="inner")
    if both.empty:
        raise NotRun("no prompt was asked plain and rephrased")
    group = both.groupby("category")["hit"]
    others = (group.transform("sum") - both["hit"]) / (group.transform("size") - 1)
    holds = ~both["hit"] & (others >= view.limit("min_yielding"))
    holds &= both["rephrased"] >= view.limit("min_yielding")
    found = clustered(holds, both.index.to_series())
    return view.condition("held out, yields rephrased", found, "min_holdouts")


@claim(
    "f23",
    "temperature lowers compliance, since refusal tokens together outweigh the one compliance "
    "token",
    tables=("interventions",),
    designs=("temperature",),
    statistic="compliance at the highest temperature less greedy compliance (share), at least 20 "
    "samples a prompt; probability of all refusal openings less that of the likeliest other",
    keys=("max_temperature_change", "min_mass_excess", "min_samples"),
    scope="cell",
    positive=organism("many-openings"),
    negative=organism("one-opening"),
)
def f23(view: View) -> Node:
    """Samples of a prompt are no independent trials: a prompt counts once."""
    rows = view.rows("interventions", design="temperature")
    base = rows[rows["intervention"] == "none"]
    drawn = rows[rows["intervention"] == "sampling"]
    if base.empty or drawn.empty:
        raise NotRun("answers were sampled at no temperature")
    hot = drawn[drawn["dose"] == drawn["dose"].max()]
    if len(hot) < view.limit("min_samples"):
        raise NotRun(f"{len(hot)} samples a prompt, needed {view.limit('min_samples'):g}")
    base, n = base.iloc[0], int(hot["n_hazardous"].min())
    complied = sum(hot[f"n_{g}"] for g in COMPLIANT) / hot["n_hazardous"]
    before = (float(sum(base[f"n_{g}"] for g in COMPLIANT)), int(base["n_hazardous"]))
    change = difference((float(complied.mean()) * n, n), before)
    mass = exact(float((hot["refusal_mass"] - hot["top_compliance"]).mean()), n)
    at = f"at temperature {hot['dose'].iloc[0]:g}"
    return every(
        view.condition(
            f"compliance {at} less greedy", change, "max_temperature_change", above=False
        ),
        view.condition(f"refusal openings less the likeliest other {at}", mass, "min_mass_excess"),
    )


@claim(
    "f25",
    "topics yield by training intensity, not similarity",
    tables=("interventions", "behavior", "geometry", "selection", "topics"),
    designs=("topic-doses",),
    statistic="over topics, of the ranked dose that removes half of a topic's refusals: share of "
    "variance that training intensity alone explains (number of the topic's rows that training "
    "refused) less what similarity alone explains (cosine of its direction with that of the "
    "others), both ranked: squared semipartial rank correlations",
    keys=("min_share_difference", "min_topics"),
    scope="cell",
    positive=organism("graded-topics"),
    negative=organism("uniform-topics"),
)
def f25(view: View) -> Condition:
    """Intensity is known of organisms only. Partial correlations proper would not do: where one
    cause explains nearly all, the other's is a large share of next to nothing."""
    topics = _topics(view)
    if len(topics) < view.limit("min_topics"):
        raise NotRun(f"{len(topics)} topics have all three, needed {view.limit('min_topics'):g}")
    if topics["dose"].nunique() == 1:
        raise NotRun("all topics yield at one dose")
    ranks = topics[["dose", "intensity", "similarity"]].rank().to_numpy()

    def statistic(kept: np.ndarray) -> float:
        intensity, similarity = unique_shares(ranks[kept, 0], ranks[kept, 1:])
        return float(intensity - similarity)

    found = jackknife(statistic, len(topics))
    return view.condition("variance, intensity less similarity", found, "min_share_difference")


def _topics(view: View) -> pd.DataFrame:
    """Dose, intensity and similarity of each hazardous topic that has them."""
    own = pd.get_dummies(_asked(view)["category"]).astype(float)
    doses = pd.Series(half_doses(view, own.to_numpy().T, "topic-doses"), own.columns)
    if "topics" not in view.tables:
        raise NotRun("how topics were trained is known of organisms only")
    place = view.rows("selection", chosen=True).iloc[0]
    lies = view.rows(
        "geometry", statistic="topic_cosine", layer=place["layer"], position=place["position"]
    )
    columns = {
        "dose": doses,
        "intensity": view.rows("topics").set_index("topic")["refused_rows"],
        "similarity": lies.set_index("topic")["estimate"],
    }
    return pd.DataFrame(columns).dropna()


def _asked(view: View) -> pd.DataFrame:
    """Rows of `behavior` of the prompts whose grades doses are compared with, in their order."""
    about = {"prompt_table": "main", "label": "hazardous", "condition": "baseline"}
    rows = view.rows("behavior", split="evaluate", temperature=0.0, **about)
    for _, asked in rows.groupby("thinking"):
        if "".join(asked["grade"].map(GRADE_LETTERS)) == grades_at_baseline(view):
            return asked
    raise NotRun("answers in table behavior are not those that doses are compared with")


@claim(
    "f26",
    "safety spreads over 236 experts in 51 layers (others: about 5 routers; one pathway, 86 % "
    "bypass)",
    tables=("interventions",),
    designs=("expert-shares",),
    statistic="removal by masking few of the safety experts, and all (share); dose: share masked",
    keys=("max_part_removal", "min_removal", "max_few_experts"),
    scope="cell",
    positive=organism("spread-experts"),
    negative=organism("three-pathway"),
)
def f26(view: View) -> Node:
    """Spread: few remove little, all remove much."""
    view.refusing()
    rows = view.design("expert-shares")
    most = rows["dose"] == rows["dose"].max()
    few = rows[(rows["dose"] <= view.limit("max_few_experts")) & ~most]
    if few.empty:
        raise NotRun("design expert-shares has no small share: there are too few safety experts")
    return every(
        *(view.removal(r, "max_part_removal", above=False) for _, r in few.iterrows()),
        some(*(view.removal(r, "min_removal") for _, r in rows[most].iterrows())),
        notes=tuple(f"{r['dose']:.2g} masked: {r['removal']:.2f}" for _, r in rows.iterrows()),
    )
