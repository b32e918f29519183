"""Code of test modules is kept for guests of the kernel that compiled it, and nothing else is."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fake_machine import Tests, World, job_of, world_of
from watched import Watched

from vmtest.guest.payload import code_key
from vmtest.host.seal import Damage
from vmtest.matrix.bench import Bench, Guest
from vmtest.matrix.intact import CacheDamaged, Intact
from vmtest.matrix.job import run_kernel
from vmtest.model.kernels import InstalledWheel
from vmtest.model.project import Suite
from vmtest.model.results import KernelResult, KnownComplaint, Status
from vmtest.storage.prune import items
from vmtest.storage.verify import verify
from vmtest.suites.code import Code
from vmtest.suites.payload import pack_suites
from vmtest.suites.process import Run
from vmtest.suites.task import SuitesWork
from vmtest.vm import bytecode
from vmtest.vm.bytecode import KIND, Bytecode, packed, places, unpacked
from vmtest.vm.restore import KIND as SNAPSHOT

KNOWN = cast(KnownComplaint, object())
ENTRY = "6.12-0123"
SUITE = """
import sys
from _pytest.assertion import rewrite

def test_one():
    value = 1
    assert value == 1

def test_python_is_as_it_was():
    assert sys.dont_write_bytecode
"""


class Guests:
    """Guests one after the other, in one place, with the same ``kept``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = Bytecode(None)
        self.told: list[str] = []
        self.work: SuitesWork
        self.prepare: Callable[[Path], object] = str

    def run(
        self,
        text: str,
        *options: str,
        files: dict[str, str] | None = None,
        clean: bool = True,
        laid: bytes | None = None,
    ) -> dict[str, str]:
        """What becomes of the tests in ``text``; ``told`` is what the guest compiled."""
        here = self.folder / "here"
        here.mkdir()
        watched = Watched(here, text, files=files)
        guest = here / "guest"
        keys = {
            code_key(place, watched.payload.files[name]): place
            for name in watched.payload.rewritten()
            for place in [f"{guest}/suites/{name}"]
        }
        code = Code(self.kept, ENTRY, keys, self.kept.find(ENTRY, list(keys)))
        sink = replace(watched.run._sink, compiled=code.tell)
        run = watched.run = Run(watched.payload, sink)
        self.work = SuitesWork(run, [], code=code.laid if laid is None else laid)
        watched.payload = replace(watched.payload, archive=self.work.archive)
        with closing(watched.session):
            watched.install()
            self.prepare(guest)
            if clean:
                started_before_the_project(guest)
            watched.execute_installed("-p", "no:randomly", *options)
        self.told = [code.told] if code.told else []
        code.keep(KernelResult("k", Status.FAILED))
        here.rename(self.folder / f"was-{len(list(self.folder.iterdir()))}")
        return watched.outcomes()

    @property
    def compiled(self) -> int:
        """How many modules the last guest compiled and told."""
        return sum(len(unpacked(base64.b64decode(told))) for told in self.told)


def started_before_the_project(guest: Path) -> None:
    """Have the process be as one of the standby's, which a guest on this host has not."""
    module = guest / "vmtest" / "guest" / "bytecode.py"
    text = module.read_text()
    assert "\nCLEAN = False\n" in text
    module.write_text(text.replace("\nCLEAN = False\n", "\nCLEAN = True\n"))


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    return Guests(tmp_path)


PASSED = {"test_one": "passed", "test_python_is_as_it_was": "passed"}


def test_what_one_guest_compiled_the_next_does_not(guests: Guests) -> None:
    files = {"conftest.py": "", "aid.py": "", "test_other.py": ""}
    assert guests.run(SUITE, files=files) == PASSED
    assert guests.compiled == 2  # conftest.py and the suite; the rest is none of it
    assert guests.run(SUITE, files=files) == PASSED
    assert guests.compiled == 0
    assert guests.run(SUITE.replace("== 1", "== 2"), files=files)["test_one"] == "failed"
    assert guests.compiled == 1


def test_code_that_is_kept_is_what_runs(guests: Guests) -> None:
    """Else the test above might pass with code that nobody takes."""
    assert guests.run(SUITE.replace("== 1", "== 2"))["test_one"] == "failed"
    ((key, _),) = unpacked(base64.b64decode(guests.told[0])).items()
    (code,) = guests.kept.find(ENTRY, [key]).values()
    assert guests.run(SUITE) == PASSED
    ((own, _),) = unpacked(base64.b64decode(guests.told[0])).items()
    assert guests.run(SUITE, laid=packed({own: code}))["test_one"] == "failed"


