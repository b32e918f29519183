"""``vmtest watch``: what a save makes due and in which order, and saves as news."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from command import in_process
from watchfiles import Change

from vmtest.config import file as configuration
from vmtest.errors import BuildCommandFailed, UsageError
from vmtest.host import interrupt
from vmtest.model.project import Config
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.watch.due import (
    Due,
    Inputs,
    Stage,
    State,
    What,
    due_after,
    failed_suites,
    gives_way,
)
from vmtest.watch.feed import Broken, Build, Built, Feed, News, Saved, touched
from vmtest.watch.inputs import Contents, is_noise, read_inputs
from vmtest.watch.session import Screen, WatchRequest, watch

KERNELS = """
schema = 1
[apt.debian]
suites = ["trixie-security"]
[[kernel]]
name = "6.12"
apt = "debian"
version = "6.12.*"
[[suite]]
name = "left"
tests = "tests/test_left.py"
objects = ["one"]
[[suite]]
name = "right"
tests = "tests/test_right.py"
objects = ["one", "two"]
[[suite]]
name = "deep"
tests = "tests/deep"
[[object]]
name = "one"
path = "build/one.o"
[[object]]
name = "one"
path = "build/old/one.o"
kernels = "<5.13"
[[object]]
name = "two"
path = "build/two.o"
"""
FILES = (
    "tests/conftest.py",
    "tests/test_left.py",
    "tests/test_right.py",
    "tests/deep/test_deep.py",
    "build/one.o",
    "build/old/one.o",
    "build/two.o",
)
VERIFY_ONE = Stage(What.VERIFY, ("one",))
RUN_LEFT = Stage(What.RUN, ("left",))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "kernels.toml").write_text(KERNELS)
    return tmp_path


def inputs_of(project: Path, what: What = What.RUN, *suites: str) -> Inputs:
    return read_inputs(configuration.load(project / "kernels.toml"), what, (), suites, project)


@pytest.mark.parametrize(
    ("saved", "objects", "suites"),
    [
        ("build/two.o", {"two"}, {"right"}),
        ("build/one.o", {"one"}, {"left", "right"}),
        ("build/old/one.o", {"one"}, {"left", "right"}),
        ("tests/test_left.py", set(), {"left"}),
        ("tests/helpers.py", set(), {"left", "right", "deep"}),
        ("tests/conftest.py", set(), {"left", "right", "deep"}),
        ("tests/deep/data.json", set(), {"left", "right", "deep"}),
        ("tests/.left.swp", set(), set()),
        ("bpf/one.bpf.c", set(), set()),
    ],
)
def test_a_save_makes_due_what_depends_on_it(
    project: Path, saved: str, objects: set[str], suites: set[str]
) -> None:
    before = inputs_of(project)
    (project / saved).parent.mkdir(exist_ok=True)
    (project / saved).write_text("other bytes")
    assert due_after(before, inputs_of(project)) == Due(frozenset(objects), frozenset(suites))


def test_at_first_everything_is_due(project: Path) -> None:
    everything = Due(frozenset({"one", "two"}), frozenset({"left", "right", "deep"}))
    assert due_after(None, inputs_of(project)) == everything


def test_another_kernels_toml_makes_everything_due(project: Path) -> None:
    before = inputs_of(project)
    (project / "kernels.toml").write_text(KERNELS.replace('"6.12"', '"again"'))
    assert due_after(before, inputs_of(project)).objects == {"one", "two"}


def test_a_kernel_that_the_build_made_anew_makes_everything_due(project: Path) -> None:
    own = f'{KERNELS}[[kernel]]\nname = "own"\npath = "vmlinuz"\n'
    (project / "kernels.toml").write_text(own)
    (project / "vmlinuz").write_bytes(b"a kernel")
    before = inputs_of(project)
    (project / "vmlinuz").write_bytes(b"another")
    assert due_after(before, inputs_of(project)).suites == {"left", "right", "deep"}


def test_with_chosen_suites_only_their_objects_are_watched(project: Path) -> None:
    found = inputs_of(project, What.RUN, "left")
    assert (tuple(found.objects), tuple(found.tests)) == (("one",), ("left",))


def test_verify_watches_no_suites(project: Path) -> None:
    assert inputs_of(project, What.VERIFY).tests == {}


def test_an_object_that_is_not_there_is_watched_all_the_same(project: Path) -> None:
    (project / "build/two.o").unlink()
    assert inputs_of(project).objects["two"] == ("",)


def test_objects_are_verified_before_suites_run(project: Path) -> None:
    state = State().built(inputs_of(project))
    assert state.next == Stage(What.VERIFY, ("one", "two"))
    state = state.done(Stage(What.VERIFY, ("one", "two")))
    assert state.next == Stage(What.RUN, ("left", "right", "deep"))
    assert state.done(Stage(What.RUN, ("left", "right", "deep"))).next is None


def test_the_suites_that_failed_run_first(project: Path) -> None:
    everything = Stage(What.RUN, ("left", "right", "deep"))
    state = replace(State().built(inputs_of(project)), due=Due()).done(everything, {"right"})
    (project / "tests/conftest.py").write_text("other bytes")
    state = state.built(inputs_of(project))
    assert state.next == Stage(What.RUN, ("right",))
    state = state.done(Stage(What.RUN, ("right",)))
    assert state.next == Stage(What.RUN, ("left", "deep"))
    assert state.failed == frozenset()


def test_what_was_cancelled_stays_due_when_its_bytes_come_back(project: Path) -> None:
    first = inputs_of(project)
    (project / "build/one.o").write_text("other bytes")
    second = inputs_of(project)
    state = replace(State().built(first), due=Due())
    state = state.built(second).built(first)  # nothing was done between
    assert state.next == VERIFY_ONE


def test_what_is_gone_from_kernels_toml_is_not_due(project: Path) -> None:
    state = State().built(inputs_of(project))
    (project / "kernels.toml").write_text(KERNELS.partition("[[suite]]")[0])
    settings = configuration.load(project / "kernels.toml")
    assert state.built(Inputs(settings)).next is None


def test_nothing_is_done_after_a_failed_build_until_the_next_save(project: Path) -> None:
    found = inputs_of(project)
    state = State().built(found).hold()
    assert state.next is None
    assert state.built(found).next == Stage(What.VERIFY, ("one", "two"))


@pytest.mark.parametrize(
    ("stage", "saved", "gives"),
    [
        (VERIFY_ONE, "build/one.o", True),
        (VERIFY_ONE, "build/two.o", False),
        (VERIFY_ONE, "tests/test_left.py", False),
        (VERIFY_ONE, "kernels.toml", True),
        (RUN_LEFT, "tests/test_left.py", True),
        (RUN_LEFT, "tests/test_right.py", False),
        (RUN_LEFT, "build/one.o", True),
        (RUN_LEFT, "build/two.o", True),  # the verifier's verdict is waited for
        (RUN_LEFT, "notes.txt", False),
    ],
)
def test_a_stage_gives_way_to_what_outdates_it(
    project: Path, stage: Stage, saved: str, gives: bool
) -> None:
    before = inputs_of(project)
    other = KERNELS.replace('"6.12"', '"mine"')
    (project / saved).write_text(other if saved == "kernels.toml" else "other bytes")
    assert gives_way(stage, before, inputs_of(project)) is gives


def matrix_of(status: Status, **outcomes: Outcome) -> Matrix:
    tests = tuple(TestResult(f"{suite}.py::t", suite, o) for suite, o in outcomes.items())
    kernel = KernelResult("6.12", status, tests=tests)
    return Matrix(SCHEMA, "run", "now", 1.0, tuple(outcomes), (kernel,))


def test_a_suite_has_failed_by_its_tests_or_by_a_kernel_that_has_none_of_them() -> None:
    failed = matrix_of(Status.FAILED, left=Outcome.PASSED, right=Outcome.FAILED)
    assert failed_suites(failed, ("left", "right")) == {"right"}
    died = matrix_of(Status.PANICKED, left=Outcome.PASSED, right=Outcome.LOST)
    assert failed_suites(died, ("left", "right", "deep")) == {"right", "deep"}


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("bpf/one.bpf.c", False),
        ("Makefile", False),
        ("tests/test_a.py", False),
        (".git/index", True),
        (".vmtest/runs/x/console.log", True),
        ("tests/__pycache__/a.pyc", True),
        ("bpf/.one.bpf.c.swp", True),
        ("bpf/one.bpf.c~", True),
        ("bpf/4913", True),
        ("bpf/#one.bpf.c#", True),
    ],
)
def test_what_editors_and_caches_write_is_noise(name: str, noise: bool) -> None:
    assert is_noise(Path("/home/.hidden/project") / name, Path("/home/.hidden/project")) is noise


def test_a_save_of_the_same_bytes_is_no_change(tmp_path: Path) -> None:
    file, contents = tmp_path / "a.c", Contents()
    file.write_text("1")
    assert contents.changed([file, tmp_path]) == (file,)
    assert contents.changed([file]) == ()
    file.unlink()
    assert contents.changed([file]) == (file,)


def test_a_file_that_came_and_went_again_is_no_save(tmp_path: Path) -> None:
    gone, kept, removed = (str(tmp_path / name) for name in ("sedX1", "one.c", "two.c"))
    Path(kept).touch()
    batch = [
        (Change.added, gone),
        (Change.deleted, gone),
        (Change.added, kept),
        (Change.deleted, removed),
    ]
    assert touched(batch) == {Path(kept), Path(removed)}


@contextmanager
def feed_of(folder: Path, build: Build) -> Iterator[Feed]:
    with Feed([folder], build) as feed:
        assert feed.take(wait=True) == Saved(())
        yield feed


def until(feed: Feed, wanted: Callable[[News], bool]) -> list[News]:
    """The news up to the first that is ``wanted``."""
    found: list[News] = []
    while not (found and wanted(found[-1])):
        news = feed.take(wait=True)
        assert news is not None
        found.append(news)
    return found


def test_a_build_that_fails_is_told_and_the_next_save_builds_again(
    project: Path, settings: Config
) -> None:
    source = project / "one.bpf.c"
    source.write_text("good")

    def build(contents: Contents) -> Inputs:
        if "bad" in source.read_text():
            raise BuildCommandFailed("one.bpf.c: clang failed")
        return Inputs(settings)

    with feed_of(project, build) as feed:
        assert feed.take(wait=True) == Built(Inputs(settings))
        source.write_text("bad")
        assert until(feed, lambda news: news == Broken("one.bpf.c: clang failed"))
        source.write_text("good again")
        assert Saved((source,)) in until(feed, lambda news: news == Built(Inputs(settings)))


def test_saves_while_a_build_runs_are_one_save_after_it(project: Path, settings: Config) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def build(contents: Contents) -> Inputs:
        begun.set()
        assert go_on.wait(60)
        return Inputs(settings)

    sources = {project / f"{name}.c" for name in "abc"}
    with feed_of(project, build) as feed:
        assert begun.wait(60)
        for source in sources:
            source.write_text("saved")
        go_on.set()
        saved: list[Path] = []
        while set(saved) < sources:
            (news,) = until(feed, lambda news: isinstance(news, Saved))[-1:]
            assert isinstance(news, Saved)
            saved += news.paths
    assert len(saved) == len(set(saved))


def test_what_a_build_made_is_no_save(project: Path, settings: Config) -> None:
    made, source = project / "build/one.o", project / "one.bpf.c"

    def build(contents: Contents) -> Inputs:
        made.write_text(source.read_text() if source.exists() else "")
        contents.changed([made])
        return Inputs(settings)

    with feed_of(project, build) as feed:
        source.write_text("1")
        first = until(feed, lambda news: news == Saved((source,)))
        source.write_text("2")
        second = until(feed, lambda news: news == Saved((source,)))
    assert {type(news) for news in first + second} <= {Saved, Built}
    assert all(news.paths == (source,) for news in first + second if isinstance(news, Saved))


@pytest.fixture
def settings(project: Path) -> Config:
    return configuration.load(project / "kernels.toml")


@pytest.mark.parametrize("object_, stops", [("one", True), ("two", False)])
def test_news_that_outdate_a_stage_stop_it(
    project: Path, settings: Config, object_: str, stops: bool
) -> None:
    def build(contents: Contents) -> Inputs:
        return read_inputs(settings, What.VERIFY, (), (), project)

    with feed_of(project, build) as feed:
        first = feed.take(wait=True)
        assert isinstance(first, Built)
        with feed.guarding(VERIFY_ONE, first.inputs) as stop:
            (project / f"build/{object_}.o").write_text("other bytes")
            until(feed, lambda news: isinstance(news, Built) and news != first)
            assert stop.requested is stops


def test_a_failed_build_stops_what_runs(project: Path, settings: Config) -> None:
    found = Inputs(settings)

    def build(contents: Contents) -> Inputs:
        if (project / "broken.c").exists():
            raise UsageError("broken.c does not compile")
        return found

    with feed_of(project, build) as feed, feed.guarding(RUN_LEFT, found) as stop:
        (project / "broken.c").touch()
        until(feed, lambda news: isinstance(news, Broken))
        assert stop.requested


def test_news_that_came_before_a_stage_began_stop_it(project: Path, settings: Config) -> None:
    found = inputs_of(project)
    with feed_of(project, lambda contents: found) as feed:
        first = feed.take(wait=True)
        feed._post(Broken("it does not compile"))
        with feed.guarding(VERIFY_ONE, found) as stop:
            assert stop.requested
        assert isinstance(first, Built)


def test_the_end_of_a_watch_ends_a_build_that_runs(project: Path) -> None:
    begun = threading.Event()

    def build(contents: Contents) -> Inputs:
        with interrupt.started(["sleep", "600"]) as process:
            begun.set()
            process.wait()
        raise AssertionError("it went on")

    with feed_of(project, build) as feed:
        assert begun.wait(60)
    assert not any(thread.is_alive() for thread in feed._threads)


def test_a_bug_in_a_build_reaches_whoever_takes_the_news(project: Path) -> None:
    def build(contents: Contents) -> Inputs:
        raise ZeroDivisionError

    with feed_of(project, build) as feed, pytest.raises(ZeroDivisionError):
        feed.take(wait=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "x.o"], "vmtest watch run takes no object"),
        (["verify", "--suite", "left"], "vmtest watch verify runs none"),
        (["run", "--suite", "lef"], 'there is no suite "lef"'),
        (["--kernel", "6.11"], 'there is no kernel "6.11"'),
        (["--loader", "aya"], "--loader aya: write libbpf, cilium,"),
        (["--notify", "'"], "--notify"),
        (["--notify", " "], "write a command"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_built(
    project: Path, arguments: list[str], words: str
) -> None:
    in_process("watch", *arguments, cwd=project).refuses(2, words)


def test_what_a_watch_prints_into_a_file_is_no_save(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from vmtest.watch.feed import Feed; "
        "feed = Feed([Path.cwd()], None); "
        "print(feed._is_save(Path('w.log').resolve()), feed._is_save(Path('x.c').resolve()))"
    )
    with (tmp_path / "w.log").open("w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, cwd=tmp_path, check=True)
    assert (tmp_path / "w.log").read_text() == "False True\n"


def test_what_a_failed_build_removed_is_no_save(project: Path) -> None:
    """A compiler that fails removes what it would have made."""
    file, source = project / "kernels.toml", project / "one.bpf.c"
    file.write_text(f'{KERNELS}[build]\ncommand = ["sh", "-c", "rm build/one.o; exit 1"]\n')
    saves: list[tuple[Path, ...]] = []

    class Ends:
        def saved(self, paths: tuple[Path, ...]) -> None:
            saves.append(paths)

        def broken(self, words: str) -> None:
            if len(saves) > 1:
                raise KeyboardInterrupt
            source.write_text("saved")

    with pytest.raises(KeyboardInterrupt):
        watch(lambda: configuration.load(file), WatchRequest(), cast(Screen, Ends()), project)
    assert saves == [(), (source,)]
