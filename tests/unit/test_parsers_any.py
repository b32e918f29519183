"""What a guest or a user wrote, as no example has it: made up by hypothesis.

No input raises anything but the errors that a parser documents, and what we write ourselves is
read back as it was.  Reports of other tools are in test_results_any.py, a guest's events in
test_guest_lines.py.  ``tox -e fuzz`` tries many more than the unit tests do.
"""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtest.config import file as configuration
from vmtest.errors import ConfigError, KernelUnavailable, UsageError
from vmtest.host.debian import DebianVersion, paragraphs
from vmtest.kernels import kconfig
from vmtest.kernels.lock import file as lock
from vmtest.kernels.store.vmlinux import embedded_config, has_pvh_entry, unpack
from vmtest.model.loads import LoadResult
from vmtest.model.project import Config
from vmtest.model.results import SCHEMA, KernelResult, Matrix, TestResult
from vmtest.model.versions import KernelVersion, VersionRange, check_version, is_pattern
from vmtest.objects.btf import MAGIC, Btf, BtfError, Kind
from vmtest.objects.inspect import inspect
from vmtest.runs import matrix_json
from vmtest.verify import baseline
from vmtest.vm.console import ConsoleLog, Lines, Sign, classify, clean
from vmtest.vm.klog import KernelLog, parse_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
raises_only = suppress
"""The claim of a test: nothing else than this error is raised, if any is."""

DEEP = "[" * 5_000
MANY_DIGITS = "9" * 5_000