@pytest.mark.parametrize("bad", [b"", b"\xe3", b"N", b"not marshalled"])
def test_code_that_cannot_be_read_is_compiled(bad: bytes, guests: Guests) -> None:
    assert guests.run(SUITE) == PASSED
    ((key, _),) = unpacked(base64.b64decode(guests.told[0])).items()
    assert guests.run(SUITE, laid=packed({key: bad})) == PASSED


def test_nothing_is_told_where_the_project_may_have_run(guests: Guests) -> None:
    assert guests.run(SUITE, clean=False) == PASSED
    assert guests.told == []


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("def test_one():\n    assert (1 == 2, 'never')\n", ("-W", "error")),
        ("def test_one():\n    x = 'b'\n    same = x is 'b'\n", ("-W", "error")),
    ],
)
def test_a_warning_of_the_compiler_is_one_again_in_the_next_guest(
    text: str, options: tuple[str, ...], guests: Guests
) -> None:
    ini = {"pytest.ini": "[pytest]\n"}
    assert guests.run(text, files=ini) == {"test_one": "passed"}
    assert guests.compiled == 0
    assert guests.run(text, *options, files=ini) == {"test_it.py": "error"}


HOOK = """
def pytest_assertion_pass(item, lineno, orig, expl):
    item.session.passes = getattr(item.session, "passes", 0) + 1
"""
HOOKED = """
def test_one(request):
    assert 1 == 1
    assert getattr(request.session, "passes", 0) in (0, 1)
    request.session.shouldfail = False

def test_two(request):
    passes = getattr(request.session, "passes", 0)
    print("PASSES", passes)
    assert passes == EXPECTED
"""


@pytest.mark.parametrize("option", ["-xo", "-o"])
def test_code_without_the_hook_of_an_option_is_not_taken_with_it(
    option: str, guests: Guests
) -> None:
    text = HOOKED.replace("EXPECTED", "2")
    assert guests.run(text, files={"conftest.py": HOOK})["test_two"] == "failed"
    assert guests.compiled == 2
    on = (option, "enable_assertion_pass_hook=true")
    assert guests.run(text, *on, files={"conftest.py": HOOK})["test_two"] == "passed"


def test_a_module_that_is_written_while_tests_are_read_is_compiled_as_it_is_then(
    guests: Guests,
) -> None:
    generated = "def test_{}():\n    pass\n"
    conftest = f"""
    from pathlib import Path
    Path(__file__).with_name("test_it.py").write_text({generated.format("b")!r})
    """
    text = generated.format("a")
    for _ in range(2):
        assert guests.run(text, files={"conftest.py": conftest}) == {"test_b": "passed"}
    assert guests.compiled == 0


def test_a_suite_that_writes_bytecode_can(guests: Guests) -> None:
    """pytest needs more than the code for that."""
    files = {"conftest.py": "import sys\nsys.dont_write_bytecode = False\n"}
    text = """
    from pathlib import Path
    def test_one():
        assert list(Path(__file__).parent.glob("__pycache__/test_it*"))
    """
    for _ in range(2):
        assert guests.run(text, files=files) == {"test_one": "passed"}


FORGES = """
import gc
from vmtest.guest.wire import Wire
(wire,) = (one for one in gc.get_objects() if isinstance(one, Wire))
wire.send({event}, pid=7, code={code!r})
"""


@pytest.mark.parametrize("event", ["hello", "compiled"])
@pytest.mark.parametrize("clean", [True, False])
def test_no_suite_leaves_code_for_another(event: str, clean: bool, guests: Guests) -> None:
    """Neither where it could come before ours, nor where ours has nothing to tell."""
    honest = SUITE.replace("== 1", "== 2")
    assert guests.run(SUITE)["test_one"] == "passed"
    ((_, code),) = unpacked(base64.b64decode(guests.told[0])).items()
    assert guests.run(honest)["test_one"] == "failed"
    ((own, _),) = unpacked(base64.b64decode(guests.told[0])).items()
    forged = base64.b64encode(packed({own: code})).decode()
    for kept in (guests.kept, Bytecode(None)):
        guests.kept = kept
        for _ in range(2):
            files = {"conftest.py": FORGES.format(event=repr(event), code=forged)}
            guests.run(honest, files=files, clean=clean)
            assert guests.work.process.bad_line
        assert guests.run(honest)["test_one"] == "failed"


