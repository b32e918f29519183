"""A suite that ends, forks, kills or forges: what the host makes of a real pytest under it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from watched import Watch, Watched

from vmtest.errors import DeadlineExceeded
from vmtest.model.kernels import Limits
from vmtest.model.results import Outcome, Status
from vmtest.runs.rows import read_results
from vmtest.suites.task import SuitesWork
from vmtest.vm.console import ConsoleLog
from vmtest.vm.machine import Machine

PASSES = "def test_first():\n    pass\n\n"
AFTER = "\ndef test_last():\n    pass\n"
# What a test does that looks for the line to the host among the open descriptors.
EVERYWHERE = """
def everywhere(*lines):
    for number in range(3, 64):
        try:
            if not os.path.isfile(f"/proc/self/fd/{number}"):
                os.write(number, "".join(json.dumps(line) + "\\n" for line in lines).encode())
        except OSError:
            pass
"""


def suite(body: str) -> str:
    """Three tests: the second one is ``body``."""
    return (
        "import json, os, signal, sys\nimport pytest\n"
        + EVERYWHERE
        + PASSES
        + "def test_second():\n"
        + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
        + "\n"
        + AFTER
    )


def verdict(watched: Watched, folder: Path, *options: str) -> tuple[Status, str]:
    """What the kernel would be said to be."""
    log = ConsoleLog(folder / "console.log", lambda: None)
    machine = cast(
        Machine, SimpleNamespace(findings=log.findings, spec=SimpleNamespace(memory_mib=512))
    )
    return SuitesWork(watched.run, list(options)).verdict(machine)


ONE_LOST = {"test_first": "passed", "test_second": "lost", "test_last": "not run"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pytest.exit('enough', returncode=0)", "1 lost, 1 not run: pytest stopped early"),
        ("pytest.exit('enough', returncode=5)", "pytest stopped early (status 5)"),
        ("pytest.exit('enough')", "pytest stopped early (status 2)"),
        ("pytest.exit('enough', returncode=3)", "pytest stopped early (status 3)"),
        ("raise KeyboardInterrupt", "pytest stopped early (status 2)"),
        ("os._exit(0)", "pytest's process ended before pytest had, exit status 0"),
        ("os._exit(1)", "pytest's process ended before pytest had, exit status 1"),
        ("os._exit(5)", "pytest's process ended before pytest had, exit status 5"),
        ("os.abort()", "pytest's process ended before pytest had, no exit status"),
        ("os.kill(os.getpid(), 9)", "pytest's process ended before pytest had, no exit status"),
        ("os.execv('/bin/true', ['true'])", "before pytest had, exit status 0"),
        ("os.closerange(3, 256)", "a test closed or replaced descriptors that it had not opened"),
        (
            "null = os.open('/dev/null', os.O_RDWR)\n"
            "for number in range(3, 20):\n    os.dup2(null, number)",
            "a test closed or replaced descriptors that it had not opened",
        ),
        ("everywhere('not an event')", "line 6 of what the guest sent is not an event"),
        (
            "everywhere({'event': 'finish', 'status': 0})\nos.kill(os.getpid(), 9)",
            "line 6 of what the guest sent is not an event (finish.key: field required)",
        ),
        (
            """
            key = "0" * 16
            said = {"duration": 0.0, "file": "", "line": 0, "seen": 0}
            said |= dict.fromkeys(("message", "details", "output", "stderr", "kernel", "phase"), "")
            lines = [{"event": "finish", "status": 0, "key": key}]
            for test in ("test_last", "test_second"):
                name = {"test": f"test_it.py::{test}", "key": key}
                lines[:0] = [{"event": "result", "outcome": "passed", **name, **said}]
                if test == "test_last":
                    lines[:0] = [{"event": "start", **name, "uptime": 1.0, "seen": 0}]
            everywhere(*lines)
            os._exit(0)
            """,
            "line 6 of what the guest sent has another key",
        ),
    ],
)
def test_an_end_that_loses_a_test_is_lost(
    body: str, said: str, watch: Watch, tmp_path: Path
) -> None:
    watched = watch(suite(body))
    watched.execute()
    status, why = verdict(watched, tmp_path)
    assert (status, watched.outcomes()) == (Status.LOST, ONE_LOST)
    assert said in why
    lines = watched.results.getvalue().decode().splitlines(keepends=True)
    assert [row.test for row in read_results(lines)] == ["test_it.py::test_first"]


@pytest.mark.parametrize("body", ["sys.exit(0)", "raise SystemExit", "exit()"])
def test_a_test_that_exits_has_failed_and_the_others_run(
    body: str, watch: Watch, tmp_path: Path
) -> None:
    watched = watch(suite(body))
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.FAILED, "1 failed")
    assert watched.outcomes()["test_last"] == "passed"


def test_stopping_at_the_first_failure_says_what_did_not_run(watch: Watch, tmp_path: Path) -> None:
    watched = watch(suite("assert False"))
    watched.execute("-x")
    assert verdict(watched, tmp_path) == (Status.FAILED, "1 failed, 1 not run")


def test_tests_that_another_test_takes_away_are_not_run(watch: Watch, tmp_path: Path) -> None:
    watched = watch(
        """
        def test_first(request):
            del request.session.items[1:]

        def test_last():
            pass
        """
    )
    watched.execute()
    status, why = verdict(watched, tmp_path)
    assert (status, watched.outcomes()["test_last"]) == (Status.FAILED, "not run")
    assert "1 not run" in why


@pytest.mark.parametrize(
    "body",
    [
        "os.fork()",
        "if not os.fork():\n    assert False, 'in the child'",
        "if not os.fork():\n    pytest.skip('in the child')",
        "if not os.fork():\n    pytest.exit('in the child', returncode=0)",
        "if not os.fork():\n    raise KeyboardInterrupt",
    ],
)
def test_a_forked_child_that_comes_back_reports_nothing(
    body: str, watch: Watch, tmp_path: Path
) -> None:
    watched = watch(suite(body))
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.PASSED, "")
    assert watched.outcomes() == dict.fromkeys(ONE_LOST, "passed")
    assert b"in a forked child" in watched.log.getvalue()


def test_a_forked_child_does_not_take_down_what_is_its_parents(
    watch: Watch, tmp_path: Path
) -> None:
    kept = tmp_path / "taken-down"
    watched = watch(
        f"""
        import os, pytest

        @pytest.fixture(scope="session")
        def kept():
            yield
            with open({str(kept)!r}, "a") as file:
                file.write("once\\n")

        def test_forks(kept):
            child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    )
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.PASSED, "")
    assert kept.read_text() == "once\n"