def spoilt(value: Any, data: st.DataObject, instead: st.SearchStrategy[Any]) -> Any:
    """``value`` with one of its parts, at any depth, taken away or replaced."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return data.draw(instead)
    key = data.draw(st.sampled_from(keys))
    inside = isinstance(value[key], dict | list) and data.draw(st.booleans())
    copy = value.copy()
    if inside:
        copy[key] = spoilt(value[key], data, instead)
    elif data.draw(st.booleans()):
        copy[key] = data.draw(instead)
    else:
        del copy[key]
    return copy


# BTF.

WORD = st.integers(0, 0xFFFFFFFF)
SMALL = st.integers(0, 12)
ENTRIES = {
    Kind.STRUCT: 3,
    Kind.UNION: 3,
    Kind.ENUM: 2,
    Kind.FUNC_PROTO: 2,
    Kind.DATASEC: 3,
    Kind.ENUM64: 3,
}
FIXED = {Kind.INT: 1, Kind.ARRAY: 3, Kind.VAR: 1, Kind.DECL_TAG: 1}
NAMES = b"\0a\0bb\0struct\0\xff\xfe\0"


@st.composite
def btf_types(draw: st.DrawFn) -> tuple[int, Kind, bool, int, tuple[int, ...]]:
    """A type as its words: where its name begins, kind, flag, size or type, what follows."""
    kind = draw(st.sampled_from([kind for kind in Kind if kind is not Kind.VOID]))
    count = draw(st.integers(0, 3)) * ENTRIES.get(kind, 0) + FIXED.get(kind, 0)
    follows = draw(st.lists(SMALL | WORD, min_size=count, max_size=count))
    # Members' names have to be names, or nothing of the type is read.
    if kind in (Kind.STRUCT, Kind.UNION):
        follows[::3] = [word % len(NAMES) for word in follows[::3]]
    name = draw(st.sampled_from([0, 1, 3, 6]))
    return name, kind, draw(st.booleans()), draw(SMALL | WORD), tuple(follows)


def btf(types: list[tuple[int, Kind, bool, int, tuple[int, ...]]], order: str = "<") -> bytes:
    """The bytes of a section with these types."""
    packed = b""
    for name, kind, flag, size_or_type, follows in types:
        count = len(follows) // ENTRIES[kind] if kind in ENTRIES else 0
        words = (name, flag << 31 | kind << 24 | count, size_or_type, *follows)
        packed += struct.pack(f"{order}{len(words)}I", *words)
    head = struct.pack(f"{order}HBBIIIII", MAGIC, 1, 0, 24, 0, len(packed), len(packed), len(NAMES))
    return head + packed + NAMES


def ask_everything(found: Btf) -> None:
    found.variables()
    for number in range(len(found.types) + 1):
        for ask in (found.resolved, found.size, found.name, found.members):
            with raises_only(BtfError):
                ask(number)
        with raises_only(BtfError):
            found.structures([number])


@given(st.lists(btf_types(), max_size=12), st.sampled_from("<>"))
def test_btf_is_read_as_it_was_written(types: list[Any], order: str) -> None:
    found = Btf(btf(types, order), order == "<")
    read = [(t.kind, t.flag, t.size_or_type, t.words) for t in found.types[1:]]
    assert read == [type_[1:] for type_ in types]
    ask_everything(found)


@given(st.lists(btf_types(), max_size=6), st.data())
def test_damaged_btf_raises_btf_error_and_nothing_else(types: list[Any], data: Any) -> None:
    whole = bytearray(btf(types))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with raises_only(BtfError):
        ask_everything(Btf(bytes(whole[:cut] if data.draw(st.booleans()) else whole)))


def test_structures_within_structures_that_lead_to_no_member_end_soon() -> None:
    # 30 levels of 8 nameless structures each, the innermost empty: 8**30 ways to nothing.
    level = [
        (0, Kind.STRUCT, False, 0, tuple(word for _ in range(8) for word in (0, n + 2, 0)))
        for n in range(30)
    ]
    with pytest.raises(BtfError, match="members"):
        Btf(btf([*level, (0, Kind.STRUCT, False, 0, ())])).members(1)


@given(st.binary(max_size=300))
def test_any_bytes_behind_an_elf_magic_are_an_object_or_refused(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "x.o")
        file.write_bytes(b"\x7fELF\x02\x01\x01" + data)
        try:
            found = inspect(file)
        except UsageError as error:
            assert str(file) in str(error)
        else:
            assert found.path == str(file)


# ELF notes of a kernel, and kernels.

NOTES = st.lists(
    st.tuples(
        st.sampled_from([b"Xen\0", b"Xen", b"GNU\0", b"", b"Xenon\0"]),
        st.binary(max_size=9),
        st.sampled_from([18, 6, 17]),
    ),
    max_size=5,
)
PVH = 18


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def elf_with(notes: bytes) -> bytes:
    """An ELF file of 64 bits with a segment of notes."""
    head = bytearray(b"\x7fELF\x02\x01\x01".ljust(64, b"\0"))
    struct.pack_into("<H", head, 18, 62)
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, 1)
    return bytes(head) + struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), 0, 0) + notes


@given(NOTES)
def test_a_note_is_found_among_any_others(notes: list[tuple[bytes, bytes, int]]) -> None:
    data = b"".join(
        struct.pack("<III", len(name), len(value), kind) + padded(name) + padded(value)
        for name, value, kind in notes
    )
    wanted = any(name.rstrip(b"\0") == b"Xen" and kind == PVH for name, _, kind in notes)
    assert has_pvh_entry(elf_with(data)) == wanted


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_notes_and_headers_are_read(head: bytes, notes: bytes) -> None:
    assert has_pvh_entry(b"\x7fELF\x02" + head) in (True, False)
    assert has_pvh_entry(elf_with(notes)) in (True, False)
    assert embedded_config(head + b"IKCFG_ST" + notes + b"IKCFG_ED") in (None, "")


@given(st.data(), st.sampled_from([b"\x7fELF\x02", b"", b"\x1f\x8b"]))
def test_any_bytes_are_a_kernel_or_refused(data: Any, begin: bytes) -> None:
    content = bytearray(begin + data.draw(st.binary(min_size=0x260, max_size=0x300)))
    if not begin:
        content[0x202:0x206] = b"HdrS"
    with raises_only(KernelUnavailable):
        unpack(bytes(content), "x")


# matrix.json and its relatives.

# What a run measures is a number, and what it writes is made of characters.
st.register_type_strategy(float, st.floats(0, 1e9))
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
LOADS = st.builds(LoadResult, object=TEXT, program=TEXT, line=TEXT)
MATRICES = st.builds(
    Matrix,
    schema=st.just(SCHEMA),
    run=TEXT,
    suites=st.lists(TEXT, max_size=2).map(tuple),
    kernels=st.lists(
        st.builds(
            KernelResult,
            kernel=TEXT,
            tests=st.lists(st.builds(TestResult, test=TEXT, message=TEXT), max_size=2).map(tuple),
            loads=st.lists(LOADS, max_size=2).map(tuple),
            exit_status=st.none() | st.integers(0, 255),
            splats=st.lists(TEXT, max_size=2).map(tuple),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    notes=st.lists(TEXT, max_size=2).map(tuple),
    interrupted=st.booleans(),
)


@given(MATRICES)
def test_a_matrix_is_read_as_it_was_written(matrix: Matrix) -> None:
    assert matrix_json.loads(matrix_json.dumps(matrix)) == matrix


@given(MATRICES, st.data())
def test_a_spoilt_matrix_is_read_or_refused(matrix: Matrix, data: Any) -> None:
    value = spoilt(json.loads(matrix_json.dumps(matrix)), data, JSON)
    with raises_only(UsageError):
        matrix_json.loads(json.dumps(value))


JSON_TEXTS = st.text() | JSON.map(json.dumps)
EXTREME_JSON = [
    DEEP,
    f'{{"schema": {DEEP}',
    f'{{"schema": {MANY_DIGITS}}}',
    '{"schema": 1, "run": "\\ud800"}',
    '{"schema": 1, "duration": NaN}',
]


@given(JSON_TEXTS)
def test_any_text_is_a_matrix_or_refused(text: str) -> None:
    with raises_only(UsageError):
        matrix_json.loads(text)


@pytest.mark.parametrize(
    "text", [*EXTREME_JSON, '{"schema": 1, "kernels": {}}', '{"schema": 1, "run": "\ud800"}']
)
def test_an_extreme_matrix_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"x\.json"):
        matrix_json.loads(text, "x.json")


READERS = pytest.mark.parametrize("read", [baseline.load, lock.read], ids=["baseline", "lock"])


@READERS
@given(text=JSON_TEXTS)
def test_any_text_is_the_file_that_is_read_or_refused(read: Any, text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "file.json")
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        with raises_only(UsageError):
            read(file)


@READERS
@pytest.mark.parametrize("text", EXTREME_JSON)
def test_an_extreme_file_is_refused(read: Any, text: str, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"file\.json"):
        read(file)


# kernels.toml.

WHOLE: dict[str, Any] = {
    "schema": 1,
    "defaults": {"memory": "1G", "cpus": 2, "boot_timeout": "30s"},
    "guest": {"root": "debian", "libbpf": ["1.5"], "wheels": ["a.whl"], "packages": ["p"]},
    "build": {"command": ["make"]},
    "apt": {"debian": {"suites": ["trixie"], "keyring": "k.gpg", "max_index_age": "1h"}},
    "kernel": [
        {"name": "a", "apt": "debian", "version": "6.12.*", "tags": ["t"], "cmdline": ["x=1"]},
        {"name": "b", "path": "vmlinuz", "modules": "m", "config": "c", "memory": "512M"},
        {"name": "c", "package": [{"url": "https://h/f", "sha256": "0" * 64}, {"path": "p"}]},
        {"name": "d", "mainline": "v6.6"},
        {"name": "e", "tree": {"path": "~/linux", "rev": "v6.1", "config": "frag"}},
    ],
    "suite": [{"name": "s", "tests": "t.py", "objects": ["o"], "network": "outbound"}],
    "object": [
        {
            "name": "o",
            "path": "o.o",
            "kernels": ">=6.1",
            "types": {"p": "xdp"},
            "max_entries": {"m": "cpus"},
            "globals": {"g": True},
            "inner_maps": {"m": {"type": "hash", "key_size": 4, "value_size": 4}},
        }
    ],
    "known_failure": [{"test": "t.py::t", "reason": "why", "until": "2026-12-31"}],
}
ODD_TEXTS = st.sampled_from(
    ["", "~", "~nobody-is-called-so/x", "~nobody-is-called-so.so", "a\0b", "/", ">=", "6.1.*\n"]
)
TOML_VALUES = st.recursive(
    ODD_TEXTS | TEXT | st.booleans() | st.integers() | st.floats() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """``value`` as TOML has it in one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def read_toml(text: str) -> Config | None:
    try:
        return configuration.parse(text, Path("/project/kernels.toml"))
    except ConfigError as error:
        assert error.problems and all(error.problems)
        return None


