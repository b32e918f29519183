"""The guest's loader against real kernels: tests/verify/*.bpf.c and tests/verify/expected.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_kernels import KERNEL, PROJECT, image_of
from verifying import Loading, loads

from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.model.versions import VersionRange
from vmtest.objects.compile import build_all
from vmtest.vm import accel
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import Machine, MachineSpec

SOURCES = PROJECT / "tests" / "verify"
EXPECTED = tomllib.loads((SOURCES / "expected.toml").read_text())
# What the loader does by itself, whatever the kernel: asked on one.
on_one_kernel = pytest.mark.parametrize("kernel", [KERNEL], indirect=True)
WISHES: dict[str, dict[str, Any]] = {
    "untold": {"types": {"told_by_the_*": "sched_cls"}},
    "wishes": {
        "max_entries": {"slots": "cpus"},
        "globals": {"careful": 1},
        "inner_maps": {"by_service": {"type": "hash", "key_size": 4, "value_size": 8}},
    },
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    made = build_all(SOURCES, tmp_path_factory.mktemp("objects"))
    return {path.name.removesuffix(".bpf.o"): path.read_bytes() for path in made}


@pytest.fixture(scope="module", params=["5.10", "6.1", "6.12", "backports"])
def kernel(request: pytest.FixtureRequest, settings: Config, cache: Path) -> KernelImage:
    return image_of(request.param, settings, cache)


@pytest.fixture(scope="module")
def loading(
    kernel: KernelImage,
    root: RootImage,
    cache: Path,
    objects: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loading]:
    assert kernel.config is not None
    probe = accel.choose(kernel.image, cache)
    spec = MachineSpec(kernel, root, probe, tmp_path_factory.mktemp("vm") / "console.log")
    with Machine(replace(spec, memory_mib=1024)) as machine:
        session = machine.connect(30.0 * Scale.now(probe.seconds, 1).factor)
        yield Loading(session, objects, kernel.config.read_bytes())
        session.close()


@pytest.fixture(scope="module")
def events(loading: Loading, kernel: KernelImage) -> list[Any]:
    return loading.run(asked_of(kernel, loading.names), WISHES, attach=True, probe=True)


def asked_of(kernel: KernelImage, names: Sequence[str]) -> list[str]:
    """Those of the objects ``names`` that ``kernel`` is asked to load."""
    return [name for name in names if kernel.name == KERNEL or name not in EXPECTED["once"]]


def holds(entry: dict[str, Any], kernel: KernelImage) -> bool:
    if "object" in entry and not asked_of(kernel, [entry["object"]]):
        return False
    return "kernels" not in entry or kernel.version in VersionRange.parse(entry["kernels"])


def test_every_program_gets_the_verdict_and_the_reason_that_is_expected(
    events: list[Any], kernel: KernelImage
) -> None:
    told = {
        name: (load["verdict"], (load["reason"] or {}).get("code", ""))
        for name, load in loads(events).items()
        if name[0] not in EXPECTED["accepted"]
    }
    entries = [entry for entry in EXPECTED["load"] if holds(entry, kernel)]
    expected = [
        ((entry["object"], program), (entry["verdict"], entry.get("code", "")))
        for entry in entries
        for program in entry["programs"]
    ]
    assert sorted(told.items()) == sorted(expected)


def test_every_reason_has_its_evidence(events: list[Any], kernel: KernelImage) -> None:
    told = loads(events)
    for entry in EXPECTED["load"]:
        for program in entry["programs"] if holds(entry, kernel) else ():
            reason = told[entry["object"], program]["reason"] or {"evidence": ""}
            assert entry.get("evidence", "") in reason["evidence"]
            assert not reason["evidence"] or reason["remedy"]
            assert bool(reason["evidence"]) == (entry.get("code", "unknown") != "unknown")


def test_the_remedy_of_a_reason_is_accepted_where_the_program_is_not(
    events: list[Any], kernel: KernelImage
) -> None:
    told = loads(events)
    entries = [e for e in EXPECTED["load"] if "cured" in e and holds(e, kernel)]
    assert len(entries) > 50
    for entry in entries:
        object_, _, program = entry["cured"].partition(": ")
        assert told[object_, program]["verdict"] == "accepted", entry


def test_plain_programs_are_accepted_in_every_way(events: list[Any]) -> None:
    told = {n: e["verdict"] for n, e in loads(events).items() if n[0] in EXPECTED["accepted"]}
    assert len(told) > 20
    assert set(told.values()) == {"accepted"}


def test_what_can_be_attached_is_and_the_rest_says_why(
    events: list[Any], kernel: KernelImage
) -> None:
    told = {
        f"{name}: {program}": load["attachment"]
        for (name, program), load in loads(events).items()
        if load["attachment"]
    }
    assert {"attach: on_entry", "core: reads_a_field", "struct_ops: ssthresh"} <= set(told)
    refused = {e["program"]: e for e in EXPECTED["attachment"] if holds(e, kernel)}
    failed = {p for p, one in told.items() if not one["attached"] or one["reason"]}
    assert failed == set(refused)
    for program, entry in refused.items():
        assert told[program]["attached"] == entry.get("attached", False)
        assert told[program]["reason"]["code"] == entry["code"]
        assert entry["evidence"] in told[program]["reason"]["evidence"]


def test_costs_are_the_verifiers_and_the_jits_own(events: list[Any]) -> None:
    cost = loads(events)["accepted", "with_subprogram"]["cost"]
    assert cost["instructions"] == 15
    assert len(cost["stack_depth"]) == 2
    assert cost["stack_depth"][0] == 0
    assert cost["stack_depth"][1] > 0
    assert cost["translated_size"] == 112
    assert cost["jited_size"] > 0
    assert cost["verification_us"] > 0
    assert cost["peak_states"] == 1


def test_a_program_is_named_with_what_libbpf_makes_of_it(events: list[Any]) -> None:
    load = loads(events)["attach", "on_connect"]
    told = (load["section"], load["type"], load["attach_type"])
    assert told == ("cgroup/connect4", "cgroup_sock_addr", "cgroup_inet4_connect")


def test_a_struct_ops_program_has_no_attach_type(events: list[Any]) -> None:
    told = {name[1]: load for name, load in loads(events).items() if name[0] == "struct_ops"}
    kinds = {(told[p]["type"], told[p]["attach_type"]) for p in ("ssthresh", "undo_cwnd")}
    assert kinds == {("struct_ops", "")}


def test_a_log_without_room_does_not_hide_that_a_program_is_accepted(loading: Loading) -> None:
    told = loads(loading.run(["ringbuf", "packet_bounds"], log_level=7, log_limit=300))
    reports, beyond = told["ringbuf", "reports"], told["packet_bounds", "reads_beyond"]
    assert (reports["verdict"], reports["log_cut"]) == ("accepted", True)
    assert (beyond["verdict"], beyond["log_cut"]) == ("rejected", True)
    assert beyond["reason"]["code"] == "packet-bounds"
    assert reports["cost"]["instructions"] == 9


def test_the_reason_is_found_in_a_whole_log_too(loading: Loading) -> None:
    names = ["loop", "packet_bounds", "stack"]
    told = loads(loading.run(names, log_level=7))
    reasons = {n: load["reason"]["code"] for n, load in told.items() if n[1] and load["reason"]}
    assert reasons["packet_bounds", "reads_beyond"] == "packet-bounds"
    assert reasons["stack", "too_deep"] == "stack"
    assert reasons["loop", "waits_for_chance"] == "loop"
    assert "R1" in told["packet_bounds", "reads_beyond"]["log"]
    assert not any(load["log_cut"] for load in told.values())


@on_one_kernel
def test_a_whole_log_tells_the_same_reasons(loading: Loading, events: list[Any]) -> None:
    names = ["mistakes", "newer", "regions"]
    short = {n: load for n, load in loads(events).items() if n[0] in names and n[1]}
    whole = {n: load for n, load in loads(loading.run(names, log_level=7)).items() if n[1]}
    codes = {name: (load["reason"] or {}).get("code") for name, load in short.items()}
    assert {name: (load["reason"] or {}).get("code") for name, load in whole.items()} == codes
    assert len(codes) > 60


def test_an_object_that_nobody_helps_is_refused(loading: Loading) -> None:
    told = loads(loading.run(["wishes"]))
    assert {load["verdict"] for load in told.values()} == {"refused as a whole"}


@on_one_kernel
@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (
            {"globals": {"careless": 1}},
            "has no variable careless (there: LICENSE, by_service, careful",
        ),
        ({"globals": {"careful": 1 << 40}}, "int too big"),
        ({"max_entries": {"slotz": 1}}, "map slotz"),
        ({"inner_maps": {"by_service": {"type": "hashes"}}}, "its type is not one of"),
        ({"types": {"wants_much": "xpd"}}, 'there is no program type "xpd"'),
    ],
)
def test_a_wish_that_the_object_cannot_grant_is_named(
    wish: dict[str, Any], said: str, loading: Loading
) -> None:
    (load,) = loads(loading.run(["wishes"], {"wishes": wish})).values()
    assert load["reason"]["code"] == "configuration"
    assert said in load["reason"]["evidence"]


@on_one_kernel
def test_only_what_is_asked_for_is_loaded(loading: Loading) -> None:
    wishes = {"attach": {"programs": ["on_*e", "never"], "skip": ["on_queue"]}}
    told = loads(loading.run(["attach"], wishes))
    assert [program for _, program in told] == ["", "on_message", "on_device"]


@on_one_kernel
def test_what_is_done_is_not_done_again(loading: Loading) -> None:
    done = [["helper", ""], ["helper", "knows_the_time"]]
    assert list(loads(loading.run(["helper"], done=done))) == [("helper", "overrides")]


BAD = {
    "empty": (b"", "is not a proper ELF object"),
    "text": (b"not an object\n" * 20, "is not a proper ELF object"),
    "program": (Path("/bin/true").read_bytes(), "is not a valid eBPF object file"),
}


@on_one_kernel
def test_a_file_that_is_no_object_is_told_in_libbpfs_words(
    loading: Loading, objects: dict[str, bytes]
) -> None:
    big = bytearray(objects["accepted"])
    big[5] = 2
    truncated = {"truncated": (objects["accepted"][:700], "failed to get section names")}
    for name, (data, said) in {**BAD, **truncated, "big": (bytes(big), "")}.items():
        loading.session.put(data, f"/tmp/vmtest/objects/{name}.o")
        (load,) = loads(loading.run([name])).values()
        assert (load["verdict"], load["reason"]["code"]) == ("open failed", "object"), name
        assert said in load["line"]


@pytest.mark.parametrize("kernel", ["5.10", KERNEL], indirect=True)  # counted to 5.10
@pytest.mark.parametrize("limit", [1, 16384], ids=["nothing", "little"])
def test_a_loader_without_locked_memory_is_told_so_where_it_counts(
    limit: int, loading: Loading, kernel: KernelImage
) -> None:
    dropped = ["setpriv", "--bounding-set=-sys_resource", "prlimit", f"--memlock={limit}:{limit}"]
    told = loads(loading.run(["ringbuf"], before=dropped))
    verdicts = {(load["verdict"], (load["reason"] or {}).get("code")) for load in told.values()}
    old = kernel.version in VersionRange.parse("<5.11")
    assert verdicts == {("refused as a whole", "memlock") if old else ("accepted", None)}


def test_a_loader_without_rights_is_told_so(loading: Loading) -> None:
    dropped = ["setpriv", "--bounding-set=-sys_admin,-bpf"]
    told = loads(loading.run(["packet_bounds"], before=dropped))
    codes = {(load["reason"] or {}).get("code") for load in told.values()}
    assert codes == {"privilege"}


def test_the_features_of_the_kernel_are_told(events: list[Any]) -> None:
    (text,) = (event["text"] for event in events if event["event"] == "probe")
    assert "eBPF program_type xdp is available" in text
