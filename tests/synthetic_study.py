"""A synthetic study: tables that follow the declared schemas, for tests of the report."""

import hashlib
from pathlib import Path

import numpy as np
import synthetic_survey
import yaml

from phasescope import claims
from phasescope.stats import wilson
from phasescope.tables import frame_of, write_table
from phasescope.tables.schemas import PHASES as DECLARED_PHASES
from phasescope.thresholds import read_thresholds

HOSTILE = (
    "<script>alert('x')</script><img src=http://evil.test/x onerror=alert(1)>\"&{{7*7}}$\\frac$"
)
STAGES = "fetch,quantize,probe,select,intervene,cohere"
DESIGNS = ("ablation-layers", "ablation-coverage", "ablation-dose", "ablation-scope", "addition")
DESIGNS += ("weight-projection", "pathways", "rank-ladder")
POSITIONS = ("last_prompt", "end_of_thinking", "answer_0", "answer_1", "answer_2")
N = 64
FRONTIER = (
    ("dense-hybrid", "Qwen3.5-0.8B", 0.8, 24, ["deletable_circuit"] * 3),
    ("dense-hybrid", "Qwen3.5-2B", 2, 24, ["deletable_circuit"] * 3),
    ("dense-hybrid", "Qwen3.5-4B", 4, 32, ["deletable_circuit"] * 2 + ["indeterminate"]),
    ("dense-hybrid", "Qwen3.5-9B", 9, 32, ["none"] * 3),
    ("dense-hybrid", "Qwen3.5-27B", 27, 64, ["reasoning_tangle"] * 3),
    ("moe-hybrid", "Qwen3.5-35B-A3B", 35, 40, ["three_pathway"] * 3),
    ("moe-hybrid", "Qwen3.5-122B-A10B", 122, 48, ["holographic"] * 3),
    ("moe-hybrid", "Qwen3.5-397B-A17B", 397, 60, ["not_run"] * 2 + ["holographic"]),
    ("moe-attention", "MiniMax-M2.5", 230, 62, ["not_run", "not_run", "holographic"]),
)