@given(st.data())
def test_a_spoilt_configuration_is_read_or_refused(data: Any) -> None:
    value = spoilt(WHOLE, data, TOML_VALUES)
    read_toml("\n".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()))


def test_the_configuration_that_is_spoilt_is_a_good_one() -> None:
    found = read_toml("\n".join(f"{toml(key)} = {toml(inner)}" for key, inner in WHOLE.items()))
    assert found is not None and len(found.kernels) == 5


@given(st.text())
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    assert read_toml(text) is None


@pytest.mark.parametrize("text", [f"a = {DEEP}", f"schema = {MANY_DIGITS}", "a = 1979-13-41"])
def test_an_extreme_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not valid TOML"):
        configuration.parse(text, Path("kernels.toml"))


@pytest.mark.parametrize(
    "line",
    [
        '[guest]\nroot = "~nobody-is-called-so/root.sqfs"',
        '[guest]\nlibbpf = "~nobody-is-called-so/libbpf.so.1"',
        '[[kernel]]\nname = "t"\ntree = { path = "~nobody-is-called-so/linux" }',
    ],
)
def test_the_home_of_nobody_is_named(line: str) -> None:
    text = f'schema = 1\n[[kernel]]\nname = "k"\nmainline = "v6.6"\n{line}\n'
    with pytest.raises(ConfigError, match="the home folder ~nobody-is-called-so"):
        configuration.parse(text, Path("/project/kernels.toml"))


