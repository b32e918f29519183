"""The payload, the guest's pytest and the host's reading of it: real processes, no VM."""

import io
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from fake_session import HostSession
from watched import LIMITS, Watch, Watched

from vmtest.errors import DeadlineExceeded, SessionLost, UsageError
from vmtest.guest.features import probe
from vmtest.matrix.follow import Kernelside
from vmtest.matrix.payload import install
from vmtest.model.kernels import Limits
from vmtest.model.project import KnownFailure, Suite
from vmtest.model.results import Outcome, TestResult
from vmtest.model.versions import VersionRange
from vmtest.runs.rows import read_collected, read_results, unfinished
from vmtest.suites.payload import Payload, pack_suites, suites_root
from vmtest.suites.process import pytest_argv
from vmtest.vm.session import Stream

MIXED = """
    import logging
    import sys

    import pytest

    def test_passes():
        pass

    def test_fails():
        print("said before")
        print("complained", file=sys.stderr)
        logging.warning("logged")
        assert 1 + 1 == 3, "arithmetic"

    @pytest.fixture
    def broken():
        raise RuntimeError("no fixture")

    def test_errs(broken):
        pass

    def test_skips():
        pytest.skip("no feature")

    def test_not_applicable():
        from vmtest.guest.plugin import not_applicable
        not_applicable("ours only")

    @pytest.mark.xfail(reason="known")
    def test_xfails():
        assert False

    @pytest.mark.xfail(strict=True, reason="fixed?")
    def test_xpasses():
        pass

    @pytest.fixture
    def messy():
        yield
        raise RuntimeError("teardown broke")

    def test_teardown(messy):
        pass
"""


@pytest.fixture
def mixed(watch: Watch) -> Watched:
    watched = watch(MIXED)
    watched.execute()
    return watched


def test_every_outcome_of_pytest_arrives_as_what_it_is(mixed: Watched) -> None:
    assert mixed.outcomes() == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_errs": "error",
        "test_skips": "skipped",
        "test_not_applicable": "not applicable",
        "test_xfails": "xfailed",
        "test_xpasses": "xpassed",
        "test_teardown": "error",
    }


def test_a_failure_brings_its_assertion_and_its_output(mixed: Watched) -> None:
    (failed,) = (result for result in mixed.run.done if result.outcome is Outcome.FAILED)
    assert "arithmetic" in failed.message
    assert "assert 1 + 1 == 3" in failed.details
    assert "said before" in failed.output


def test_standard_output_is_told_apart_from_standard_error_and_the_log(mixed: Watched) -> None:
    (failed,) = (result for result in mixed.run.done if result.outcome is Outcome.FAILED)
    assert failed.output == "said before\n"
    assert "complained" in failed.stderr
    assert "logged" in failed.stderr


def test_a_result_says_in_which_phase_it_came_about(mixed: Watched) -> None:
    phases = {result.test.split("::")[1]: result.phase for result in mixed.run.done}
    assert phases == {
        "test_passes": "",
        "test_fails": "call",
        "test_errs": "setup",
        "test_skips": "call",
        "test_not_applicable": "call",
        "test_xfails": "call",
        "test_xpasses": "call",
        "test_teardown": "teardown",
    }


def test_a_result_says_when_its_test_started(mixed: Watched) -> None:
    started = [datetime.fromisoformat(result.started) for result in mixed.run.done]
    uptimes = [result.uptime for result in mixed.run.done]
    assert started == sorted(started)
    assert uptimes == sorted(uptimes)
    assert uptimes[0] > 0


def test_a_skip_brings_its_reason(mixed: Watched) -> None:
    reasons = {result.test.split("::")[1]: result.message for result in mixed.run.done}
    assert reasons["test_skips"] == "no feature"
    assert reasons["test_xfails"] == "known"


def test_each_result_is_one_line_on_disk(mixed: Watched) -> None:
    lines = mixed.results.getvalue().decode().splitlines(keepends=True)
    assert read_results(lines) == tuple(mixed.run.done)
    assert len(lines) == 8


def test_each_test_belongs_to_its_suite(mixed: Watched) -> None:
    assert {result.suite for result in mixed.run.done} == {"it"}