def test_what_is_kept_stays_and_only_what_was_asked_for_is_kept() -> None:
    store = Bytecode(None)
    store.keep(ENTRY, ["a"], told(a="first", b="not asked for"))
    store.keep(ENTRY, ["a"], told(a="second"))
    assert store.find(ENTRY, ["a", "b"]) == {"a": b"first"}


PATCHED = """
import ast
from _pytest.assertion import rewrite
class Own(rewrite.AssertionRewriter):
    def visit_Assert(self, assert_):
        return [ast.copy_location(ast.Pass(), assert_)]
"""


@pytest.mark.parametrize(
    "patch",
    [
        "rewrite.AssertionRewriter = Own",
        "rewrite.AssertionRewriter.visit_Assert = Own.visit_Assert",
    ],
)
def test_a_project_with_a_rewriter_of_its_own_gets_what_that_makes(
    patch: str, guests: Guests
) -> None:
    text = "def test_one():\n    assert 1 == 2\n"
    assert guests.run(text)["test_one"] == "failed"
    patched = {"conftest.py": f"{PATCHED}\n{patch}\n"}
    for _ in range(2):
        assert guests.run(text, files=patched)["test_one"] == "passed"


def test_a_module_that_is_too_large_keeps_no_other_from_being_kept(guests: Guests) -> None:
    files = {"conftest.py": f"VALUE = {list(range(3000))}\n"}

    def small(guest: Path) -> None:
        module = guest / "vmtest" / "guest" / "bytecode.py"
        module.write_text(module.read_text().replace("MOST = 8 << 20", "MOST = 6000"))

    guests.prepare = small
    assert guests.run(SUITE, files=files) == PASSED
    assert guests.compiled == 1


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"sizes": {"a": 1}}',
        b'{"sizes": {"a": 1}}\nab',
        b'{"sizes": {"a": -1, "b": 2}}\na',
        b'{"sizes": {"a": 1.5}}\na',
        b'{"sizes": ["a"]}\na',
        b'{"a": 1}\na',
    ],
)
def test_what_is_no_code_is_not_kept(bad: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        unpacked(bad)
    store = Bytecode(tmp_path)
    store.keep(ENTRY, ["a", "b"], base64.b64encode(bad).decode())
    store.keep(ENTRY, ["a", "b"], "no base64")
    store.publish()
    assert places(tmp_path) == []


def told(**codes: str) -> str:
    return base64.b64encode(packed({key: code.encode() for key, code in codes.items()})).decode()


def cache_with(tmp_path: Path, *snapshots: str) -> Path:
    for name in snapshots:
        (tmp_path / f"{SNAPSHOT}s" / name).mkdir(parents=True)
    return tmp_path


def test_it_serves_later_guests_at_once_and_other_runs_once_it_is_published(
    tmp_path: Path,
) -> None:
    cache = cache_with(tmp_path, ENTRY)
    store = Bytecode(cache)
    store.keep(ENTRY, ["a"], told(a="1", b="nobody asked for it"))
    assert store.find(ENTRY, ["a", "b"]) == {"a": b"1"}
    assert Bytecode(cache).find(ENTRY, ["a"]) == {}
    store.publish()
    assert Bytecode(cache).find(ENTRY, ["a", "b"]) == {"a": b"1"}
    assert Bytecode(cache).find("6.12-4567", ["a"]) == {}
    other = Bytecode(cache)
    other.keep(ENTRY, ["c"], told(c="3"))
    other.publish()
    assert Bytecode(cache).find(ENTRY, ["a", "c"]) == {"a": b"1", "c": b"3"}


def test_a_damaged_entry_is_not_used_is_told_and_is_made_anew(tmp_path: Path) -> None:
    cache = cache_with(tmp_path, ENTRY)
    store = Bytecode(cache)
    store.keep(ENTRY, ["a"], told(a="code"))
    store.publish()
    (file,) = places(cache)
    file.write_bytes(file.read_bytes().replace(b"code", b"mode"))
    assert Bytecode(cache).find(ENTRY, ["a"]) == {}
    (found,) = (one for one in verify(cache) if one.kind == KIND)
    assert isinstance(found.damage, Damage) and f"bytecode {ENTRY} is damaged" in str(found.damage)
    assert [item.broken for item in items(cache) if item.kind == KIND] == [True]
    store.keep(ENTRY, ["b"], told(b="new"))
    store.publish()
    assert Bytecode(cache).find(ENTRY, ["a", "b"]) == {"a": b"code", "b": b"new"}
    assert [item.broken for item in items(cache) if item.kind == KIND] == [False]


def test_what_others_may_write_is_not_used(tmp_path: Path) -> None:
    cache = cache_with(tmp_path, ENTRY)
    store = Bytecode(cache)
    store.keep(ENTRY, ["a"], told(a="code"))
    before = os.umask(0)
    try:
        store.publish()
    finally:
        os.umask(before)
    assert Bytecode(cache).find(ENTRY, ["a"]) == {"a": b"code"}
    (file,) = places(cache)
    file.chmod(0o666)
    assert Bytecode(cache).find(ENTRY, ["a"]) == {}


def test_the_newest_have_room_and_an_entry_goes_with_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytecode, "ROOM", 8)
    cache = cache_with(tmp_path, ENTRY, "6.12-gone")
    for entry, code in ((ENTRY, "12345"), ("6.12-gone", "12345"), (ENTRY, "123")):
        store = Bytecode(cache)
        store.keep(entry, [code], told(**{code: code}))
        store.publish()
    assert set(bytecode.read_entry(cache / KIND / ENTRY)) == {"12345", "123"}
    (cache / f"{SNAPSHOT}s" / "6.12-gone").rmdir()
    store = Bytecode(cache)
    store.keep(ENTRY, ["1234"], told(**{"1234": "1234"}))
    store.publish()
    assert set(bytecode.read_entry(cache / KIND / ENTRY)) == {"1234", "123"}
    assert [place.name for place in places(cache)] == [ENTRY]


