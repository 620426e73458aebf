"""Every site of every architecture, against transformers on torch; nothing of a block unmapped."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, DynamicCache

from phasescope.errors import NotRun, PhasescopeError
from phasescope.model import (
    ADAPTERS,
    KINDS,
    STATES,
    Site,
    layers_with,
    load_model,
    record_sites,
    record_states,
    recorded_batches,
    routed,
    tapped,
)

NAMES = ("qwen3_5", "qwen3_5_moe", "minimax_m2", "qwen3", "llama")
ROUTED = ("qwen3_5_moe", "minimax_m2")
_rng = np.random.default_rng(5)
SEQUENCES = [_rng.integers(6, 90, size=n).tolist() for n in (9, 14, 5, 11)]
POSITIONS = [[len(s) - 1, 0, len(s) // 2] for s in SEQUENCES]
# torch's name of a site's module, and the side of it, where the names differ or the side matters
TORCH = {
    "residual_before": ("", "input"),
    "residual": ("", "output"),
    "residual_middle": ("post_attention_layernorm", "input"),
    "heads": ("self_attn.o_proj", "input"),
    "recurrent_heads": ("linear_attn.out_proj", "input"),
    "feed_forward": ("mlp", "output"),
    "router": ("mlp.gate", "output"),
    "shared_expert": ("mlp.shared_expert", "output"),
    "shared_expert_gate": ("mlp.shared_expert_gate", "output"),
} | {
    name: (f"{mixer}.{name}", "output")
    for mixer, names in (
        ("self_attn", ("q_proj", "k_proj", "v_proj", "o_proj")),
        ("linear_attn", ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")),
    )
    for name in names
}
# compared in tests of their own
ELSEWHERE = {"mixer", "conv1d", "selected_experts", "experts"}


class Torch:
    """transformers' own reading of a checkpoint, in float32, one sequence at a time."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.layers = self.model.model.layers

    def run(self, sequence) -> list[dict]:
        """By layer and site: (length, width); the router's choices and weights beside."""
        found, hooks = [{} for _ in self.layers], []
        for layer, kept in zip(self.layers, found, strict=True):
            modules = dict(layer.named_modules())
            for kind, (name, side) in TORCH.items():
                if name in modules:
                    hooks.append(modules[name].register_forward_hook(_keep(kept, kind, side)))
        with torch.no_grad():
            self.model(torch.tensor([sequence]), use_cache=False)
        for hook in hooks:
            hook.remove()
        return found

    def cache(self, sequence) -> DynamicCache:
        """What it carries on after a sequence."""
        with torch.no_grad():
            return self.model(torch.tensor([sequence]), use_cache=True).past_key_values


def _keep(kept, kind, side):
    def hook(module, inputs, output):
        value = inputs[0] if side == "input" else output
        if isinstance(value, tuple):
            if kind == "router":
                kept["weights"], kept["chosen"] = value[1].numpy(), value[2].numpy()
            value = value[0]
        kept[kind] = value.reshape(-1, value.shape[-1]).detach().numpy()

    return hook


