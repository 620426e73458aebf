"""The sides of `bench_sweep.py`, each in a process of its own: ours with and without sharing,
transformers with forward hooks, heretic; and the checkpoint and settings that all of them run."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

LAYERS, DOSES, SAMPLED, COMPARED = 24, 16, 8, 2
KINDS = ("single-layer", "all-layer")
PROMPTS = Path("resources/prompts/world-a.tsv")


def doses() -> list[float]:
    """1/16 to 1."""
    return [(k + 1) / DOSES for k in range(DOSES)]


def settings(kind: str) -> list[tuple[tuple[int, ...], float]]:
    """(layers, dose) of a whole sweep."""
    if kind == "all-layer":
        return [(tuple(range(LAYERS - 1)), dose) for dose in doses()]
    return [((layer,), dose) for layer in range(LAYERS - 1) for dose in doses()]


def sample(kind: str) -> list[tuple[tuple[int, ...], float]]:
    """Settings that a side without sharing runs: evenly spaced, all of the same cost."""
    whole = settings(kind)
    return whole[len(whole) // SAMPLED // 2 :: len(whole) // SAMPLED][:SAMPLED]


def direction(width: int) -> np.ndarray:
    """The same unit vector (width,) for every side."""
    gaussian = np.random.default_rng(0).standard_normal(width).astype(np.float32)
    return gaussian / np.linalg.norm(gaussian)


def make_checkpoint(folder: Path, width: int) -> None:
    """A random qwen3_5 of 24 layers, every fourth attention, and its prompts as text and tokens."""
    import phasescope  # noqa: F401, the fast BLAS first
    from phasescope import world
    from phasescope.model import load_model
    from phasescope.prompts import read_prompts, render
    from phasescope.train import export
    from phasescope.train.architecture import build, hf_config

    language = world.get("world-a")
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": LAYERS,
        "full_attention_interval": 4,
        "num_attention_heads": width // 32,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": width // 2,
    }
    config = hf_config(sizes, language)
    (folder / "model").mkdir()
    export.save(build(config, 0), config, language, folder / "model")
    _allow_system(folder / "model" / "tokenizer_config.json")
    tokenizer = load_model(folder / "model").tokenizer
    rows = read_prompts(PROMPTS).subset("select", 32)
    texts = rows["text"].tolist()
    tokens = [render(tokenizer, text, thinking=False) for text in texts]
    (folder / "prompts.json").write_text(json.dumps({"texts": texts, "tokens": tokens}))


def _allow_system(path: Path) -> None:
    """Let the chat template pass over a system message, which heretic sends with every prompt."""
    config = json.loads(path.read_text())
    no_system = "{% set messages = messages | rejectattr('role', 'equalto', 'system') %}"
    config["chat_template"] = no_system + config["chat_template"]
    path.write_text(json.dumps(config))


class Ours:
    """phasescope, with and without sharing."""

    def __init__(self, folder: Path):
        import phasescope  # noqa: F401, the fast BLAS first
        from phasescope import intervene, model

        self.lm = model.load_model(folder / "model")
        self.room, self.model = intervene, model
        self.sequences = json.loads((folder / "prompts.json").read_text())["tokens"]
        self.vector = direction(self.lm.stack.norm.weight.shape[-1])[None]

    def edit(self, layers, dose):
        rows = dict.fromkeys(layers, self.vector)
        return self.room.Ablation("residual", rows, dict.fromkeys(layers, np.array([dose])))

    def tasks(self) -> dict:
        """What is timed, by name: functions of a kind, that return how many settings they ran."""
        return {"ours": self.shared, "(a) one at a time": self.alone}

    def shared(self, kind: str) -> int:
        return len(self.swept([self.edit(*s) for s in settings(kind)]))

    def swept(self, edits) -> dict:
        return dict(self.room.swept_logits(self.lm, edits, self.sequences, len(self.sequences)))

    def alone(self, kind: str) -> int:
        for setting in sample(kind):
            self.one(setting)
        return SAMPLED

    def one(self, setting) -> np.ndarray:
        with self.room.applied(self.lm, self.edit(*setting)):
            return self.model.next_token_logits(self.lm, self.sequences, len(self.sequences))

    def logits(self) -> dict[str, np.ndarray]:
        """Logits of the sampled settings, by task and kind."""
        found = {}
        for kind in KINDS:
            whole = self.swept([self.edit(*s) for s in settings(kind)])
            places = [settings(kind).index(s) for s in sample(kind)[:COMPARED]]
            found[f"ours {kind}"] = np.stack([whole[i] for i in places])
            found[f"(a) {kind}"] = np.stack([self.one(s) for s in sample(kind)[:COMPARED]])
        return found

    def floor(self) -> dict:
        """By kind: settings a second of the unavoidable multiplications, and how many times fewer
        tokens go through blocks than with nothing shared."""
        rate = self._rate()
        each = [self._multiplications(block) for block in self.lm.blocks]
        everything = sum(map(len, self.sequences))
        distinct = len({tuple(s[:end]) for s in self.sequences for end in range(1, len(s) + 1)})
        found = {"gflops": rate / 1e9}
        for kind in KINDS:
            edits = settings(kind)
            run = [*range(LAYERS - 1 if kind == "single-layer" else 1)]  # plain, once
            run += [above for layers, _ in edits for above in range(min(layers) + 1, LAYERS)]
            found[kind] = len(edits) / (2 * sum(each[i] for i in run) * distinct / rate)
            found[f"{kind} shared"] = len(edits) * LAYERS * everything / (len(run) * distinct)
        return found

    @staticmethod
    def _rate() -> float:
        """Floating-point operations a second of a product of 1024 x 1024 matrices."""
        import mlx.core as mx

        square = mx.random.normal((1024, 1024))
        mx.eval(square)
        times = []
        for _ in range(7):
            start = time.process_time()
            mx.eval(square @ square)
            times.append(time.process_time() - start)
        return 2 * 1024**3 / min(times)

    @staticmethod
    def _multiplications(block) -> int:
        """Of a token in a block: its matrices, and its state read, corrected and read again."""
        from mlx.utils import tree_flatten

        count = sum(a.size for _, a in tree_flatten(block.parameters()) if a.ndim == 2)
        if "linear_attn" in block:
            own = block.linear_attn
            count += 3 * own.num_v_heads * own.head_k_dim * own.head_v_dim
        return count


class Hooks:
    """transformers on torch, with forward hooks on the edited blocks."""

    def __init__(self, folder: Path):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.torch = torch
        self.causal = AutoModelForCausalLM.from_pretrained(
            folder / "model", dtype=torch.float32
        ).eval()
        self.tokens = json.loads((folder / "prompts.json").read_text())["tokens"]
        width = self.causal.config.get_text_config().hidden_size
        self.vector = torch.tensor(direction(width))

    def tasks(self) -> dict:
        """As of `Ours`."""
        return {"(c) hooks, torch": self.alone}

    def alone(self, kind: str) -> int:
        for setting in sample(kind):
            self.one(setting)
        return SAMPLED

    def one(self, setting) -> np.ndarray:
        layers, dose = setting

        def hook(module, inputs, output):
            x = output[0] if isinstance(output, tuple) else output
            new = x - dose * (x @ self.vector)[..., None] * self.vector
            return (new, *output[1:]) if isinstance(output, tuple) else new

        blocks = self.causal.model.layers
        hooks = [blocks[i].register_forward_hook(hook) for i in layers]
        lengths = [len(t) for t in self.tokens]
        padded = [t + [0] * (max(lengths) - len(t)) for t in self.tokens]
        with self.torch.no_grad():
            hidden = self.causal.model(self.torch.tensor(padded), use_cache=False)[0]
            last = hidden[self.torch.arange(len(lengths)), self.torch.tensor(lengths) - 1]
            logits = self.causal.lm_head(last)
        for own in hooks:
            own.remove()
        return logits.numpy()

    def logits(self) -> dict[str, np.ndarray]:
        """As of `Ours`."""
        first = {k: sample(k)[:COMPARED] for k in KINDS}
        return {f"(c) {k}": np.stack([self.one(s) for s in own]) for k, own in first.items()}


class Heretic:
    """heretic-llm: its reset, its weight edit as an adapter, its first-token probabilities."""

    def __init__(self, folder: Path):
        import torch

        sys.argv = sys.argv[:1]  # its settings read the command line
        from heretic.config import Settings
        from heretic.model import AbliterationParameters, Model
        from heretic.utils import Prompt

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        prompts = json.loads((folder / "prompts.json").read_text())
        self.prompts = [Prompt(system="", user=text) for text in prompts["texts"]]
        self.model = Model(
            Settings(
                model=str(folder / "model"),
                dtypes=["float32"],
                device_map="cpu",
                batch_size=len(self.prompts),
                seed=0,
            )
        )
        self.parameters = AbliterationParameters
        width = self.model.model.config.get_text_config().hidden_size
        self.directions = torch.tensor(direction(width)).repeat(LAYERS + 1, 1)
        inputs, _ = self.model.generate(self.prompts, max_new_tokens=1)
        ours = max(map(len, prompts["tokens"]))
        note = f"heretic reads {inputs['input_ids'].shape[1]} tokens a prompt, ours {ours}"
        print(json.dumps({"note": note}), flush=True)

    def tasks(self) -> dict:
        """As of `Ours`."""
        return {"(b) heretic": self.alone}

    def alone(self, kind: str) -> int:
        for layers, dose in sample(kind):
            # one block, or all of them at the same weight
            reach = 0.5 if len(layers) == 1 else 2.0 * LAYERS
            own = self.parameters(dose, float(layers[len(layers) // 2]), dose, reach)
            self.model.reset_model()
            both = dict.fromkeys(self.model.get_abliterable_components(), own)
            self.model.abliterate(self.directions, None, both)
            self.model.get_logprobs_batched(self.prompts)
        return SAMPLED

    def logits(self) -> dict[str, np.ndarray]:
        """None: it edits weights."""
        return {}


SIDES = {"ours": Ours, "hooks": Hooks, "heretic": Heretic}


def serve(side: str, folder: Path) -> None:
    """A side in a process of its own: a task and kind a line in, its rate a line out."""
    try:
        made = SIDES[side](folder)
        tasks, logits = made.tasks(), made.logits()
    except Exception as error:  # whatever another project raises for what it cannot do
        print(json.dumps({"error": f"{type(error).__name__}: {str(error).splitlines()[:1]}"}))
        return
    np.savez(folder / f"{side}.npz", **logits)
    floor = made.floor() if side == "ours" else None
    print(json.dumps({"tasks": list(tasks), "floor": floor}), flush=True)
    for line in sys.stdin:
        task, kind = json.loads(line)
        start = time.process_time()
        try:
            count = tasks[task](kind)
        except Exception as error:
            said = f"{task}, {kind}: {type(error).__name__}: {error}"
            print(json.dumps({"error": said}), flush=True)
            return
        print(json.dumps({"rate": count / (time.process_time() - start)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    serve(arguments.side, arguments.folder)


if __name__ == "__main__":
    main()
