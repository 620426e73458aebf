"""The report page in a real browser, with the network off."""

import csv
import json
import re
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest
from selenium.webdriver.support.wait import WebDriverWait

sys.path.insert(0, str(Path(__file__).parents[1]))
from synthetic_study import HOSTILE, SyntheticStudy, demo, frontier

BY = "css selector"
OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}


def mixed():
    study = SyntheticStudy().model("alpha", ["deletable_circuit", "indeterminate", "not_run"])
    return study.model("beta", ["none"], reason="zeppelin").model("Gamma-" + "x" * 58, ["not_run"])


def hostile():
    study = SyntheticStudy(title=HOSTILE)
    moe = {"architecture": "moe-hybrid", "reason": HOSTILE, "text": HOSTILE}
    return study.model(HOSTILE, ["indeterminate", "not_run"], **moe).surveyed(reason=HOSTILE)


def failed():
    """A cell whose intervene stage failed, beside one of which all ran."""
    study = SyntheticStudy().model("whole", ["three_pathway"], architecture="moe-hybrid").surveyed()
    study.model("broken", ["indeterminate"])
    for table in ("interventions", "coherence", "behavior"):
        study.rows[table] = [r for r in study.rows[table] if r["model"] != "broken"]
    reason = "the job intervene failed; its log says why"
    lost = {"stages_run": "quantize, probe, select", "stages_not_run": "intervene, cohere"}
    study.rows["cells"][-1] |= lost | {"status": "partly", "reason": f"intervene: {reason}"}
    keys = {"model": "broken", "precision": "16", "phase": "not_run", "reason": reason}
    study.rows["phases"][-1] = keys | {"thresholds_sha256": "0" * 64}
    return study


STUDIES = {
    "demo": lambda: demo(keep_text=True),
    "mixed": mixed,  # the demo that differs by row
    "hostile": hostile,
    "one": lambda: SyntheticStudy().model("only", ["deletable_circuit"]),
    "failed": failed,
    "frontier": frontier,
}


class Pages(dict):
    """Paths of pages by the name of their study, built when they are asked for."""

    def __init__(self, built):
        self.built = built

    def __missing__(self, name):
        return self.setdefault(name, self.built(name, STUDIES[name]))


@pytest.fixture(scope="module")
def pages(built):
    return Pages(built)


class Reader:
    """A browser on one page, with what it said and asked for."""

    def __init__(self, browser, pages):
        self.browser, self.pages = browser, pages

    def open(self, name, anchor=""):
        self.browser.get("about:blank")
        for log in ("browser", "performance"):
            self.browser.get_log(log)
        self.browser.get(self.pages[name].as_uri() + anchor)
        parsed = "return document.URL !== 'about:blank' && document.readyState === 'complete'"
        # on a busy machine the driver may return while the page is still being parsed
        WebDriverWait(self.browser, 60).until(lambda browser: browser.execute_script(parsed))

    def cdp(self, command, **arguments):
        return self.browser.execute_cdp_cmd(command, arguments)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def unfold(self):
        """Open what is folded, and lay out what is out of sight."""
        self.run(
            "document.querySelectorAll('details').forEach(d => d.open = true);"
            "document.querySelectorAll('section')"
            ".forEach(s => s.style.contentVisibility = 'visible')"
        )

    def all(self, selector):
        return self.browser.find_elements(BY, selector)

    def rows(self):
        """The visible rows of the phase table: (model, precision) each."""
        return self.run(
            "return [...document.querySelectorAll('#verdict-table tbody tr')]"
            ".filter(r => r.offsetParent)"
            ".map(r => [r.cells[0].textContent, r.cells[1].textContent])"
        )

    def requests(self):
        messages = [
            json.loads(e["message"])["message"] for e in self.browser.get_log("performance")
        ]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent if not p["request"]["url"].startswith("data:")]

    def media(self, kind="", scheme="light"):
        """Show the page on a medium ('' or 'print') and in a color scheme; smooth scrolling off."""
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.cdp("Emulation.setEmulatedMedia", media=kind, features=features)

    def width(self, pixels, height=780):
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=height,
            deviceScaleFactor=1,
            mobile=pixels < 500,
        )


