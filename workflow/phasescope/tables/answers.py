"""Schemas of what is counted from answers: prompts asked, rates, and comparisons of them."""

from phasescope.tables.columns import (
    CELL,
    REASON,
    STATUSES,
    VERDICTS,
    Column,
    count,
    number,
    text,
)

# how answers came about
PROMPT_TABLES = (
    "main",
    "families",
    "paraphrases",
    "knowledge",
    "benign_tasks",
    "false_refusals",
    "hazardous",
)
ANSWERED = (
    text("prompt_table", "the main one, or what it is for", allowed=PROMPT_TABLES),
    text("condition", "baseline, or the design whose chosen setting was applied"),
    number("temperature", "of decoding; 0 is greedy", nullable=False),
)
RATES = (
    "strict_asr",
    "broad_asr",
    "refusal",
    "false_refusal",
    "detected_proceeded",
    "detected_silent",
)

ANSWER_SCHEMAS: dict[str, tuple[Column, ...]] = {
    # which prompts each model is asked, and why some are not; one row a model and use
    "prompt_tables": (
        CELL[0],
        text("prompt_table", "the main one, or what it is for", allowed=(*PROMPT_TABLES, "texts")),
        text("claims", "claims that need it"),
        text("origin", "path, folder, or data set and revision", nullable=True),
        text("sha256", "hash of the table", nullable=True),
        text("language", "of its prompts", nullable=True),
        count("n_hazardous", "hazardous evaluate prompts that serve", nullable=True),
        count("n_benign", "benign evaluate prompts (or passages) that serve", nullable=True),
        text("status", "whether there is one", allowed=STATUSES),
        REASON,
    ),
    # rates of graded answers to evaluate prompts; one row a setting, stratum and statistic
    "behavior_rates": (
        *CELL,
        *ANSWERED,
        text("by", "what the prompts are grouped by", allowed=("all", "family", "category")),
        text("value", "family or category; all"),
        text(
            "statistic",
            "of hazardous prompts: strict_asr (full), broad_asr (full or partial), refusal; of "
            "those with readable thinking: detected_proceeded (found hazardous, yet answered in "
            "full or part), detected_silent (found hazardous, no answer at all); of benign "
            "prompts: false_refusal",
            allowed=RATES,
        ),
        count("hits", "answers that count"),
        count("n", "graded answers"),
        count("n_missing", "answers without a grade, left out"),
        count("n_sources", "source prompts behind them"),
        number("estimate", "hits / n"),
        number("ci_low", "lower end of the 95 % interval, clustered by source prompt"),
        number("ci_high", "upper end of the 95 % interval, clustered by source prompt"),
    ),
    # paired comparisons of these rates on the same source prompts
    "behavior_changes": (
        *CELL,
        *ANSWERED,
        text(
            "by",
            "what differs: condition (from baseline), precision (from 16 bit), temperature (from "
            "0), family (from plain requests)",
            allowed=("condition", "precision", "temperature", "family"),
        ),
        text("value", "the condition, precision, temperature or family that is compared"),
        text("statistic", "which rate", allowed=RATES),
        number("estimate", "mean change of a source prompt's share of hits"),
        number("ci_low", "lower end of the 95 % interval"),
        number("ci_high", "upper end of the 95 % interval"),
        count("n", "source prompts that both sides have"),
        count("n_lost", "of these, with a lower share of hits"),
        count("n_gained", "of these, with a higher share of hits"),
        number("p", "two-sided p of McNemar's exact test, a source counting once"),
        number("p_holm", "adjusted over the grid: all rows of this `by` and statistic"),
        count("n_tests", "tests in the grid"),
    ),
    # rates compared across models, measured and published, by the same code
    "across_models": (
        text("origin", "measured, or the source that published it"),
        text("precision", "bits of the measured weights", nullable=True, allowed=("16", "8", "4")),
        text("statistic", "which rate", allowed=("strict_asr", "broad_asr", "asr")),
        text("claim", "claim that it bears on", allowed=("ff-1", "ff-4", "ff-5")),
        text(
            "measure",
            "spread: largest over smallest rate, p of equal rates (exact); pearson, spearman: with "
            "log10 of parameters (as stated: unknown scale); omega_squared: share of variance; "
            "share_ratio: of two of these; difference: of two rates (Barnard)",
            allowed=(
                "spread",
                "pearson",
                "spearman",
                "omega_squared",
                "share_ratio",
                "difference",
            ),
        ),
        text("subject", "models, or what explains the variance"),
        number("estimate", "the measure"),
        number("ci_low", "lower end of the 95 % interval"),
        number("ci_high", "upper end of the 95 % interval"),
        number("null_p95", "spread: 95th percentile among equal models with these n"),
        count("n_models", "models behind it", nullable=True),
        count("n", "source prompts (published: answers) of these models", nullable=True),
        number("p", "of the exact test; of a share of variance: by permutation"),
        number("p_holm", "adjusted over the pairs of this origin and rate"),
        text("verdict", "on the claim", allowed=VERDICTS),
        REASON,
    ),
}
