"""The host's side of the loader, against a real process that speaks its protocol."""

from __future__ import annotations

import io
import json
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_session import HostSession

from vmtest.errors import BadLine, InfrastructureError
from vmtest.model.loads import Cost, LoadResult, SourceLine, Verdict, Visits
from vmtest.model.project import Loading
from vmtest.runs.rows import read_loads
from vmtest.verify.ahead import loader_argv
from vmtest.verify.events import EVENTS, Described, Load
from vmtest.verify.features import NO_FEATURES, Features
from vmtest.verify.process import (
    LOGS_LIMIT,
    End,
    LoaderProcess,
    LoaderStuck,
    Order,
    Record,
    Wanted,
    Watch,
    log_name,
)
from vmtest.vm.session import Stream

# What a guest's loader does, as far as the host can tell: two programs an object, announced
# together once the whole was loaded, and a fate for those that `fates` names.
GUEST = """
import json, os, signal, sys, time
plan = json.load(open(sys.argv[1]))
fates = json.load(open(os.path.join(os.path.dirname(sys.argv[1]), "fates.json")))

def say(event, **fields):
    print(json.dumps({"event": event, "key": "0123456789abcdef", **fields}), flush=True)

def load(key, programs):
    say("start", object=key, programs=programs)
    if not os.read(0, 1):
        sys.exit(9)
    for program in programs:
        fate = fates.get(f"{key}/{program}", "accepted")
        if fate == "die":
            sys.stderr.write("my last words\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "hang":
            time.sleep(600)
        if fate == "silent":
            continue
        if fate == "garbage":
            print("{]", flush=True)
        if fate == "another":
            say("load", object=key, program="c", verdict="accepted", log="", log_cut=False,
                translated_size=0, jited_size=0)
        say("load", object=key, program=program, verdict=fate, log=fate * 3, log_cut=False,
            translated_size=0, jited_size=0)
        if plan["log_level"] != 4 and program:
            trace(key, program)

def trace(key, program):
    fate = fates.get(f"{key}/{program}/log", "")
    if fate == "never":
        return
    say("trace", object=key, program="c" if fate == "another" else program)
    if not os.read(0, 1):
        sys.exit(9)
    if fate == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "hang":
        time.sleep(600)
    log = "; int a; @ a.c:1\\n0: (95) exit\\n" if fate == "visits" else "the whole way"
    say("traced", object=key, program=program, log=log, log_cut=fate == "cut")

if fates.get("start") == "no":
    sys.exit("no module named vmtest")
say("hello", pid=os.getpid())
for entry in plan["objects"]:
    if fates.get(f"{entry['key']}/open") == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fates.get(f"{entry['key']}/open") == "forgotten":
        continue
    if not entry["whole"]:
        say("start", object=entry["key"], programs=[""])
        os.read(0, 1)
    say("object", object=entry["key"], programs=[{"name": "a"}, {"name": "b"}], maps=[])
    if not entry["whole"]:
        for name in entry["programs"]:
            if [entry["key"], name] not in plan["done"]:
                load(entry["key"], [name])
        continue
    left = [name for name in ("", "a", "b") if [entry["key"], name] not in plan["done"]]
    if "" in left:
        load(entry["key"], [""])
        for names in [["a", "b"]] if plan["log_level"] == 4 else [["a"], ["b"]]:
            load(entry["key"], names)
    else:
        for name in left:
            load(entry["key"], [name])
if plan["probe"]:
    say("probe", text=fates.get("probe", "eBPF helpers supported"))
say("finish", status=0)
"""


class Bench:
    """A loader over ``names`` whose guest is a folder here."""

    def __init__(
        self,
        folder: Path,
        names: list[str],
        features: Features = NO_FEATURES,
        logs_limit: int = LOGS_LIMIT,
        **options: Any,
    ) -> None:
        (folder / "vmtest" / "guest" / "loader").mkdir(parents=True)
        (folder / "vmtest" / "guest" / "loader" / "main.py").write_text(textwrap.dedent(GUEST))
        self.folder = folder
        self.order = replace(
            Order(tuple(Wanted(name, f"objects/{n:03d}.o") for n, name in enumerate(names))),
            **options,
        )
        self.fates: dict[str, str] = {}
        self.session = HostSession({"/tmp/vmtest": folder})
        self.record = Record(folder, self.order, logs_limit).__enter__()
        self.started: list[str] = []
        self.features = features
        watch = Watch(self._started, lambda load: None)
        self.loader = LoaderProcess(self.order, self.record, watch, features=self.features)
        self.log = io.BytesIO()

    def _started(self, place: int, wanted: Wanted, program: str) -> None:
        # Whatever had finished must be on disk before the next load begins.
        with (self.folder / "loads.jsonl").open() as lines:
            assert list(read_loads(lines)) == self.record.loads
        self.started.append(f"{place} {wanted.name}/{program}")

    def execute(self, ready: Stream | None = None) -> End:
        (self.folder / "fates.json").write_text(json.dumps(self.fates))
        return self.loader.execute(
            self.session,
            sys.executable,
            self.log,
            lambda: None,
            factor=1.0,
            start_limit=20.0,
            ready=ready,
        )

    def verdicts(self) -> dict[str, Verdict]:
        return {f"{load.object}/{load.program}": load.verdict for load in self.record.loads}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Bench]]:
    benches: list[Bench] = []
    yield benches
    for bench in benches:
        bench.session.close()
        bench.record.__exit__()


