"""The report page, built from small synthetic tables that follow the declared schemas."""

import base64
import hashlib
import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from phasescope.cli import main
from phasescope.comparisons import (
    across_models,
    behavior_rates,
    measured_comparisons,
    published,
)
from phasescope.errors import PhasescopeError
from phasescope.phases import beside_truth, calibration_summary, limits_of, read_record
from phasescope.report import build, findings, formats, write_figures
from phasescope.report.names import PHASES, PRETTY
from phasescope.report.study import TABLES, load
from phasescope.report.svg import drawing, inline_svg, new_figure, style
from phasescope.tables import SCHEMAS, frame_of
from phasescope.tables.schemas import PHASES as DECLARED_PHASES

sys.path.insert(0, str(Path(__file__).parents[1]))
from synthetic_study import (
    FRONTIER,
    HOSTILE,
    POSITIONS,
    SyntheticStudy,
    crowd,
    demo,
    frontier,
)


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, scripts, styles and text."""

    def __init__(self, html):
        super().__init__()
        self.html, self.elements, self.words = html, [], []
        self.content = {"script": [], "style": []}
        self._inside = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in self.content:
            self._inside = tag
            self.content[tag].append("")

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside:
            self.content[self._inside][-1] += data
        else:
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.elements if attribute in attrs]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    @property
    def data(self):
        blocks = zip(self.all("script"), self.content["script"], strict=True)
        return {a["id"]: json.loads(body) for a, body in blocks if a.get("type")}

    def figure(self, fid):
        return re.search(f'<figure id="{fid}".*?</figure>', self.html, re.DOTALL).group()


def page_of(study, folder):
    folder.mkdir(parents=True, exist_ok=True)
    build(study.write(folder), folder / "report" / "index.html")
    return read(folder / "report" / "index.html")


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def small(built):
    return read(built("demo", lambda: demo(keep_text=True)))


@pytest.fixture(scope="module")
def large(built):
    return read(built("frontier", frontier))


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return page_of(frontier(run=False), tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    study = SyntheticStudy(title=HOSTILE)
    phases = ["indeterminate", "not_run", "deletable_circuit"]
    study.model(HOSTILE, phases, reason=HOSTILE, text=HOSTILE * 9, developer=HOSTILE)
    return page_of(study, tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return page_of(crowd(), tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory):
    study = SyntheticStudy().model("moe", ["three_pathway", "none"], architecture="moe-hybrid")
    return page_of(study.surveyed(), tmp_path_factory.mktemp("surveyed"))


@pytest.fixture(params=["small", "large", "empty", "hostile", "many", "surveyed"])
def page(request):
    return request.getfixturevalue(request.param)


def test_ids_are_unique_and_every_link_and_reference_has_its_target(page):
    """Two figures sharing an id draw each other's clipped shapes; a dead anchor cannot be cited."""
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = [h[1:] for h in page.values("href") if h.startswith("#")]
    references += re.findall(r"url\(#([^)]+)\)", page.html)
    for name in ("aria-labelledby", "aria-describedby"):
        references += [i for value in page.values(name) for i in value.split()]
    assert len(references) > 20
    assert set(references) <= set(ids)


def test_the_page_loads_nothing(page):
    """A report is opened offline and on machines that must not phone home."""
    loaded = [h for h in page.values("href") if not h.startswith("#")] + page.values("src")
    assert loaded[0] == "data:,"
    assert all(link.startswith("data:image/png;base64,") for link in loaded[1:])
    for css in page.content["style"]:
        assert "url(" not in css and "@import" not in css
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed")]


