"""Where the sources contradict themselves: facts, each worked out from the figures they print."""

from phasescope.comparisons import counts_of, published, read_published

_FIRST = "failure-first"


def _figure(claim: str, quantity: str) -> float:
    rows = read_published("figures")
    own = rows[(rows["claim"] == claim) & rows["quantity"].str.startswith(quantity)]
    return float(own["value"].iloc[0])


def _tensors() -> tuple[int, int, int]:
    rows = read_published("figures")
    own = rows[rows["claim"] == "f01"].set_index(["subject", "quantity"])["value"]
    fp16, mlx = "FP16 HuggingFace original", "Reference MLX 4-bit"
    return tuple(
        int(own[k]) for k in ((fp16, "tensors"), (fp16, "vision tensors"), (mlx, "tensors"))
    )


def _fits(percent: str) -> str:
    return " or ".join(f"{hits}/{n}" for hits, n in counts_of(percent))


def contradictions() -> list[tuple[str, str]]:
    """Pairs of the claim that a contradiction bears on and the fact in one sentence."""
    ratio, r = _figure("ff-4", "variance in ASR"), _figure("ff-4", "Pearson")
    tensors, vision, converted = _tensors()
    strict, broad = (
        min(published(_FIRST, rate), key=lambda g: g.rate) for rate in ("strict_asr", "broad_asr")
    )
    asked, thought = (
        _counted(c, s) for c, s in (("ff-1", "DeepSeek V3.2"), ("ff-7", "DeepSeek V3.2"))
    )
    models = read_published("models")
    nemotron = models[models["model"].str.startswith("Nemotron Super")]
    sizes = " and ".join(f"{s}B" for s in nemotron["parameters_total_billion"])
    return [
        (
            "ff-4",
            f"{ratio:g} x r² ({r**2:.4f}) is {ratio * r**2:.2f}: more than all of the variance, so "
            "the provider's share cannot be of the same sample's variance.",
        ),
        (
            "ff-1",
            f"7.1 % fits only {_fits('7.1')} and 17.6 % only {_fits('17.6')} for n up to 20: "
            "strict and broad rates of one model have different denominators.",
        ),
        (
            "ff-1",
            f"The 'safest' model is so on broad ASR only: lowest broad is {broad.model} "
            f"({100 * broad.rate:.1f} %), lowest strict {strict.model} "
            f"({100 * strict.rate:.1f} %).",
        ),
        (
            "f01",
            f"{tensors} - {vision} = {tensors - vision} tensors, not the {converted} that the "
            "conversion is said to have.",
        ),
        ("ff-7", f"'DeepSeek n = {asked}' stands beside 'all {thought} of its traces'."),
        ("ff-4", f"One Nemotron has two sizes: {sizes}."),
        ("xs-8", "The 35B is given two phases: that of 397B, and one of its own."),
    ]


def _counted(claim: str, subject: str) -> str:
    rows = read_published("figures")
    own = rows[(rows["claim"] == claim) & (rows["subject"] == subject) & (rows["n"] != "")]
    return own["n"].iloc[0]
