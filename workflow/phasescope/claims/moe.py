"""Group C: claims of the frontier mixture of experts, f01 to f11."""

import numpy as np

from phasescope.claims.estimates import difference, exact, given, jackknife, normal
from phasescope.claims.evidence import Condition, Node, every, some
from phasescope.claims.registry import NO_PLANT, Control, claim, organism
from phasescope.claims.scale import factorial
from phasescope.claims.view import View, removed
from phasescope.errors import NotRun


@claim(
    "f01",
    "naive multimodal conversion keeps vision tensors (333 of 2924; 12 % of bytes)",
    tables=("audit",),
    statistic="share of the source's tensors that are vision, from its headers (exact)",
    keys=("min_vision_share",),
    scope="model",
    positive=organism("vision-ballast"),
    negative=organism("circuit"),
    by_language=False,
)
def f01(view: View) -> Node:
    """A count of all tensors: no interval."""
    row = view.rows("audit", precision="source").iloc[0]
    byte_share = row["vision_bytes"] / row["size_bytes"]
    found = exact(row["vision_tensors"] / row["tensors"], row["tensors"])
    part = view.condition("vision tensors of all", found, "min_vision_share")
    return every(part, notes=(f"{byte_share:.3f} of the bytes",))


@claim(
    "f02",
    "tensor-by-tensor quantization bounds memory and each command (< 100 ms)",
    tables=("quantization",),
    statistic="slope of peak memory above base over model size (byte a byte); times of commands "
    "are "
    "not measured off Metal",
    keys=("max_memory_slope",),
    scope="study",
    positive=Control("writer", ("phasescope",)),
    negative=Control("writer", ("whole-model loader",)),
    by_language=False,
)
def f02(view: View) -> dict[str, Condition]:
    """A line a writer over models of at least three sizes."""
    rows = view.rows("quantization")
    found = {}
    for writer, own in rows.groupby("writer"):
        size, peak = (
            own["source_bytes"].to_numpy(float),
            own["peak_above_base_bytes"].to_numpy(float),
        )
        if len(np.unique(size)) >= 3:
            slope = jackknife(lambda k, s=size, p=peak: np.polyfit(s[k], p[k], 1)[0], len(own))
            found[writer] = view.condition("memory slope", slope, "max_memory_slope", above=False)
    if not found:
        raise NotRun("no writer was measured on three sizes")
    return found


@claim(
    "f03",
    "the usual save strips metadata, reorders, corrupts",
    tables=("roundtrips",),
    statistic="share of entries, tensors, parameters or logits that a writer changes (exact), each "
    "effect its own verdict",
    keys=("min_changed",),
    scope="study",
    positive=Control("writer", ("mx.save_safetensors",)),
    negative=Control("writer", ("phasescope",)),
    by_language=False,
)
def f03(view: View) -> dict[str, Condition]:
    """Everything that was compared is counted, over all checkpoints."""
    rows = view.rows("roundtrips")
    rows = rows[(rows["verdict"] != "not_run") & (rows["n"] > 0)]
    found = {}
    for (writer, effect), own in rows.groupby(["writer", "effect"]):
        changed, n = own["n_changed"].sum(), own["n"].sum()
        found[f"{writer}, {effect}"] = view.condition(
            f"{effect} changed by {writer}", exact(changed / n, n), "min_changed"
        )
    if not found:
        raise NotRun("no writer was compared")
    return found


@claim(
    "f04",
    "three pathways, each sufficient, multiplicative; attention early to middle, routing in most "
    "layers, residual late",
    tables=("interventions",),
    designs=("pathways",),
    statistic="removal by every single and pair of pathways, and by all three (share); where each "
    "acts, by thirds of the depth, is shown",
    keys=("max_part_removal", "min_removal"),
    scope="cell",
    positive=organism("three-pathway"),
    negative=organism("natural-moe"),
)
def f04(view: View) -> Node:
    """As xs-7 in one cell. Where each acts is shown, not judged."""
    node = factorial(view)
    return every(*node.parts, notes=(*node.notes, *_thirds(view)))


_WHERE = (  # what tells where a pathway acts: table, what of it, and the column that grows with it
    ("A", "patching", {"statistic": "flipped", "site": "mixer"}, "most answers flipped by mixers"),
    ("R", "routing", {"statistic": "rate_difference"}, "widest difference of an expert's rate"),
    ("S", "sites", {"statistic": "gap", "site": "residual"}, "widest gap in the residual stream"),
)


def _thirds(view: View) -> list[str]:
    """What the survey has of each pathway in the lower, middle and upper third of the blocks."""
    notes = []
    for name, table, values, what in _WHERE:
        try:
            rows = view.rows(table, **values).dropna(subset=["layer", "estimate"])
        except NotRun:
            continue
        third = rows["layer"].astype(int) * 3 // (int(rows["layer"].max()) + 1)
        peaks = rows["estimate"].abs().groupby(third).max()
        said_ = ", ".join(f"{peak:.2f}" for peak in peaks)
        notes.append(f"{name}: {what}, from the lower third up: {said_}")
    return notes


