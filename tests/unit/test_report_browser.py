"""The page in a real browser: what it draws, what it remembers, and what a guest cannot do."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import histories
import pages
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from vmtest.api.site import write_site
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report.again import command_of
from vmtest.report.causes import Cause, causes
from vmtest.report.html.page import Memory, render
from vmtest.report.table import Line
from vmtest.runs.events import Stamped
from vmtest.runs.folder import RunFolder
from vmtest.runs.past import past_of

BROWSERS = ("chromium", "google-chrome")
EVENTS = (Stamped(0.0, "queued", "5.10"), Stamped(2.0, "finished", "5.10"))


class Browser:
    """A browser without a window, and the page that it shows."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self.file = folder / "page.html"

    def show(self, matrix: Matrix, state: str = "", memory: Memory | None = None) -> None:
        self.file.write_text(render(matrix, memory), encoding="utf-8", errors="strict")
        self.driver.get("about:blank")
        self.driver.get(f"{self.file.as_uri()}{state}")
        assert self.run("return document.documentElement.dataset.ready") == "yes"

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    @property
    def rows(self) -> list[str]:
        return self.texts("#tests tbody th")

    @property
    def state(self) -> str:
        return str(self.run("return location.hash"))

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    service = shutil.which("chromedriver")
    if program is None or service is None:
        pytest.skip("there is no chromium with chromedriver: python -m vmtest.host --tests")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(service))
    yield started
    started.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome, tmp_path: Path) -> Browser:
    return Browser(driver, tmp_path)


def test_rows_that_differ_are_drawn_first_with_letters(browser: Browser) -> None:
    browser.show(pages.three())
    assert browser.rows[:2] == ["s test_some", "s test_all"]
    assert browser.texts("#tests tbody tr:first-child td") == ["✓", "F", "✓"]
    assert browser.texts("#loads tbody tr:nth-child(3) td") == ["1,000▲25%", "2,000", "3,000"]


def test_what_is_searched_and_chosen_is_in_the_url_and_comes_back_with_it(browser: Browser) -> None:
    browser.show(pages.three())
    browser.find("#q").send_keys("fine 7")
    assert browser.rows == ["s test_fine[7]"]
    assert browser.state == "#?q=fine+7"
    browser.show(pages.three(), "#?o=FE&order=name")
    assert browser.rows == ["s test_all", "s test_some"]
    assert browser.find("#outcomes input[value=F]").is_selected()


def test_a_link_opens_one_result_and_closing_it_forgets_it(browser: Browser) -> None:
    browser.show(pages.three(), f"#?q=test_some&test={quote('t.py::test_some')}&kernel=6.1")
    assert browser.find("#result").is_displayed()
    assert browser.texts("#r-title") == ["t.py::test_some"]
    assert "no event" in browser.find("#r-texts").text
    browser.find("#result").send_keys(Keys.ESCAPE)
    assert not browser.find("#result").is_displayed()
    assert browser.state == "#?q=test_some"


def test_arrows_move_between_cells_and_enter_opens_one(browser: Browser) -> None:
    browser.show(pages.three())
    browser.run("document.querySelector('#tests td.go').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ENTER)
    assert browser.texts("#r-title") == ["t.py::test_all"]
    assert browser.texts("#r-facts dd")[:2] == ["6.1", "error"]


def test_the_name_of_a_test_in_a_cause_finds_its_row(browser: Browser) -> None:
    browser.show(pages.three())
    browser.find("button.find").click()
    assert browser.rows == ["s test_some"]


@pytest.mark.parametrize("text", pages.HOSTILE, ids=range(len(pages.HOSTILE)))
def test_a_hostile_guest_runs_nothing_and_fetches_nothing(browser: Browser, text: str) -> None:
    browser.show(pages.hostile(text), memory=Memory({"arguments": [text]}, EVENTS, {}, True))
    browser.run("for (const cell of document.querySelectorAll('td.go')) cell.click()")
    assert browser.run("return window.owned") is None
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.complaints() == []


def test_the_policy_stops_a_script_that_is_not_the_pages(browser: Browser) -> None:
    browser.show(pages.three())
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
        "document.body.append(s); document.body.setAttribute('onclick', 'window.owned = 1');"
        "document.body.click()"
    )
    assert browser.run("return window.owned") is None
    assert any("Content Security Policy" in message for message in browser.complaints())


