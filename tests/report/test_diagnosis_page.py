"""The page of a diagnosis: closed in itself, escaped, complete, and readable without colour, without a mouse, and in the dark."""

import base64
import functools
import itertools
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from report.diagnoses import deep, demo, made
from report.test_html import Reader, contrast

import gradlab
from gradlab.diagnosis import CATALOGUE, Finding, Place
from gradlab.diagnosis.demos import DEMOS
from gradlab.errors import DTypeError, ResourceRefused
from gradlab.report import write_diagnosis
from gradlab.report.diagnosis_page import FIGURES, diagnosis_page

HOSTILE = "</style><script>alert('x')</script><img src=x onerror=alert(1)>\" onmouseover=\"alert(2)\x00\x1b[31m{{ 7*7 }}&amp;"
REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]+)')
OWN = {"svg", "g", "path", "use", "defs", "clippath", "rect", "circle", "image", "lineargradient", "pattern"}


class Page(Reader):
    """As the reader of other pages, which has no elements that close themselves."""

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if "id" in dict(attributes):
            self.ids.append(dict(attributes)["id"])


@functools.cache
def page_of(name):
    return diagnosis_page(PAGES[name](), f"gradlab diagnose --demo {name}")


PAGES = {
    "vanishing": lambda: demo("vanishing"),
    "deep": deep,
    "history": lambda: demo("loss-jumps"),
    "healthy": lambda: demo("healthy"),
}


@pytest.fixture(scope="module", params=PAGES)
def text(request):
    return page_of(request.param)


# ---- what it says -----------------------------------------------------------------------------------------


def test_the_verdict_stands_first_and_every_finding_with_place_numbers_and_remedy():
    found = deep()
    reader = Page(page_of("deep"))
    words = " ".join(" ".join(reader.text).split())
    first = found.findings[0]
    assert words.index(CATALOGUE[first.code].title) < words.index("Findings")
    for one in found.findings:
        assert one.message.split(":")[0][1:40] in words
        for chip in str(one.place).split(", "):
            assert chip in words
        for name, number in one.numbers.items():
            assert name in words
            if number.interval is not None:
                assert f"{number.interval[0]:.3g} to {number.interval[1]:.3g}" in words
        entry = CATALOGUE[one.code]
        assert " ".join(entry.remedy.split()) in words
        assert " ".join(entry.meaning.split()) in words
        assert entry.reference in words
    for text in (*found.assumptions, *found.silent, *found.silent.values()):
        assert text in words
    assert "gradlab 0." in words


def test_code_for_both_frameworks_keeps_its_lines():
    text = page_of("vanishing")
    blocks = re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", text, flags=re.DOTALL)
    entry = CATALOGUE["vanishing"]
    assert len(blocks) == 2
    for block, code in zip(blocks, (entry.pytorch, entry.keras), strict=True):
        plain = block.replace("&#34;", '"').replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert plain == code.strip("\n")


def test_a_healthy_network_is_called_healthy_and_shows_what_was_measured():
    reader = Page(page_of("healthy"))
    words = " ".join(reader.text)
    assert "Healthy" in words
    assert {"gradient", "gates", "spectra", "exponents", "basis"} <= set(reader.ids)
    assert "try" not in reader.ids


