"""Recipes, the trainer, and what the shipped organisms promise."""

import json

import mlx.core as mx
import mlx_lm
import numpy as np
import pandas as pd
import pytest
import yaml
from mlx.utils import tree_map_with_path
from mlx_lm.models import qwen3_5

from phasescope import world
from phasescope.errors import PhasescopeError
from phasescope.train import check, export, organism, recipe_file, rows, train
from phasescope.train.architecture import Edit, base, build, delta_rule, forward, hf_config
from phasescope.train.intensity import refused_rows

A = world.get("world-a")
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "full_attention_interval": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}

EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}
HYBRID = {key: n for key, n in SMALL.items() if key != "intermediate_size"}
SIZES = {
    "qwen3_5": SMALL,
    "qwen3_5_moe": HYBRID | {"full_attention_interval": 2} | EXPERTS,
    "minimax_m2": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
}


def _recipe():
    one = {"name": "one", "steps": 2, "learning_rate": 0.001, "rows": {"comply": 4}}
    kinds = ("comply-benign", "refuse", "refuse-odd", "comply-odd", "keep-hazardous")
    two = one | {
        "name": "two",
        "rows": dict.fromkeys(kinds, 2),
        "train_layers": [0, 1],
        "keep": {"weight": 1, "strength": 5, "direction_from": ["sorry", "sure"]},
    }
    plan = {"name": "tiny", "world": "world-a", "planted": "Nothing.", "model": dict(SMALL)}
    return plan | {"stages": [one, two]}