@pytest.fixture(scope="module")
def loaded(checkpoints):
    """A checkpoint through phasescope, and through transformers, by architecture."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = load_model(checkpoints(name)), Torch(checkpoints(name))
        return made[name]

    return get


@pytest.fixture(scope="module", params=NAMES)
def pair(request, loaded):
    """Each architecture in turn."""
    return loaded(request.param)


@pytest.fixture(scope="module")
def expected(pair):
    """What transformers computes for every sequence."""
    return [pair[1].run(s) for s in SEQUENCES]


def kinds_of(lm) -> list[str]:
    """Kinds of sites that some block of a model has."""
    found = []
    for kind in KINDS:
        try:
            layers_with(lm, kind)
        except NotRun:
            continue
        found.append(kind)
    return found


def test_every_module_of_a_block_is_mapped(pair):
    """If it failed, a new mlx-lm version could lose or add a site and nobody would know."""
    lm, _ = pair
    for block in lm.blocks:
        assert lm.adapter.unmapped(block) == []
        block["novelty"] = nn.Linear(2, 2)
        assert lm.adapter.unmapped(block) == ["novelty"]
        del block["novelty"]
    silent = replace(lm.adapter, sites={k: v for k, v in lm.adapter.sites.items() if k != "v_proj"})
    found = [silent.unmapped(b) for b in lm.blocks]
    assert ["self_attn.v_proj"] in found


def test_every_site_of_an_adapter_is_in_its_model(checkpoints):
    """If it failed, a renamed module would make a site vanish, as if the model had none."""
    for name in NAMES:
        lm = load_model(checkpoints(name))
        assert set(ADAPTERS[name].sites) <= set(kinds_of(lm))


def test_sites_are_those_of_torch(pair, expected):
    """If it failed, the probe would read another place than the table says."""
    lm, reference = pair
    kinds = kinds_of(lm)
    assert set(kinds) - ELSEWHERE == {k for layer in expected[0] for k in layer} - {
        "weights",
        "chosen",
    }
    found = record_sites(lm, kinds, SEQUENCES, POSITIONS, batch_size=3)
    for kind in set(kinds) - ELSEWHERE:
        layers = layers_with(lm, kind)
        assert found[kind].shape[:3] == (len(SEQUENCES), 3, len(layers))
        for i, positions in enumerate(POSITIONS):
            want = np.stack([expected[i][layer][kind][positions] for layer in layers], axis=1)
            assert np.abs(want).max() > 1e-3
            np.testing.assert_allclose(found[kind][i], want, atol=1e-3, err_msg=kind)
    if "conv1d" in kinds:
        for i, positions in enumerate(POSITIONS):
            for j, layer in enumerate(layers_with(lm, "conv1d")):
                read = torch.tensor(expected[i][layer]["in_proj_qkv"].T[None])
                with torch.no_grad():
                    made = reference.layers[layer].linear_attn.conv1d(read)[0].T.numpy()
                np.testing.assert_allclose(
                    found["conv1d"][i][:, j], made[positions], atol=1e-3, err_msg="conv1d"
                )


@pytest.mark.parametrize("name", ROUTED)
def test_router_choices_are_those_of_torch(loaded, name):
    """If it failed, safety experts would be named that no token went to."""
    lm, reference = loaded(name)
    expected = [reference.run(s) for s in SEQUENCES]
    found = record_sites(
        lm, ["router", "selected_experts", "experts"], SEQUENCES, POSITIONS, batch_size=3
    )
    for layer in range(len(lm.blocks)):
        chosen, weights = routed(lm, layer, found["router"][:, :, layer])
        assert (np.diff(weights, axis=-1) <= 0).all()
        for i, positions in enumerate(POSITIONS):
            want, mass = expected[i][layer]["chosen"], expected[i][layer]["weights"]
            order = np.argsort(want[positions], axis=-1)
            own = np.argsort(chosen[i], axis=-1)
            np.testing.assert_array_equal(
                np.take_along_axis(chosen[i], own, -1),
                np.take_along_axis(want[positions], order, -1),
            )
            np.testing.assert_allclose(
                np.take_along_axis(weights[i], own, -1),
                np.take_along_axis(mass[positions], order, -1),
                atol=1e-5,
            )
            used = found["selected_experts"][i][:, layer].astype(int)
            np.testing.assert_array_equal(np.sort(used), np.sort(chosen[i]))
            read = expected[i][layer]["residual_middle"][positions]
            made = _expert_outputs(reference.layers[layer], read, used)
            np.testing.assert_allclose(found["experts"][i][:, layer], made, atol=1e-3)


def _expert_outputs(layer, residual, chosen) -> np.ndarray:
    """Output of each chosen expert, by torch: (positions, k, width)."""
    with torch.no_grad():
        read = layer.post_attention_layernorm(torch.tensor(residual))
        experts = layer.mlp.experts
        out = []
        for x, own in zip(read, chosen, strict=True):
            for e in own:
                gate, up = F.linear(x, experts.gate_up_proj[e]).chunk(2)
                out.append(F.linear(F.silu(gate) * up, experts.down_proj[e]).numpy())
    return np.array(out).reshape(*chosen.shape, -1)


def test_states_are_those_of_torch(pair):
    """If it failed, the recurrent channel would be probed in a state that the model never had."""
    lm, reference = pair
    kinds = [k for k, layer in STATES.items() if layer in lm.layer_kinds]
    found = record_states(lm, kinds, SEQUENCES, POSITIONS, batch_size=3)
    for i, (sequence, positions) in enumerate(zip(SEQUENCES, POSITIONS, strict=True)):
        for p, position in enumerate(positions):
            layers = reference.cache(sequence[: position + 1]).layers
            for kind in kinds:
                own = [j for j, k in enumerate(lm.layer_kinds) if k == STATES[kind]]
                want = np.stack([_torch_state(layers[j], kind) for j in own])
                np.testing.assert_allclose(found[kind][i, p], want, atol=1e-3, err_msg=kind)


def _torch_state(layer, kind) -> np.ndarray:
    if kind == "attention_keys":
        return layer.keys[0, :, -1].numpy()
    if kind == "attention_values":
        return layer.values[0, :, -1].numpy()
    if kind == "recurrent_state":
        return _first(layer.recurrent_states)[0].numpy().swapaxes(-1, -2)
    return _first(layer.conv_states)[0].numpy().T[1:]  # torch keeps the token's own column more


def _first(states):
    return states[0] if isinstance(states, (dict, list, tuple)) else states


def test_sites_that_a_model_lacks(lm, checkpoints):
    """If it failed, a model without experts would be reported with zeros for them."""
    with pytest.raises(NotRun, match="router"):
        record_sites(lm, ["router"], SEQUENCES, POSITIONS, 2)
    plain = load_model(checkpoints("llama"))
    with pytest.raises(NotRun, match="recurrent layers"):
        record_states(plain, ["recurrent_state"], SEQUENCES, POSITIONS, 2)
    with (
        pytest.raises(NotRun, match="block 0 has no site 'q_proj'"),
        tapped(lm, {Site("q_proj", 0): lambda x: x}),
    ):
        pass
    with pytest.raises(PhasescopeError, match="record 'router'"):
        record_sites(lm, ["expert_selection"], SEQUENCES, POSITIONS, 2)
    with pytest.raises(PhasescopeError, match="neuron"):
        record_sites(lm, ["neuron"], SEQUENCES, POSITIONS, 2)


def test_one_pass_for_many_sites(lm, monkeypatch):
    """If it failed, each further site would cost another pass over a model of hundreds of GB."""
    passes = []
    run = type(lm).final_hidden
    monkeypatch.setattr(type(lm), "final_hidden", lambda *a: passes.append(1) or run(*a))
    kinds = ["residual", "mixer", "feed_forward", "q_proj"]
    batches = list(recorded_batches(lm, kinds, SEQUENCES, POSITIONS, 2))
    assert len(passes) == len(batches) == 2
    assert sorted(i for places, _ in batches for i in places) == [0, 1, 2, 3]
    lengths = [[len(SEQUENCES[i]) for i in places] for places, _ in batches]
    assert lengths == [[14, 11], [9, 5]]


def test_recording_all_sites_leaves_no_trace(pair, model_bytes):
    """If it failed, the second measurement would run on a wrapped model."""
    lm, _ = pair
    before = model_bytes(lm.model)
    record_sites(lm, kinds_of(lm), SEQUENCES, POSITIONS, 2)
    assert model_bytes(lm.model) == before
    assert mx.array_equal(*(lm.final_hidden(mx.array([SEQUENCES[0]])) for _ in range(2)))