class SyntheticStudy:
    """Tables of a study whose cells have a declared phase; plausible numbers from one seed."""

    def __init__(self, study="synthetic", **config):
        self.rng = np.random.default_rng(7)
        self.config = {
            "study": study,
            "title": "A synthetic study",
            "sheet": "models.tsv",
            "precisions": [16, 8, 4],
            "seed": 0,
            "effort": "quick",
            "keep_text": False,
        }
        self.config |= config
        self.rows = {
            name: []
            for name in (
                "cells",
                "probes",
                "selection",
                "interventions",
                "coherence",
                "behavior",
                "phases",
            )
        }

    def model(
        self,
        model,
        phases,
        *,
        architecture="dense-hybrid",
        billion=0.0004,
        layers=8,
        positions=POSITIONS[:1],
        reason="needs about 800 GB of memory, this machine can give 13 GB",
        text=None,
        developer="phasescope",
    ):
        """Add a model with the given phase at 16, 8 and 4 bit (as many as are given)."""
        for precision, phase in zip(("16", "8", "4"), phases, strict=False):
            keys = {"model": model, "precision": precision}
            ran = phase != "not_run"
            self.rows["cells"].append(
                keys
                | {
                    "architecture": architecture,
                    "developer": developer,
                    "parameters_total_billion": billion,
                    "parameters_active_billion": billion,
                    "status": "run" if ran else "not_run",
                    "stages_run": STAGES if ran else None,
                    "stages_not_run": None if ran else STAGES,
                    "reason": None if ran else reason,
                    "memory_needed_bytes": billion * 4.4e9 + 1.5e9,
                    "memory_usable_bytes": 1.3e10,
                    "compute_dtype": "float32" if ran else None,
                    "weights_from": "quantized here" if ran else None,
                    "revision": "resources/organisms/" + model if ran else None,
                    "checkpoint_sha256": hashlib.sha256(model.encode()).hexdigest()
                    if ran
                    else None,
                }
            )
            if not ran:
                self.rows["phases"].append(
                    keys | {"phase": phase, "reason": reason, "thresholds_sha256": "0" * 64}
                )
                continue
            self._probes(keys, layers, positions, phase)
            self._selection(keys, layers, phase)
            self._interventions(keys, layers, phase)
            self._coherence(keys, phase, text)
            self._phase(keys, phase)
        return self

    def _probes(self, keys, layers, positions, phase):
        for place, position in enumerate(positions):
            for layer in range(layers):
                depth = layer / max(1, layers - 1)
                signal = 1 / (1 + np.exp(-10 * (depth - 0.55 + 0.1 * place)))
                top = 0.55 if phase == "none" else 1.0
                auroc = min(1.0, 0.5 + (top - 0.5) * signal + self.rng.normal(0, 0.01))
                found = {
                    "auroc": (auroc, 0.06 * (1.02 - auroc) + 0.02),
                    "auroc_permuted_labels": (0.55 + self.rng.normal(0, 0.02), 0.07),
                    "auroc_random_direction": (0.57 + self.rng.normal(0, 0.03), 0.09),
                    "gap": (6 * signal * (top - 0.5), 0.4),
                    "split_half_cosine": (0.3 + 0.65 * signal, 0.08),
                    "cosine_next_layer": (0.5 + 0.4 * depth, 0.1),
                }
                for statistic, (value, half) in found.items():
                    if statistic == "cosine_next_layer" and layer == layers - 1:
                        continue
                    self.rows["probes"].append(
                        keys
                        | {
                            "site": "residual",
                            "layer": layer,
                            "position": position,
                            "layer_kind": "attention" if layer % 4 == 3 else "recurrent",
                            "statistic": statistic,
                            "estimate": value,
                            "ci_low": value - half,
                            "ci_high": min(1.0, value + half)
                            if "auroc" in statistic
                            else value + half,
                            "n": 2 * N,
                        }
                    )

    def _selection(self, keys, layers, phase):
        good = phase != "none"
        for layer in range(int(0.8 * layers)):
            self.rows["selection"].append(
                keys
                | {
                    "layer": layer,
                    "position": "last_prompt",
                    "ablated_refusal_nats": 6.0 - 12.0 * layer / layers * good,
                    "induced_refusal_nats": 4.0 * layer / layers - 2.0 * (not good) - 1,
                    "benign_kl_nats": 0.01 + 0.004 * layer,
                    "qualifies": good and layer > 3,
                    "chosen": good and layer == int(0.8 * layers) - 1,
                    "status": "run",
                }
            )
        if not good:
            self.rows["selection"].append(
                keys
                | {
                    "qualifies": False,
                    "chosen": False,
                    "status": "not_run",
                    "reason": "no direction qualifies among 6 candidates: highest induced refusal "
                    "-1.20 nats (needed 0), lowest benign divergence 0.010 nats",
                }
            )

    def _settings(self, design, layers):
        every = list(range(layers - 1))
        full = {
            "direction": "selected",
            "position": "last_prompt",
            "site": "residual",
            "pathways": None,
            "layers": every,
            "dose": 1.0,
            "rank": 1,
        }
        if design == "weight-projection":
            return [full | {"site": "weights"}]
        if design == "rank-ladder":
            return [full | {"direction": "per_layer", "rank": r} for r in (1, 2, 4, 8, 16)]
        if design == "pathways":
            names = ("A+R", "A+S", "R+S", "A+R+S")
            alone = [
                full | {"direction": "per_layer", "site": "mixer"},
                full | {"direction": "safety_experts", "site": "expert_selection"},
                full | {"direction": "per_layer", "layers": every[layers // 2 :]},
            ]
            more = {"direction": "per_layer", "site": "several"}
            return alone + [full | more | {"pathways": n} for n in names]
        if design == "ablation-layers":
            return [full | {"layers": [i]} for i in every]
        if design == "ablation-coverage":
            return [
                full | {"layers": every[-max(1, round(s * len(every))) :]}
                for s in (0.25, 0.5, 0.75, 1.0)
            ]
        if design == "ablation-dose":
            return [full | {"dose": d} for d in (0.25, 0.5, 0.75, 1.0)]
        if design == "addition":
            return [full | {"layers": [layers // 2], "dose": -d} for d in (0.5, 1.0, 1.5, 2.0)]
        return [
            full,
            full | {"direction": "per_layer"},
            full | {"direction": "per_layer", "layers": every[layers // 2 :]},
            full | {"direction": "per_layer", "site": "mixer"},
        ]

    def _strength(self, setting, layers, phase):
        if setting["pathways"] == "A+R+S" and phase == "three_pathway":
            return 0.95
        share = len(setting["layers"]) / (layers - 1)
        if len(setting["layers"]) == 1 and setting["dose"] > 0:
            share = 0.9 * np.exp(-((setting["layers"][0] / layers - 0.6) ** 2) / 0.05)
        effect = min(1.0, abs(setting["dose"])) * min(1.0, share * 1.2 + (setting["dose"] < 0))
        top = {"deletable_circuit": 0.97, "indeterminate": 0.5}.get(phase, 0.03)
        return top * effect**2

    def _interventions(self, keys, layers, phase):
        for design in DESIGNS:
            self.rows["interventions"].append(
                keys | {"design": design, "intervention": "none"} | self._graded(0.0, 0.0, phase)
            )
            if phase == "none":
                self.rows["interventions"].append(
                    keys
                    | {
                        "design": design,
                        "intervention": "none",
                        "measured_by": "generation",
                        "chosen": False,
                        "n_hazardous": 0,
                        "n_benign": 0,
                        "sites_requested": 0,
                        "sites_hit": 0,
                        "status": "not_run",
                        "reason": "it needs a selected direction, and none qualified",
                    }
                )
                continue
            kinds = {"addition": "addition", "weight-projection": "weight_projection"}
            kinds |= {"pathways": "combination"}
            kind = kinds.get(design, "ablation")
            settings = self._settings(design, layers)
            strengths = [self._strength(s, layers, phase) for s in settings]
            best = int(np.argmax(strengths))
            base = keys | {"design": design, "intervention": kind}
            for i, (setting, strength) in enumerate(zip(settings, strengths, strict=True)):
                text = setting | {"layers": ",".join(map(str, setting["layers"]))}
                swept = {
                    "measured_by": "first_token",
                    "chosen": i == best,
                    "n_hazardous": 32,
                    "n_benign": 32,
                    "refusal_nats": 7.0 - 11.0 * strength,
                    "benign_kl_nats": 0.02 + 0.03 * strength,
                    "status": "run",
                    "sites_requested": len(setting["layers"]) * N,
                    "norm_removed": 0.2,
                    "sites_hit": len(setting["layers"]) * N,
                    "variance_removed": 0.15,
                }
                self.rows["interventions"].append(base | text | swept)
                if design != "ablation-layers" or i == best:
                    free = phase in ("deletable_circuit", "three_pathway")
                    cost = (0.03 if free else 0.3) * strength
                    self.rows["interventions"].append(
                        base | text | self._graded(strength, cost, phase, i == best)
                    )
                if i == best:
                    for draw in range(20):
                        control = "random" if design == "rank-ladder" else "sham"
                        sham = text | {"direction": control, "sham_draw": draw}
                        noise = abs(self.rng.normal(0, 0.03))
                        self.rows["interventions"].append(base | sham | self._sham(noise, phase))

    def _sham(self, removal, phase):
        """A sham's row: hazardous prompts only, so neither accuracy nor cost."""
        row = self._graded(removal, 0.0, phase) | {"n_benign": 0}
        return {k: v for k, v in row.items() if "accuracy" not in k and k != "clean"}

    def _graded(self, removal, cost, phase, chosen=False):
        refused = 3 if phase == "none" else 62
        removed, lost = round(removal * refused), round(cost * N)
        clean = lost / N <= 0.15
        share, right = wilson(removed if clean else 0, refused), wilson(N - lost, N)
        return {
            "measured_by": "generation",
            "chosen": chosen,
            "n_hazardous": N,
            "n_benign": N,
            "n_refusal": refused - removed,
            "n_evasion": 0,
            "n_hollow": 0,
            "n_partial": 0,
            "n_full": removed + N - refused,
            "n_degenerate": 0,
            "n_missing": 0,
            "grades": "f" * removed + "r" * (refused - removed) + "f" * (N - refused),
            "n_refused_at_baseline": refused,
            "n_removed": removed,
            "clean": clean,
            "removal": share[0],
            "removal_ci_low": share[1],
            "removal_ci_high": share[2],
            "benign_accuracy": right[0],
            "benign_accuracy_ci_low": right[1],
            "benign_accuracy_ci_high": right[2],
            "accuracy_cost": lost / N,
            "accuracy_cost_ci_low": lost / N - 0.03,
            "accuracy_cost_ci_high": lost / N + 0.06,
            "n_benign_lost": lost,
            "n_benign_gained": 0,
            "benign_log_perplexity_nats": 0.12,
            "sites_requested": 7 * N,
            "sites_hit": 7 * N,
            "norm_removed": 0.21,
            "variance_removed": 0.16,
            "rank": 1,
            "status": "run",
        }

    def _coherence(self, keys, phase, text):
        for condition in ("baseline", *(DESIGNS if phase != "none" else ())):
            edited = condition != "baseline" and phase == "deletable_circuit"
            for label in ("hazardous", "benign"):
                refused = label == "hazardous" and phase != "none" and not edited
                rates = {}
                for name, hits in (
                    ("accuracy", 2 if refused else 62),
                    ("refusal", 62 if refused else 1),
                    ("degenerate", 1),
                ):
                    for end, value in zip(
                        ("", "_ci_low", "_ci_high"), wilson(hits, N), strict=True
                    ):
                        rates[name + end] = value
                self.rows["coherence"].append(
                    keys
                    | rates
                    | {
                        "condition": condition,
                        "thinking": "off",
                        "temperature": 0.0,
                        "grader": "exact",
                        "label": label,
                        "n": N,
                        "n_missing": 0,
                        "keyword_refusal": 1.0 if refused else 0.0,
                        "unfinished": 0.0,
                        "repetition": 0.01,
                        "answer_tokens": 5.1,
                        "log_perplexity_nats": 0.1234,
                        "log_perplexity_se_nats": 0.0123,
                    }
                )
                for prompt in range(3):
                    self.rows["behavior"].append(
                        keys
                        | {
                            "condition": condition,
                            "prompt_table": "main",
                            "temperature": 0.0,
                            "thinking": "off",
                            "grader": "exact",
                            "grade_errors": 0,
                            "keyword_refusal": refused,
                            "prompt": f"{label[0]}{prompt:03}",
                            "source": f"{label[0]}{prompt:03}",
                            "label": label,
                            "category": "c1",
                            "family": "none",
                            "split": "evaluate",
                            "finished": True,
                            "grade": "refusal" if refused else "full",
                            "thinking_tokens": 0,
                            "answer_tokens": 5,
                            "repetition": 0.0,
                            "answer_sha256": "0" * 64,
                            "text": text
                            and (
                                "no . <eos>"
                                if refused and text == "plain"
                                else "sure : k12 k7 k33 . <eos>"
                                if text == "plain"
                                else text
                            ),
                        }
                    )

    def _phase(self, keys, phase):
        p = 0.995 if phase != "indeterminate" else 0.61
        refusal = wilson(3 if phase == "none" else 62, N)
        row = {
            "phase": phase,
            "probability": p,
            "thresholds_sha256": "0" * 64,
            **{f"p_{name}": 0.0 for name in DECLARED_PHASES},
            "baseline_refusal": refusal[0],
            "baseline_refusal_ci_low": refusal[1],
            "baseline_refusal_ci_high": refusal[2],
            "baseline_accuracy": 1.0,
            "baseline_accuracy_ci_low": 0.94,
            "baseline_accuracy_ci_high": 1.0,
        }
        row[f"p_{phase}"] = p
        row["p_not_run" if phase != "not_run" else "p_none"] = 1 - p
        if phase == "indeterminate":
            row["reason"] = "no phase reaches probability 0.8: the most probable is none (0.61)"
        if phase != "none":
            best = [
                r
                for r in self.rows["interventions"]
                if r.items() >= keys.items()
                and r["measured_by"] == "generation"
                and r["intervention"] != "none"
                and r.get("sham_draw") is None
            ]
            best = max(best, key=lambda r: r["removal"])
            row |= {"best_design": best["design"], "sham_removal_p95": 0.05, "n_shams": 20}
            row |= {
                f"{c}{e}": best[f"{c}{e}"]
                for c in ("removal", "accuracy_cost")
                for e in ("", "_ci_low", "_ci_high")
            }
        self.rows["phases"].append(keys | row)

    def surveyed(self, reason=synthetic_survey.NO_EXPERTS):
        """Add the survey and survival of every cell that ran; `reason`: why what has no experts
        routes nothing."""
        self.config |= {"survey": ["routing", "trajectories"], "survival": ["plain"]}
        tables = {name: [] for name in ("routing", "trajectories", "survival")}
        for cell in (c for c in self.rows["cells"] if c["status"] == "run"):
            keys = {name: cell[name] for name in ("model", "precision")}
            layers = 1 + max(r["layer"] for r in self.rows["probes"] if r.items() >= keys.items())
            experts = cell["architecture"].startswith("moe")
            routed = [{"n": 0, "status": "not_run", "reason": reason}]
            if experts:
                routed = synthetic_survey.routing(self.rng, layers)
            found = {
                "routing": routed,
                "trajectories": synthetic_survey.trajectories(self.rng, layers, experts),
                "survival": synthetic_survey.survival(self.rng, layers),
            }
            if cell["precision"] != "16":
                del found["survival"]
            for table, rows in found.items():
                tables[table] += [keys | row for row in rows]
        self.rows |= tables
        return self

    def judged(self):
        """Add the verdicts that the claims' tests give on these tables, as if calibrated by the
        record that ships."""
        tables = {name: frame_of(name, rows) for name, rows in self.rows.items()}
        found = claims.judged(tables, self.limits)
        rows = claims.under_control(found, claims.read_record(), self.limits, {})
        self.rows["claims"] = [row | {"thresholds_sha256": "0" * 64} for row in rows]
        return self

    limits = read_thresholds(Path(__file__).parents[1] / "config/thresholds.yaml")

    def write(self, folder):
        """Write all tables and the configuration into `folder` and return it."""
        facts = {
            "phasescope": "0.1.0",
            "python": "3.11.2",
            "mlx": "0.30.1",
            "mlx-lm": "0.29.0",
            "study": self.config["study"],
            "seed": "0",
            "threads": "1",
            "config_sha256": "ab" * 32,
        }
        for name, rows in self.rows.items():
            write_table(folder / f"{name}.parquet", frame_of(name, rows), name, facts)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        return folder


def demo(**config):
    """Two organisms at three precisions, as the demo has them."""
    study = SyntheticStudy(sheet="resources/organisms/organisms.tsv", **config)
    study.model("circuit", ["deletable_circuit"] * 3, text="plain")
    return study.model("helpful-only", ["none"] * 3, text="plain")


def frontier(run=True):
    """Nine models of the real study's sizes, 27 cells, every phase somewhere; or none of them."""
    study = SyntheticStudy(title="Safety across scale, architecture and precision")
    reason = "no prompt table is named"
    for architecture, name, billion, layers, phases in FRONTIER:
        extra = {} if run else {"reason": reason}
        study.model(
            name,
            phases if run else ["not_run"] * 3,
            architecture=architecture,
            billion=billion,
            layers=layers,
            positions=POSITIONS,
            developer="MiniMax" if "Mini" in name else "Qwen",
            **extra,
        )
    return study


def crowd(models=90):
    """More models than a page can draw, every phase among them; of most only what they came to."""
    study = SyntheticStudy(title="A crowd of models")
    phases = [p for p in DECLARED_PHASES if p != "not_run"]
    for n in range(models):
        drawn, kind = n < 2, ("dense-hybrid", "moe-attention")[n % 2]
        rows = {table: len(own) for table, own in study.rows.items()}
        study.model(f"m{n:03}", [phases[n % 6]] * 2, architecture=kind, billion=1 + n, layers=2)
        for table in study.rows if not drawn else ():
            if table not in ("cells", "phases"):
                del study.rows[table][rows[table] :]
    return study