@pytest.fixture
def reader(browser, pages):
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", OFFLINE)
    found = Reader(browser, pages)
    found.width(1280, 900)
    found.media()
    yield found
    found.cdp("Emulation.setScriptExecutionDisabled", value=False)
    found.cdp("Emulation.setEmulatedMedia", media="", features=[])
    found.cdp("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("name", ["demo", "mixed", "hostile"])
def test_the_page_is_quiet_and_alone(reader, name):
    """A blocked script, a missing file or a hostile string that ran would speak up here."""
    reader.open(name)
    reader.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert reader.requests() == [reader.pages[name].as_uri()]
    assert reader.browser.get_log("browser") == []
    assert reader.browser.title.endswith("· Phasescope")
    assert HOSTILE in reader.browser.title or name != "hostile"


def test_foreign_code_is_refused(reader):
    """The policy is the last line of defense if a string ever slips through as HTML."""
    reader.open("demo")
    reader.run(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s);"
        "const i = new Image(); i.src = 'http://evil.test/x.png'; document.body.append(i);"
    )
    assert reader.run("return window.ran") is None
    said = " ".join(entry["message"] for entry in reader.browser.get_log("browser"))
    assert said.count("Content Security Policy") >= 2


def test_columns_sort_and_what_is_missing_stays_last(reader):
    """Sorted to the top, a cell that was not run would read as the best or the worst."""
    reader.open("mixed")
    order = []
    for _ in range(2):
        reader.all("#verdict-table thead button")[3].click()
        order.append([r[:2] for r in reader.rows()])
    up, down = ([model[:5] for model, _ in rows] for rows in order)
    assert up == ["alpha", "alpha", "beta", "alpha", "Gamma"]
    assert order[0][0] == ["alpha", "8 bit"] and order[1][0] != ["alpha", "8 bit"]
    assert down[3:] == up[3:]
    heads = reader.all("#verdict-table th[aria-sort]")
    assert [h.get_attribute("aria-sort") for h in heads] == ["descending"]
    reader.all("#verdict-table thead button")[1].click()
    assert [bits for _, bits in reader.rows()] == ["4 bit", "8 bit", "16 bit", "16 bit", "16 bit"]
    reader.all("#verdict-table thead button")[0].click()
    assert [m[:5] for m, _ in reader.rows()] == ["alpha"] * 3 + ["beta", "Gamma"]


def test_rows_can_be_searched_and_filtered(reader):
    """Twenty-seven rows are too many to read one by one; a filter that lies hides a finding."""
    reader.open("mixed")
    status = reader.all(".filters [role=status]")[0]
    assert status.text == "5 of 5 cells shown"
    search = reader.all(".filters input")[0]
    search.send_keys("ALPHA memory")
    assert reader.rows() == [["alpha", "4 bit"]] and status.text == "1 of 5 cells shown"
    search.clear()
    search.send_keys(" ")
    for key, value, left in (("phase", "not_run", 2), ("precision", "16", 1)):
        reader.all(f"select[data-key='{key}'] option[value='{value}']")[0].click()
        assert len(reader.rows()) == left


def test_the_table_can_be_taken_away(reader, tmp_path):
    """A reader who plots the phases elsewhere needs the numbers, with empty cells empty."""
    reader.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    reader.open("mixed")
    reader.all("[data-csv]")[0].click()
    path = tmp_path / "synthetic-phases.csv"
    for _ in range(100):
        if path.exists():
            break
        time.sleep(0.1)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [(r["model"][:5], r["phase"]) for r in rows][:2] == [
        ("alpha", "deletable_circuit"),
        ("alpha", "indeterminate"),
    ]
    assert rows[2]["probability"] == "" and float(rows[0]["probability"]) > 0.99
    assert not {"null", "NaN", "undefined"} & {value for row in rows for value in row.values()}


def landed(reader, anchor):
    """Whether the upper part of the screen shows an element once nothing moves any more."""
    seen = []
    while len(seen) < 6 or len(set(seen[-6:])) > 1:
        box = reader.run(
            "const r = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [r.top, r.height]",
            anchor,
        )
        seen.append(tuple(box))
        assert len(seen) < 100, seen
        time.sleep(0.1)
    top, height = seen[-1]
    return -10 < top < 450 and height > 0


