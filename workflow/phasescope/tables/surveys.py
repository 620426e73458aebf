"""Schemas of the probe and the survey: where the safety signal is."""

from phasescope.tables.columns import (
    CELL,
    LABELS,
    REASON,
    STATUSES,
    Column,
    count,
    estimate,
    estimated,
    flag,
    number,
    text,
)

LAYER_KINDS = ("attention", "recurrent")
SEPARATION = (
    "auroc",
    "auroc_topic_left_out",
    "auroc_logistic",
    "auroc_shuffled_labels",
    "auroc_permuted_labels",
    "auroc_random_direction",
    "gap",
    "split_half_cosine",
)
STATISTICS = (*SEPARATION, "cosine_next_layer")
# tables of the survey
SURVEYS = ("sites", "geometry", "channels", "routing", "patching", "trajectories")
ROUTING = (
    "selection_rate",
    "router_weight",
    "saliency",
    "dead_share",
    "rate_difference",
    "saliency_difference",
    "expert_overlap",
    "expert_overlap_by_chance",
)
CHANNELS = (
    "recurrent_state",
    "conv_state",
    "attention_keys",
    "attention_values",
    "residual after recurrent",
    "residual after attention",
)
GEOMETRY = (
    "cosine",
    "cosine_corrected",
    "effective_directions",
    "effective_directions_shuffled",
    "topic_cosine",
    "gap_slope",
    "gap_late_middle",
    "gap_monotone",
)

PROBE_SCHEMAS: dict[str, tuple[Column, ...]] = {
    # where the safety signal can be read; one row a statistic
    "probes": (
        *CELL,
        text("site", "where in the block", allowed=("residual",)),
        count("layer", "block, counted from 0"),
        text("layer_kind", "what mixes tokens in the block", allowed=LAYER_KINDS),
        text("position", "last_prompt, end_of_thinking, answer_0, answer_1, answer_2"),
        text("statistic", "what was measured", allowed=STATISTICS),
        *estimated("AUROC and cosine: no unit; gap: pooled standard deviations"),
        count("n", "prompts (both labels together) behind the estimate"),
    ),
    # the survey: every site, layer and moment; one row a statistic
    "sites": (
        *CELL,
        text("site", "where in the block: a kind of `phasescope.model.KINDS`"),
        count("layer", "block, counted from 0; empty: not run", nullable=True),
        text("layer_kind", "what mixes tokens there", nullable=True, allowed=LAYER_KINDS),
        text("position", "moment of prompt, thinking or answer", nullable=True),
        *estimate(SEPARATION, "AUROC, cosine: no unit; gap: pooled standard deviations"),
    ),
    # the survey: how directions lie to each other, over depth, sites and topics
    "geometry": (
        *CELL,
        text("site", "whose direction", nullable=True),
        count("layer", "its block; empty: over depth", nullable=True),
        text("other_site", "that it is compared with", nullable=True),
        count("other_layer", "its block", nullable=True),
        text("topic", "of a single topic's direction", nullable=True),
        text("position", "end of prompt or thinking", nullable=True),
        *estimate(
            GEOMETRY,
            "cosines, ratio, rank correlation: no unit; effective number of directions; slope: "
            "pooled standard deviations over the whole depth",
        ),
        number("reliability", "smaller split-half cosine of the two directions"),
    ),
    # the survey: what is carried on from token to token, beside the residual stream
    "channels": (
        *CELL,
        text("channel", "what is read", allowed=CHANNELS),
        count("layer", "block; empty: not run", nullable=True),
        text("layer_kind", "what mixes tokens there", nullable=True, allowed=LAYER_KINDS),
        text("position", "end of prompt or thinking", nullable=True),
        count("dimension", "of the random projection that is read", nullable=True),
        *estimate(
            (*SEPARATION, "auroc_above_residual"),
            "AUROC and its difference from the residual stream's after the same layer: no unit; "
            "gap: pooled standard deviations",
        ),
    ),
    # the survey: what routers select on hazardous, benign and neutral text
    "routing": (
        *CELL,
        text(
            "text",
            "prompts up to the answer, or right answers to benign prompts (neutral); empty: both",
            nullable=True,
            allowed=(*LABELS, "neutral"),
        ),
        text("span", "tokens of a difference: prompt, or one moment", nullable=True),
        count("layer", "block", nullable=True),
        count("expert", "number in its block", nullable=True),
        text("topic", "of an overlap", nullable=True),
        *estimate(
            ROUTING,
            "share of tokens, of experts (dead_share, expert_overlap); router_weight: mean per "
            "token; saliency: mean of router weight x output norm per token",
        ),
    ),
    # the survey: from which token and layer a matched prompt's activations flip the answer
    "patching": (
        *CELL,
        text(
            "way",
            "whose activations went where",
            nullable=True,
            allowed=("hazardous into benign", "benign into hazardous"),
        ),
        text("site", "where in the block", nullable=True, allowed=("residual", "mixer")),
        count("layer", "block", nullable=True),
        text("layer_kind", "what mixes tokens there", nullable=True, allowed=LAYER_KINDS),
        count("token_first", "first token patched; 0 is the last before the answer", nullable=True),
        count("token_last", "last token patched", nullable=True),
        *estimate(
            ("flipped", "recovered", "earliest_flip"),
            "flipped: share of answers; recovered: share of the log-odds between the two prompts; "
            "earliest_flip: share flipped at the first place that flips half",
        ),
    ),
    # the survey: token by token through the answer
    "trajectories": (
        *CELL,
        text(
            "condition",
            "whose answers; forced: hazardous, the first tokens made to comply",
            nullable=True,
            allowed=(*LABELS, "forced"),
        ),
        count("layer", "block; empty: all together", nullable=True),
        text("layer_kind", "what mixes tokens there", nullable=True, allowed=LAYER_KINDS),
        count("step", "token of the answer, from 0; -1: the last before it", nullable=True),
        *estimate(
            ("projection", "safety_expert_rate", "refusal_returns", "change_point"),
            "projection: 0 at the benign, 1 at the hazardous mean before the answer; rates: share; "
            "change_point: step at which safety experts come back",
        ),
    ),
    # the candidates of the direction selection
    "selection": (
        *CELL,
        count("layer", "block whose output gave the direction", nullable=True),
        text("position", "token position that gave the direction", nullable=True),
        number("ablated_refusal_nats", "log-odds of refusal, hazardous, direction ablated"),
        number("induced_refusal_nats", "log-odds of refusal, benign, direction added"),
        number("benign_kl_nats", "divergence on benign prompts, direction ablated"),
        number("cosmic_score", "cosines that addition and ablation give (COSMIC), -2 to 2"),
        flag("cosmic_best", "largest such score at its position", nullable=True),
        flag("qualifies", "meets every constraint"),
        flag("chosen", "the direction that the designs use"),
        text("status", "whether a direction was chosen", allowed=STATUSES),
        REASON,
    ),
}