@pytest.fixture
def telephone(browser: Browser) -> Iterator[Browser]:
    size = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield browser
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_sticks_out_of_a_telephones_screen(telephone: Browser) -> None:
    runs = (past_of(pages.three(), {}),) * 20
    telephone.show(pages.three(), memory=Memory(events=EVENTS, runs=runs, listed=runs))
    assert telephone.run("return document.documentElement.scrollWidth") <= 375
    telephone.show(long_texts(), memory=Memory(events=EVENTS, runs=runs, listed=runs))
    assert telephone.run("return document.documentElement.scrollWidth") <= 375


COMMIT = "0123456789" * 4


def test_the_first_cause_is_on_a_telephones_first_screen(telephone: Browser) -> None:
    facts = {
        "arguments": ["run", *(f"--suite=suite-number-{n}" for n in range(20))],
        "project": {"commit": COMMIT},
    }
    telephone.show(pages.three(), memory=Memory(facts, EVENTS))
    assert not telephone.find("#about dl").is_displayed()
    assert telephone.find(".card strong").rect["y"] < 812
    telephone.find("#about summary").click()
    assert telephone.find("#about dl").is_displayed()
    resize(telephone, 1280)
    assert not telephone.find("#about summary").is_displayed()
    assert telephone.find("#about dl").is_displayed()


def test_the_kernels_are_whole_on_a_telephone_and_leave_no_hole(telephone: Browser) -> None:
    tail = tuple(f"line {n}" for n in range(40))
    release, reason = "5.10.0-46-amd64", 'kernel panicked: "x"; while t.py::test_b ran'
    dead = KernelResult(
        "5.10", Status.PANICKED, release=release, reason=reason, console_tail=tail, directory="d"
    )
    telephone.show(pages.of(dead, replace(dead, kernel="6.12")))
    assert telephone.run(TOO_WIDE, "#kernels .scroll") == []
    assert telephone.run(RIGHT, "#kernels th, #kernels td") <= 375
    heights = [row.rect["height"] for row in telephone.driver.find_elements("css selector", ROW)]
    assert max(heights) < 200


ROW = "#kernels tbody tr"
RIGHT = """
const places = [...document.querySelectorAll(arguments[0])].map((e) => e.getBoundingClientRect());
return Math.max(...places.map((place) => place.right));
"""


def test_every_section_and_the_theme_can_be_reached_on_a_telephone(telephone: Browser) -> None:
    runs = (past_of(pages.three(), {}),) * 20
    telephone.show(pages.three(), memory=Memory(events=EVENTS, runs=runs, listed=runs))
    assert telephone.find("#theme").is_displayed()
    assert telephone.run(RIGHT, "nav a, #theme") <= 375


TOO_WIDE = """
const all = [...document.querySelectorAll(arguments[0])].filter((e) => e.clientWidth);
return all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML.slice(0, 80));
"""
LONG = "x" * 3000


def long_texts() -> Matrix:
    """A kernel that says everything in lines without end."""
    test = TestResult(
        f"t.py::test_{LONG}", "s", Outcome.FAILED, message=LONG, details=f"E {LONG}", output=LONG
    )
    passed = replace(test, test=f"{test.test}[{LONG}]", outcome=Outcome.PASSED)
    tests = (test, replace(test, test=f"{test.test}[a]"), passed)
    dead = KernelResult(
        "6.12", Status.PANICKED, tests=tests, reason=LONG, console_tail=(LONG,), directory="d"
    )
    return pages.of(dead)


def test_a_line_without_end_is_wrapped_wherever_it_stands(browser: Browser) -> None:
    browser.driver.set_window_size(1280, 900)
    browser.show(long_texts())
    browser.run("for (const e of document.querySelectorAll('details')) e.open = true")
    browser.run("document.querySelector('#tests td.go').click()")
    assert browser.run(TOO_WIDE, "pre, dialog, dialog dd, dialog p, .card, #kernels .scroll") == []


def deep(kernel: str = "6.12") -> Matrix:
    """A failure whose error is below more lines than a box shows at once."""
    lines = [f"    line {n}" for n in range(50)]
    details = "\n".join((*lines, "E   assert 1 == 2", "", *lines[:5]))
    test = TestResult("t.py::test_deep", "s", Outcome.FAILED, message="m", details=details)
    return pages.of(KernelResult(kernel, Status.FAILED, tests=(test,), directory=kernel))


IN_SIGHT = """
const pre = document.querySelector(arguments[0]), line = pre.querySelector('.e');
const box = pre.getBoundingClientRect(), at = line.getBoundingClientRect();
return at.top >= box.top && at.bottom <= box.bottom;
"""


def test_a_box_opens_at_the_line_that_says_what_went_wrong(browser: Browser) -> None:
    browser.show(deep())
    assert browser.run(IN_SIGHT, ".card pre")
    browser.run("document.querySelector('#tests td.go').click()")
    assert browser.run(IN_SIGHT, "#r-texts pre")