def test_a_child_forked_while_a_module_is_imported_reports_nothing(
    watch: Watch, tmp_path: Path
) -> None:
    watched = watch("import os\nos.fork()\n" + PASSES)
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.PASSED, "")


def test_a_session_fixture_that_fails_is_an_error_of_every_test(
    watch: Watch, tmp_path: Path
) -> None:
    watched = watch(
        """
        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def broken():
            raise RuntimeError("no")

        def test_first():
            pass

        def test_last():
            pass
        """
    )
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.FAILED, "2 with errors")


def test_a_module_that_skips_itself_is_one_row(watch: Watch, tmp_path: Path) -> None:
    watched = watch("import pytest\npytest.skip('not here', allow_module_level=True)\n" + PASSES)
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.NO_TESTS, "pytest collected no tests")
    (row,) = watched.run.results()
    assert (row.test, row.outcome, row.message) == ("test_it.py", Outcome.SKIPPED, "not here")
    assert row.suite == "it"


def test_what_a_plugin_deselects_is_not_missed(watch: Watch, tmp_path: Path) -> None:
    conftest = """
        def pytest_collection_modifyitems(config, items):
            config.hook.pytest_deselected(items=items[1:])
            del items[1:]
        """
    watched = watch(suite("pass"), files={"conftest.py": conftest})
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.PASSED, "")
    assert watched.run.deselected == ("test_it.py",)


def test_a_test_that_a_plugin_has_run_twice_has_two_rows(watch: Watch, tmp_path: Path) -> None:
    conftest = "def pytest_collection_modifyitems(items):\n    items *= 2\n"
    watched = watch(PASSES, files={"conftest.py": conftest})
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.PASSED, "")
    assert len(watched.run.results()) == 2


def test_a_process_that_fails_after_its_tests_is_not_passed(watch: Watch, tmp_path: Path) -> None:
    watched = watch("import atexit, os\natexit.register(os._exit, 3)\n" + PASSES)
    watched.execute()
    status, why = verdict(watched, tmp_path)
    assert status is Status.FAILED
    assert "exit status 3" in why


@pytest.mark.parametrize(
    "holds",
    [
        "atexit.register(threading.Event().wait)",
        "threading.Thread(target=threading.Event().wait).start()",
    ],
)
def test_a_process_that_does_not_end_after_its_tests_is_not_passed(
    watch: Watch, holds: str
) -> None:
    watched = watch(f"import atexit, threading\n{holds}\n" + PASSES)
    told = "silence deadline of 8 s passed; pytest had ended with status 0, and its process did not"
    with pytest.raises(DeadlineExceeded, match=told) as raised:
        watched.execute(limits=Limits(boot=10, silence=8, total=120))
    assert raised.value.kind == "silence"
    assert watched.outcomes() == {"test_first": "passed"}
    assert b"in wait" in watched.log.getvalue()  # the stack of the thread that holds it


def test_a_child_that_outlives_pytest_costs_nothing(watch: Watch, tmp_path: Path) -> None:
    child = "import subprocess\nsubprocess.Popen(['sleep', '30'])\n"
    watched = watch(f"{child}{PASSES}", files={"pytest.ini": "[pytest]\n"})
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.PASSED, "")


def test_only_fixtures_that_ran_are_no_passed_test(watch: Watch) -> None:
    watched = watch(PASSES)
    watched.execute("--setup-only")
    assert watched.outcomes() == {"test_first": "skipped"}


def test_text_that_is_no_unicode_costs_nothing(watch: Watch, tmp_path: Path) -> None:
    watched = watch(
        r"""
        import pytest

        @pytest.mark.parametrize("x", [1], ids=["\x1b[31m\x07"])
        def test_odd(x):
            print("\udc80 \x1b]0;title\x07")
            assert False, "lone \udc80, escape \x1b[31m, nul \0"
        """
    )
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.FAILED, "1 failed")
    (row,) = watched.run.results()
    assert "lone \\udc80, escape \x1b[31m" in row.message
    assert "\x1b]0;title" in row.output


@pytest.mark.parametrize("name", ["objects", "maps", "kernel", "wire", "plugin", "run", "features"])
def test_the_guests_own_modules_hide_none_of_the_suites(
    name: str, watch: Watch, tmp_path: Path
) -> None:
    files = {
        "pytest.ini": "[pytest]\naddopts = --import-mode=importlib\n",
        "conftest.py": "import pathlib, sys\nsys.path.append(str(pathlib.Path(__file__).parent))\n",
        f"{name}.py": "WHOSE = 'the suite'\n",
    }
    watched = watch(
        f"import {name}\n\ndef test_it():\n    assert {name}.WHOSE == 'the suite'\n", files=files
    )
    watched.execute()
    assert verdict(watched, tmp_path) == (Status.PASSED, "")