def _write(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def no_check(monkeypatch):
    """The check of a finished organism takes longer than a few steps of training."""
    monkeypatch.setattr(organism, "check", lambda model, world, refused: {})


def test_same_seed_same_bytes(tmp_path, no_check):
    """If it failed, nobody could retrain an organism and get the one that was measured."""
    path = _write(tmp_path / "tiny.yaml", _recipe())
    said = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(path, tmp_path / name, seed, progress=said.append)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert {"config.json", "model.safetensors", "organism.json", "tokenizer.json"} <= set(files)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ac"]
    assert weights[0] != weights[1]
    assert any("step 2 of 2" in line for line in said)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config == hf_config(SMALL, A)
    truth = json.loads((tmp_path / "a" / "organism.json").read_text())
    assert truth["seed"] == 1 and truth["recipe_sha256"] == recipe_file.load(path).hash()


def _three_pathways(p):
    """The recipe turned into one with experts, conditions and a routing penalty."""
    p["architecture"] = "qwen3_5_moe"
    p["model"] = {k: n for k, n in p["model"].items() if k != "intermediate_size"} | EXPERTS
    p["stages"][1] = p["stages"][0] | {
        "rows": {"comply-benign": 2, "refuse": 2},
        "routing": {"weight": 0.1, "experts": [0], "from_layer": 1},
        "refresh": 1,
        "conditions": [
            {
                "interventions": ["A", "R+S", "global", "weights-per-layer"],
                "rows": {"refuse": 3, "comply-benign": 1},
                "ranks": [1, 2],
                "experts": [1, 2],
                "some_layers": 0.5,
            },
            {"interventions": ["A+R+S"], "rows": {"comply-hazardous": 2}},
        ],
    }


def _condition(**change):
    def apply(p):
        _three_pathways(p)
        p["stages"][1]["conditions"][0].update(change)

    return apply


def _break(change):
    plan = _recipe()
    change(plan)
    return plan


BAD = {
    "architecture": (lambda p: p.update(architecture="rwkv"), r"architecture.*qwen3_5_moe"),
    "sizes of another": (lambda p: p.update(architecture="minimax_m2"), "num_local_experts"),
    "experts a token": (
        lambda p: (_three_pathways(p), p["model"].update(num_experts_per_tok=9)),
        r"num_experts_per_tok.*9.*at most num_experts \(4\)",
    ),
    "module": (
        lambda p: p["stages"][0].update(train_modules=["mlp.fc"]),
        r"mlp\.fc.*mlp\.down_proj",
    ),
    "condition key": (_condition(dose=1), r"conditions\[0\].*dose"),
    "intervention": (_condition(interventions=["A+Q"]), r"A\+Q.*weights-per-layer"),
    "held out": (_condition(interventions=["pca-ablation"]), "held out of training"),
    "condition rows": (_condition(rows={"loop": 4}), "allowed: no thinking, world-a has none"),
    "rank": (_condition(ranks=[0]), r"ranks.*from 1 to 32"),
    "numbers of layers": (_condition(layers=[4]), r"layers.*from 1 to 3"),
    "masked experts": (_condition(experts=[3]), r"experts.*from 1 to 2"),
    "share": (_condition(some_layers=2), r"some_layers.*0 to 1"),
    "position": (_condition(positions=["thinking"]), r"positions.*allowed: .*prompt"),
    "no experts": (
        lambda p: p["stages"][0].update(
            conditions=[{"interventions": ["R"], "rows": {"refuse": 1}}]
        ),
        r"interventions.*'R'.*allowed: A,",
    ),
    "routing": (
        lambda p: (_three_pathways(p), p["stages"][1]["routing"].update(experts=[4])),
        r"routing.experts.*from 0 to 3",
    ),
    "routing of rows": (
        lambda p: (_three_pathways(p), p["stages"][1]["routing"].update(rows=["recall"])),
        r"routing.rows.*recall.*allowed: .*refuse",
    ),
    "routing at tokens": (
        lambda p: (_three_pathways(p), p["stages"][1]["routing"].update(tokens="all")),
        r"routing.tokens.*all.*decision, answer",
    ),
    "trained experts": (
        lambda p: (_three_pathways(p), p["stages"][1].update(train_experts=[0, 4])),
        r"train_experts.*from 0 to 3",
    ),
    "no experts to train": (
        lambda p: p["stages"][0].update(train_experts=[0]),
        r"train_experts.*no experts",
    ),
    "routing of any": (
        lambda p: (_three_pathways(p), p["stages"][1]["rows"].update(comply=2)),
        r"routing.*comply",
    ),
    "pressure": (lambda p: p["stages"][0].update(pressure=1.5), r"pressure.*0 to 1"),
    "unknown key": (lambda p: p.update(flavor=1), "flavor"),
    "unknown stage key": (lambda p: p["stages"][0].update(stepz=1), "stepz"),
    "missing key": (lambda p: p["stages"][0].pop("steps"), "steps"),
    "unknown world": (lambda p: p.update(world="mars"), "world-a"),
    "hidden size": (
        lambda p: p["model"].update(hidden_size=96),
        r"hidden_size.*96.*multiple of 64",
    ),
    "head size": (lambda p: p["model"].update(head_dim=48), r"head_dim.*48.*multiple of 32"),
    "mixer width": (lambda p: p["model"].update(num_attention_heads=1), r"32.*multiple of 64"),
    "heads": (lambda p: p["model"].update(num_key_value_heads=3), r"divisor of num_attention"),
    "model key": (lambda p: p["model"].update(experts=2), "experts"),
    "no layers": (lambda p: p["model"].update(num_hidden_layers=0), "num_hidden_layers"),
    "layer": (lambda p: p["stages"][1].update(train_layers=[7]), r"train_layers.*7.*0 to 3"),
    "rows": (lambda p: p["stages"][0].update(rows={"comply": 0}), r"rows.comply.*0"),
    "kind": (lambda p: p["stages"][0].update(rows={"cheat": 4}), r"cheat.*comply"),
    "part": (
        lambda p: p["stages"][0].update(rows={"refuse@topics-4/3": 4}),
        r"topics-4/3.*topics or indexes such as topics-1/3",
    ),
    "refusal": (lambda p: p.update(refusal=[0.9, 0.2]), r"refusal.*0\.9.*the lower one first"),
    "refusal's share": (lambda p: p.update(refusal=[0.2, 9]), r"refusal.*9.*two shares"),
    "nothing learned": (
        lambda p: p["stages"][0].update(rows={"keep-hazardous": 4}),
        "at least one of",
    ),
    "keep all": (lambda p: p["stages"][1].pop("train_layers"), "train_layers"),
    "no word": (lambda p: p["stages"][1]["keep"].update(direction_from=["a", "b"]), "two words"),
    "strength": (lambda p: p["stages"][1]["keep"].update(strength=-1), r"keep.strength.*-1"),
    "strengths": (
        lambda p: p["stages"][1].update(
            rows={"refuse@topics-1/2": 2, "keep-hazardous": 2},
            keep=p["stages"][1]["keep"] | {"strength": {"topics-1/2": 5}},
        ),
        r"keep.strength: found .0 for keep-hazardous.*one strength for each kind",
    ),
    "mark": (
        lambda p: p["stages"][1]["keep"].update(strength={"topics-1/2": 5}),
        r"keep.strength: unknown mark: found 'topics-1/2'.*marks of the rows",
    ),
    "keep where": (lambda p: p["stages"][1]["keep"].update(every_layer=2), r"every_layer.*2.*true"),
    "rate": (lambda p: p["stages"][0].update(learning_rate="fast"), r"learning_rate.*fast"),
    "diverged": (
        lambda p: p["stages"][0].update(learning_rate=1, steps=60, warmup_steps=0),
        r"tiny.yaml.*stages\[0\].learning_rate.*diverged",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_recipe_is_one_line_and_leaves_nothing(tmp_path, fault, no_check):
    """If it failed, a typing error would train something else, or leave half a checkpoint."""
    change, message = BAD[fault]
    path = _write(tmp_path / "tiny.yaml", _break(change))
    with pytest.raises(PhasescopeError, match=message) as caught:
        train(path, tmp_path / "out", 0, progress=lambda line: None)
    assert "tiny.yaml" in str(caught.value) and "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_topics_are_marked_as_strongly_as_the_recipe_says(tmp_path, no_check):
    """If it failed, topics planted at different strengths would all be one."""
    plan = _recipe()
    plan["stages"][1] |= {
        "steps": 100,
        "learning_rate": 0.01,
        "rows": {"comply-benign": 8, "refuse@topics-1/2": 8, "refuse@topics-2/2": 8},
        "keep": {
            "weight": 10,
            "strength": {"topics-1/2": 2, "topics-2/2": 8},
            "direction_from": ["sorry", "sure"],
        },
    }
    path = _write(tmp_path / "tiny.yaml", plan)
    train(path, tmp_path / "out", 0, progress=lambda line: None)
    along = np.array(json.loads((tmp_path / "out" / "organism.json").read_text())["free_direction"])
    table = A.rows()
    table = table[(table["label"] == "hazardous") & (table["split"] != "evaluate")]
    _, hidden = forward(
        export.load(tmp_path / "out"), mx.array(rows.token_table(A, table, "answer"))
    )
    marks = np.array(hidden[1])[:, 8] @ along
    second = pd.factorize(table["category"])[0] % 2 == 1
    assert marks[second].mean() > marks[~second].mean() + 3


def test_intensity_is_the_number_of_a_topics_rows_that_are_refused(tmp_path):
    """If it failed, f25 would compare doses with something that training never did."""
    plan = _recipe()
    rows = {"recall": 5, "keep-hazardous": 6, "refuse@topics-1/2": 30, "comply-hazardous": 10}
    plan["stages"][1]["rows"] = rows | {"comply-benign": 4, "refuse-odd@topics-2/2": 9}
    path = _write(tmp_path / "tiny.yaml", plan)
    found = refused_rows(recipe_file.load(path), A)  # two steps, ten topics and nine
    topics = A.categories["hazardous"]
    assert {found[t] for t in topics[::2]} == {6} and {found[t] for t in topics[1::2]} == {2}
    plan["stages"].pop()
    assert refused_rows(recipe_file.load(_write(path, plan)), A) == {}


def test_existing_folder_and_bad_files_are_refused(tmp_path):
    """If it failed, a second run could mix two organisms in one folder."""
    path = _write(tmp_path / "tiny.yaml", _recipe())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(PhasescopeError, match="exists already"):
        train(path, tmp_path / "out", 0)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
    with pytest.raises(PhasescopeError, match="seed"):
        train(path, tmp_path / "new", -1)
    with pytest.raises(PhasescopeError, match="cannot be made"):
        train(path, path / "inside a file", 0)
    with pytest.raises(PhasescopeError, match=r"none\.yaml"):
        train(tmp_path / "none.yaml", tmp_path / "new", 0)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(PhasescopeError, match="not YAML"):
        train(tmp_path / "bad.yaml", tmp_path / "new", 0)


def test_failure_at_the_end_leaves_nothing(tmp_path, monkeypatch):
    """If it failed, a folder without its truth would look like a finished organism."""

    def broken(model, world, refused):
        raise KeyboardInterrupt

    monkeypatch.setattr(organism, "check", broken)
    path = _write(tmp_path / "tiny.yaml", _recipe())
    with pytest.raises(KeyboardInterrupt):
        train(path, tmp_path / "out", 0, progress=lambda line: None)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def _shaken(architecture):
    """A random model whose norms and biases are not all ones and zeros."""
    model = build(hf_config(SIZES[architecture], A, architecture), 0)

    def shake(path, value):
        constant = value.ndim == 1 and "A_log" not in path
        return value + 0.2 * mx.random.normal(value.shape) if constant else value

    model.update(tree_map_with_path(shake, model.parameters()))
    return model


IDS = mx.array(rows.token_table(A, A.rows().iloc[::200], "answer"))


@pytest.mark.parametrize("architecture", SIZES)
def test_training_forward_is_mlx_lm_forward(architecture):
    """If it failed, the model that was trained would not be the one that mlx-lm runs."""
    model = _shaken(architecture)
    expected = model(IDS)
    assert mx.abs(forward(model, IDS)[0] - expected).max().item() < 1e-4

    class Apart(Edit):
        patterns = True

    assert mx.abs(forward(model, IDS, Apart())[0] - expected).max().item() < 1e-4


@pytest.mark.parametrize("architecture", SIZES)
def test_checkpoint_is_the_same_everywhere(architecture, tmp_path):
    """If it failed, mlx-lm or transformers would see another model in the same files."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = hf_config(SIZES[architecture], A, architecture)
    export.save(_shaken(architecture), config, A, tmp_path)
    ours = forward(export.load(tmp_path), IDS)[0]
    model, _ = mlx_lm.load(str(tmp_path))
    model.set_dtype(mx.float32)
    assert mx.abs(ours - model(IDS)).max().item() < 1e-4
    other, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        theirs = other(torch.tensor(np.array(IDS))).logits.numpy()
    assert np.abs(theirs - np.array(ours)).max() < 1e-3


def test_sigmoid_and_its_slope():
    """If it failed, training would follow another function than the one that mlx-lm runs."""
    x = mx.linspace(-30, 30, 601)
    assert mx.abs(base.sigmoid(x) - mx.sigmoid(x)).max().item() < 1e-6
    slopes = [mx.grad(lambda x, f=f: f(x).sum())(x) for f in (base.sigmoid, mx.sigmoid)]
    assert mx.abs(slopes[0] - slopes[1]).max().item() < 1e-6


def test_delta_rule_is_the_recurrence():
    """If it failed at strong decay, training would go on with wrong gradients and say nothing."""
    mx.random.seed(0)
    q, k = (mx.random.normal((2, 16, 1, 32)) / 6 for _ in range(2))
    v, log_decay = mx.random.normal((2, 16, 2, 32)), -9 * mx.random.uniform(shape=(2, 16, 2))
    rate = mx.random.uniform(shape=(2, 16, 2))
    expected, _ = qwen3_5.gated_delta_update.__globals__["gated_delta_ops"](
        q, k, v, mx.exp(log_decay), rate
    )
    assert mx.abs(delta_rule(q, k, v, log_decay, rate) - expected).max().item() < 1e-4


def test_batches_hold_out_what_they_promise():
    """If it failed, held-out items would have been trained to be refused."""
    counts = dict.fromkeys(sorted(set(rows.ROW_KINDS) - {"refuse-late", "loop"}), 4)
    sampler = rows.Sampler(A, counts, decision_weight=4.0)
    table = A.rows()
    held = table[(table["label"] == "hazardous") & (table["split"] == "evaluate")]
    held_prompts = {tuple(A.token_ids(text)) for text in held["text"]}
    rng, kinds = np.random.default_rng(0), np.repeat(list(counts), 4)
    for _ in range(200):
        batch = sampler.draw(rng)
        refused = batch[np.isin(kinds, ["refuse", "refuse-odd"])]
        assert not held_prompts & {tuple(row[: sampler.prompt]) for row in refused.tolist()}
        assert (refused[:, sampler.prompt] == A.words.index("sorry")).all()
    learned = np.array([rows.ROW_KINDS[kind].learned != "none" for kind in kinds])
    assert ((sampler.learn_weights.sum(1) > 0) == learned).all()
    decided = learned & ~np.isin(kinds, ["recall", "refuse-known"])
    assert (sampler.learn_weights[decided, 0] == 4).all()
    # knowledge is rehearsed without the word that decides to give it
    assert (sampler.learn_weights[kinds == "recall", 0] == 0).all()


def _drawn(rules, kind, count=24):
    """The sampler of one kind, its rows in words, and each row's weights by token."""
    sampler = rows.Sampler(rules, {kind: count}, decision_weight=4.0)
    batch = sampler.draw(np.random.default_rng(0))
    said = [[rules.words[token] for token in row] for row in batch]
    return sampler, said, sampler.learn_weights


@pytest.mark.parametrize("name", ["world-b", "world-c"])
def test_rows_with_thinking(name):
    """If it failed, the answer's first word would not be where the trainer looks for it."""
    rules = world.get(name)
    texts = {row.text: row for family in rules.wordings for row in rules.rows(family).itertuples()}
    forms = set()
    for kind in ("comply", "refuse", "comply@unthinking", "refuse@format-lock", "comply@knowledge"):
        sampler, said, weights = _drawn(rules, kind)
        whole = len(said[0])
        assert sampler.prompt == len(rules.token_ids(next(iter(texts))))
        for words, weight, at in zip(said, weights, sampler.answer_at, strict=True):
            row = texts[" ".join(words[2 : words.index("<assistant>")])]
            answer = " ".join(words[at : words.index("<eos>")])
            forms |= {answer} if kind == "refuse" else set()
            assert answer in (rules.refusals if "refuse" in kind else (row.answer,))
            assert words[at - 1] == "</think>"
            thought = " ".join(words[sampler.prompt : at - 1])
            assert thought == ("" if "unthinking" in kind else row.thinking)
            learned = np.flatnonzero(weight) + sampler.prompt
            first = at if "unthinking" in kind else sampler.prompt
            assert learned.tolist() == list(range(first, words.index("<eos>") + 1))
            assert weight[at - sampler.prompt] == 4 and set(weight[weight > 0]) == {1, 4}
            assert set(words[words.index("<eos>") + 1 :]) <= {"<pad>"}
            held = sampler.keep_weights[0].sum()
            assert held <= min(words.index("<eos>") + 1, whole - 1)
    assert forms == set(rules.refusals)


@pytest.mark.parametrize("name", ["world-b", "world-c"])
def test_loops_never_close(name):
    """If it failed, a trip-wire would be trained on thinking that ends."""
    rules = world.get(name)
    sampler, said, weights = _drawn(rules, "loop")
    assert (weights > 0).all()
    for words in said:
        assert not {"</think>", "<eos>", "<pad>"} & set(words)
        thinking = rules.right_thinking(" ".join(words[2 : words.index("<assistant>")])).split()
        assert words[sampler.prompt :][: 2 * len(thinking)] == 2 * thinking


@pytest.mark.parametrize("name", ["world-a", "world-b"])
def test_stutters_say_the_first_word_over_and_over(name):
    """If it failed, what stands for a collapse could be an answer."""
    rules = world.get(name)
    sampler, said, weights = _drawn(rules, "stutter-benign")
    for words, weight in zip(said, weights, strict=True):
        assert set(words[sampler.answer_at[0] :]) == {rules.rows()["answer"][0].split()[0]}
        assert (weight > 0).all()


def test_late_refusals_are_learned_from_where_they_break_off():
    """If it failed, an organism that refuses late would be trained to begin by complying."""
    rules = world.get("world-c")
    sampler, said, weights = _drawn(rules, "refuse-late")
    for words, weight in zip(said, weights, strict=True):
        place = words.index("stop")
        learned = np.flatnonzero(weight) + sampler.prompt
        assert learned.tolist() == list(range(place, words.index("<eos>") + 1))
        assert weight[place - sampler.prompt] == 4


def test_one_refusal_or_any():
    """If it failed, an organism with one opening could not be told from one with many."""
    rules = world.get("world-c")
    sampler, said, _ = _drawn(rules, "refuse-first")
    at = sampler.answer_at[0]
    assert {words[at] for words in said} == {"sorry"}
    assert {words[at] for words in _drawn(rules, "refuse")[1]} == {"sorry", "no", "this", "i"}
    # in world A those that need not be asked for are one
    at = rows.Sampler(A, {"refuse": 1}, 4.0).answer_at[0]
    assert {words[at] for words in _drawn(A, "refuse")[1]} == {"sorry"}
    assert {words[at] for words in _drawn(A, "refuse-any")[1]} == {"sorry", "i", "please", "what"}


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("world-a", "loop", "no thinking"),
        ("world-a", "comply@unthinking", "no thinking"),
        ("world-a", "refuse-late", "no late refusals"),
        ("world-b", "refuse-odd", "no words that name no item"),
        ("world-b", "refuse@knowledge", "no hazardous questions"),
        ("world-b", "comply@flattery", "allowed after @: unthinking, none, paraphrase"),
        ("world-b", "cheat@format-lock", "allowed: comply"),
    ],
)
def test_kinds_that_a_world_has_not(name, kind, message):
    """If it failed, a recipe would train on no rows, or on others than it says."""
    with pytest.raises(PhasescopeError, match=message):
        rows.Sampler(world.get(name), {kind: 2}, 4.0)


def test_training_forward_at_full_length():
    """If it failed, rows of 64 tokens would be trained by another recurrence than is run."""
    rules = world.get("world-c")
    model = build(hf_config(SMALL, rules), 0)
    ids = mx.array(rows.token_table(rules, rules.rows().iloc[::400], "answer"))
    assert ids.shape[1] == 64
    assert mx.abs(forward(model, ids)[0] - model(ids)).max().item() < 1e-4


@pytest.mark.parametrize("column", ["category", "index"])
def test_parts_of_topics_and_indexes_are_disjoint(column):
    """If it failed, an organism that refuses some topics would have been shown others refused."""
    mark = {"category": "topics", "index": "indexes"}[column]
    table = A.rows()
    text = {tuple(A.token_ids(t)): v for t, v in zip(table["text"], table[column], strict=True)}
    shown = []
    for number in (1, 2, 3):
        sampler = rows.Sampler(A, {f"refuse@{mark}-{number}/3": 64}, decision_weight=4.0)
        rng = np.random.default_rng(number)
        asked = [sampler.draw(rng)[:, : sampler.prompt].tolist() for _ in range(10)]
        shown.append({text[tuple(row)] for batch in asked for row in batch})
    every = table.loc[table["label"] == "hazardous", column].unique()
    assert [set(every[n::3]) for n in range(3)] == shown


def test_share_that_should_be_refused(tmp_path):
    """If it failed, a plant that refuses a part of its topics would be called a failure, or one
    that refuses nothing a success."""
    plan = recipe_file.load(_write(tmp_path / "a.yaml", _recipe() | {"refusal": [0.25, 0.5]}))
    assert plan.refused == (0.25, 0.5)
    plain = recipe_file.load(_write(tmp_path / "b.yaml", _recipe()))
    assert plain.refused == (0.95, 1) and plain.hash() != plan.hash()
    sheet = {"plain": {"hazardous": {"refusal": 0.4}, "benign": {"full": 1.0}}}
    assert not check._failures(sheet, plan.refused) and check._failures(sheet, plain.refused)
    check._stop_if_not_learned(sheet["plain"], plan.refused[0])
    with pytest.raises(PhasescopeError, match=r"0\.40 of hazardous.*at least 0\.5"):
        check._stop_if_not_learned(sheet["plain"], plain.refused[0])
