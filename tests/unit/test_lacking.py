"""A Python module that the guest lacks: the run says how to bring it."""

from __future__ import annotations

import html
from dataclasses import replace

import pytest

from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report.html import page
from vmtest.suites.lacking import notes


def run(*tests: tuple[str, Outcome]) -> Matrix:
    results = tuple(TestResult("t.py", "a", outcome, message=said) for said, outcome in tests)
    kernels = tuple(KernelResult(name, Status.FAILED, tests=results) for name in ("6.1", "6.12"))
    return Matrix(1, "run", "2026-07-01T00:00:00+00:00", 1.0, ("a",), kernels)


def test_modules_that_are_not_there_are_told_once_with_the_cure() -> None:
    (note,) = notes(
        run(
            ("ModuleNotFoundError: No module named 'yaml'", Outcome.ERROR),
            ("ModuleNotFoundError: No module named 'google.protobuf'", Outcome.FAILED),
            ("ModuleNotFoundError: No module named 'pytest_asyncio'", Outcome.ERROR),
        ),
        "debian",
    )
    assert "the guest has no Python module google, pytest_asyncio, yaml: " in note
    assert '[guest] packages = ["python3-google", "python3-pytest-asyncio", "python3-yaml"]' in note
    assert "root and pythonpath of the [[suite]]" in note


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("ModuleNotFoundError: No module named 'yaml'", Outcome.XFAILED),
        ("ModuleNotFoundError: No module named ''", Outcome.FAILED),
        ("ImportError: cannot import name 'x' from 'y'", Outcome.ERROR),
    ],
)
def test_what_is_no_missing_module_is_not_told(said: str, outcome: Outcome) -> None:
    assert notes(run((said, outcome)), "debian") == ()


YAML = ("ModuleNotFoundError: No module named 'yaml'", Outcome.ERROR)


def test_on_the_hosts_own_root_the_cure_is_a_package_of_the_host() -> None:
    (note,) = notes(run(YAML), "host")
    assert "tests run in the Python that runs vmtest: install it there on the host" in note
    assert "with pip in a virtual environment, else as Debian's python3-yaml; " in note
    assert "[guest]" not in note


def test_on_a_root_of_your_own_the_cure_is_in_that_root() -> None:
    (note,) = notes(run(YAML), "/srv/guest.squashfs")
    assert "install it in /srv/guest.squashfs, which the guest boots on; " in note
    assert "python3-yaml" not in note


def test_the_page_has_the_cure_in_the_card_of_its_cause() -> None:
    of = run(YAML)
    (note,) = notes(of, "host")
    drawn = page.render(replace(of, notes=("another", note)))
    card = drawn.partition('<article class="card">')[2].partition("</article>")[0]
    assert html.escape(note).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in card