@given(st.text())
def test_any_text_is_a_kernels_config(text: str) -> None:
    config = kconfig.parse(text)
    assert kconfig.parse("\n".join(f"CONFIG_{k}={v}" for k, v in config.items())).keys() == (
        config.keys()
    )
    kconfig.missing(config)


# The console and the kernel's log.

KERNEL_LINES = st.sampled_from(
    [
        b"[    1.000000] Kernel panic - not syncing: x\n",
        b"[    2.000000] BUG: y\r\n",
        b"text[    3.000000] WARNING: CPU: 0 z",
        b"\x1b[1;31m[ 4.000000]",
        b"\n",
        b"[" * 400,
        b"x" * 40_000,
    ]
)
BYTES = st.lists(KERNEL_LINES | st.binary(max_size=40), max_size=12)


def console(folder: Path, pieces: list[bytes]) -> tuple[list[str], tuple[str, ...], int]:
    """What a console log finds, its last lines, and how often it told of a panic."""
    panics: list[int] = []
    log = ConsoleLog(folder / "console.log", lambda: panics.append(1))
    for piece in pieces:
        log.feed(piece)
    log.close()
    found = [finding.text for sign in Sign for finding in log.findings(sign)]
    return found, log.tail, len(panics)


@given(BYTES)
def test_a_console_means_the_same_however_it_is_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    halves = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
    with TemporaryDirectory() as folder:
        found = console(Path(folder), pieces)
        assert found == console(Path(folder), halves) == console(Path(folder), [whole])
    assert found[2] <= 1


@given(BYTES)
def test_no_byte_of_a_console_is_lost(pieces: list[bytes]) -> None:
    lines = Lines()
    read = [line for piece in pieces for line in lines.feed(piece)] + lines.end()
    assert b"".join(read) == b"".join(pieces).replace(b"\n", b"")


@given(st.text())
def test_any_line_is_cleaned_for_good(line: str) -> None:
    assert clean(clean(line)) == clean(line)
    assert classify(line) in (*Sign, None)