@claim(
    "f05",
    "routers re-detect within 6-20 tokens of forced compliance",
    tables=("trajectories",),
    statistic="change point of the rate of safety experts (tokens of the answer), and share of "
    "forced answers in which refusal returns",
    keys=("min_redetection", "max_redetection", "min_returns"),
    scope="cell",
    positive=NO_PLANT,
    negative=organism("natural-moe"),
)
def f05(view: View) -> Node:
    """The whole interval lies inside, and refusal returns."""
    rows = view.rows("trajectories", condition="forced")
    point, returns = (
        rows[(rows["statistic"] == name) & rows["layer"].isna()]
        for name in ("change_point", "refusal_returns")
    )
    if returns.empty or returns["estimate"].isna().all():
        raise NotRun("no forced answers whose refusal could return")
    back = returns[returns["estimate"].notna()].iloc[0]
    parts = [
        view.condition(
            "refusal returns",
            given(back.estimate, back.ci_low, back.ci_high, back.n),
            "min_returns",
        )
    ]
    if point.empty or point["estimate"].isna().all():
        parts.append(
            view.condition("change point", exact(np.inf, back.n), "max_redetection", above=False)
        )
    else:
        row = point[point["estimate"].notna()].iloc[0]
        found = given(row.estimate, row.ci_low, row.ci_high, row.n)
        parts.append(view.condition("change point", found, "min_redetection"))
        parts.append(view.condition("change point", found, "max_redetection", above=False))
    return every(*parts)


@claim(
    "f06",
    "decided at tokens 0-5 in early attention layers; later layers change wording, not decision",
    tables=("patching",),
    statistic="share of answers flipped by patching mixer outputs of single blocks and tokens: the "
    "most in the lower half, the most in the upper",
    keys=("min_flipped", "max_late_flipped"),
    scope="cell",
    positive=organism("circuit"),
    negative=organism("attention-tuned"),
)
def f06(view: View) -> Node:
    """Some early patch flips, no late one does. Mixer outputs, not the residual stream: that hands
    on whatever was decided below."""
    rows = view.rows("patching", statistic="flipped", site="mixer", way="hazardous into benign")
    middle = rows["layer"].max() / 2
    early, late = rows[rows["layer"] < middle], rows[rows["layer"] >= middle]
    if early.empty or late.empty:
        raise NotRun("no patches of both halves of the depth")
    return every(
        some(*(_flip(view, r, "min_flipped", True) for r in early.itertuples())),
        *(_flip(view, r, "max_late_flipped", False) for r in late.itertuples()),
    )


def _flip(view: View, row, key: str, above: bool) -> Condition:
    tokens = f"tokens {int(row.token_first)} to {int(row.token_last)}"
    what = f"flipped from block {int(row.layer)}, {tokens}"
    return view.condition(
        what, given(row.estimate, row.ci_low, row.ci_high, row.n), key, above=above
    )


@claim(
    "f07",
    "two channels: residual and recurrent state",
    tables=("channels", "interventions"),
    designs=("ablation-scope", "pathways"),
    statistic="AUROC of each channel on topics left out; removal by clearing what mixers pass on "
    "from token to token (A), the residual stream (S), and both (share)",
    keys=("min_channel_auroc", "max_part_removal", "min_removal"),
    scope="cell",
    positive=organism("two-channel"),
    negative=organism("attention-tuned"),
)
def f07(view: View) -> Node:
    """Each can be read, neither alone removes, both do. A state reaches the residual stream through
    its mixer's output alone, so that is where it is cleared (design `pathways`: A, S and A+S)."""
    rows = view.rows("channels", statistic="auroc_topic_left_out")
    reads = []
    for prefix in ("recurrent_state", "residual"):
        own = rows[rows["channel"].str.startswith(prefix)]
        if own.empty:
            raise NotRun(f"no channel {prefix}: no recurrent layers")
        found = (given(r.estimate, r.ci_low, r.ci_high, r.n) for r in own.itertuples())
        what = f"AUROC of {prefix}"
        reads.append(some(*(view.condition(what, e, "min_channel_auroc") for e in found)))
    view.refusing()
    done = view.design("pathways")
    single = done[done["site"].isin(("mixer", "residual"))]
    both = done[done["pathways"] == "A+S"]
    if single.empty or both.empty:
        raise NotRun("design pathways lacks one channel alone or both")
    return every(
        *reads,
        *(view.removal(r, "max_part_removal", above=False) for _, r in single.iterrows()),
        some(*(view.removal(r, "min_removal") for _, r in both.iterrows())),
    )


