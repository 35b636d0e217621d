"""The page of a gradient check: closed in itself, escaped, and readable without colour, without a mouse, and in the dark."""

import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import gradlab
from gradlab.checks import check_cell, check_example, check_vjp, random_example
from gradlab.errors import DTypeError, ResourceRefused
from gradlab.report import write_html
from gradlab.report.gates import gate_map
from gradlab.report.html import page

VOID = {"meta", "link", "br", "img", "input"}


class Reader(HTMLParser):
    """Elements, texts and tables of a page; any tag that is not closed in its turn is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.tables, self.ids, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if "id" in dict(attributes):
            self.ids.append(dict(attributes)["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if self.open and {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data


def read(*reports):
    return Reader(page(reports))


def maps(reader):
    """Every map of the page as {(row, step): text}."""
    found = []
    for table in reader.tables:
        head, *rows = table
        if head[1:2] == ["0"]:
            found.append({(row[0], t): text for row in rows for t, text in enumerate(row[1:])})
    return found


class LSTM:
    """gradlab's LSTM with the forget gate's part of dU altered at one step."""

    def __init__(self, alter, step):
        self.cell, self.alter, self.at = gradlab.LSTM(), alter, step

    def __getattr__(self, name):
        return getattr(self.cell, name)

    def param_grads(self, p, x, a, s, da, delta, t):
        whole = self.cell.param_grads(p, x, a, s, da, delta, t)
        other = da.copy()
        other[np.asarray(t) != self.at] = 0.0
        part = self.cell.param_grads(p, x, a, s, other, delta, t)
        H = whole["b"].shape[-1] // 4
        forget = (..., slice(H, 2 * H), slice(None))
        whole["U"] = whole["U"].copy()
        whole["U"][forget] += self.alter(part["U"][forget])
        return whole


@pytest.fixture(scope="module")
def altered():
    """The report of an LSTM whose dU[f] is too large by 1e-8 at step 2."""
    return check_example(random_example(LSTM(lambda part: 1e-8 * part, 2), T=4)).as_json()


@pytest.fixture(scope="module")
def doubled():
    """The report of a cell whose adjoint is doubled at each step: many findings."""

    class Doubled:
        def init(self, rng, D, H):
            return {"W": rng.normal(size=(H, D)), "U": rng.normal(size=(H, H)), "b": np.zeros(H)}

        def step(self, params, x_t, s_prev, t):
            return np.tanh(x_t @ params["W"].T + s_prev @ params["U"].T + params["b"])

        def vjp(self, params, x_t, s_prev, delta, t):
            da = delta * (1.0 - self.step(params, x_t, s_prev, t) ** 2)
            return {"W": da.T @ x_t, "U": da.T @ s_prev, "b": da.sum(axis=0)}, da @ params["W"], 2.0 * da @ params["U"]

    return check_cell(Doubled(), steps=4, control=False).as_json()


# ---- what the map says ------------------------------------------------------------------------------------


def test_a_fault_in_one_gate_at_one_step_is_one_marked_cell_of_the_map_in_words(altered):
    (found,) = maps(read(altered))
    # The altered entries are the forget gate's: 1e-8 of each, and of S less.
    assert {place for place, text in found.items() if "✗" in text} == {("d0.U[f]", 2)}
    assert re.fullmatch(r"✗ [1-9]e-0[89]", found["d0.U[f]", 2])
    # Each other cell says how far its worst entry is off, which is rounding.
    others = {text for place, text in found.items() if place != ("d0.U[f]", 2) and text}
    assert all(float(text) < 1e-11 for text in others)
    steps = {name: sum(text != "" for place, text in found.items() if place[0] == name) for name, _ in found}
    # States have the initial one besides.
    assert {name for name in steps if name.startswith("d0.U")} == {f"d0.U[{gate}]" for gate in "ifgo"}
    assert {name: n for name, n in steps.items() if n != 4} == {"ds 0[c]": 5, "ds 0[h]": 5}


def test_the_map_takes_the_worst_row_and_every_verdict_has_a_mark_of_its_own():
    def finding(step, row, verdict, error, reason=""):
        place = {"quantity": "0.U", "gate": "f", "step": step, "row": row, "verdict": verdict, "reason": reason}
        return {**place, "error": error}

    report = {
        "steps": 5,
        "clean": ["x", "s 0"],
        "findings": [
            finding(0, 0, "FAIL", 1e-8),
            finding(0, 1, "FAIL", 3e-8),
            finding(1, 0, "UNRESOLVED", "inf", "floor"),
            finding(2, 0, "UNRESOLVED", 1.0, "kink"),
            finding(2, 1, "FAIL", 1e-4),
            finding(3, 0, "FAIL", "inf"),
        ],
    }
    found = gate_map(report)
    assert [mark.text for mark in found["d0.U[f]"]] == ["✗ 3e-08", "? floor", "✗ 1e-04", "✗ inf", "ok"]
    assert [mark.shade for mark in found["d0.U[f]"]] == [1, 0, 2, 4, 0]
    assert [mark.rows for mark in found["d0.U[f]"]] == [(0, 1), (0,), (0, 1), (0,), ()]
    assert [len(found[name]) for name in ("dx", "ds 0")] == [5, 6]
    assert gate_map(report | {"located": False}) == {}


def test_where_the_report_has_the_errors_of_what_passes_the_map_shows_them():
    one = {"quantity": "0.U", "gate": "f", "step": 1, "row": 0, "verdict": "FAIL", "reason": "", "error": 0.5}
    blocks = {"d0.U[i]": [1e-16, 2e-16], "d0.U[f]": [3e-16, 0.5], "dx": [0.0, 0.0]}
    found = gate_map({"steps": 2, "clean": ["x"], "findings": [one], "blocks": blocks})
    texts = {name: [mark.text for mark in marks] for name, marks in found.items()}
    assert texts == {"d0.U[f]": ["3e-16", "✗ 5e-01"], "d0.U[i]": ["1e-16", "2e-16"], "dx": ["0e+00", "0e+00"]}


def test_every_finding_stands_in_a_table_with_all_its_digits_the_worst_first(doubled):
    reader = read(doubled)
    rows = [row for table in reader.tables if table[0][0] == "gradient" and "backward" in table[0] for row in table[1:]]
    findings = [one for report in doubled["gradients"] for one in report["findings"]]
    assert len(findings) > 24
    assert len(rows) == len(findings)
    for row, one in zip(rows, findings, strict=True):
        assert row[:2] == [f"d{one['quantity']}", str(one["step"])]
        assert [float(text) for text in row[5:7]] == pytest.approx([one["backward"], one["oracle"]], rel=1e-10)  # as printed
    errors = [one["error"] for one in doubled["gradients"][0]["findings"]]
    assert errors == sorted(errors, reverse=True)
    assert [tag for tag, _ in reader.elements].count("details") == 2  # what is beyond the first rows unfolds
    texts = " ".join(reader.text)
    assert "the last step is right, and what lies before is wrong" in texts
    assert all(report["replay"] in texts for report in doubled["gradients"])
    assert "Shrunk to the smallest sizes that fail" in texts


def test_more_findings_than_a_page_can_hold_are_counted(altered):
    many = altered | {"findings": altered["findings"] * 1500}
    assert f"{1500 * len(altered['findings']) - 2000} more are left out here; the JSON has them." in page([many])


def test_all_checks_of_a_cell_are_listed_with_their_verdict():
    report = check_cell(gradlab.Elman("tanh"), steps=2, hidden_size=2, layers=1).as_json()
    reader = read(report)
    table = reader.tables[0]
    assert [row[0] for row in table[3:]] == [one["name"] for one in report["results"]]
    assert {row[1] for row in table[1:]} == {"✓ PASS"}
    assert "Gradient checks: 1 PASS" in reader.text
    assert all(float(text) < 1e-11 for found in maps(reader) for text in found.values() if text)
    assert "alterations of the backward pass" in " ".join(reader.text)


def test_a_function_has_a_report_without_steps():
    report = check_vjp(np.sin, lambda x, v: (2.0 * np.cos(x) * v,), np.array([0.3, 0.4])).as_json()
    reader = read(report | {"located": False})
    assert maps(reader) == []
    head = ["gradient", "worst entry", "entries", "backward", "oracle", "error/S", "verdict"]
    assert [table[0] for table in reader.tables] == [head]
    assert "✗ FAIL" in reader.tables[0][1]


def test_several_reports_are_counted_listed_and_linked(altered, doubled):
    good = check_example(random_example(gradlab.GRU(), T=2)).as_json()
    reader = read(altered, good, doubled | {"test": "test_x.py::test_y[a]"})
    assert "Gradient checks: 2 FAIL, 1 PASS" in reader.text
    links = [attributes["href"] for tag, attributes in reader.elements if tag == "a"]
    assert links == ["#r1", "#r2", "#r3"]
    assert reader.ids == ["r1", "r2", "r3"]
    assert "in test_x.py::test_y[a]" in reader.text


def test_no_reports_at_all_are_said_to_be_none():
    assert "Gradient checks: none were run" in read().text


# ---- nothing from outside ---------------------------------------------------------------------------------

HOSTILE = "</style><script>alert('x')</script><img src=x onerror=alert(1)>\" onmouseover=\"alert(2)\x00\x1b[31m{{ 7*7 }}&amp;"


def hostile(value):
    """Every text in plain data replaced by an attack; verdicts and numbers stay."""
    if isinstance(value, dict):
        kept = ("verdict", "error", "backward", "oracle")
        return {key: one if key in kept and key != "oracle" else hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_names_are_text_wherever_they_stand(altered, doubled):
    cell = hostile(doubled) | {"without": [HOSTILE]}
    attack = [hostile(altered) | {"test": HOSTILE, "note": HOSTILE, "one_step": [HOSTILE]}, cell]
    for report in attack:
        for one in report.get("gradients", [report]):
            one["control"] = {"tried": 2, "rejected": 1, "void": 0, "missed": [HOSTILE]}
    reader = read(*attack)
    clean = read(altered, doubled)
    assert {tag for tag, _ in reader.elements} <= {tag for tag, _ in clean.elements} | {"a", "ol", "li", "strong"}
    assert {key for _, attributes in reader.elements for key in attributes} == {
        key for _, attributes in clean.elements for key in attributes
    }
    text = page(attack)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert "{{ 7*7 }}" in text  # not 49
    assert "&amp;amp;" in text


def test_the_page_loads_and_runs_nothing(altered, doubled):
    reader = read(altered, doubled)
    tags = {tag for tag, _ in reader.elements}
    assert tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "svg", "audio", "video"} == set()
    for tag, attributes in reader.elements:
        assert not any(key.startswith("on") or key in ("src", "srcset", "style", "action") for key in attributes), tag
        assert attributes.get("href", "#").startswith("#")
    style = re.search(r"<style>(.*)</style>", page([altered]), flags=re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


# ---- for every reader -------------------------------------------------------------------------------------


def colours():
    """The colours of both schemes by name, from the style of the page."""
    style = re.search(r"<style>(.*)</style>", page([]), flags=re.DOTALL)[1]
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    both = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", part)) for part in (light, dark)]
    assert set(both[0]) == set(both[1])
    return {"light": both[0], "dark": both[1]}


def luminance(colour):
    """Relative luminance (WCAG 2.2, W3C 2023)."""
    channels = [int(colour[k : k + 2], 16) / 255.0 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    one, other = sorted((luminance(a), luminance(b)))
    return (other + 0.05) / (one + 0.05)


def test_the_formula_of_the_contrast_gives_the_published_extremes():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0, rel=1e-12)  # WCAG: from 1 to 21
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the well-known grey that just misses 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_by_at_least_4_5_to_1(scheme):
    found = colours()[scheme]
    pairs = [("ink", "page"), ("ink", "soft"), ("link", "page"), ("pass", "page"), ("fail", "page"), ("unresolved", "page")]
    pairs += [(f"t{k}", f"w{k}") for k in (1, 2, 3, 4)]
    ratios = {pair: contrast(found[pair[0]], found[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_shades_are_in_order_of_lightness_so_that_no_colour_vision_is_needed(scheme):
    found = colours()[scheme]
    steps = [luminance(found[name]) + 0.05 for name in ("page", "w1", "w2", "w3", "w4")]
    ratios = np.array(steps[1:]) / np.array(steps[:-1])
    worse = ratios if scheme == "dark" else 1.0 / ratios
    assert (worse > 1.15).all(), worse  # each step of the shade can be told from the one before


def test_tables_have_captions_and_headers_and_what_scrolls_can_be_reached_by_key(altered, doubled):
    reader = read(altered, doubled)
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("table") == tags.count("caption") == len(reader.tables)
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in reader.elements if tag == "th")
    regions = [attributes for _, attributes in reader.elements if attributes.get("role") == "region"]
    assert len(regions) == len(reader.tables)
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in regions)
    assert ("html", {"lang": "en"}) in reader.elements
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


# ---- writing ----------------------------------------------------------------------------------------------


def test_what_was_stored_as_json_gives_the_same_page(tmp_path, altered, doubled):
    reports = [altered, doubled]
    write_html(tmp_path / "a.html", reports)
    write_html(tmp_path / "b.html", json.loads(json.dumps(reports)))
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert first.decode("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("reports", [{}, {"subject": "x"}, "text", [7], [{"subject": "x"}], None], ids=repr)
def test_what_is_no_report_is_refused(tmp_path, reports):
    with pytest.raises(DTypeError, match="reports"):
        write_html(tmp_path / "a.html", reports)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ResourceRefused, match="missing"):
        write_html(tmp_path / "missing" / "a.html", [])


def test_names_that_no_encoding_has_are_escaped(tmp_path, altered):
    write_html(tmp_path / "a.html", [altered | {"subject": "a\udc80b"}])
    assert "a\\udc80b" in (tmp_path / "a.html").read_text(encoding="utf-8")