def test_every_figure_has_a_text_that_says_what_it_shows(text):
    reader = Page(text)
    figures = [attributes for tag, attributes in reader.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(figures) == sum(tag == "figure" for tag, _ in reader.elements) >= 2
    assert all(len(one["aria-label"]) > 20 for one in figures)
    others = [attributes for tag, attributes in reader.elements if tag == "svg" and "role" not in attributes]
    assert all(one.get("aria-hidden") == "true" for one in others)  # decoration


def test_the_map_holds_every_layer_and_step():
    text = page_of("deep")
    svg = re.search(r'<svg id="map".*?</svg>', text, flags=re.DOTALL)[0]
    label = re.search(r'aria-label="([^"]*)"', svg)[1]
    assert all(f"Layer {name}:" in label for name in ("0.forward", "0.backward", "1.forward", "1.backward"))
    assert "4 layers by 40 steps" in label
    pixels = base64.b64decode(re.search(r'href="data:image/png;base64,([^"]+)"', svg)[1])
    assert (int.from_bytes(pixels[16:20], "big"), int.from_bytes(pixels[20:24], "big")) == (40, 4)  # width, height of the PNG


def test_numbers_that_are_not_finite_are_words():
    text = diagnosis_page(made())
    assert "inf it is so" in text
    assert "nan" in text


# ---- nothing from outside ---------------------------------------------------------------------------------


def test_hostile_text_is_text_wherever_it_stands():
    text, clean = diagnosis_page(made(HOSTILE), HOSTILE), diagnosis_page(made(), "it is so")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert "{{ 7*7 }}" in text  # not 49
    assert "&amp;amp;" in text
    attacked, calm = Page(text), Page(clean)
    assert {tag for tag, _ in attacked.elements} == {tag for tag, _ in calm.elements}
    assert {key for _, attributes in attacked.elements for key in attributes} == {
        key for _, attributes in calm.elements for key in attributes
    }


def test_the_page_loads_and_runs_nothing(text):
    reader = Page(text)
    tags = {tag for tag, _ in reader.elements}
    assert (
        tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "audio", "video", "foreignobject"} == set()
    )
    for tag, attributes in reader.elements:
        assert not any(key.startswith("on") or key in ("src", "srcset", "action", "xlink:href") for key in attributes), tag
        assert attributes.get("href", "#").startswith("data:image/png;base64," if tag == "image" else "#")
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert "http" not in re.sub(r"http-equiv", "", re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL))
    (policy,) = (a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_ids_are_unique_and_every_reference_has_its_target(text):
    reader = Page(text)
    assert len(reader.ids) == len(set(reader.ids))
    assert set(REFERENCE.findall(text)) <= set(reader.ids)


@pytest.mark.parametrize(("name", "demo_name"), [("vanishing", "vanishing"), ("history", "loss-jumps")])
def test_equal_diagnoses_give_equal_bytes(name, demo_name):
    again = gradlab.diagnose(**DEMOS[demo_name].arguments())
    assert diagnosis_page(again, f"gradlab diagnose --demo {name}") == page_of(name)


# ---- for every reader -------------------------------------------------------------------------------------


def colours():
    """The colours of both schemes by name."""
    style = re.search(r"<style>(.*?)</style>", page_of("history"), flags=re.DOTALL)[1]
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    both = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part)) for part in (light, dark)]
    assert set(both[0]) == set(both[1])
    return {"light": both[0], "dark": both[1]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_by_at_least_4_5_to_1_and_every_line_by_3(scheme):
    found = colours()[scheme]
    pairs = list(itertools.product(("ink", "faint", "link"), ("page", "card", "soft")))
    for tone in ("error", "warning", "info", "ok"):
        pairs += [(tone, f"{tone}-tint"), (tone, "page"), (tone, "card"), ("ink", f"{tone}-tint"), ("faint", f"{tone}-tint")]
    assert {
        pair: contrast(*(found[name] for name in pair)) for pair in pairs if contrast(*(found[name] for name in pair)) < 4.5
    } == {}
    lines = [(name, "card") for name in found if name.startswith("fig-")]  # WCAG 2.2, 1.4.11: graphics 3 to 1
    assert {
        pair: contrast(*(found[name] for name in pair)) for pair in lines if contrast(*(found[name] for name in pair)) < 3.0
    } == {}


def test_colours_of_figures_follow_the_scheme():
    for text in (page_of("deep"), page_of("history")):
        inside = "".join(re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL))
        assert re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", inside) == []


def test_headings_descend_one_at_a_time_and_what_scrolls_can_be_reached_by_key(text):
    reader = Page(text)
    tags = [tag for tag, _ in reader.elements]
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert tags.count("table") == tags.count("caption")
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in reader.elements if tag == "th")
    assert all(attributes.get("tabindex") == "0" for tag, attributes in reader.elements if tag == "pre")
    assert all(a["tabindex"] == "0" and a["aria-label"] for _, a in reader.elements if a.get("role") == "region")
    links = [attributes["href"][1:] for tag, attributes in reader.elements if tag == "a"]
    assert links[0] == "findings"  # the skip link comes first
    assert set(links) <= set(reader.ids)
    assert ("html", {"lang": "en"}) in reader.elements


def test_a_long_list_of_findings_is_listed_whole_with_figures_for_the_first():
    many = tuple(Finding("loss-jumps", "warning", Place(update=k), f"number {k}") for k in range(30))
    reader = Page(diagnosis_page(replace(demo("loss-jumps"), findings=many)))
    assert [name for name in reader.ids if re.fullmatch(r"finding-\d+", name)] == [f"finding-{k}" for k in range(1, 31)]
    assert sum(bool(re.fullmatch(r"finding-\d+-figure", name)) for name in reader.ids) == FIGURES


# ---- writing ----------------------------------------------------------------------------------------------


def test_the_file_is_one_page_of_utf8(tmp_path):
    write_diagnosis(tmp_path / "a.html", made("ümläut a\udc80b"), "gradlab diagnose x")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "ümläut a\\udc80b" in text
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_what_is_no_diagnosis_is_refused_and_a_missing_folder_too(tmp_path):
    with pytest.raises(DTypeError, match=r"gradlab\.diagnose"):
        write_diagnosis(tmp_path / "a.html", {"findings": []})
    with pytest.raises(ResourceRefused, match="missing"):
        write_diagnosis(tmp_path / "missing" / "a.html", made())
    assert list(tmp_path.iterdir()) == []


def test_the_style_of_matplotlib_is_as_it_was():
    before, state = dict(matplotlib.rcParams), np.geterr()
    diagnosis_page(demo("loss-jumps"))
    assert dict(matplotlib.rcParams) == before
    assert np.geterr() == state
