"""The report's section of claims."""

import json
import re
import sys
from pathlib import Path

import pytest

from phasescope.claims import CLAIMS
from phasescope.report import build, content
from phasescope.report.study import load

sys.path.insert(0, str(Path(__file__).parents[1]))
from synthetic_study import HOSTILE, SyntheticStudy, demo


@pytest.fixture(scope="module")
def judged_page(tmp_path_factory):
    """The page of a study whose claims were judged, as text, and the study's folder."""
    folder = demo().judged().write(tmp_path_factory.mktemp("judged"))
    build(folder, folder / "index.html")
    return (folder / "index.html").read_text(), folder


def test_every_claim_has_an_address_and_a_row(judged_page):
    """A claim that cannot be cited or found was not published."""
    page, _ = judged_page
    table = page.split('<table id="claim-table"')[1].split("</table>")[0]
    for id in CLAIMS:
        assert page.count(f'id="claim-{id}"') == 1
        assert table.count(f'<a href="#claim-{id}">{id}</a></th>') == 1


def test_verdicts_stand_by_cell_and_by_model(judged_page):
    """A reader who asks what one cell came out as would have to open every claim."""
    page, folder = judged_page
    claims = load(folder).tables["claims"]
    ran = claims[claims["verdict"] != "not_run"]
    for scope, own in ran.groupby("scope"):
        table = page.split(f'aria-label="Verdicts per {scope}"')[1].split("</table>")[0]
        assert table.count('<th scope="row">') == own["claim"].nunique()
        for name in own["model"].dropna().unique():
            assert f'<th scope="col">{name}' in table


def test_what_was_not_run_says_why(judged_page):
    """A silent gap reads as a result."""
    page, folder = judged_page
    claims = load(folder).tables["claims"]
    for reason in claims.loc[claims["verdict"] == "not_run", "reason"].unique():
        assert reason.replace("'", "&#39;").replace("<", "&lt;") in page


def test_the_download_has_every_verdict(judged_page):
    """The page shows some rows of a claim; who checks it needs all."""
    page, folder = judged_page
    block = re.search(r'id="data-claims">(.*?)</script>', page, re.S).group(1)
    assert len(json.loads(block)["rows"]) == len(load(folder).tables["claims"])


def test_a_page_that_leaves_verdicts_out_says_so(judged_page, monkeypatch, tmp_path):
    """If it failed, who downloads a large study's verdicts would take some for all."""
    whole, folder = judged_page
    monkeypatch.setattr(content, "_MOST_ROWS", 10)
    build(folder, tmp_path / "index.html")
    cut = (tmp_path / "index.html").read_text()
    said = "/claims.parquet</code> has them"
    assert said in cut and said not in whole
    block = json.loads(re.search(r'id="data-claims">(.*?)</script>', cut, re.S).group(1))
    at = block["columns"].index("precision")
    assert block["rows"] and all(row[at] is None for row in block["rows"])


def test_published_figures_stand_beside_measured_ones(judged_page):
    """Without n a published figure looks surer than it is."""
    page, _ = judged_page
    part = page.split('id="claim-ff-5"')[1].split("</details>\n")[0]
    assert "8.8 percentage points (n not stated)" in part


def test_hostile_names_come_out_escaped(tmp_path):
    """A model's name must not run in a reader's browser."""
    study = SyntheticStudy(sheet="models.tsv").model(HOSTILE, ["deletable_circuit"])
    folder = study.judged().write(tmp_path)
    build(folder, tmp_path / "index.html")
    assert "<script>alert" not in (tmp_path / "index.html").read_text()