@pytest.mark.parametrize("anchor", ["#model-circuit", "#selection-circuit", "#organisms"])
def test_a_link_lands_on_its_section_and_unfolds_it(reader, anchor):
    """A citation that opens on folded or distant text sends the reader to nothing."""
    reader.open("demo", anchor)
    assert landed(reader, anchor)


def test_a_click_on_the_contents_lands_on_its_section(reader):
    """Sections out of sight have no height yet: a slow scroll would end where they were not."""
    reader.open("frontier")
    (link,) = reader.all("nav a[href='#provenance']")
    link.click()
    assert landed(reader, "#provenance")


def test_nothing_is_hidden_without_scripts(reader):
    """Mail programs and careful readers run no scripts; the findings must still be there."""
    reader.cdp("Emulation.setScriptExecutionDisabled", value=True)
    reader.open("demo")
    root = reader.cdp("DOM.getDocument")["root"]["nodeId"]
    ids = reader.cdp("DOM.querySelectorAll", nodeId=root, selector="#verdict-table tbody tr")
    boxes = [reader.cdp("DOM.getBoxModel", nodeId=i)["model"] for i in ids["nodeIds"]]
    assert len(boxes) == 6 and all(box["height"] > 20 for box in boxes)
    buttons = reader.cdp("DOM.querySelectorAll", nodeId=root, selector="thead button")
    assert buttons["nodeIds"] == []