ROWS = """
const pre = document.querySelector('.card pre'), style = getComputedStyle(pre);
const error = pre.querySelector('.e'), text = error.previousSibling, above = document.createRange();
above.setStart(text, text.data.lastIndexOf('above'));
above.setEnd(text, text.length - 1);
const row = parseFloat(style.lineHeight), box = pre.getBoundingClientRect();
const at = (place) => (place.getClientRects()[0].top - box.top) / row;
return {
  above: at(above), error: at(error), rows: pre.clientHeight / row,
  cut: ((pre.scrollTop - parseFloat(style.paddingTop)) / row) % 1,
};
"""
FRAME = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"


def resize(browser: Browser, width: int) -> None:
    size = {"width": width, "height": 812, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.driver.execute_async_script(FRAME)


def assert_error_in_sight(browser: Browser) -> None:
    """Its first row and the line above it are shown, and the box begins with a whole row."""
    rows = browser.run(ROWS)
    assert -0.1 < rows["above"] < rows["error"] < rows["rows"] - 1, rows
    assert min(rows["cut"], 1 - rows["cut"]) < 0.1, rows


@pytest.mark.parametrize("below", [3, 60])
def test_a_box_is_at_its_error_on_every_width_and_after_the_width_changed(
    telephone: Browser, below: int
) -> None:
    lines = [f"    line {n}: {'a word ' * 40}" for n in range(30)]
    error = f"E   assert {'1 == 2 or ' * 20}"
    details = "\n".join((*lines, f"    above {'it ' * 60}", error, *lines[:below]))
    test = TestResult("t.py::test_deep", "s", Outcome.FAILED, message="m", details=details)
    kernel = KernelResult("6.12", Status.FAILED, tests=(test,), directory="6.12")
    telephone.show(pages.of(kernel))
    for width in (375, 1280, 375, 600):
        resize(telephone, width)
        assert_error_in_sight(telephone)


def test_a_box_that_the_reader_scrolled_stays_there(telephone: Browser) -> None:
    telephone.show(deep())
    telephone.run(
        "const pre = document.querySelector('.card pre');"
        "pre.dispatchEvent(new Event('wheel', {bubbles: true})); pre.scrollTop = 5;"
    )
    resize(telephone, 1280)
    assert telephone.run("return document.querySelector('.card pre').scrollTop") == 5


NAMES = ("test_x", "test_x[a-1]", "test_x[it's $HOME `id`]", "test_x[\U0001f600]", "C::test_é[0.5]")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kernel", ["6.12", "a b'c\"", "-x", "\x1b[2J"])
def test_a_result_has_the_command_that_runs_it_again(
    browser: Browser, name: str, kernel: str
) -> None:
    test = TestResult(f"t.py::{name}", "s", Outcome.FAILED, message="m")
    matrix = pages.of(KernelResult(kernel, Status.FAILED, tests=(test,)))
    browser.show(matrix)
    browser.run("document.querySelector('#tests td.go').click()")
    (said,) = browser.texts("#r-again code")
    if kernel in ("6.12", "a b'c\""):
        assert said == command_of(causes(matrix)[0], matrix)
        assert kernel in shlex.split(said)
    else:
        assert said == ""  # no command line can name it
        assert not browser.find("#r-again").is_displayed()


def test_a_refused_program_has_its_command_and_its_log(browser: Browser) -> None:
    load = LoadResult("o b/x.o", "prog", Verdict.REJECTED, log="verifier/x y.log", line="no")
    of = KernelResult("6.12", Status.FAILED, loads=(load,), directory="6.12")
    matrix = pages.of(of)
    browser.show(matrix, memory=Memory(beside=True))
    browser.run("document.querySelector('#loads td.go').click()")
    cause = Cause(Line(""), "", "", (of,), False, loads=((of, load),))
    assert browser.texts("#r-again code") == [command_of(cause, matrix)]
    assert browser.find("#r-log a").get_dom_attribute("href") == "./6.12/verifier/x%20y.log"


def test_a_result_has_a_link_to_its_log(browser: Browser) -> None:
    browser.show(deep(), memory=Memory(beside=True))
    browser.run("document.querySelector('#tests td.go').click()")
    assert browser.find("#r-log a").get_dom_attribute("href") == "./6.12/pytest.log"
    browser.show(deep())
    browser.run("document.querySelector('#tests td.go').click()")
    assert not browser.find("#r-log").is_displayed()


def test_a_test_that_did_not_run_says_why(browser: Browser) -> None:
    left = TestResult("t.py::test_c", "s", Outcome.NOT_RUN)
    dead = KernelResult("6.12", Status.PANICKED, tests=(left,), reason="it panicked")
    browser.show(pages.of(dead))
    browser.run("document.querySelector('#tests td.go').click()")
    assert browser.texts("#r-facts dd")[:3] == ["6.12", "not run", "PANICKED: it panicked"]


def test_a_page_that_was_moved_says_that_its_links_may_lead_nowhere(browser: Browser) -> None:
    browser.show(deep(), memory=Memory(beside=True, within=browser.file.parent.name))
    assert not browser.find("#moved").is_displayed()
    browser.show(deep(), memory=Memory(beside=True, within="another"))
    assert browser.find("#moved").is_displayed()


def test_a_printed_page_is_as_wide_as_its_paper(browser: Browser) -> None:
    """What is wider than a sheet gets smaller: the last kernel of 50 is on it."""
    names = [f"6.{n}-with-a-name" for n in range(50)]
    test = TestResult("t.py::test_x", "s", Outcome.FAILED, message="m")
    browser.show(
        pages.of(*(KernelResult(n, Status.FAILED, tests=(test,)) for n in names)),
        memory=Memory(events=EVENTS),
    )
    browser.run("dispatchEvent(new Event('beforeprint'))")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    size = {"width": 960, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert browser.run(RIGHT, "table, svg, pre, .card, h1") <= 961
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_row_more_than_fits_is_a_button_away(browser: Browser) -> None:
    browser.show(pages.big())
    assert len(browser.rows) == 150
    browser.find("#more").click()
    assert len(browser.rows) == 750


def past(*letters: str) -> Memory:
    """What a run remembers when those before it gave ``letters``, one a kernel."""
    runs = [
        histories.day(n, histories.run_of({"a": of, "b": "PP"})) for n, of in enumerate(letters)
    ]
    return Memory(runs=tuple(runs))


def test_the_history_has_a_square_a_run_and_the_test_that_changed_first(browser: Browser) -> None:
    browser.show(histories.run_of({"b": "PP", "a": "PF"}), memory=past("PP", "FF", "  ", "PF"))
    assert browser.texts("#past tbody th") == ["s a", "s b"]
    assert browser.texts("#past tbody tr:first-child td") == ["✓", "F", "", "±"]


def test_a_square_opens_what_it_is_about(browser: Browser) -> None:
    browser.show(histories.run_of({"a": "PF", "b": "PP"}), memory=past("PP", "PF"))
    browser.run("document.querySelector('#past td.bad').click()")
    assert browser.texts("#r-title") == ["t.py::a"]
    assert browser.texts("#r-facts dd")[1:3] == ["failed on some kernels", "6.12"]


def test_the_search_in_the_history_is_in_the_url(browser: Browser) -> None:
    matrix = histories.run_of({"a": "PF", "b": "PP"})
    browser.show(matrix, memory=past("PP", "PF"))
    browser.find("#hq").send_keys("t.py::b")
    assert browser.texts("#past tbody th") == ["s b"]
    assert browser.state == "#?hq=t.py%3A%3Ab"
    browser.show(matrix, "#?hq=t.py%3A%3Aa", memory=past("PP", "PF"))
    assert browser.texts("#past tbody th") == ["s a"]


@pytest.mark.parametrize("text", pages.HOSTILE, ids=range(len(pages.HOSTILE)))
def test_a_hostile_run_before_it_runs_nothing(browser: Browser, text: str) -> None:
    matrix = pages.hostile(text)
    short = past_of(matrix, {"project": {"branch": text, "commit": text}})
    browser.show(matrix, memory=Memory(runs=(short, short), listed=(short,)))
    browser.run("for (const cell of document.querySelectorAll('td.go')) cell.click()")
    assert browser.run("return window.owned") is None
    assert browser.complaints() == []


def test_a_page_of_a_site_leads_back_to_all_runs_whatever_is_searched(
    browser: Browser, tmp_path: Path
) -> None:
    for n in (1, 2):
        histories.leave(tmp_path, n, histories.run_of({"a": "PF"}))
    runs = [RunFolder(path) for path in (tmp_path / ".vmtest" / "runs").iterdir()]
    write_site(runs, tmp_path / "public", strict=True)
    index = (tmp_path / "public" / "index.html").as_uri()
    browser.driver.get(index)
    browser.find("#runs tr:last-child a").click()
    browser.find("#q").send_keys("a")
    browser.find("nav a").click()
    assert browser.driver.current_url == index
    assert browser.texts("#runs tbody .mark") == ["✗ failing on 1 of 2 kernels"] * 2
    assert browser.complaints() == []
