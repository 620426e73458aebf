"""How much a study asks of a cell: lengths of passes, and tokens that the stages push."""

from dataclasses import dataclass

from phasescope.matrix.effort import EFFORT
from phasescope.matrix.memory import Pass

_TEMPLATE_TOKENS = 64  # what the chat template adds to a prompt, at most
_PROMPT_TOKENS = 512  # assumed while no prompt table is named
_BYTES_PER_TOKEN = 3  # of UTF-8: few tokens are shorter in the languages that tables come in
_CANDIDATE_SHARE = 0.8  # layers below this share of the depth give candidate directions
_SCORES = 3  # sweeps of one label that a candidate takes
# settings of a design, and per token position that directions come from; what is not named: four
_SETTINGS = {
    "weight-projection": (1, 0),
    "ablation-scope": (1, 3),
    "ablation-per-layer": (0, 5),
    "pathways": (0, 7),
    "battery": (0, 5),
    "layer-types": (0, 8),
    "projection-sets": (9, 0),
    "layer-count": (21, 0),
    "topic-doses": (12, 0),
    "zero-logit": (0, 3),
    "expert-silencing": (0, 1),
    "expert-shares": (0, 6),
    "transfer": (6, 3),
}
_LADDER, _RANKS, _LADDER_DRAWS = "rank-ladder", 5, 3
# a setting a layer, of which so many are generated, and have shams
_PER_LAYER = {"ablation-layers": 1, "ablation-mixers": 1, "read-act": 2}
# settings of designs with so many whole controls each as the ladder
_WHOLE = {"expert-pruning": 4, "integers": 6}
_SAMPLED = ("temperature", 3, 20)  # temperatures, and draws of each


@dataclass(frozen=True)
class Prompts:
    """Longest prompt and longest prompt with its reference answer, tokens (0: no answers), and
    their means."""

    prompt: int = _PROMPT_TOKENS
    reference: int = 0
    mean_prompt: int = _PROMPT_TOKENS
    mean_reference: int = 0


def prompt_lengths(texts, answers) -> Prompts:
    """Upper estimates from prompts and reference answers, without a tokenizer."""
    alone = [_tokens(t) for t in texts]
    both = [_tokens(f"{t} {a}") for t, a in zip(texts, answers, strict=True) if a] or [0]
    longest = (max(each) + (_TEMPLATE_TOKENS if any(each) else 0) for each in (alone, both))
    return Prompts(*longest, *(sum(each) // len(each) for each in (alone, both)))


def _tokens(text: str) -> int:
    return max(len(text.split()), -(-len(text.encode()) // _BYTES_PER_TOKEN))


@dataclass(frozen=True)
class Work:
    """Tokens that a stage pushes through the model in forward passes, and generation steps, each
    of one batch: what it takes if every answer uses its whole budget."""

    tokens: int
    steps: int


class Workload:
    """One model's share of a study, from its configuration and the lengths of its prompts."""

    def __init__(self, config: dict, prompts: Prompts, thinks: bool, layers: int):
        self.config, self.prompts, self.layers = config, prompts, layers
        self.thinks = thinks and config["thinking"] != "off"
        self.answer = config["max_answer_tokens"]
        self.answer += config["max_thinking_tokens"] if self.thinks else 0
        self.pairs = EFFORT[config["effort"]]

    def longest(self, metal: bool, batch: int | None = None) -> Pass:
        """The longest passes of the stages; `batch` instead of the configuration's."""
        batch = batch or self.config["batch_size"]
        scored = self.pairs["select"]
        return Pass(batch, self.prompts.prompt, self.answer, self.prompts.reference, scored, metal)

    def _answers(self, prompts: int) -> Work:
        steps = -(-prompts // self.config["batch_size"]) * self.answer
        return Work(prompts * self.prompts.mean_prompt, steps)

    def stages(self) -> dict[str, Work]:
        """Work of each stage that runs the model. Answers that another stage journaled before
        (the baseline, the chosen settings) are counted once."""
        return {
            "probe": self._probe(),
            "select": self._select(),
            "intervene": self._intervene(),
            "cohere": self._cohere(),
        }

    def _probe(self) -> Work:
        prompts = 2 * (self.pairs["fit"] + self.pairs["evaluate"])
        found = self._answers(prompts)
        return Work(found.tokens + prompts * (self.prompts.mean_prompt + self.answer), found.steps)

    def _select(self) -> Work:
        pairs, each = self.pairs["select"], self.prompts.mean_prompt
        positions = 2 if self.thinks else 1
        candidates = positions * min(self.layers - 1, round(_CANDIDATE_SHARE * self.layers))
        found = self._answers(2 * pairs)
        return Work(found.tokens + (2 + _SCORES * candidates) * pairs * each, found.steps)

    def _settings(self, design: str) -> tuple[int, int, int]:
        """Settings that a design sweeps, that it generates in full, and its shams."""
        positions, shams = (2 if self.thinks else 1), self.config["sham_draws"]
        if own := _PER_LAYER.get(design):
            return own * (self.layers - 1), own, own * shams
        if own := _WHOLE.get(design):
            return own, own * (1 + _LADDER_DRAWS), 0
        name, temperatures, draws = _SAMPLED
        if design == name:
            return 0, temperatures, temperatures * (draws - 1)
        if design == _LADDER:
            swept = _RANKS * positions
            return swept, swept * (1 + _LADDER_DRAWS), 0
        fixed, each = _SETTINGS.get(design, (4, 0))
        swept = fixed + each * positions
        return swept, swept, shams

    def designs(self) -> dict[str, Work]:
        """Work of each design."""
        return {design: self._design(design) for design in self.config["designs"]}

    def _intervene(self) -> Work:
        each = self.designs().values()
        return Work(sum(w.tokens for w in each), sum(w.steps for w in each))

    def _design(self, design: str) -> Work:
        evaluate, each = self.pairs["evaluate"], self.prompts.mean_prompt
        both, sham = self._answers(2 * evaluate), self._answers(evaluate)
        sweep = 2 * self.pairs["select"] * each
        swept, generated, draws = self._settings(design)
        tokens = (1 + swept) * sweep + (swept + draws) * sweep // 4
        tokens += generated * both.tokens + draws * sham.tokens
        tokens += (1 + generated) * evaluate * self.prompts.mean_reference
        return Work(tokens, generated * both.steps + draws * sham.steps)

    def _cohere(self) -> Work:
        conditions = 1 + len(self.config["designs"])
        return Work(conditions * 2 * self.pairs["evaluate"] * self.prompts.mean_reference, 0)
