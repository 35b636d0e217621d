"""The page of a diagnosis in a real browser: nothing is loaded, nothing overflows, all can be read and reached."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from report.diagnoses import deep, demo, made
from report.test_html import contrast

from gradlab.report import write_diagnosis

pytestmark = pytest.mark.browser

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PAGES = {
    "deep": deep,
    "vanishing": lambda: demo("vanishing"),
    "nonfinite": lambda: demo("nonfinite"),
    "history": lambda: demo("clipping-inactive"),
    "healthy": lambda: demo("healthy"),
    "long": lambda: made("anumberofwordswithoutanyblankthatalinecouldbebrokenat" * 4),
}


OUTSIDE = """width => [...document.querySelectorAll('main *, header *')]
  .filter(one => !one.closest('pre, .wide, svg, .hidden, nav') && one.getBoundingClientRect().right > width + 1)
  .map(one => one.outerHTML.slice(0, 200))"""


def chromium(playwright):
    """The path of a Chromium: GRADLAB_CHROMIUM, one on PATH, or playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("GRADLAB_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    own = playwright.chromium.executable_path
    return found or (own if own and os.path.exists(own) else None)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'gradlab[dev]'")
    with sync_api.sync_playwright() as playwright:
        path = chromium(playwright)
        if path is None:
            pytest.skip("no Chromium: set GRADLAB_CHROMIUM, or install one: apt-get install chromium")
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made_here:
        for name, diagnosis in PAGES.items():
            write_diagnosis(Path(made_here) / f"{name}.html", diagnosis(), f"gradlab diagnose --demo {name}")
        yield Path(made_here)


@pytest.fixture
def visit(browser, folder):
    """visit(name, width, scheme): the page, with what it said and asked for in `said` and `asked`."""
    contexts = []

    def opened(name, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 812}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto((folder / f"{name}.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_asked_for_but_the_file_and_the_console_stays_silent(visit, name):
    page = visit(name)
    page.wait_for_load_state("networkidle")
    assert [url for url in page.asked if not url.startswith("data:image/png")] == [page.url]
    assert page.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_window(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # No element sticks out, but what scrolls inside a region of its own.
    outside = page.evaluate(OUTSIDE, width)
    assert outside == []


def test_findings_and_figures_are_there_with_their_texts_and_are_drawn(visit):
    page = visit("deep")
    found = deep().findings
    assert page.locator(".finding").count() == len(found)
    figures = page.get_by_role("img")
    assert figures.count() == page.locator("figure").count() >= 8
    for k in range(figures.count()):
        assert len(figures.nth(k).get_attribute("aria-label")) > 20
        box = figures.nth(k).bounding_box()
        assert box["width"] > 200
        assert box["height"] > 60
    assert page.get_by_role("img", name=re.compile("4 layers by 40 steps")).count() == 1


def colours(page):
    """(text, its colour, the colour behind it) of every text of the page, as three channels each."""
    return page.evaluate(
        """() => {
          const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
          const rgb = (colour, below) => {
            canvas.fillStyle = `rgb(${below.join(',')})`; canvas.fillRect(0, 0, 1, 1);
            canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const behind = one => {
            const above = one ? behind(one.parentElement) : [255, 255, 255];
            return one ? rgb(getComputedStyle(one).backgroundColor, above) : above;
          };
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          const found = [];
          while (walker.nextNode()) {
            const node = walker.currentNode, one = node.parentElement;
            if (!node.data.trim() || one.closest('svg, .hidden, .skip')) continue;
            const back = behind(one);
            found.push([node.data.trim().slice(0, 40), rgb(getComputedStyle(one).color, back), back]);
          }
          return found;
        }"""
    )


def hexadecimal(channels):
    return "#" + "".join(f"{value:02x}" for value in channels)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["deep", "healthy", "history"])
def test_every_text_can_be_read_in_both_schemes(visit, name, scheme):
    found = colours(visit(name, 1280, scheme))
    assert len(found) > 50
    page_is_dark = sum(found[-1][2]) < 3 * 128
    assert page_is_dark == (scheme == "dark")
    weak = [(text, hexadecimal(front), hexadecimal(back)) for text, front, back in found]
    assert [one for one in weak if contrast(one[1], one[2]) < 4.5] == []  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_letters_of_figures_stand_out_from_the_page(visit, scheme):
    page = visit("deep", 1280, scheme)
    ink, card = page.evaluate(
        """() => [getComputedStyle(document.querySelector('figure svg')).fill,
                  getComputedStyle(document.querySelector('.card')).backgroundColor]"""
    )
    both = [hexadecimal([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in (ink, card)]
    assert contrast(*both) > 10.0  # letters of figures are small


def test_every_link_detail_and_scrolling_region_is_reached_by_the_tab_key_and_shows_it(visit):
    page = visit("deep", 375)
    wanted = page.locator("a[href], summary, pre[tabindex], .wide[tabindex]").count()
    reached = []
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        one = page.evaluate(
            """() => { const one = document.activeElement, style = getComputedStyle(one);
              return [one.tagName, one.textContent.trim().slice(0, 30), style.outlineStyle, parseFloat(style.outlineWidth)] }"""
        )
        if one[0] == "BODY":
            break
        reached.append(one)
    assert reached[0][1] == "Skip to the findings"
    assert len(reached) == wanted
    assert [one for one in reached if one[2] == "none" or one[3] < 2.0] == []


def test_a_detail_opens_with_the_enter_key(visit):
    page = visit("deep")
    page.locator("summary").first.focus()
    assert not page.locator("details").first.evaluate("one => one.open")
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("one => one.open")
    assert page.locator("details p").first.is_visible()


def test_print_is_light_unfolded_and_without_navigation(visit):
    page = visit("deep", 794, "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert sum(int(part) for part in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).color"))) < 150
    assert not page.locator("nav").is_visible()
    assert page.evaluate("document.querySelector('details p').getBoundingClientRect().height") > 10


def test_the_skip_link_goes_to_the_findings(visit):
    page = visit("deep", 375)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_timeout(800)  # the page scrolls smoothly
    assert page.url.endswith("#findings")
    assert abs(page.locator("#findings").bounding_box()["y"]) < 120
