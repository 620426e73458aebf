"""How phases look and what things are called: the one palette and the one dictionary."""

from dataclasses import dataclass

INK = "#1b2430"
MUTED = "#5a6472"
FAINT = "#aab2bd"
GRID = "#e4e8ed"
PAPER = "#ffffff"

# matplotlib leaves pure black unsaid in SVG, and a color that is unsaid cannot follow the theme
BLACK = "#000001"

# letters on marks keep their color in both themes, or they would vanish on their mark
_LIGHT, _DARK = "#fffffe", "#101418"


@dataclass(frozen=True)
class Look:
    """A phase on the page: color, printed letter, marker, and words for one and for many."""

    name: str
    color: str
    letter: str
    letter_color: str
    marker: str
    is_one: str
    are_many: str
    meaning: str


PHASES = {
    "none": Look(
        "no safety behavior",
        BLACK,
        "N",
        PAPER,
        "o",
        "shows no safety behavior",
        "show no safety behavior",
        "Too few hazardous prompts are refused for a mechanism to be sought.",
    ),
    "deletable_circuit": Look(
        "deletable circuit",
        "#d55e00",
        "D",
        _DARK,
        "s",
        "holds its refusal in a deletable circuit",
        "hold their refusal in a deletable circuit",
        "One intervention removes refusal and leaves ability: safety is a separable part.",
    ),
    "reasoning_tangle": Look(
        "reasoning tangle",
        "#cc79a7",
        "R",
        _DARK,
        "^",
        "is a reasoning tangle",
        "are reasoning tangles",
        "Removing refusal breaks the model's reasoning along with it.",
    ),
    "three_pathway": Look(
        "three pathways",
        "#009e73",
        "3",
        _DARK,
        "p",
        "refuses through three pathways",
        "refuse through three pathways",
        "No one or two pathways suffice; all three must be removed at once.",
    ),
    "holographic": Look(
        "holographic",
        "#0072b2",
        "H",
        _LIGHT,
        "D",
        "is holographic",
        "are holographic",
        "Nothing tried removes refusal without ruining the model.",
    ),
    "indeterminate": Look(
        "indeterminate",
        "#6b7280",
        "?",
        _LIGHT,
        "o",
        "is indeterminate",
        "are indeterminate",
        "Measured, but no phase is probable enough to be named.",
    ),
    "not_run": Look(
        "not run",
        PAPER,
        "–",
        MUTED,
        "o",
        "was not run",
        "were not run",
        "Nothing is claimed; the reason stands beside it.",
    ),
}

PRETTY = {
    **{phase: look.name for phase, look in PHASES.items()},
    "dense-hybrid": "dense hybrid",
    "moe-hybrid": "mixture-of-experts hybrid",
    "moe-attention": "mixture of experts, pure attention",
    "16": "16 bit",
    "8": "8 bit",
    "4": "4 bit",
    "last_prompt": "end of the prompt",
    "end_of_thinking": "end of thinking",
    "answer_0": "1st answer token",
    "answer_1": "2nd answer token",
    "answer_2": "3rd answer token",
    "auroc": "held-out AUROC",
    "auroc_permuted_labels": "permuted labels",
    "auroc_shuffled_labels": "labels shuffled where it is fitted",
    "auroc_topic_left_out": "AUROC, topics left out",
    "auroc_logistic": "AUROC, logistic regression",
    "auroc_random_direction": "random direction",
    "gap": "standardized gap",
    "split_half_cosine": "split-half cosine",
    "cosine_next_layer": "cosine to the next block",
    "baseline": "baseline",
    "ablation-layers": "ablation, block by block",
    "ablation-coverage": "ablation over coverage",
    "ablation-dose": "ablation over dose",
    "ablation-scope": "ablation over scope",
    "ablation-per-layer": "a direction per block over dose",
    "addition": "addition over dose",
    "weight-projection": "weight projection",
    "pathways": "pathways, alone and together",
    "rank-ladder": "ablation over rank",
    "battery": "battery of five",
    "layer-types": "attention and recurrent layers",
    "ablation-mixers": "mixers, block by block",
    "projection-sets": "sets of projections",
    "layer-count": "number of layers",
    "topic-doses": "dose by topic",
    "read-act": "where it is read, where it acts",
    "hydra": "layers that take over",
    "zero-logit": "three ways to silence experts",
    "expert-pruning": "pruned experts",
    "integers": "edited integers",
    "additive-structural": "added, ablated, projected out",
    "transfer": "directions of other precisions",
    "temperature": "temperature",
    "ablation": "ablation",
    "routing_mask": "routing mask",
    "weight_projection": "weight projection",
    "router_blinding": "blinded routers",
    "expert_silencing": "silenced experts",
    "expert_pruning": "pruned experts",
    "integer_edit": "edited integers",
    "prompt_addition": "addition to the prompt",
    "sampling": "sampled answers",
    "combination": "combination",
    "selected": "selected direction",
    "per_layer": "a direction per block",
    "safety_experts": "safety experts masked",
    "idle_experts": "experts that write least",
    "sham": "sham (matched, benign)",
    "random": "random subspace",
    "residual": "residual stream",
    "mixer": "mixer outputs",
    "expert_selection": "routers",
    "weights": "weights",
    "weights_qkv": "query, key and value projections",
    "weights_o": "output projections of mixers",
    "weights_qkvo": "all projections of mixers",
    "several": "several places",
    "hazardous": "hazardous",
    "benign": "benign",
    "strict_asr": "strict ASR",
    "broad_asr": "broad ASR",
    "asr": "ASR",
    "refusal": "refused",
    "false_refusal": "benign refused",
    "detected_proceeded": "detected, yet answered",
    "detected_silent": "detected, no answer",
    "spread": "largest over smallest rate",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "omega_squared": "share of variance",
    "share_ratio": "ratio of shares of variance",
    "difference": "difference of rates",
    "fetch": "fetch the weights",
    "quantize": "quantize",
    "probe": "probe",
    "select": "select a direction",
    "selection": "select a direction",
    "intervene": "intervene",
    "cohere": "cohere",
    "classify": "classify",
}


def pretty(key: object) -> str:
    """The name a reader sees; what the dictionary lacks is shown as it is."""
    return PRETTY.get(str(key), str(key))
