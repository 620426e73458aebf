"""Figures of pathways, routing, trajectories and survival: what is drawn is what the tables say."""

import html
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from phasescope.report import build, factorial, routing, survival, svg, trajectories, write_figures
from phasescope.report.study import load
from phasescope.tables import frame_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from synthetic_study import HOSTILE, SyntheticStudy
from synthetic_survey import NO_EXPERTS, TOO_NARROW

LETTERS = ["–", "A", "R", "S", "AR", "AS", "RS", "ARS"]
NO_MEMORY = "needs about 800 GB of memory, this machine can give 13 GB"


@pytest.fixture(scope="module")
def tables():
    """A mixture of experts at two precisions, the third too large; and a dense model."""
    study = SyntheticStudy().model(
        "moe", ["three_pathway", "three_pathway", "not_run"], architecture="moe-hybrid"
    )
    return study.model("dense", ["deletable_circuit"]).surveyed()


@pytest.fixture(scope="module")
def study(tables, tmp_path_factory):
    return load(tables.write(tmp_path_factory.mktemp("surveyed")))


@pytest.fixture(scope="module")
def page(study, tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    build(tables.write(folder), folder / "index.html")
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def drawn(monkeypatch, study):
    """Draws a figure of a module for a model, and gives its panels."""

    def draw(module, model, study=study):
        monkeypatch.setattr(module, "drawing", lambda figure, *words: (figure, words))
        (one,) = [m for m in study.models if m.id == model]
        figure, words = getattr(module, module.__name__.rpartition(".")[2])(study, one)
        return figure.axes, words

    return draw


def rows_of(tables, table, **values):
    frame = frame_of(table, tables.rows[table])
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def labels(ticks):
    return [t.get_text() for t in ticks]


def categories(ax):
    """Names of the lines left of a row's first panel, by height in the figure."""
    low, high = ax.get_position().y0, ax.get_position().y1
    names = [
        t for t in ax.figure.texts if t.get_ha() == "right" and low < t.get_position()[1] < high
    ]
    return labels(sorted(names, key=lambda t: -t.get_position()[1]))


def said(ax):
    return " ".join(" ".join(t.get_text() for t in ax.texts).split())


def words_of(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def heights(ax):
    """Height of each bar, by its place."""
    return {round(b.get_x() + b.get_width() / 2): b.get_height() for b in ax.patches}


def test_bars_are_the_removals_of_the_subsets(drawn, tables):
    """A bar at another subset's place would tell of pathways that were never cut."""
    axes, _ = drawn(factorial, "moe")
    rows = rows_of(
        tables, "interventions", model="moe", precision="8", design="pathways", status="run"
    )
    rows = rows[(rows["measured_by"] == "generation") & rows["sham_draw"].isna()].copy()
    rows["pathways"] = rows["pathways"].fillna("")
    removal, refusal = heights(axes[1]), heights(axes[4])
    sites = {"mixer": "A", "expert_selection": "R", "residual": "S"}
    assert len(rows) == len(removal) == len(refusal) == 8
    for row in rows.to_dict("records"):
        name = (row["pathways"] or sites.get(row["site"], "–")).replace("+", "")
        place = LETTERS.index(name)
        assert removal[place] == (0 if name == "–" else row["removal"])
        assert refusal[place] == pytest.approx(row["n_refusal"] / row["n_hazardous"])
    assert removal[7] > 0.8 > 0.2 > max(removal[i] for i in range(7))
    assert labels(axes[3].get_xticklabels()) == LETTERS


def test_shams_and_limits_are_drawn_where_they_are(drawn, tables, thresholds):
    """A removal is judged by these lines; one that is elsewhere would turn the verdict."""
    axes, words = drawn(factorial, "moe")
    shams = rows_of(tables, "interventions", model="moe", precision="16", design="pathways")
    shams = shams[shams["sham_draw"].notna()]
    share = shams["n_refusal"] / shams["n_hazardous"]
    claims, broken = thresholds["claims"], thresholds["phases"]["max_broken_refusal"]
    wanted = {
        0: {np.percentile(shams["removal"], 95), claims["min_removal"], claims["max_part_removal"]},
        3: {np.percentile(share, 5), broken},
    }
    for place, values in wanted.items():
        flat = {
            line.get_ydata()[0] for line in axes[place].lines if len(set(line.get_ydata())) == 1
        }
        assert all(any(np.isclose(v, f) for f in flat) for v in values)
    assert "n = 20 draws" in words[3] and "n = 64 hazardous prompts a bar" in words[3]


@pytest.mark.parametrize("module", [factorial, routing, trajectories])
def test_a_cell_without_numbers_says_why(drawn, module):
    """An empty panel would read as a measured nothing."""
    axes, _ = drawn(module, "moe")
    silent = [ax for ax in axes if not ax.axison]
    assert len(silent) == len(axes) / 3
    assert all(said(ax) == f"Not measured: {NO_MEMORY}" for ax in silent)


def test_a_model_without_experts_has_no_subset_with_routing(drawn, tmp_path):
    """If it failed, a bar of height zero would say that routing removes nothing."""
    less = SyntheticStudy().model("dense", ["deletable_circuit"])
    less.rows["interventions"] = [
        row
        for row in less.rows["interventions"]
        if "R" not in (row.get("pathways") or "") and row.get("site") != "expert_selection"
    ]
    axes, words = drawn(factorial, "dense", load(less.write(tmp_path)))
    for ax in axes:
        assert set(heights(ax)) == {LETTERS.index(name) for name in ("–", "A", "S", "AS")}
        assert said(ax) == " ".join(["not run"] * 4)
    assert "No subset with R" in words[3]


def test_colors_of_the_map_are_the_differences(drawn, tables):
    """A map whose rows were swapped would name the wrong experts."""
    axes, _ = drawn(routing, "moe")
    for ax, precision in zip(axes[:2], ("16", "8"), strict=True):
        rows = rows_of(
            tables, "routing", model="moe", precision=precision, statistic="rate_difference"
        )
        rows = rows[rows["span"] == "prompt"]
        image = np.asarray(ax.images[0].get_array())
        assert image.shape == (16, 8, 4) and len(rows) == 128
        for row in rows.to_dict("records"):
            color = image[int(row["expert"]), int(row["layer"])]
            assert color[3] == pytest.approx(abs(row["estimate"]) / 0.8, abs=1e-6)
            sign = routing.HAZARDOUS if row["estimate"] > 0 else routing.BENIGN
            assert np.allclose(color[:3], to_rgb(sign))


def test_leading_experts_are_those_with_the_largest_difference(drawn, tables):
    """The line of an expert with another's rates would send a reader to the wrong one."""
    axes, words = drawn(routing, "moe")
    rows = rows_of(tables, "routing", model="moe", statistic="rate_difference")
    rows = rows[rows["span"] == "prompt"]
    size = rows["estimate"].abs().groupby([rows["layer"], rows["expert"]]).max()
    wanted = [f"{a:.0f} · {b:.0f}" for a, b in size.sort_values(ascending=False).index[:6]]
    ax = axes[3]
    assert categories(ax) == wanted and wanted[0] == "4 · 3"
    rates = rows_of(tables, "routing", model="moe", precision="16", statistic="selection_rate")
    by = rates.set_index(["text", "layer", "expert"])["estimate"]
    points = [line for line in ax.lines if line.get_marker() not in ("None", None)]
    for line, text, shift in zip(points, ("hazardous", "benign"), (-0.17, 0.17), strict=True):
        for x, y in zip(*line.get_data(), strict=True):
            layer, expert = map(int, wanted[round(y - shift)].split(" · "))
            assert x == by[text, layer, expert]
    assert "block 4, expert 3 0.80 [0.75, 0.85] over the prompt" in words[3]
    assert "n = 64 prompts" in words[3]


def test_courses_are_the_means_of_the_table(drawn, tables):
    """A shifted course would let refusal return a token too soon."""
    axes, words = drawn(trajectories, "moe")
    rows = rows_of(tables, "trajectories", model="moe", precision="8", statistic="projection")
    titles = [t.get_text() for t in axes[0].figure.texts]
    blocks = [int(t.rpartition(" ")[2]) for t in titles if t.startswith("Projection")]
    assert blocks == [2, 5, 7]
    for ax, block in zip(axes[1:9:3], blocks, strict=True):
        lines = [line for line in ax.lines if len(line.get_xdata()) == 9]
        for line, condition in zip(lines, ("hazardous", "benign", "forced"), strict=True):
            own = rows[(rows["layer"] == block) & (rows["condition"] == condition)]
            assert np.array_equal(line.get_xdata(), own["step"])
            assert np.allclose(line.get_ydata(), own["estimate"])
    assert any(list(line.get_xdata()) == [4.0, 4.0] for line in axes[9].lines)
    assert "refusal returns in 0.75 [0.58, 0.87] of n = 32 answers" in words[3]
    assert "safety experts come back at token 4 [3, 5]" in words[3]


def test_without_experts_the_course_has_projections_alone(drawn):
    """If it failed, dense models would seem to have experts that were never called."""
    axes, words = drawn(trajectories, "dense")
    titles = [t.get_text() for t in axes[0].figure.texts]
    assert not any("experts" in t for t in titles)
    assert f"No safety experts: {NO_EXPERTS}." in words[3]


def test_formats_keep_what_the_table_says(drawn, tables):
    """An edit lost at 4 bit must not stand on the line of 8 bit."""
    axes, words = drawn(survival, "moe")
    formats = [f"{b} bit, groups of {g}" for b, g in ((8, 32), (8, 64), (4, 32), (4, 64))]
    assert categories(axes[0]) == formats
    assert [ax.get_title(loc="left") for ax in axes[:3]] == [
        "projected out",
        "subtracted, 0.01 gaps",
        "subtracted, 0.5 gaps",
    ]
    rows = rows_of(tables, "survival", model="moe", statistic="kept", edit="weight_addition")
    rows = rows[(rows["dose"] == 0.01) & rows["tensor"].isna()]
    (points,) = [line for line in axes[1].lines if line.get_marker() == "o"]
    assert list(points.get_ydata()) == [0, 1, 2, 3]
    assert list(points.get_xdata()) == rows["estimate"].tolist()
    assert max(points.get_xdata()[2:]) < 0.2 < 0.9 < min(points.get_xdata()[:2])
    random = [line.get_xdata()[0] for line in axes[1].lines if line.get_marker() == "|"]
    assert random == [0.01, 0.03]
    assert f"Not run, 4 bit, groups of 128: {TOO_NARROW}." in words[3]
    assert "n = 20 random directions; n = 32 answers." in words[3]


def test_an_edit_that_removed_nothing_has_nothing_to_keep(drawn):
    """If it failed, an empty panel would read as an effect that was lost."""
    axes, _ = drawn(survival, "moe")
    assert [ax.axison for ax in axes[-3:]] == [True, True, False]
    assert said(axes[-1]) == "Not measured: the edit made no prompt comply at 16 bit"


def test_single_tensors_reach_from_the_lowest_to_the_highest(drawn, tables):
    """A mean alone would hide a tensor that lost the edit."""
    axes, _ = drawn(survival, "dense")
    rows = rows_of(tables, "survival", model="dense", statistic="kept", edit="weight_projection")
    rows = rows[rows["tensor"].notna() & (rows["bits"] == 8) & (rows["group_size"] == 32)]
    reach = axes[0].collections[0].get_segments()[0][:, 0]
    assert len(rows) == 8 and list(reach) == [rows["estimate"].min(), rows["estimate"].max()]


def test_the_page_offers_what_is_drawn(page, tables):
    """Numbers read off a figure by eye are wrong numbers."""
    blocks = dict(
        re.findall(r'<script type="application/json" id="data-(fig-[^"]+)">(.*?)</script>', page)
    )
    wanted = {f"fig-{f}-{m}" for f in ("trajectories", "factorial") for m in ("moe", "dense")}
    assert wanted | {"fig-routing-moe", "fig-survival-moe"} <= set(blocks)
    assert set(re.findall(r'data-csv="(fig-[^"]+)"', page)) == set(blocks)
    found = json.loads(blocks["fig-factorial-moe"])
    place = {name: i for i, name in enumerate(found["columns"])}
    real = [r for r in found["rows"] if r[place["sham_draw"]] is None]
    assert len(real) == 16
    rows = rows_of(tables, "interventions", model="moe", precision="16", design="pathways")
    rows = rows[(rows["pathways"] == "A+R+S") & (rows["measured_by"] == "generation")]
    (row,) = [r for r in real if r[place["subset"]] == "A+R+S" and r[place["precision"]] == "16"]
    assert row[place["removal"]] == rows["removal"].iloc[0]
    assert row[place["removal_ci_low"]] == rows["removal_ci_low"].iloc[0]


def test_of_many_experts_the_download_has_the_leading_ones(study):
    """Nine models of 256 experts in 60 blocks would make a page that no browser opens."""
    rows = study.surveyed("routing", "moe", ("selection_rate", "rate_difference"))
    leaders = {"prompt": [(4, 3)], "last_prompt": [(4, 3)]}
    many = rows.loc[rows.index.repeat(8)]
    assert len(many) > 3000
    found = routing.points(many, list(leaders), leaders)
    assert len(found) == 8 * 8 and set(found["layer"]) == {4} and set(found["expert"]) == {3}


def test_what_was_not_surveyed_says_why(page, tmp_path):
    """A section that is silent about routing would read as routing without a difference."""
    plain = words_of(page)
    assert f"Not measured. {NO_EXPERTS}." in plain
    bare = SyntheticStudy().model("a", ["none"])
    build(bare.write(tmp_path), tmp_path / "index.html")
    plain = words_of((tmp_path / "index.html").read_text(encoding="utf-8"))
    for stage, times in (("survey", 2), ("survival", 1)):
        words = f"Not measured. the configuration's key {stage} does not ask for it."
        assert plain.count(words) == times
    assert plain.count("Not measured. it needs a selected direction, and none qualified.") == 1


def test_hostile_strings_stay_text_in_these_figures_too(tmp_path, monkeypatch):
    """A tensor's or model's name comes from strangers' files."""
    moe = {"architecture": "moe-hybrid", "reason": HOSTILE, "layers": 3}
    study = SyntheticStudy().model(HOSTILE, ["three_pathway", "not_run"], **moe)
    study.model("dense", ["none"], layers=2).surveyed(reason=HOSTILE)
    for row in study.rows["survival"]:
        if row.get("tensor") or row["status"] == "not_run":
            row |= {"tensor": HOSTILE} if row.get("tensor") else {"reason": HOSTILE}
    folder = study.write(tmp_path / "study")
    build(folder, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img" not in page
    assert html.unescape(page).count(HOSTILE) > 10
    monkeypatch.setattr(svg, "_PAPER", ("png",))  # a PDF takes many times as long
    write_figures(folder, tmp_path / "figures", models=[HOSTILE])
    names = {p.stem.split("-")[0] for p in (tmp_path / "figures").glob("*.png")}
    assert {"factorial", "routing", "trajectories", "survival"} <= names
