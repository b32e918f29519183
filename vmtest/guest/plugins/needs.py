# SPDX-License-Identifier: MIT
"""The marker `needs`, a pytest plugin: a test for a feature is skipped exactly where it is missing.

`@pytest.mark.needs("so_netns_cookie")`; the names are those of vmtest.guest.features.question().

PYTEST_DONT_REWRITE: a saved guest has imported it before pytest could rewrite its asserts.
"""

from collections.abc import Generator
from typing import Any

import pytest

from vmtest.guest.features import UnknownFeature, probe, question
from vmtest.guest.plugin import ALTHOUGH, NOT_APPLICABLE


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line(
        "markers", "needs(*features): skipped where the kernel lacks one, as a probe of it says"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A feature that nobody knows ends the session before a test runs.

    The last to look: tests that `-k` and the like leave out are gone by then.
    """
    for item in items:
        for marker in item.iter_markers("needs"):
            if not marker.args:
                raise pytest.UsageError(f"{item.nodeid}: needs() names no feature")
        for feature in _needed(item):
            try:
                question(feature)
            except UnknownFeature as error:
                raise pytest.UsageError(f"{item.nodeid}: needs: {error}") from error


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips the test if the kernel lacks something, before any of its fixtures runs."""
    for feature in _needed(item):
        has, asked, answered = probe(feature)
        if not has:
            pytest.skip(f"the kernel has no {feature} (probe: {asked}: {answered})")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A test that skips itself though the kernel has all it needs has failed."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    features = _needed(item)
    if not (features and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if reason.startswith(NOT_APPLICABLE):
        return
    answers = {feature: probe(feature) for feature in features}
    if all(answer.has for answer in answers.values()):
        has = "; ".join(f"{f} (probe: {a.asked}: {a.answered})" for f, a in answers.items())
        report.outcome = "failed"
        report.longrepr = f"{ALTHOUGH}{has}: {reason}"


def _needed(item: pytest.Item) -> list[str]:
    return [feature for marker in item.iter_markers("needs") for feature in marker.args]