def bench(made: list[Bench], folder: Path, *names: str, **options: Any) -> Bench:
    made.append(Bench(folder, list(names), **options))
    return made[-1]


def test_every_load_has_its_verdict_and_is_on_disk(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "x.o", "y.o")
    here.fates = {"1/a": "rejected"}
    assert here.execute() is End.FINISHED
    assert here.verdicts() == {
        "x.o/": Verdict.ACCEPTED,
        "x.o/a": Verdict.ACCEPTED,
        "x.o/b": Verdict.ACCEPTED,
        "y.o/": Verdict.ACCEPTED,
        "y.o/a": Verdict.REJECTED,
        "y.o/b": Verdict.ACCEPTED,
    }
    with (tmp_path / "loads.jsonl").open() as lines:
        assert list(read_loads(lines)) == here.record.loads
    assert (tmp_path / "verifier/y.o/a.log").read_text() == "rejected" * 3
    assert (tmp_path / "feature-probe.txt").read_text() == "eBPF helpers supported"
    assert here.started[0] == "1 x.o/"
    assert here.loader.left == ()


def test_what_bpftool_said_is_asked_of_the_first_loader_alone(
    made: list[Bench], tmp_path: Path
) -> None:
    said = "Scanning miscellaneous eBPF features...\n"
    features = Features(tmp_path / "features.json")
    for name, fates in (("one", {"probe": said}), ("two", {"probe": "asked again"})):
        here = bench(made, tmp_path / name, "x.o", features=features)
        here.fates = fates
        assert here.execute() is End.FINISHED
        assert (tmp_path / name / "feature-probe.txt").read_text() == said


def test_a_loader_that_waits_in_the_guest_loads_what_the_plan_says_then(
    made: list[Bench], tmp_path: Path
) -> None:
    waits = "import os, sys\nif sys.argv[2:] == ['wait']: os.read(0, 1)\n"
    here = bench(made, tmp_path, "x.o")
    main = tmp_path / "vmtest" / "guest" / "loader" / "main.py"
    main.write_text(waits + main.read_text())
    waiting = here.session.stream(loader_argv(sys.executable, "", waits=True))
    here.fates = {"0/a": "rejected"}
    assert here.execute(ready=waiting) is End.FINISHED
    assert here.verdicts()["x.o/a"] is Verdict.REJECTED
    assert len(here.session.streams) == 1


def test_a_loader_that_dies_costs_one_program(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "x.o", "y.o")
    here.fates = {"0/a": "die"}
    # First among programs that were announced together, then by itself.
    for _ in range(2):
        assert here.execute() is End.DIED
        assert here.loader.last_words == "my last words"
        assert here.loader.blame(Verdict.LOADER_CRASHED, "why")
    assert here.execute() is End.FINISHED
    assert here.verdicts().pop("x.o/a") is Verdict.LOADER_CRASHED
    assert len(here.record.loads) == 6
    assert [v for v in here.verdicts().values() if v is not Verdict.ACCEPTED] == [
        Verdict.LOADER_CRASHED
    ]