@given(st.integers(0, 1 << 63), st.integers(0, 1 << 63), st.binary(max_size=30))
def test_a_record_of_the_kernels_log_is_read_as_the_kernel_writes_it(
    number: int, time: int, text: bytes
) -> None:
    # The kernel writes what is not printable, and a backslash, as \xNN.
    written = b"".join(
        bytes([c]) if 32 <= c < 127 and c != 92 else f"\\x{c:02x}".encode() for c in text
    )
    record = parse_record(b"6,%d,%d,-;" % (number, time) + written)
    assert record is not None
    assert (record.number, record.microseconds) == (number, time)
    assert record.text == text.decode(errors="replace")


@given(
    st.lists(
        st.sampled_from([b"6,1,2,-;x\n", b"6," + b"9" * 5000 + b",2,-;x\n", b"6,0,9"])
        | st.binary(max_size=30),
        max_size=8,
    )
)
def test_any_bytes_are_read_as_a_kernels_log(pieces: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        log = KernelLog(Path(folder, "dmesg.log"))
        for piece in pieces:
            log.feed(piece)
        log.close()
        assert log.lost >= 0


# Versions.

VERSIONS = st.one_of(
    st.text(max_size=12),
    st.text("0123456789.v~-rc+:*_ \n\u00b2\u0663", max_size=12),
    st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?(-rc[0-9])?(-[0-9a-z+.~]{1,6})?"),
    st.sampled_from(["\u00b2:1", "0:1", "1", "1-0", "1.0", "1.00", "01", "1a0", "1a"]),
)


@given(VERSIONS)
def test_any_text_is_a_version_or_a_value_error(text: str) -> None:
    try:
        version = KernelVersion.parse(text)
    except ValueError:
        return
    assert KernelVersion.parse(str(version)) == version


@pytest.mark.parametrize(
    "text", [f"6.{MANY_DIGITS}", f"6.1.{MANY_DIGITS}", f"{MANY_DIGITS}.*", "6.12.*\n"]
)
def test_a_version_that_none_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="constraint"):
        VersionRange.parse(f">={text}x")
    assert not is_pattern(text)


@pytest.mark.parametrize("text", [f"{MANY_DIGITS}:1", f"1.{MANY_DIGITS}", f"1-{MANY_DIGITS}"])
def test_a_package_version_of_any_length_has_its_place(text: str) -> None:
    assert DebianVersion("1") <= DebianVersion(text) == DebianVersion(text)
    assert DebianVersion(text) <= DebianVersion(f"{text}0")


@given(VERSIONS)
def test_any_text_is_asked_for_or_a_usage_error(text: str) -> None:
    with raises_only(UsageError):
        check_version(text)
    assert is_pattern(text) in (True, False)
    assert not (is_pattern(text) and "\n" in text)


@given(st.lists(st.tuples(st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), VERSIONS)), VERSIONS)
def test_any_text_is_a_range_or_a_value_error(parts: list[tuple[str, str]], text: str) -> None:
    try:
        wanted = VersionRange.parse(",".join("".join(part) for part in parts))
        version = KernelVersion.parse(text)
    except ValueError:
        return
    assert (version in wanted) in (True, False)
    again = VersionRange.parse(
        ",".join(f"{operator}{'.'.join(map(str, n))}" for operator, n in wanted.constraints)
    )
    assert again.constraints == wanted.constraints


@given(VERSIONS, VERSIONS, VERSIONS)
def test_package_versions_have_one_order(a: str, b: str, c: str) -> None:
    one, two, three = DebianVersion(a), DebianVersion(b), DebianVersion(c)
    assert (one.compare(two) > 0) == (two.compare(one) < 0)
    assert one.compare(one) == 0
    if one.compare(two) <= 0 and two.compare(three) <= 0:
        assert one.compare(three) <= 0
    if one == two:
        assert hash(one) == hash(two)


@given(st.text())
def test_any_text_is_an_index_of_packages(text: str) -> None:
    found = list(paragraphs(f"{text}\n\nPackage: last\n"))
    assert found[-1] == {"package": "last"}