@claim(
    "f08",
    "best place to read is not best place to act; reading is best after recurrent layers "
    "consolidate",
    tables=("interventions",),
    designs=("read-act",),
    statistic="regret: removal at the best block to act less removal at the best block to read "
    "(share), both chosen on other splits",
    keys=("min_regret",),
    scope="cell",
    positive=organism("early-tuned"),
    negative=organism("circuit"),
)
def f08(view: View) -> Condition:
    """Chosen: the block that acts best; role read_best: where hazard is read best, at the same
    token."""
    view.refusing()
    rows = view.design("read-act")
    act = rows[rows["chosen"]]
    read = rows[rows["role"] == "read_best"]
    read = read[read["position"].isin(act["position"])]
    if act.empty or read.empty:
        raise NotRun("design read-act lacks the place to read or to act")
    act, read = act.iloc[0], read.iloc[0]
    regret = difference(removed(act), removed(read))
    what = f"removal, acting on block {act['layers']} less on {read['layers']}, which reads best"
    if act["layers"] == read["layers"]:  # one and the same measurement
        regret = exact(0.0, int(act["n_refused_at_baseline"]))
    return view.condition(what, regret, "min_regret")


@claim(
    "f09",
    "neighboring directions: cosine < 0.05 in large mixtures of experts, > 0.5 in dense models",
    tables=("geometry",),
    statistic="cosine of neighboring layers' directions over their split-half reliability, mean "
    "over "
    "layers whose reliability suffices",
    keys=("max_neighbor_cosine", "min_reliability"),
    scope="cell",
    positive=organism("turning"),
    negative=organism("circuit"),
    by_language=False,
)
def f09(view: View) -> Node:
    """Ends of the mean: the mean of the layers' ends, as if all erred together."""
    rows = view.rows(
        "geometry", statistic="cosine_corrected", site="residual", other_site="residual"
    )
    rows = rows[(rows["other_layer"] - rows["layer"]).abs() == 1]
    least, parts = view.limit("min_reliability"), []
    for position, own in rows.groupby("position"):
        sure = own[(own["reliability"] >= least) & own["estimate"].notna()]
        weak = f"reliability under {least:g} in all layers" if sure.empty else None
        ends = sure[["estimate", "ci_low", "ci_high"]].mean() if len(sure) else [np.nan] * 3
        key = "max_neighbor_cosine"
        n = int(own["n"].max())
        found = given(*ends, n)
        parts.append(Condition(f"cosine at {position}", found, view.limit(key), key, False, weak))
    if not parts:
        raise NotRun("no cosine of neighboring layers")
    return some(*parts)


@claim(
    "f10",
    "hydra: other layers take over; each further layer costs 1-2 % perplexity",
    tables=("interventions",),
    designs=("hydra",),
    statistic="rise of what untouched blocks write along the direction, as a share of what all "
    "write, beyond that under shams; slope of log-perplexity over coverage is shown",
    keys=("min_gap_rise",),
    scope="cell",
    positive=NO_PLANT,
    negative=organism("circuit"),
    by_language=False,
)
def f10(view: View) -> Node:
    """Any coverage that leaves blocks above the lowest edited one untouched."""
    rows = view.design("hydra")
    shams = view.shams("hydra")["gap_rise"].dropna()
    parts = []
    for _, row in rows[rows["gap_rise"].notna()].iterrows():
        key, weak = "min_gap_rise", None
        limit = view.limit(key)
        if len(shams) < view.limit("min_shams"):
            weak = f"{len(shams)} shams of hydra, under {view.limit('min_shams')}"
        else:
            limit = max(limit, float(np.percentile(shams, view.limit("phases.sham_percentile"))))
        rise = normal(row["gap_rise"], row["gap_rise_se"], int(row["n_hazardous"]))
        blocks = f"{row['layers'].count(',') + 1} blocks edited"
        parts.append(Condition(f"rise in the others, {blocks}", rise, limit, key, True, weak))
    if not parts:
        raise NotRun("design hydra left no block above the edited ones")
    count = rows["layers"].str.split(",").str.len()
    slope = np.polyfit(count, rows["benign_log_perplexity_nats"], 1)[0] if len(rows) > 1 else np.nan
    removals = ", ".join(f"{r:.2f}" for r in rows["removal"])
    notes = (
        f"log-perplexity rises by {slope:.4f} nats with each further block",
        f"removal with growing coverage: {removals}",
    )
    return some(*parts, notes=notes)


@claim(
    "f11",
    "thinking trajectories diverge steadily, 4 x from middle to late layers",
    tables=("geometry",),
    statistic="standardized gap, last third of the layers over the middle third (ratio), and rank "
    "correlation of the gap with depth",
    keys=("min_gap_ratio", "min_monotone"),
    scope="cell",
    positive=organism("two-channel"),
    negative=organism("circuit-thinking"),
    by_language=False,
)
def f11(view: View) -> Node:
    """At the end of thinking; of the prompt for models that do not think. What is planted to grow
    late is the residual channel of two-channel; circuit-thinking has it whole early on. (Without a
    signal, as in helpful-only, the ratio is one of two noises, and decides nothing.)"""
    rows = view.rows("geometry", statistic=("gap_late_middle", "gap_monotone"))
    thinks = rows["position"] == "end_of_thinking"
    rows = rows[thinks] if thinks.any() else rows
    keys = {"gap_late_middle": "min_gap_ratio", "gap_monotone": "min_monotone"}
    return every(
        *(
            view.condition(
                f"{r.statistic} at {r.position}",
                given(r.estimate, r.ci_low, r.ci_high, r.n),
                keys[r.statistic],
            )
            for r in rows.itertuples()
        )
    )