def test_the_policy_comes_first_and_its_hashes_fit(page):
    """A policy after the first script, or with a stale hash, protects nothing or breaks all."""
    tags = [tag for tag, _ in page.elements]
    policy = page.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert (
        tags.index("style") > tags.index("meta") + 1 and "script" not in tags[: tags.index("body")]
    )
    assert policy["content"].startswith("default-src 'none'")
    scripts = zip(page.all("script"), page.content["script"], strict=True)
    code = [body for attrs, body in scripts if not attrs.get("type")]
    assert len(code) == len(page.content["style"]) == 1
    for text in (*code, *page.content["style"]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy["content"]


def test_the_script_stays_small(small):
    """The page is server-rendered; a script that grows is a page that breaks without it."""
    assert len(small.content["script"][-1]) < 3500


def test_hostile_strings_stay_text(hostile):
    """A model card or an answer must not be able to run code in the reader's browser."""
    assert HOSTILE in html.unescape(hostile.html)
    assert "<script>alert" not in hostile.html and "<img" not in hostile.html
    assert "49" not in hostile.all("title")[0] and "{{7*7}}" in hostile.text
    handlers = [a for _, attrs in hostile.elements for a in attrs if a.startswith("on")]
    assert handlers == []
    (row, *_) = hostile.data["data-phases"]["rows"]
    assert row[0] == HOSTILE


def test_long_answers_are_cut_visibly(hostile):
    """A silently shortened answer would be read as what the model said."""
    assert "…" in hostile.text
    assert f"({9 * len(HOSTILE) - 320} more characters not shown)" in hostile.text


def test_two_builds_give_the_same_bytes(tmp_path):
    """A report that changes by itself cannot be compared, cached or cited."""
    study = SyntheticStudy().model("a", ["indeterminate"]).model("b", ["none"])
    first, second = page_of(study, tmp_path / "a"), page_of(study, tmp_path / "b")
    assert first.html == second.html


def test_every_figure_of_the_page_is_a_file_for_a_paper(tmp_path):
    """If it failed, who writes about a study would take pictures of the screen; a figure that
    changes by itself cannot be compared."""
    study = SyntheticStudy().model(HOSTILE, ["none"])
    page = page_of(study, tmp_path / "page")
    folder = study.write(tmp_path / "study")
    for name in ("figures", "again"):
        write_figures(folder, tmp_path / name)
    drawn, again = (
        [*map(Path.read_bytes, sorted((tmp_path / n).iterdir()))] for n in ("figures", "again")
    )
    assert drawn == again
    names = {a["id"].removeprefix("fig-") for a in page.all("figure")} - {"phase-map-narrow"}
    first = {p.name: p.read_bytes()[:4] for p in (tmp_path / "figures").iterdir()}
    captions = (tmp_path / "figures/captions.md").read_text()
    assert len(names) > 3 and all(f"`{name}`: " in captions for name in names)
    begin = {"pdf": b"%PDF", "png": b"\x89PNG"}
    wanted = {f"{name}.{kind}": begin[kind] for name in names for kind in begin}
    assert first == wanted | {"captions.md": b"Phas"}


def test_a_new_report_replaces_the_old_and_leaves_nothing_else(tmp_path):
    """A half-written page, or a temporary one left behind, would be taken for the report."""
    folder = SyntheticStudy().model("one", ["not_run"]).write(tmp_path)
    out = tmp_path / "out"
    build(folder, out / "index.html")
    build(folder, out / "index.html")
    assert [p.name for p in out.iterdir()] == ["index.html"]


def test_a_missing_table_is_named_and_nothing_is_written(tmp_path):
    """A page made from half of the tables would report stages as not run that were."""
    folder = demo().write(tmp_path)
    (folder / "coherence.parquet").unlink()
    with pytest.raises(PhasescopeError, match="coherence"):
        build(folder, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()


def test_the_finding_of_the_demo(small):
    """The first sentence is all that many readers read."""
    assert (
        "circuit holds its refusal in a deletable circuit at every precision "
        "(probability >\u00a00.99); helpful-only shows no safety behavior at every "
        "precision (probability >\u00a00.99); "
        "all 6 cells were run."
    ) in small.all("meta")[4]["content"]
    assert "model organisms" in small.text


def test_the_finding_says_where_precisions_differ(tmp_path):
    """'At every precision' must not hide the one where the verdict changed."""
    study = SyntheticStudy().model("a", ["deletable_circuit", "deletable_circuit", "not_run"])
    study.model("b", ["indeterminate"] * 3)
    told = findings.plain(findings.sentence(load(study.write(tmp_path))))
    assert told == (
        "a holds its refusal in a deletable circuit at 16 and 8 bit (probability >\u00a00.99); "
        "b is indeterminate at every precision; 1 of 6 cells was not run."
    )


def test_a_study_of_which_nothing_ran_says_so_and_why(empty):
    """The real study on a laptop: 27 cells, none run; silence would look like a broken page."""
    assert "None of the 27 cells was run" in empty.text
    assert empty.text.count("no prompt table is named") > 27
    assert len([a for a in empty.all("tr") if a.get("data-phase") == "not_run"]) == 27
    drawn = [a["id"] for a in empty.all("figure")]
    assert drawn == ["fig-phase-map", "fig-phase-map-narrow"]


def test_a_reason_is_shown_without_the_stages_before_it(tmp_path):
    """The collected reason names its stages; the page names them in a column of their own."""
    study = SyntheticStudy().model("a", ["not_run"], reason="quantize, probe, select: too big")
    page = page_of(study, tmp_path)
    assert "too big" in page.text and "select: too big" not in page.text


def test_one_cell_is_enough(tmp_path):
    """The smallest study is one model at one precision."""
    page = page_of(SyntheticStudy().model("only", ["deletable_circuit"]), tmp_path)
    assert "only holds its refusal in a deletable circuit at 16 bit" in page.text
    assert len([a for a in page.all("tr") if "data-phase" in a]) == 1


def test_a_probed_cell_without_interventions_shows_the_probe_and_the_reason(tmp_path):
    """Prompts that no grader reads can be probed; what was measured must not be lost."""
    study = SyntheticStudy().model("a", ["deletable_circuit"])
    for table in ("selection", "interventions", "coherence", "behavior"):
        study.rows[table] = []
    reason = "no grader reads the prompts' language yet"
    study.rows["cells"][0] |= {
        "status": "partly",
        "stages_run": "quantize, probe",
        "stages_not_run": "select, intervene, cohere",
        "reason": f"select, intervene, cohere: {reason}",
    }
    study.rows["phases"] = [
        {
            "model": "a",
            "precision": "16",
            "phase": "not_run",
            "reason": reason,
            "thresholds_sha256": "0" * 64,
        }
    ]
    page = page_of(study, tmp_path)
    assert "fig-depth-a" in page.values("id")
    assert page.text.count(reason) >= 4


def test_the_largest_study_stays_light(large):
    """Nine models at three precisions must open at once: 30 MB of figures do not."""
    assert len(large.html.encode()) < 8e6
    assert len(large.all("figure")) <= 120
    assert len([a for a in large.all("tr") if "data-phase" in a]) == 27


def test_the_map_labels_every_cell(large):
    """A plotting library that drops labels makes readers think that models are missing."""
    for fid in ("fig-phase-map", "fig-phase-map-narrow"):
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", large.figure(fid))
        for _, name, *_ in FRONTIER:
            assert sum(t == name or t.startswith(f"{name} (") for t in texts) == 3
        letters = [t for t in texts if t in {look.letter for look in PHASES.values()}]
        assert len(letters) == 27
        for architecture in ("dense-hybrid", "moe-hybrid", "moe-attention"):
            assert texts.count(PRETTY[architecture]) == 3


def test_a_crowd_is_counted_and_every_cell_stays_in_the_table(many):
    """If it failed, a thousand models would make a page that no browser opens, or lose some."""
    sections = [a["id"] for a in many.all("section") if a["id"].startswith("model-")]
    assert sections == [f"model-m{n:03}" for n in range(0, 12, 2)]
    assert len([a for a in many.all("tr") if "data-phase" in a]) == 180
    assert {f"model-m{n:03}" for n in range(90)} <= set(many.values("id"))
    assert "sections of 6 of 90 models" in many.text and "84 more" in many.text
    for fid in ("fig-phase-map", "fig-phase-map-narrow"):
        assert "n = 180 cells of 90 models" in many.text
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", many.figure(fid))
        assert set(PHASES) - {"not_run"} == {p for p in PHASES if PHASES[p].letter in texts}
    assert many.text.count("8 more models") == 6  # of 15 a phase


def test_sections_of_chosen_models(tmp_path, capsys):
    """If it failed, most models of a large study could not be looked at."""
    folder = crowd().write(tmp_path / "many")
    page = tmp_path / "page.html"
    assert main(["report", str(folder), "--models", "m001", "m089", "--output", str(page)]) == 0
    sections = [a["id"] for a in Page(page.read_text()).all("section") if a.get("class") == "model"]
    assert sections == ["model-m001", "model-m089"]
    page.unlink()
    assert main(["report", str(folder), "--models", "m9", "--output", str(page)]) == 1
    assert "no model m9" in capsys.readouterr().err and not page.exists()


def test_every_panel_has_its_label(large):
    """A grid that loses a position or a precision tells of a model that was not measured."""
    drawn = large.figure("fig-depth-qwen3-5-27b")
    for position in POSITIONS:
        title = PRETTY[position]
        assert title in drawn
    for precision in ("16 bit", "8 bit", "4 bit"):
        assert f">{precision}</text>" in drawn
    assert drawn.count("block, counted from 0") == 3


def test_figures_say_what_they_show(page):
    """Who cannot see a figure reads its title and description; n stands in each caption."""
    figures = re.findall(r"<figure.*?</figure>", page.html, re.DOTALL)
    assert figures
    for figure in figures:
        assert re.search(r"<title [^>]*>[^<]+</title><desc [^>]*>[^<]+</desc>", figure)
        assert "n = " in figure[figure.index("<figcaption>") :]


def test_what_is_missing_shows_its_reason_and_no_number(small):
    """A removal that was never measured must not read as a removal of zero."""
    rows = re.findall(r'<tr data-phase="none".*?</tr>', small.html, re.DOTALL)
    assert len(rows) == 3
    for row in rows:
        assert "no direction qualifies" in row
        assert row.count('class="whisker"') == 1  # the baseline's refusal, and nothing else
    assert "no direction qualifies" in small.html[small.html.index('id="not-run"') :]


def test_downloaded_data_is_json_with_nulls(page):
    """NaN is not JSON: one missing number would break the download of all."""
    table = page.data["data-phases"]
    assert "NaN" not in page.content["script"][0] and "Infinity" not in page.content["script"][0]
    assert len(table["rows"]) == len([a for a in page.all("tr") if "data-phase" in a])
    assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    assert set(table["columns"]) >= {c.name for c in SCHEMAS["phases"]}


def test_answers_are_shown_only_where_they_were_kept(small, large):
    """Real models' answers to hazardous prompts stay out of the page unless the study says so."""
    assert "k12 k7 k33" in small.text and "keep_text: true" in small.text
    assert "Some answers" not in large.text and "keep_text: false" in large.text


def test_provenance_names_versions_weights_and_the_command(small):
    """A number without its versions, weights and command cannot be checked by anyone."""
    section = small.text[small.text.index("From the metadata") :]
    for fact in ("mlx-lm", "0.29.0", "ab" * 32, "float32", "threads"):
        assert fact in section
    assert hashlib.sha256(b"circuit").hexdigest() in section
    assert "snakemake circuit --configfile results/synthetic/config.yaml" in section
    assert re.search(
        r"rm -r results/synthetic/[\w-]+/(16|8|4)\s"
        r"snakemake --configfile results/synthetic/config.yaml",
        section,
    )


def test_every_declared_value_has_a_look_or_a_name():
    """A phase, position or grade that the page does not know would be shown as code."""
    assert tuple(PHASES) == DECLARED_PHASES
    shown = ("position", "statistic", "direction", "site", "intervention", "label", "precision")
    columns = [c for table in TABLES for c in SCHEMAS[table] if c.name in shown and c.allowed]
    values = {v for c in columns for v in c.allowed} - {"none"}
    assert values and values <= set(PRETTY)


def _luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a, b):
    """Contrast of two colors after WCAG."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("phase", [p for p in PHASES if p != "not_run"])
def test_phases_can_be_told_apart_without_color(phase):
    """About one man in twelve does not see the difference of red and green."""
    look = PHASES[phase]
    assert contrast(look.color, "#ffffff") >= 3
    assert contrast(look.color, look.letter_color) >= 4.5
    others = [o for p, o in PHASES.items() if p != phase]
    assert look.letter not in {o.letter for o in others}
    assert look.color not in {o.color for o in others}


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (formats.number, -0.004, "0.00"),
        (formats.number, -1.5, "−1.50"),
        (formats.number, float("nan"), "–"),
        (formats.count, 20.0, "20"),
        (formats.probability, 1.0, ">\u00a00.99"),
        (formats.probability, 0.004, "<\u00a00.01"),
        (formats.probability, 0.61, "0.61"),
        (formats.error, 0.0004, "<\u00a00.001"),
        (formats.error, 0.012, "0.012"),
        (formats.parameters, 397, "397 B"),
        (formats.parameters, 0.000409, "409 k"),
        (formats.parameters, 0.0008256, "826 k"),
        (formats.parameters, None, "–"),
        (formats.listing, ["16", "8", "4"], "16, 8 and 4"),
    ],
)
def test_numbers_are_written_one_way(form, value, text):
    """Certainty by rounding, a minus zero or a missing number as 0 would each mislead."""
    assert form(value) == text


def test_slugs_differ_where_names_differ_only_in_signs():
    """Two models behind one anchor would be cited for each other."""
    names = ["qwen3.5-9b", "Qwen3_5 9B", "…", "qwen3-5-9b"]
    found = formats.slugs(names)
    assert len(set(found.values())) == 4
    assert all(re.fullmatch(r"[a-z0-9-]+", s) for s in found.values())


def test_figures_of_one_page_share_no_id_and_leak_no_style():
    """matplotlib gives every figure the same ids, and a style sheet that hits the whole page."""
    with style():
        drawn = []
        for _ in range(2):
            figure = new_figure(2, 1)
            ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
            ax.plot([0, 1], [0, 1], marker="o")
            ax.text(0.5, 0.5, "href='#a' 0.123456 url(#b) <&>")
            drawn.append(figure)
        first, second = (str(drawing(f, f"fig-{i}", "t", "d").svg) for i, f in enumerate(drawn))
    ids = re.compile(r'id="([^"]+)"')
    assert not set(ids.findall(first)) & set(ids.findall(second))
    assert "<style" not in first
    assert "href='#a' 0.123456 url(#b) &lt;&amp;&gt;" in first
    with pytest.raises(ValueError, match="fig-x"):
        inline_svg("<svg", "fig-x", "t", "d")


def test_published_stands_beside_measured(tmp_path, thresholds, small):
    """If it failed, a reader would not see that the published pair rests on 27 answers."""
    study = demo()
    answers = frame_of("behavior", study.rows["behavior"])
    cells = frame_of("cells", study.rows["cells"])
    found = behavior_rates(answers)
    limits = thresholds["across_models"]
    study.rows["behavior_rates"] = found.to_dict("records")
    study.rows["across_models"] = [
        *measured_comparisons(cells, found, limits),
        *across_models(published("failure-first", "strict_asr")[1:3], limits),
    ]
    for row in study.rows["across_models"][-7:]:
        row |= {"origin": "failure-first", "statistic": "strict_asr"}
    page = page_of(study, tmp_path)
    section = page.text[page.text.index("Attack success, false refusals") :]
    assert "Mistral Large 3 - DeepSeek V3.2" in section and "inconclusive" in section
    assert "helpful-only" in section and "equal models: up to" in section
    assert "#rates" in page.values("href")
    assert "#rates" not in small.values("href")


def test_any_page_says_how_often_phases_come_out_right(tmp_path, thresholds):
    """A reader of a study of real models could not tell whether to trust it."""
    record = read_record()
    now = record[record["limits"] == limits_of(thresholds)]
    page = page_of(demo(), tmp_path / "shipped")
    said = " ".join(" ".join(page.words).split())
    n = f"Of {len(now)} cells of organisms whose phase was planted, that phase came out in"
    assert f"{n} {now['right'].sum()} (" in said and "This study trained no organism." in said
    assert "from seeds 105" in said and "thresholds fitted" not in said.lower()
    limits = yaml.safe_load(Path("config/thresholds.yaml").read_text())
    limits["phases"]["min_full"] = 0.6
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(limits))
    page = page_of(demo(thresholds=str(tmp_path / "other.yaml")), tmp_path / "other")
    said = " ".join(" ".join(page.words).split())
    assert "right by these thresholds is not known" in said and n not in said
    assert "the record that ships is of others" in said


def test_a_calibration_study_says_how_often_it_is_right(tmp_path):
    """A reader who cannot see how the instrument did on known mechanisms has to believe it."""
    study = demo()
    planted = {"circuit": "deletable_circuit", "helpful-only": "none"}
    unseen = {"circuit": "broken", "helpful-only": "none"}
    trained = {
        model: {"organism": model, "seed": seed, "phase": phase, "held_out": unseen[model]}
        for seed, (model, phase) in enumerate(planted.items(), start=105)
    }
    cells = frame_of("calibration", beside_truth(frame_of("phases", study.rows["phases"]), trained))
    measured = {"right": 1.0, "right_ci_low": 0.3, "right_ci_high": 1.0, "wrong": 0.0}
    measured |= {"brier": 0.1, "n": 3, "n_organisms": 1}
    tried = {"value": 0.5, "shipped": True, "fitted": True, "middle": 0.5}
    study.rows |= {
        "calibration": cells.to_dict("records"),
        "calibration_summary": calibration_summary(cells),
        "threshold_fit": [
            {"threshold": "phases.min_full", "part": "fit"} | tried | measured,
            {"threshold": "as shipped", "part": "report"} | measured,
        ],
    }
    build(study.write(tmp_path), tmp_path / "index.html")
    words = " ".join(" ".join(Page((tmp_path / "index.html").read_text()).words).split())
    assert "trained afresh from seeds 105 and 106: circuit and helpful-only" in words
    assert "This study trained no organism" not in words
    assert "is what the planted phase lets expect in 0.50" in words and "of 2 organisms" in words
    assert "phases.min_full 0.50 0.50 to 0.50 0.50" in words