def test_nobody_waits_for_who_has_the_entry(tmp_path: Path) -> None:
    cache = cache_with(tmp_path, ENTRY)
    store = Bytecode(cache)
    store.keep(ENTRY, ["a"], told(a="code"))
    holds = "import sys\nfrom pathlib import Path\nfrom vmtest.host.cache import locked\n"
    holds += f"with locked(Path(sys.argv[1]), {f'{KIND}-{ENTRY}'!r}):\n print(flush=True)\n input()"
    command = [sys.executable, "-c", holds, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        store.publish()
        other.communicate(b"\n")
    assert places(cache) == []


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    cache = cache_with(tmp_path, ENTRY)
    (cache / KIND).write_text("in the way")
    store = Bytecode(cache)
    store.keep(ENTRY, ["a"], told(a="code"))
    store.publish()
    assert (cache / KIND).read_text() == "in the way"
    assert Bytecode(cache).find(ENTRY, ["a"]) == {}


def test_which_modules_a_guest_is_asked_for(tmp_path: Path) -> None:
    for name in ("a/test_a.py", "a/b_test.py", "a/aid.py", "a/conftest.py", "b/checks.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "b" / "test_data.json").write_text("")
    suites = [Suite("a", tmp_path / "a"), Suite("b", tmp_path / "b" / "checks.py")]
    payload = pack_suites(suites, suites, {})
    assert sorted(payload.rewritten()) == [
        *("a/b_test.py", "a/conftest.py", "a/test_a.py", "b/checks.py")
    ]
    assert sorted(payload.rewritten(["a/test_a.py"])) == ["a/conftest.py", "a/test_a.py"]
    only = pack_suites(suites, suites[1:], {})
    assert sorted(only.rewritten()) == ["a/conftest.py", "b/checks.py"]
    assert payload.files["a/test_a.py"] == sha256(b"").hexdigest()


@pytest.mark.parametrize(
    ("snapshot", "wheels", "pythonpath", "kept"),
    [
        (ENTRY, (), (), True),
        ("", (), (), False),
        (ENTRY, (InstalledWheel("w", "0", b""),), (), False),
        (ENTRY, (), ("src",), False),
    ],
)
def test_no_code_is_asked_of_a_guest_that_is_never_restored_or_in_which_others_come_first(
    snapshot: str,
    wheels: tuple[InstalledWheel, ...],
    pythonpath: tuple[str, ...],
    kept: bool,
    tmp_path: Path,
) -> None:
    (tmp_path / "test_a.py").write_text("")
    suite = Suite(
        "a", tmp_path / "test_a.py", pythonpath=tuple(tmp_path / name for name in pythonpath)
    )
    job = job_of(tmp_path)
    job = replace(job, root=replace(job.root, wheels=wheels))
    fake = SimpleNamespace(
        job=job,
        bytecode=Bytecode(tmp_path / "cache"),
        snapshots=SimpleNamespace(name_of=lambda spec: snapshot),
    )
    guest = cast(Guest, SimpleNamespace(machine=SimpleNamespace(spec=None)))
    code = Code.of(pack_suites([suite], [suite], {}), (), cast(Bench, fake), guest)
    assert bool(code.laid) is kept
    code.tell(told(a="1"))
    code.keep(KernelResult("k", Status.PASSED))
    fake.bytecode.publish()
    assert not (tmp_path / "cache" / KIND).exists()  # nothing that was asked for
    if kept:
        assert json.loads(code.laid)["wanted"] == ["/tmp/vmtest/suites/test_a.py"]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return world_of(monkeypatch)


@dataclass(frozen=True)
class Compiles(Tests):
    """A task in whose guest something is compiled."""

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        bench.bytecode.keep(ENTRY, ["a"], told(a="1"))
        return super().run(bench, result)


def test_what_a_guest_on_damaged_files_compiled_is_not_published(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_with(tmp_path / "cache", ENTRY)
    job = replace(job_of(tmp_path), task=Compiles(), snapshots=cache)
    with monkeypatch.context() as patch:

        def damaged(self: Intact, result: KernelResult, logs: Path) -> KernelResult:
            raise CacheDamaged("damaged", result)

        patch.setattr(Intact, "verdict", damaged)
        with pytest.raises(CacheDamaged):
            run_kernel(job)
    assert places(cache) == []
    assert run_kernel(job).status is Status.PASSED
    assert [place.name for place in places(cache)] == [ENTRY]


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (KernelResult("k", Status.PASSED), True),
        (KernelResult("k", Status.FAILED), True),
        (KernelResult("k", Status.FAILED, splats=("WARNING",)), False),
        (KernelResult("k", Status.PASSED, known_splats=(KNOWN,)), False),
        *((KernelResult("k", status), False) for status in (Status.PANICKED, Status.LOST)),
    ],
)
def test_what_a_kernel_compiled_that_is_not_in_order_is_not_kept(
    result: KernelResult, kept: bool
) -> None:
    code = Code(Bytecode(None), ENTRY, {"a": "/a"}, {})
    code.tell(told(a="1"))
    code.keep(result)
    assert bool(code.kept.find(ENTRY, ["a"])) is kept


def test_a_process_that_compiles_for_long_leaves_the_rest_to_later_ones(guests: Guests) -> None:
    def slow(guest: Path) -> None:
        module = guest / "vmtest" / "guest" / "bytecode.py"
        text = module.read_text()
        assert "LONGEST = 10.0" in text
        module.write_text(text.replace("LONGEST = 10.0", "LONGEST = 0.0"))

    guests.prepare = slow
    assert guests.run(SUITE, files={"conftest.py": ""}) == PASSED
    assert guests.compiled == 0


def test_a_suite_outside_of_the_common_folder_has_no_code(tmp_path: Path) -> None:
    """Its files may come to lie where Python looks when it starts."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "test_a.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text("")
    suites = [
        Suite("a", tmp_path / "a"),
        Suite("b", tmp_path / "a" / ".." / "sitecustomize.py"),
    ]
    payload = pack_suites(suites, suites, {})
    assert "../sitecustomize.py" in payload.files
    fake = SimpleNamespace(
        job=job_of(tmp_path / "a"),
        bytecode=Bytecode(None),
        snapshots=SimpleNamespace(name_of=lambda spec: ENTRY),
    )
    guest = cast(Guest, SimpleNamespace(machine=SimpleNamespace(spec=None)))
    assert Code.of(payload, (), cast(Bench, fake), guest).laid == b""