@pytest.mark.parametrize(
    ("fates", "said"),
    [
        ({"1/b": "silent"}, "ends without a verdict of: y.o: b"),
        ({"1/open": "forgotten"}, "ends without a verdict of: y.o as a whole"),
        ({"1/a": "garbage"}, "line 12 of what the guest sent is not JSON (key must be a string"),
        ({"1/a": "another"}, "is the verdict of a load that does not run: c"),
        ({"1/a": "not loaded"}, '"not loaded" is the host\'s word'),
        ({"1/a": "fine"}, "load.verdict: input should be"),
    ],
)
def test_what_a_loader_cannot_say_is_not_believed_and_nothing_is_lost(
    fates: dict[str, str], said: str, made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", "y.o")
    here.fates = fates
    with pytest.raises(BadLine) as error:
        here.execute()
    assert said in str(error.value)
    assert here.loader.give_up("no more") > 0
    found = here.verdicts()
    assert {name for name, verdict in found.items() if verdict is Verdict.ACCEPTED} >= {
        "x.o/",
        "x.o/a",
        "x.o/b",
    }
    assert Verdict.NOT_LOADED in found.values()


def test_programs_to_skip_are_not_missed(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "x.o")
    loading = Loading(skip=("b*",))
    wanted = replace(here.order.objects[0], loading=loading)
    here.loader.order = replace(here.order, objects=(wanted,))
    here.fates = {"0/b": "silent"}
    assert here.execute() is End.FINISHED


def test_nobody_is_blamed_as_long_as_several_may_be_guilty(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", "y.o")
    here.fates = {"0/a": "die"}
    here.execute()
    before = here.loader.progress
    assert here.loader.blame(Verdict.KERNEL_CRASHED, "why")
    assert here.loader.progress > before
    assert here.verdicts() == {"x.o/": Verdict.ACCEPTED}
    assert here.loader.left == (0, 1)


def test_the_only_one_of_a_group_that_did_not_end_is_blamed(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o")
    here.fates = {"0/b": "die"}
    here.execute()
    assert here.loader.blame(Verdict.KERNEL_CRASHED, "why")
    assert here.verdicts() == {
        "x.o/": Verdict.ACCEPTED,
        "x.o/a": Verdict.ACCEPTED,
        "x.o/b": Verdict.KERNEL_CRASHED,
    }


def test_a_loader_that_dies_while_it_opens_an_object_costs_that_object(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", "y.o", "z.o")
    here.fates = {"1/open": "die"}
    assert here.execute() is End.DIED
    assert here.loader.blame(Verdict.LOADER_CRASHED, "why")
    assert here.execute() is End.FINISHED
    found = here.verdicts()
    assert found["y.o/"] is Verdict.LOADER_CRASHED
    assert found["z.o/b"] is Verdict.ACCEPTED
    assert "y.o/a" not in found


def test_a_load_over_its_time_is_killed_and_the_rest_goes_on(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", timeout=2.0)
    here.fates = {"0/a": "hang"}
    for _ in range(2):
        assert here.execute() is End.KILLED
        assert here.loader.blame(Verdict.TIMED_OUT, "over 2 s")
    assert here.execute() is End.FINISHED
    assert here.verdicts()["x.o/a"] is Verdict.TIMED_OUT
    assert here.verdicts()["x.o/b"] is Verdict.ACCEPTED


def test_a_longer_log_stands_in_the_place_of_the_verdicts(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", log_level=2)
    assert here.execute() is End.FINISHED
    assert (tmp_path / "verifier/x.o/a.log").read_text() == "the whole way"
    assert (tmp_path / "verifier/x.o/object.log").read_text() == "accepted" * 3
    assert here.loader.notes == []


@pytest.mark.parametrize(("level", "known"), [(1, False), (2, True)])
def test_what_the_verifier_read_is_known_from_a_log_of_level_2(
    level: int, known: bool, made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", log_level=level)
    here.fates = {"0/a/log": "visits"}
    assert here.execute() is End.FINISHED
    read = Visits(1, (SourceLine("a.c:1", "int a;", 1, 1),)) if known else None
    with (tmp_path / "loads.jsonl").open() as lines:
        assert [load.visits for load in read_loads(lines)] == [None, read, None]


def test_a_longer_log_that_was_cut_keeps_that_of_the_verdict(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", log_level=2)
    here.fates = {"0/a/log": "cut"}
    assert here.execute() is End.FINISHED
    text = (tmp_path / "verifier/x.o/a.log").read_text()
    assert text.startswith("the whole way\n[the log is cut here")
    assert text.endswith("accepted" * 3)
    with (tmp_path / "loads.jsonl").open() as lines:
        assert list(read_loads(lines)) == here.record.loads
    assert [load.log_cut for load in here.record.loads] == [False, True, False]


@pytest.mark.parametrize(("fate", "end"), [("hang", End.KILLED), ("die", End.DIED)])
def test_a_longer_log_that_is_not_had_changes_no_verdict(
    made: list[Bench], tmp_path: Path, fate: str, end: End
) -> None:
    here = bench(made, tmp_path, "x.o", timeout=2.0, log_level=2)
    here.fates = {"0/a": "rejected", "0/a/log": fate}
    assert here.execute() is end
    assert here.loader.log_lost("the reason") == "x.o: a"
    assert here.execute() is End.FINISHED
    assert list(here.verdicts().values()) == [Verdict.ACCEPTED, Verdict.REJECTED, Verdict.ACCEPTED]
    words = "the log at level 2 was not had: the reason"
    assert here.loader.notes == [f"x.o: a: {words}"]
    text = (tmp_path / "verifier/x.o/a.log").read_text()
    assert text == "rejected" * 3 + f"\n[{words}]\n"


def test_without_a_log_that_is_taken_none_is_lost(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "x.o", log_level=2)
    here.fates = {"0/a": "die"}
    assert here.execute() is End.DIED
    assert here.loader.log_lost("why") == ""
    assert here.loader.blame(Verdict.LOADER_CRASHED, "why")


def test_a_log_of_another_program_than_the_last_is_not_believed(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", log_level=2)
    here.fates = {"0/a/log": "another"}
    with pytest.raises(BadLine, match="begins a log of what was not loaded just before"):
        here.execute()


def test_what_was_over_its_time_says_the_seconds_that_passed(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", timeout=1.0)
    here.fates = {"0/": "hang"}
    (tmp_path / "fates.json").write_text(json.dumps(here.fates))
    end = here.loader.execute(
        here.session, sys.executable, here.log, lambda: None, factor=3.0, start_limit=20.0
    )
    assert end is End.KILLED
    seconds = re.fullmatch(
        r"over (\d+) s \(--timeout 1, stretched 3.0 times\)", here.loader.overtime
    )
    assert seconds is not None
    assert int(seconds[1]) >= 3


def test_a_loader_that_cannot_be_killed_is_stuck(
    made: list[Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(made, tmp_path, "x.o", timeout=1.0)
    here.fates = {"0/": "hang"}
    monkeypatch.setattr("vmtest.verify.process._GRACE", 0.5)
    monkeypatch.setattr(here.session, "run", lambda argv, check: None)
    with pytest.raises(LoaderStuck):
        here.execute()


def test_a_kill_that_does_not_return_is_not_waited_for(
    made: list[Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(made, tmp_path, "x.o", timeout=1.0)
    here.fates = {"0/": "hang"}

    def hang(argv: Sequence[str], check: Callable[[], None]) -> None:
        for _ in range(200):  # as a session does that waits for a command's end
            time.sleep(0.05)
            check()

    monkeypatch.setattr("vmtest.verify.process._GRACE", 0.5)
    monkeypatch.setattr(here.session, "run", hang)
    with pytest.raises(LoaderStuck):
        here.execute()
    assert here.session.streams[0].poll() is None


def test_a_loader_that_does_not_start_is_the_machines_fault(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o")
    here.fates = {"start": "no"}
    with pytest.raises(InfrastructureError, match="no module named vmtest"):
        here.execute()


def test_what_is_done_is_not_told_to_the_guest_again(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "x.o", "y.o")
    here.fates = {"1/a": "die"}
    for _ in range(2):
        here.execute()
        here.loader.blame(Verdict.KERNEL_CRASHED, "why")
    plan = here.loader.plan()
    assert [entry["key"] for entry in plan["objects"]] == ["1"]
    assert plan["done"] == [["1", ""], ["1", "a"]]


def test_giving_up_names_what_was_not_loaded(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "x.o", "y.o", programs=("a",))
    here.fates = {"0/a": "die"}
    here.execute()
    here.loader.blame(Verdict.KERNEL_CRASHED, "why")
    assert here.loader.give_up("no more") == 1
    assert here.verdicts() == {
        "x.o/a": Verdict.KERNEL_CRASHED,
        "y.o/": Verdict.NOT_LOADED,
    }
    assert here.loader.left == ()


def test_programs_that_were_asked_for_are_all_that_is_loaded(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", programs=("b",))
    assert here.execute() is End.FINISHED
    assert here.verdicts() == {"x.o/b": Verdict.ACCEPTED}


def test_an_object_of_which_some_programs_are_asked_is_blamed_for_its_opening(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", programs=("b",))
    here.fates = {"0/open": "die"}
    assert here.execute() is End.DIED
    here.loader.blame(Verdict.LOADER_CRASHED, "why")
    assert here.verdicts() == {"x.o/": Verdict.LOADER_CRASHED}


@pytest.mark.parametrize(
    ("programs", "whole"), [(("*",), True), (("a", "*"), True), (("a",), False), (("a*",), False)]
)
def test_an_object_is_loaded_as_a_whole_where_all_of_it_is_asked(
    programs: tuple[str, ...], whole: bool, made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path, "x.o", programs=programs)
    assert [entry["whole"] for entry in here.loader.plan()["objects"]] == [whole]


def test_logs_over_their_limit_end_the_kernel_and_what_was_before_stays(
    made: list[Bench], tmp_path: Path
) -> None:
    here = bench(made, tmp_path / "6.12", "x.o", "y.o", logs_limit=3 * len("accepted" * 3))
    said = r"6\.12: the verifier's logs of this kernel are over 0 MiB together; load fewer .*"
    with pytest.raises(InfrastructureError, match=said):
        here.execute()
    before = dict.fromkeys(("x.o/", "x.o/a", "x.o/b", "y.o/"), Verdict.ACCEPTED)
    assert here.verdicts() == before
    here.loader.give_up("too many logs")
    after = dict.fromkeys(("y.o/a", "y.o/b"), Verdict.NOT_LOADED)
    assert here.verdicts() == before | after
    with (tmp_path / "6.12" / "loads.jsonl").open() as lines:
        assert list(read_loads(lines)) == here.record.loads
    assert not (tmp_path / "6.12" / "verifier" / "y.o" / "object.log").exists()


def test_a_log_in_the_place_of_another_counts_once(tmp_path: Path) -> None:
    order = Order((Wanted("x.o", "objects/000.o"),))
    with Record(tmp_path, order, logs_limit=100) as record:
        for name in "ab":
            record.add(order.objects[0], LoadResult("", name, Verdict.ACCEPTED), "x" * 50)
            for size in (10, 40, 50):
                record.add_log(order.objects[0], name, "y" * size, cut=False)
        with pytest.raises(InfrastructureError, match="over 0 MiB"):
            record.add(order.objects[0], LoadResult("", "c", Verdict.ACCEPTED), "z")
    assert [load.log for load in record.loads] == ["verifier/x.o/a.log", "verifier/x.o/b.log", ""]


def test_two_objects_of_one_name_keep_both_logs(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "a/x.o", "a_x.o")
    here.execute()
    logs = [load.log for load in here.record.loads]
    assert len({log.lower() for log in logs}) == 6
    assert all((tmp_path / log).is_file() for log in logs)


def test_other_builds_are_recorded_apart(tmp_path: Path) -> None:
    order = Order((Wanted("x.o", "objects/000.o"), Wanted("x.o", "objects/001.o", other=True)))
    with Record(tmp_path, order) as record:
        for wanted in order.objects:
            record.add(wanted, LoadResult("", "p", Verdict.ACCEPTED), "log")
    assert [load.log for load in record.loads] == ["verifier/x.o/p.log"]
    assert [load.log for load in record.others] == ["against/x.o/p.log"]
    assert len((tmp_path / "against.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("build/x.bpf.o", "build_x.bpf.o"),
        ("../../etc/passwd", "_.._.._etc_passwd"),
        ("a b; rm -rf $HOME`x`.o", "a_b__rm_-rf__HOME_x_.o"),
        (".hidden", "_.hidden"),
        ("-x", "_-x"),
        ("", "_"),
        ("y" * 300, "y" * 80),
    ],
)
def test_a_log_has_a_name_that_no_shell_and_no_folder_minds(name: str, safe: str) -> None:
    assert log_name(name) == safe


def test_an_unfinished_last_line_is_left_out(made: list[Bench], tmp_path: Path) -> None:
    here = bench(made, tmp_path, "x.o")
    here.execute()
    text = (tmp_path / "loads.jsonl").read_text()
    lines = [*text.splitlines(keepends=True)[:-1], text.splitlines()[-1][:10]]
    assert list(read_loads(lines)) == here.record.loads[:-1]


def test_a_load_has_everything_that_the_guest_told() -> None:
    told = {
        "event": "load",
        "key": "0123456789abcdef",
        "object": "0",
        "program": "p",
        "verdict": "accepted",
        "errno": "",
        "translated_size": 16,
        "jited_size": 99,
        "line": "last",
        "log": "stack depth 8+16\nprocessed 12 insns (limit 1000000)\n",
        "log_cut": True,
        "reason": {"code": "c", "text": "t", "remedy": "r", "evidence": "e"},
        "attachment": {"attached": False, "place": "lo", "errno": "EINVAL", "reason": None},
    }
    event = EVENTS.validate_json(json.dumps(told))
    assert isinstance(event, Load)
    load = event.result(Described(name="p", section="xdp/x", type="xdp", attach_type="xdp_devmap"))
    assert (load.section, load.type, load.attach_type) == ("xdp/x", "xdp", "xdp_devmap")
    assert load.cost == Cost(12, stack_depth=(8, 16), translated_size=16, jited_size=99)
    assert load.reason is not None and load.reason.evidence == "e"
    assert load.attachment is not None and load.attachment.errno == "EINVAL"
    assert load.log_cut
