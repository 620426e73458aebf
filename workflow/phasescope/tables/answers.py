"""Schemas of answers: prompts asked, grades, and what is counted from them and compared."""

from phasescope.tables.columns import (
    CELL,
    GRADES,
    LABELS,
    REASON,
    SPLITS,
    STATUSES,
    VERDICTS,
    Column,
    count,
    estimated,
    flag,
    interval,
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
    text("thinking", "whether the model was let think", allowed=("on", "off")),
    number("temperature", "of decoding; 0 is greedy", nullable=False),
    text("grader", "exact, or what else graded; none: nothing reads the language"),
)
GRADED = (
    text("grade", "the grade", allowed=GRADES),
    count("grade_errors", "attempts to grade it that failed"),
    flag("keyword_refusal", "holds a phrase that keyword graders take for a refusal"),
    number("strongreject", "StrongREJECT's score by the judge's report, 0 to 1"),
    text("degeneration", "signs of it, comma separated", nullable=True),
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
    # one row an answer
    "behavior": (
        *CELL,
        *ANSWERED,
        text("prompt", "id in the prompt table"),
        text("source", "prompt that it is a wording of; its own id if it is no rewording"),
        text("label", "hazardous or benign", allowed=LABELS),
        text("category", "topic"),
        text("family", "attack family, or none"),
        text("split", "split of the prompt", allowed=SPLITS),
        *GRADED,
        flag("finished", "ended by itself within its budget"),
        count("thinking_tokens", "length of the thinking"),
        flag("thinking_finished", "thinking ended within its budget", nullable=True),
        flag("thinking_right", "it was right, where a world can tell", nullable=True),
        flag("thinking_detects", "it found the request hazardous", nullable=True),
        count("answer_tokens", "length of the answer"),
        number("repetition", "share of 4-grams seen before in the answer", nullable=False),
        text("answer_sha256", "hash of the answer's tokens"),
        text("text", "the answer; kept only under keep_text", nullable=True),
    ),
    # language and answers as a whole, with and without an intervention
    "coherence": (
        *CELL,
        *ANSWERED[1:],
        text("label", "which prompts", allowed=LABELS),
        count("n", "prompts"),
        count("n_missing", "of these, without a grade; rates are of the others"),
        *interval("accuracy", "answered in full (in a world: right)"),
        *interval("refusal", "refused"),
        number("keyword_refusal", "share with a phrase that keyword graders take for a refusal"),
        *interval("degenerate", "gibberish, loop, empty or unfinished"),
        *interval("thinking_finished", "thinking that ended within its budget; empty: no thinking"),
        *interval("thinking_right", "thinking that ended and was right, where a world can tell"),
        number("unfinished", "share that ran out of its token budget"),
        number("repetition", "mean share of 4-grams seen before in the answer"),
        number("answer_tokens", "mean length of an answer, tokens"),
        count("n_texts", "passages of plain text", nullable=True),
        number("text_log_perplexity_nats", "per token, of plain text"),
        number("text_log_perplexity_se_nats", "its standard error"),
        number("log_perplexity_nats", "per token, of the right answers"),
        number("log_perplexity_se_nats", "its standard error, clustered by prompt"),
    ),
    # keyword grades beside the grader's, over the answers of one condition
    "agreement": (
        *CELL,
        *ANSWERED,
        text("label", "which prompts", allowed=LABELS),
        count("n", "answers with a grade"),
        count("n_missing", "answers without"),
        *interval("compliance", "graded full or partial"),
        *interval("keyword_compliance", "without a phrase of the keyword list"),
        *interval("kappa", "Cohen's, of refusal by keyword and by the grader"),
        *interval("keyword_sensitivity", "of graded refusals, those that the keywords find"),
        *interval("keyword_specificity", "of other answers, those that they leave alone"),
        *interval(
            "compliance_corrected",
            "compliance corrected for the judge's errors, as grade-check measured them",
        ),
    ),
    # one row an endpoint and prompt: what the same prompts come to on another path
    "endpoints": (
        text("endpoint", "id in the configuration"),
        text("asked_model", "model by the name that the provider was asked for"),
        text("address", "of the server, or the checkpoint folder", nullable=True),
        text("system_prompt", "that was put before each prompt", nullable=True),
        number("temperature", "0: greedy", nullable=False),
        count("max_tokens", "budget of thinking and answer"),
        text("thinking", "what the endpoint was asked for", allowed=("on", "off", "server")),
        text("grader", "exact, or what else graded"),
        text("prompt", "id in the prompt table"),
        text("label", "hazardous or benign", allowed=LABELS),
        text("category", "topic"),
        text("family", "attack family, or none"),
        text("messages_sha256", "hash of the chat messages, system prompt included"),
        text("rendered_sha256", "hash of the rendered prompt's tokens; in process", nullable=True),
        *GRADED,
        flag("thinking_detects", "thinking found the request hazardous", nullable=True),
        text("stop", "why the reply ended, in Inspect's words; content_filter: withheld"),
        flag("finished", "ended by itself within its budget"),
        text("error", "what failed where nothing was replied", nullable=True),
        count("answer_tokens", "thinking included, as the provider counts", nullable=True),
        count("answer_characters", "length of the answer"),
        count("thinking_characters", "length of the thinking", nullable=True),
        text("answer_sha256", "hash of the answer's text"),
        text("text", "the answer; kept only under keep_text", nullable=True),
    ),
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
        *estimated("hits / n", by="source prompt"),
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
        *estimated("mean change of a source prompt's share of hits"),
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
        *estimated("the measure"),
        number("null_p95", "spread: 95th percentile among equal models with these n"),
        count("n_models", "models behind it", nullable=True),
        count("n", "source prompts (published: answers) of these models", nullable=True),
        number("p", "of the exact test; of a share of variance: by permutation"),
        number("p_holm", "adjusted over the pairs of this origin and rate"),
        text("verdict", "on the claim", allowed=VERDICTS),
        REASON,
    ),
}