def test_the_callbacks_tell_counts_starts_and_ends(mixed: Watched) -> None:
    assert mixed.counts == [8]
    assert mixed.started == [result.test for result in mixed.finished]


def test_an_unknown_feature_of_a_test_that_is_left_out_ends_nothing(watch: Watch) -> None:
    watched = watch(
        """
        import pytest

        @pytest.mark.needs("nobody_knows_this")
        def test_left_out():
            pass

        def test_asked():
            pass
        """
    )
    watched.execute("-k", "asked")
    assert watched.outcomes() == {"test_asked": "passed"}


def test_pytests_own_words_are_kept_apart_from_the_events(mixed: Watched) -> None:
    log = mixed.log.getvalue()
    assert b"short test summary" in log
    assert b'"event"' not in log


def test_a_module_that_removes_the_working_folder_is_an_error_with_its_place(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    watched = watch(f"import os\nos.rmdir({str(gone)!r})\nimport not_there_at_all\n")
    monkeypatch.chdir(gone)
    watched.execute()
    (row,) = watched.run.results()
    assert (row.outcome, row.file, row.line) == (Outcome.ERROR, "test_it.py", 3)


def test_pytests_own_words_have_no_dot_for_each_test_that_passes(watch: Watch) -> None:
    watched = watch("def test_passes():\n    pass\n\ndef test_fails():\n    assert False\n")
    watched.execute("-p", "no:randomly")
    lines = watched.log.getvalue().decode().splitlines()
    assert [line.split()[1:] for line in lines if "test_it.py " in line] == [["F"]]
    assert any("1 failed, 1 passed" in line for line in lines)


def test_pytests_own_words_name_each_test_if_asked(watch: Watch) -> None:
    watched = watch("def test_passes():\n    pass\n")
    watched.execute("-v")
    assert b"test_it.py::test_passes PASSED" in watched.log.getvalue()


def test_the_last_result_is_told_before_the_session_ends(watch: Watch) -> None:
    watched = watch(
        "def test_passes():\n    pass\n",
        files={"conftest.py": "import os\n\ndef pytest_sessionfinish():\n    os._exit(3)\n"},
    )
    watched.execute()
    assert watched.outcomes() == {"test_passes": "passed"}
    assert watched.run.exit_status is None


def test_a_failure_is_told_before_anything_else_can_end_the_guest(watch: Watch) -> None:
    """As where the kernel frees what a test left, and panics: the reason is on disk by then."""
    conftest = "import os\n\ndef pytest_runtest_logfinish():\n    os._exit(3)\n"
    watched = watch(
        "def test_fails():\n    assert 1 == 2\n\ndef test_b():\n    pass\n",
        files={"conftest.py": conftest},
    )
    watched.execute("-p", "no:randomly")
    assert watched.outcomes() == {"test_fails": "failed", "test_b": "not run"}
    assert "assert 1 == 2" in watched.result("test_fails").message


def test_a_result_is_told_together_with_the_start_of_the_next_test(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch("def test_a():\n    pass\n\ndef test_b():\n    pass\n")
    chunks: list[bytes] = []
    stream = watched.session.stream

    def overheard(argv: Sequence[str], *, wire: bool = False) -> Stream:
        made = stream(argv, wire=wire)
        receive = made.receive

        def received(seconds: float) -> tuple[bytes, bytes] | None:
            got = receive(seconds)
            chunks.append(got[0] if got else b"")
            return got

        monkeypatch.setattr(made, "receive", received)
        return made

    monkeypatch.setattr(watched.session, "stream", overheard)
    watched.execute("-p", "no:randomly")
    together = [chunk for chunk in chunks if b'"result"' in chunk and b'"start"' in chunk]
    assert len(together) == 1


def test_last_words_that_come_behind_the_end_of_the_process_count(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where QEMU passes on SSH's port before the wire's."""
    watched = watch("def test_a():\n    pass\n")
    stream = watched.session.stream

    def later(argv: Sequence[str], *, wire: bool = False) -> Stream:
        made = stream(argv, wire=wire)
        receive, held, ended = made.receive, list[bytes](), False

        def received(seconds: float) -> tuple[bytes, bytes] | None:
            nonlocal ended
            got = receive(seconds)
            if got is not None and b'"finish"' in got[0]:
                held.append(got[0])
                return b"", got[1]
            if got is None and ended and held:
                return held.pop(), b""
            ended = got is None
            return got

        monkeypatch.setattr(made, "receive", received)
        return made

    monkeypatch.setattr(watched.session, "stream", later)
    watched.execute("-p", "no:randomly")
    assert watched.run.exit_status == 0
    assert watched.outcomes() == {"test_a": "passed"}


def test_a_module_that_cannot_be_imported_is_an_error_of_its_own(watch: Watch) -> None:
    watched = watch("import no_such_module")
    watched.execute()
    (result,) = watched.run.results()
    assert result.outcome is Outcome.ERROR
    assert result.test == "test_it.py"
    assert "no_such_module" in result.message
    assert result.suite == "it"


def test_pytests_options_are_passed_on(watch: Watch) -> None:
    watched = watch(MIXED)
    watched.execute("-k", "passes and not x")
    assert watched.outcomes() == {"test_passes": "passed"}


def test_no_tests_is_pytests_status_five(watch: Watch) -> None:
    watched = watch("")
    watched.execute()
    assert watched.run.exit_status == 5


def test_a_result_is_on_disk_before_the_next_test_starts(watch: Watch, tmp_path: Path) -> None:
    """The second test reads the host's file: the host answers only after writing."""
    copy = tmp_path / "results.jsonl"
    watched = watch(
        f"""
        from pathlib import Path

        def test_first():
            pass

        def test_second():
            assert "test_first" in Path({str(copy)!r}).read_text()
        """,
    )
    watched.run._sink.results.close()
    with copy.open("wb") as results:
        object.__setattr__(watched.run._sink, "results", results)
        watched.execute()
    assert watched.outcomes()["test_second"] == "passed"


def test_a_hanging_test_passes_the_silence_deadline_and_shows_where(watch: Watch) -> None:
    watched = watch(
        """
        import time

        def test_before():
            pass

        def test_hangs():
            time.sleep(60)

        def test_after():
            pass
        """,
    )
    # Longer than pytest takes to start on a busy machine.
    with pytest.raises(DeadlineExceeded, match="silence deadline of 8 s passed"):
        watched.execute(limits=Limits(boot=10, silence=8, total=120))
    assert watched.outcomes() == {
        "test_before": "passed",
        "test_hangs": "lost",
        "test_after": "not run",
    }
    assert b"in test_hangs" in watched.log.getvalue()


def test_a_chatty_test_passes_the_total_deadline(watch: Watch) -> None:
    watched = watch(
        """
        import os, time

        def test_talks():
            while True:
                os.write(2, b"x")
                time.sleep(0.05)
        """,
    )
    with pytest.raises(DeadlineExceeded, match="total deadline of 2 s passed"):
        watched.execute("-s", limits=Limits(boot=10, silence=20, total=2))


def test_a_pytest_that_is_killed_has_no_status_and_loses_the_running_test(watch: Watch) -> None:
    watched = watch(
        """
        import os, signal

        def test_kills():
            os.kill(os.getpid(), signal.SIGKILL)

        def test_after():
            pass
        """,
    )
    watched.execute()
    assert watched.run.exit_status is None
    assert watched.outcomes() == {"test_kills": "lost", "test_after": "not run"}


def test_5000_tests_are_5000_results(watch: Watch) -> None:
    watched = watch(
        """
        import pytest

        @pytest.mark.parametrize("n", range(5000))
        def test_n(n):
            assert n != 4321
        """,
    )
    watched.execute()
    said = [result.outcome.value for result in watched.run.results()]
    assert said == ["passed"] * 4321 + ["failed"] + ["passed"] * 678
    assert watched.results.getvalue().count(b"\n") == 5000


def test_output_beyond_the_limit_is_cut_from_its_beginning_and_says_so(watch: Watch) -> None:
    watched = watch(
        """
        def test_prints():
            print("x" * 100_000)
            print("the end")
            assert False
        """,
    )
    watched.execute()
    (result,) = watched.run.done
    assert result.output.startswith("[")
    assert "characters left out]" in result.output
    assert result.output.rstrip().endswith("the end")


def test_a_check_that_raises_ends_the_run(watch: Watch) -> None:
    watched = watch("import time\ndef test_it():\n    time.sleep(60)\n")
    watched.install()
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > 1:
            raise SessionLost("cancelled")

    argv = pytest_argv(watched.payload, sys.executable, ("-p", "no:randomly"))
    with pytest.raises(SessionLost, match="cancelled"):
        watched.run.execute(watched.session, argv, LIMITS, check, Kernelside())


def names(payload: Payload) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(payload.archive)) as tar:
        return set(tar.getnames())


def test_helpers_and_data_beside_the_tests_go_along_but_no_caches(tmp_path: Path) -> None:
    kept = ("test_a.py", "conftest.py", "data/x.bin")
    for name in (*kept, "__pycache__/y.pyc", ".vmtest/runs/1/console.log", ".venv/x.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    suite = Suite("a", tmp_path / "test_a.py")
    there = names(pack_suites([suite], [suite], {}))
    assert {n for n in there if n.startswith("suites/")} == {
        "suites/test_a.py",
        "suites/conftest.py",
        "suites/data/x.bin",
    }


def test_the_root_is_the_common_folder_whatever_is_chosen(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "x" / "test_x.py", tmp_path / "a" / "y" / "test_y.py"
    for path in (one, two):
        path.parent.mkdir(parents=True)
        path.touch()
    suites = [Suite("x", one), Suite("y", two)]
    assert suites_root(suites) == tmp_path / "a"
    payload = pack_suites(suites, suites[:1], {})
    assert payload.guest_path(suites[0]) == "/tmp/vmtest/suites/x/test_x.py"


def test_an_object_that_no_build_offers_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").touch()
    suite = Suite("a", tmp_path / "test_a.py", ("prog",))
    with pytest.raises(UsageError, match=r'suite "a": there is no object "prog".*`objects` prog='):
        pack_suites([suite], [suite], {})


def test_objects_travel_under_their_names_with_their_digests(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").touch()
    (tmp_path / "some.bpf.o").write_bytes(b"")
    suite = Suite("a", tmp_path / "tests" / "test_a.py", ("prog",))
    payload = pack_suites([suite], [suite], {"prog": tmp_path / "some.bpf.o"})
    assert "objects/prog.o" in names(payload)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert payload.objects == (("prog", empty),)


def test_a_payload_that_is_surely_a_mistake_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").touch()
    with (tmp_path / "big.img").open("wb") as big:
        big.truncate(65 << 20)
    suite = Suite("a", tmp_path / "test_a.py")
    with pytest.raises(UsageError, match=r"the payload below .* has 65 MiB"):
        pack_suites([suite], [suite], {})


def test_install_unpacks_what_was_put(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "test_a.py").write_text("# here\n")
    suite = Suite("a", tmp_path / "t" / "test_a.py")
    guest = tmp_path / "guest"
    # Nothing is mounted here: the file system table of a guest that has bpffs already.
    mounts = tmp_path / "mounts"
    mounts.write_text("bpf /sys/fs/bpf bpf rw 0 0\n")
    session = HostSession({"/tmp/vmtest": guest, "/proc/mounts": mounts})
    found = install(session, pack_suites([suite], [suite], {}).archive, lambda: None)
    assert found.release == os.uname().release
    assert (guest / "suites" / "test_a.py").read_text() == "# here\n"
    assert not guest.with_suffix(".tar").exists()


def test_a_module_that_the_kernel_does_not_have_is_noted(tmp_path: Path) -> None:
    mounts, modprobe, log = tmp_path / "mounts", tmp_path / "modprobe", tmp_path / "kmsg"
    mounts.write_text("bpf /sys/fs/bpf bpf rw 0 0\n")
    modprobe.write_text('#!/bin/sh\n[ "$2" = there ]\n')
    modprobe.chmod(0o755)
    moved = {
        "/tmp/vmtest": tmp_path / "guest",
        "/proc/mounts": mounts,
        "modprobe": modprobe,
        "/dev/kmsg": log,
    }
    archive = pack_suites([], [], {}, modules=("there", "nosuch", "never")).archive
    found = install(HostSession(moved), archive, lambda: None)
    assert (found.absent, found.note) == (("nosuch", "never"), "it has no module nosuch, never")
    assert log.read_text() == "vmtest: this kernel has no module never\n"  # a file keeps the last


@pytest.mark.parametrize("there", [None, "the guest's own"])
def test_the_kernels_config_is_laid_where_libbpf_looks(tmp_path: Path, there: str | None) -> None:
    boot, mounts = tmp_path / "boot", tmp_path / "mounts"
    boot.mkdir()
    mounts.write_text("bpf /sys/fs/bpf bpf rw 0 0\n")
    (tmp_path / "config").write_text("CONFIG_HZ=250\n")
    place = boot / f"config-{os.uname().release}"
    if there is not None:
        place.write_text(there)
    moved = {"/tmp/vmtest": tmp_path / "guest", "/proc/mounts": mounts, "/boot": boot}
    install(HostSession(moved), pack_suites([], [], {}).archive, lambda: None, tmp_path / "config")
    assert place.read_text() == (there or "CONFIG_HZ=250\n")


def test_what_a_killed_runner_left_unfinished_is_not_run(tmp_path: Path) -> None:
    listing = tmp_path / "collected.json"
    listing.write_text(json.dumps([["t::a", "s"], ["t::b", "s"]]))
    done = (TestResult("t::a", "s", Outcome.PASSED),)
    (left,) = unfinished(read_collected(listing), done)
    assert (left.test, left.outcome) == ("t::b", Outcome.NOT_RUN)


def test_a_results_file_cut_within_its_last_line_is_read_up_to_there() -> None:
    whole = json.dumps(
        {
            "test": "t::a",
            "suite": "s",
            "outcome": "passed",
            "duration": 0.1,
            "message": "",
            "details": "",
            "output": "",
        }
    )
    assert len(read_results([whole + "\n", whole[:20]])) == 1


def test_tests_that_are_not_there_are_the_users_to_mend(tmp_path: Path) -> None:
    suite = Suite("a", tmp_path / "typo.py")
    with pytest.raises(UsageError, match=r'suite "a": tests = ".*typo\.py" does not exist'):
        pack_suites([suite], [suite], {})


def test_a_child_that_outlives_pytest_does_not_hold_the_run(watch: Watch, tmp_path: Path) -> None:
    watched = watch(
        f"""
        import os, pathlib, time

        def test_forks():
            child = os.fork()
            if not child:
                time.sleep(600)
                os._exit(0)
            pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child))
        """
    )
    watched.execute("-s")
    assert watched.run.exit_status == 0
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # it is still there


def test_a_plugin_that_is_not_there_is_pytests_usage_error(watch: Watch) -> None:
    watched = watch("def test_a():\n    pass\n")
    watched.execute("-p", "no_such_plugin")
    assert watched.run.exit_status == pytest.ExitCode.USAGE_ERROR
    assert watched.run.begun
    assert b"no_such_plugin" in watched.run.log_tail


ALIKE = """
    import pytest

    @pytest.mark.parametrize("family", ["ipv4", "ipv6"])
    def test_of(family):
        assert family == "ipv4", "no such family"
"""
IPV4, IPV6 = "test_it.py::test_of[ipv4]", "test_it.py::test_of[ipv6]"


def test_a_known_failure_fails_as_known(watch: Watch) -> None:
    watched = watch(ALIKE, KnownFailure(IPV6, "issue 7"))
    watched.execute()
    assert watched.outcomes() == {"test_of[ipv4]": "passed", "test_of[ipv6]": "xfailed"}
    assert watched.result("test_of[ipv6]").message == "issue 7"


def test_a_known_failure_that_passes_is_one_too_many(watch: Watch) -> None:
    watched = watch(ALIKE, KnownFailure(IPV4, "issue 7"))
    watched.execute()
    passed = watched.result("test_of[ipv4]")
    assert passed.outcome is Outcome.XPASSED
    assert passed.message == "passed, though known to fail (issue 7): remove it from kernels.toml"


def test_a_known_failure_of_other_kernels_counts_for_nothing(watch: Watch) -> None:
    watched = watch(ALIKE, KnownFailure(IPV6, "issue 7", VersionRange.parse(">=6.2")))
    watched.execute()
    assert watched.outcomes()["test_of[ipv6]"] == "failed"


def test_a_known_failure_counts_on_its_last_day(watch: Watch) -> None:
    watched = watch(ALIKE, KnownFailure(IPV6, "issue 7", until=date(2026, 7, 1)))
    watched.execute()
    assert watched.outcomes()["test_of[ipv6]"] == "xfailed"


def test_an_expired_known_failure_fails_and_says_so(watch: Watch) -> None:
    watched = watch(ALIKE, KnownFailure(IPV6, "issue 7", until=date(2026, 6, 30)))
    watched.execute()
    failed = watched.result("test_of[ipv6]")
    assert failed.outcome is Outcome.FAILED
    assert failed.message.startswith("known failure, expired 2026-06-30: issue 7: AssertionError")


def test_an_expired_known_failure_that_passes_has_passed(watch: Watch) -> None:
    watched = watch(ALIKE, KnownFailure(IPV4, "issue 7", until=date(2026, 6, 30)))
    watched.execute()
    assert watched.outcomes()["test_of[ipv4]"] == "passed"


def test_an_entry_that_counts_goes_before_one_that_has_expired(watch: Watch) -> None:
    old = KnownFailure("test_it.py::*", "old", until=date(2026, 6, 30))
    watched = watch(ALIKE, old, KnownFailure(IPV6, "new"))
    watched.execute()
    assert watched.outcomes() == {"test_of[ipv4]": "passed", "test_of[ipv6]": "xfailed"}


def test_a_known_failure_does_not_stop_a_run_at_the_first_failure(watch: Watch) -> None:
    watched = watch(
        """
        def test_first():
            assert False

        def test_second():
            pass
        """,
        KnownFailure("test_it.py::test_first", "issue 7"),
    )
    watched.execute("-x")
    assert watched.outcomes() == {"test_first": "xfailed", "test_second": "passed"}


SOMETIMES = KnownFailure("test_it.py::*", "issue 7", strict=False)


def test_a_failure_that_is_known_to_come_sometimes_may_come_or_not(watch: Watch) -> None:
    watched = watch(ALIKE, SOMETIMES)
    watched.execute("-x")
    assert watched.outcomes() == {"test_of[ipv4]": "passed", "test_of[ipv6]": "xfailed"}
    assert watched.run.exit_status == pytest.ExitCode.OK


def test_an_entry_is_strict_whatever_the_test_says_of_itself(watch: Watch) -> None:
    watched = watch(
        """
        import pytest

        @pytest.mark.xfail(strict=False, reason="perhaps")
        def test_first():
            pass

        def test_second():
            pass
        """,
        KnownFailure("test_it.py::test_first", "issue 7"),
    )
    watched.execute("-x")
    assert watched.outcomes() == {"test_first": "xpassed", "test_second": "not run"}


NEEDY = """
    import pytest
    from vmtest.guest.plugin import not_applicable

    @pytest.fixture
    def shy():
        pytest.skip("not in the mood")

    @pytest.mark.needs("so_netns_cookie")
    def test_runs():
        pass

    @pytest.mark.needs("so_netns_cookie")
    def test_skips():
        pytest.skip("not in the mood")

    @pytest.mark.needs("so_netns_cookie")
    def test_skips_in_a_fixture(shy):
        pass

    @pytest.mark.needs("so_netns_cookie")
    def test_not_applicable():
        not_applicable("never promised")

    def test_needs_nothing():
        pytest.skip("not in the mood")
"""


def test_a_test_that_skips_what_the_kernel_can_do_has_failed(watch: Watch) -> None:
    if not probe("so_netns_cookie").has:
        pytest.skip("the host's kernel is older than the feature (5.14)")
    watched = watch(NEEDY)
    watched.execute()
    assert watched.outcomes() == {
        "test_runs": "passed",
        "test_skips": "failed",
        "test_skips_in_a_fixture": "failed",
        "test_not_applicable": "not applicable",
        "test_needs_nothing": "skipped",
    }
    assert watched.result("test_skips").message == (
        "skipped although the kernel has so_netns_cookie (probe: getsockopt(SOL_SOCKET, "
        "SO_NETNS_COOKIE): 8 bytes): not in the mood"
    )


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        ('"so_netns_coke"', 'test_it: needs: there is no feature "so_netns_coke" (there are: so_'),
        ("", "test_it: needs() names no feature"),
    ],
)
def test_a_feature_that_nobody_knows_ends_the_run(needed: str, said: str, watch: Watch) -> None:
    watched = watch(
        f"""
        import pytest

        @pytest.mark.needs({needed})
        def test_it():
            pass
        """
    )
    watched.execute()
    assert watched.run.exit_status == pytest.ExitCode.USAGE_ERROR
    assert said in watched.log.getvalue().decode()


PLACES = """
    import pytest
    import helper

    def test_passes():
        pass

    def test_fails_here():
        assert 1 + 1 == 3

    def test_fails_in_a_helper():
        helper.wants_three(2)

    def test_fails_below_a_library():
        with pytest.raises(ValueError):
            pass

    @pytest.fixture
    def broken():
        raise RuntimeError("no fixture")

    def test_errs(broken):
        pass

    def test_skips():
        pytest.skip("no feature")
"""
HELPER = """
    def wants_three(number):
        assert number == 3
"""


def test_a_row_has_the_place_in_the_project_where_it_failed_or_is_defined(watch: Watch) -> None:
    watched = watch(PLACES, files={"helper.py": HELPER})
    watched.payload = replace(watched.payload, project=watched.folder)
    watched.run.payload = watched.payload
    watched.execute("-p", "no:randomly", "-c", "/dev/null")
    rows = read_results(watched.results.getvalue().decode().splitlines(keepends=True))
    assert {row.test.split("::")[1]: (row.file, row.line) for row in rows} == {
        "test_passes": ("project/test_it.py", 5),
        "test_fails_here": ("project/test_it.py", 9),
        "test_fails_in_a_helper": ("project/helper.py", 3),
        "test_fails_below_a_library": ("project/test_it.py", 15),
        "test_errs": ("project/test_it.py", 20),
        "test_skips": ("project/test_it.py", 25),
    }


def test_a_module_that_cannot_be_read_has_the_place_of_its_fault(watch: Watch) -> None:
    watched = watch("import os\nimport not_there_at_all\n")
    watched.execute()
    (row,) = watched.run.results()
    assert (row.outcome, row.file, row.line) == (Outcome.ERROR, "test_it.py", 2)


def test_a_place_that_pytest_tells_relative_to_the_working_folder_is_found(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch("import os\nimport not_there_at_all\n")
    beside = tmp_path / "x"
    beside.mkdir()
    monkeypatch.chdir(beside)
    watched.execute()
    (row,) = watched.run.results()
    assert "\n../" in row.details  # shorter than the whole path
    assert (row.file, row.line) == ("test_it.py", 2)


@pytest.mark.parametrize("file", ["../secret.py", "/etc/passwd", "nowhere.py", ""])
def test_a_place_that_no_file_of_the_suites_has_is_none(tmp_path: Path, file: str) -> None:
    (tmp_path / "test_a.py").touch()
    suite = Suite("a", tmp_path / "test_a.py")
    assert pack_suites([suite], [suite], {}).place_of(file) == ""


def test_a_traceback_names_the_projects_files_and_not_the_guests(tmp_path: Path) -> None:
    (tmp_path / "tests" / "x").mkdir(parents=True)
    (tmp_path / "tests" / "x" / "test_a.py").touch()
    suite = Suite("a", tmp_path / "tests" / "x")
    payload = replace(pack_suites([suite], [suite], {}), project=tmp_path)
    said = payload.in_project("/tmp/vmtest/suites/test_a.py:3: AssertionError")
    assert said == "tests/x/test_a.py:3: AssertionError"