@pytest.mark.parametrize("name", ["demo", "mixed", "hostile"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_its_window(reader, name, width):
    """A page that scrolls sideways on a phone loses its numbers to the right edge."""
    reader.width(width)
    reader.open(name)
    reader.unfold()
    reader.run(
        "const table = document.querySelector('#verdict-table');"
        "table.style.minWidth = '80rem';"  # it scrolls by itself, what is unseen in it too
        "table.querySelector('thead th:last-child').insertAdjacentHTML("
        "'beforeend', '<span class=unseen>not measured</span>')"
    )
    assert reader.run("return document.scrollingElement.scrollWidth") <= width
    shown = [f for f in reader.all(".map figure") if f.is_displayed()]
    assert len(shown) == 1


def test_all_controls_and_figures_have_names(reader):
    """A screen reader says 'button' and 'image' where a name is missing."""
    reader.open("mixed")
    reader.unfold()
    found = {}
    for node in reader.cdp("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if role in ("button", "link", "image", "img", "table", "searchbox", "combobox", "region"):
            found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    assert {"button", "link", "table", "region"} <= set(found)
    assert len(found.get("image", []) + found.get("img", [])) > 10
    assert not [role for role, names in found.items() if not all(n.strip() for n in names)]


# a figure is one image to a screen reader: what it is drawn with would take most of the time
AXE = """axe.run({include: [document], exclude: [['.mpl > g']]},
    {resultTypes: ['violations'], rules: {'color-contrast': {enabled: CONTRAST}}})
    .then(r => JSON.stringify(r.violations))"""


def axe(reader, contrast=True):
    """What axe-core finds on the open page, by impact; colors are the same on pages of any size."""
    source = (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    reader.cdp("Runtime.evaluate", expression=source)  # the page's policy lets no script in
    run = AXE.replace("CONTRAST", json.dumps(contrast))
    answer = reader.cdp("Runtime.evaluate", expression=run, awaitPromise=True, returnByValue=True)
    return json.loads(answer["result"]["value"])


SEEN = [(n, s) for n in STUDIES for s in ("light", "dark") if (n, s) != ("frontier", "dark")]


@pytest.mark.parametrize(("name", "scheme"), SEEN)
def test_nothing_stands_in_the_way_of_a_reader(reader, name, scheme):
    """Too little contrast, a control without a name or a false role shut readers out."""
    reader.media(scheme=scheme)
    reader.open(name)
    reader.unfold()
    # sections of models are alike: of a large page the first is looked at
    reader.run("[...document.querySelectorAll('section.model')].slice(1).forEach(s => s.remove())")
    hard = [v for v in axe(reader, name != "frontier") if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["help"], v["nodes"][0]["html"][:200]) for v in hard] == []


# text of the page and of its figures with its color, what is painted behind it, size and weight
TEXTS = """const painted = e => {
    const at = e.getBoundingClientRect();
    const x = (at.left + at.right) / 2, y = (at.top + at.bottom) / 2;
    const figure = e.closest('svg') || document.createElement('i');
    const marks = [...figure.querySelectorAll('path, use')]
        .filter(m => m.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING)
        .filter(m => { const r = m.getBoundingClientRect();  // what a letter stands on
            return r.left <= x && x <= r.right && r.top <= y && y <= r.bottom })
        .map(m => getComputedStyle(m)).filter(s => s.fill.startsWith('rgb') && s.fillOpacity == 1);
    if (marks.length) return marks.at(-1).fill;
    for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/^rgba\\(.*, 0\\)$|^transparent$/.test(c)) return c } return 'rgb(255, 255, 255)' };
const found = new Map();
for (const e of document.querySelectorAll('body *:not(script):not(style)')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || e.closest('.unseen, .skip, svg title')) continue;
    const style = getComputedStyle(e), color = e.closest('svg') ? style.fill : style.color;
    const key = [color, painted(e), parseFloat(style.fontSize), parseInt(style.fontWeight)];
    found.set(key.join(), [...key, e.outerHTML.slice(0, 120)]) }
return [...found.values()]"""


def luminance(color):
    """Relative luminance of an opaque CSS color (WCAG 2.2)."""
    numbers = [float(x) for x in re.findall(r"[\d.]+", color)]
    assert len(numbers) == 3 or numbers[3] == 1, color
    scale = 1 if color.startswith("color(") else 255
    parts = [n / scale for n in numbers[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def too_faint(texts):
    """Texts under 4.5 to 1, or under 3 to 1 where they are large (WCAG 2.2, 1.4.3)."""
    found = []
    for color, behind, pixels, weight, html in texts:
        dark, light = sorted(map(luminance, (color, behind)))
        least = 3 if pixels >= 24 or (pixels >= 18.66 and weight >= 700) else 4.5
        if (ratio := (light + 0.05) / (dark + 0.05)) < least:
            found.append((round(ratio, 2), color, behind, html))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["demo", "mixed"])
def test_text_stands_out_from_what_is_behind_it(reader, name, scheme):
    """Grey on grey is no text to many readers; axe tells nothing of text before a gradient."""
    reader.media(scheme=scheme)
    reader.open(name)
    reader.unfold()
    texts = reader.run(TEXTS)
    assert len(texts) > 10 and too_faint(texts) == []
    reader.run("document.querySelector('figcaption').style.color = 'rgb(128, 128, 128)'")
    assert [html for *_, html in too_faint(reader.run(TEXTS)) if "figcaption" in html]


def test_axe_finds_what_is_wrong(reader):
    """If it failed, the check above would be of nothing."""
    reader.open("one")
    reader.run("document.querySelectorAll('.mpl title').forEach(t => t.remove())")
    assert "svg-img-alt" in {v["id"] for v in axe(reader)}


def test_paper_gets_what_is_folded(reader):
    """What a reader folded away on the screen is missing on paper, without a way to open it."""
    reader.media("print")
    reader.open("demo")
    folded = reader.all("details:not([open]) table")
    assert folded and all(table.size["height"] > 20 for table in folded)


def test_dark_turns_figures_too(reader):
    """Dark text of a figure on a dark page cannot be read."""
    colors = []
    for scheme in ("light", "dark"):
        reader.media(scheme=scheme)
        reader.open("demo")
        colors.append(
            reader.run(
                "const of = (s, p) => getComputedStyle(document.querySelector(s))[p];"
                "return [of('section', 'backgroundColor'), of('#fig-phase-map text', 'fill')]"
            )
        )
    brightness = [[sum(map(int, re.findall(r"\d+", c)[:3])) for c in pair] for pair in colors]
    (paper, ink), (night, chalk) = brightness
    assert paper - ink > 300 and chalk - night > 300
