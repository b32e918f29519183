"""The page in a real browser: what it draws, what it remembers, and what a guest cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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
from vmtest.model.results import Matrix
from vmtest.report.html.page import Memory, render
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


def test_nothing_sticks_out_of_a_telephones_screen(browser: Browser) -> None:
    size = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    runs = (past_of(pages.three(), {}),) * 20
    browser.show(pages.three(), memory=Memory(events=EVENTS, runs=runs, listed=runs))
    assert browser.run("return document.documentElement.scrollWidth") <= 375
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
