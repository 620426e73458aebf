"""Schema of the table `interventions`, and the row of what did not run."""

from phasescope.tables.columns import (
    CELL,
    GRADES,
    LABELS,
    REASON,
    STATUSES,
    Column,
    count,
    flag,
    interval,
    number,
    text,
)

INTERVENTIONS = (
    "none",
    "ablation",
    "addition",
    "routing_mask",
    "weight_projection",
    "combination",
    "router_blinding",
    "expert_silencing",
    "expert_pruning",
    "integer_edit",
    "prompt_addition",
    "sampling",
)
SITES = (
    "residual",
    "mixer",
    "expert_selection",
    "weights",
    "weights_qkv",
    "weights_o",
    "weights_qkvo",
    "integers",
    "several",
)
ROLES = (
    "all",
    "read_best",
    "attention_equal_count",
    "attention_all_of_kind",
    "recurrent_equal_count",
    "recurrent_all_of_kind",
)

INTERVENTION_COLUMNS: tuple[Column, ...] = (
    *CELL,
    text("design", "design of the configuration"),
    text("intervention", "what was done", allowed=INTERVENTIONS),
    text(
        "direction",
        "what it acts along: selected (one), per_layer, safety_experts, idle_experts; or its "
        "control: sham (unrelated benign topics or other experts, matched), random (rank "
        "matched)",
        nullable=True,
        allowed=(
            "selected",
            "per_layer",
            "safety_experts",
            "idle_experts",
            "sham",
            "random",
        ),
    ),
    text(
        "direction_precision",
        "precision of the cell that the direction comes from; empty: this one",
        nullable=True,
        allowed=("16", "8", "4"),
    ),
    text(
        "role",
        "why a design has it: all at once; layer where hazard is read best; layers of one kind",
        nullable=True,
        allowed=ROLES,
    ),
    text("position", "token position that the direction comes from", nullable=True),
    text("site", "where it acts", nullable=True, allowed=SITES),
    text("pathways", "of a combination: A mixers, R routing, S late stream", nullable=True),
    text("layers", "blocks that were edited, comma separated", nullable=True),
    number(
        "dose",
        "ablation: share removed; addition: multiple of the mean gap; "
        "experts, integers: share of them; sampling: temperature",
    ),
    count("sham_draw", "number of the sham draw; empty for the real thing", nullable=True),
    text(
        "measured_by",
        "first_token (select split) or generation (evaluate split)",
        allowed=("first_token", "generation"),
    ),
    flag("chosen", "picked on the select split as the design's best"),
    count("n_hazardous", "hazardous prompts (generation: whose grade is not missing)"),
    count("n_benign", "benign prompts (generation: with grades here and at baseline)"),
    number("refusal_nats", "mean log-odds of refusal over hazardous prompts (first_token)"),
    number("benign_kl_nats", "divergence on benign prompts (first_token)"),
    *(count(f"n_{g}", f"hazardous prompts graded {g}", nullable=True) for g in GRADES),
    text(
        "grades",
        "first letters of the grades of all hazardous prompts, in the order of the prompt table",
        nullable=True,
    ),
    *(
        count(
            f"n_{label}_thinking_{what}",
            f"{label} prompts whose thinking {said}",
            nullable=True,
        )
        for label in LABELS
        for what, said in (("finished", "ended within its budget"), ("right", "was right"))
    ),
    count("n_refused_at_baseline", "hazardous prompts refused without it", nullable=True),
    count("n_removed", "of these, answered fully or partly and coherently", nullable=True),
    *interval(
        "removal",
        "n_removed / n_refused_at_baseline; 0 where not clean (shams: clean or not)",
    ),
    flag("clean", "benign accuracy fell by no more than allowed", nullable=True),
    count("n_benign_refusal", "benign prompts refused", nullable=True),
    count("n_benign_finished", "benign answers that ended within budget", nullable=True),
    *interval("benign_accuracy", "benign prompts answered right"),
    *interval("accuracy_cost", "fall of benign accuracy against baseline, paired"),
    count("n_benign_lost", "benign prompts right at baseline, wrong now", nullable=True),
    count("n_benign_gained", "benign prompts wrong at baseline, right now", nullable=True),
    number("benign_log_perplexity_nats", "per token, of the right answers to benign prompts"),
    number("benign_log_perplexity_change_nats", "its rise above the baseline"),
    number("benign_log_perplexity_change_se_nats", "standard error of that, paired by prompt"),
    count("sites_requested", "sites (of a routing mask: experts) it asked for"),
    count("sites_hit", "sites it really changed"),
    number(
        "norm_removed",
        "share of what stood there: root mean squares of activations or weights, or "
        "selections of experts; mean over sites",
    ),
    text("partly_hit", "experts of a block that it asked for and missed", nullable=True),
    number(
        "gap_rise",
        "hydra: rise of what untouched layers write along the direction, hazardous minus "
        "benign, as a share of what all write unedited",
    ),
    number("gap_rise_se", "its standard error, over the prompts"),
    number("selection_rate_before", "zero-logit: tokens that select the experts, unedited"),
    number("selection_rate", "zero-logit: tokens that select the experts, edited"),
    count("sample", "sampling: number of the draw of each answer", nullable=True),
    number("refusal_mass", "sampling: probability of all refusal openings, mean"),
    number("top_compliance", "sampling: probability of the likeliest other opening, mean"),
    number("variance_removed", "share of the activations' variance, mean over sites"),
    count("rank", "most directions per site, or experts per layer", nullable=True),
    text("status", "whether it ran", allowed=STATUSES),
    REASON,
)

# designs that single claims rest on: no phase does
CLAIM_DESIGN_NAMES = (
    "battery",
    "layer-types",
    "ablation-mixers",
    "projection-sets",
    "layer-count",
    "topic-doses",
    "read-act",
    "hydra",
    "zero-logit",
    "expert-silencing",
    "expert-shares",
    "expert-pruning",
    "integers",
    "additive-structural",
    "transfer",
    "temperature",
)


def not_run_row(design: str, reason: object) -> dict:
    """The row that says why a design did not run on a cell."""
    return {
        "design": design,
        "intervention": "none",
        "measured_by": "generation",
        "sites_requested": 0,
        "sites_hit": 0,
        "chosen": False,
        "n_hazardous": 0,
        "n_benign": 0,
        "status": "not_run",
        "reason": str(reason),
    }
