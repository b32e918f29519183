"""Why a program could not be attached: the lines of libbpf 1.1 to 1.7, and its silence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_reasons import MODERN, Answers

from vmtest.guest.loader.reasons import Failure, Reason, explain

BUILT = replace(MODERN, symbols={"CONFIG_FPROBE": "y", "CONFIG_UPROBES": "y"})


def not_attached(
    line: str = "", errno: str = "ENOENT", kernel: Answers = BUILT, **more: Any
) -> Reason:
    messages = f"libbpf: {line}\n" if line else ""
    failure = Failure(errno, messages, program_type="kprobe", attaching=True)
    return explain(replace(failure, **more), kernel)


def having(*symbols: str) -> Answers:
    return replace(BUILT, functions=frozenset(symbols))


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "elf: failed to find symbol 'main' in '/bin/true'",
            "user-target",
            "the guest's file /bin/true has no function main",
        ),
        (
            "elf: failed to open /bin/never: No such file or directory",
            "user-target",
            "the guest has no file /bin/never",
        ),
        ("elf: failed to open /bin/never: -ENOENT", "user-target", "no file /bin/never,"),
        (
            "prog 'p': failed to resolve full path for 'libnever.so': -2",
            "user-target",
            "no file libnever.so",
        ),
        (
            "prog 'p': failed to resolve full path for 'libnever.so': -ENOENT",
            "user-target",
            "no file libnever.so",
        ),
        (
            "usdt: no USDT notes section (.note.stapsdt) found in '/bin/true'",
            "user-target",
            "/bin/true was built without USDT probes",
        ),
        (
            "usdt: failed to find USDT support BPF maps, did you forget to include bpf/usdt.bpf.h?",
            "user-target",
            "the object lacks the maps",
        ),
        (
            "invalid section 'usdt.s', expected SEC(\"usdt/<path>:<provider>:<name>\")",
            "target-not-told",
            "the section does not name",
        ),
        (
            "prog 'p': section 'uprobe//bin/true' missing ':function[+offset]' specification",
            "target-not-told",
            "the section does not name",
        ),
        (
            "prog 'p': invalid format of section definition 'uprobe.multi//bin/true'",
            "target-not-told",
            "the section does not name",
        ),
    ],
)
def test_what_libbpf_says_of_an_attachment_has_its_code(line: str, code: str, said: str) -> None:
    reason = not_attached(line)
    assert reason.code == code
    assert said in reason.text
    assert reason.remedy
    assert line in reason.evidence


@pytest.mark.parametrize("form", ["failed to create kprobe '{}' perf event", "failed to attach to"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("Invalid or incomplete multibyte or wide character", "no instruction begins at f+0x1"),
        ("-EILSEQ", "no instruction begins at f+0x1"),
        ("Cannot assign requested address", "this kernel has several functions f"),
        ("Invalid argument", "this kernel lets no kprobe stand at f+0x1"),
    ],
)
def test_a_kprobe_says_why_it_cannot_stand_there(form: str, error: str, said: str) -> None:
    where = form.format("f+0x1") if "{}" in form else f"{form} kprobe 'f+0x1'"
    reason = not_attached(f"prog 'p': {where}: {error}", "EINVAL", having("f"))
    assert (reason.code, reason.name) == ("attach-target", "f")
    assert said in reason.text


def test_a_kprobe_on_a_function_that_the_compiler_renamed_names_what_is_left() -> None:
    line = "prog 'p': failed to create kprobe 'switch_tasks+0x0' perf event: -ENOENT"
    reason = not_attached(line, kernel=having("switch_tasks.isra.0", "other"))
    assert "no function switch_tasks, only a variant" in reason.text
    assert "switch_tasks.isra.0" in reason.text
    assert 'SEC("kprobe/switch_tasks.isra.0")' in reason.remedy


def test_a_load_for_a_function_that_the_compiler_renamed_says_so_too() -> None:
    said = "libbpf: prog 'p': failed to find kernel BTF type ID of 'switch_tasks': -3\n"
    refused = Failure("ESRCH", said, program_type="tracing", attach_type="trace_fentry")
    reason = explain(refused, having("switch_tasks.constprop.0", "switch_tasks.isra.1"))
    assert "only variants that the compiler made of it" in reason.text
    assert "fentry and fexit take no such function" in reason.remedy


@pytest.mark.parametrize("symbol", ["f.isra.0.cold", "f.cold", "f.12", "f.12345.part", "f.o.1"])
def test_what_is_only_called_alike_is_no_variant_of_a_function(symbol: str) -> None:
    line = "prog 'p': failed to create kprobe 'f+0x0' perf event: No such file or directory"
    assert "no function f to attach to" in not_attached(line, kernel=having(symbol)).text


def test_a_missing_variant_of_a_function_is_missing() -> None:
    line = "prog 'p': failed to create kprobe 'f.isra.0+0x0' perf event: No such file or directory"
    assert "no function f.isra.0 to attach to" in not_attached(line).text


def test_a_kprobe_on_what_the_kernel_does_not_have_is_missing() -> None:
    line = "prog 'p': failed to create kprobe 'f+0x0' perf event: No such file or directory"
    assert not_attached(line).missing == "f"


@pytest.mark.parametrize(
    ("section", "what"),
    [("iter/cgroup", "cgroup"), ("iter.s/bpf_map_elem", "map"), ("iter/sockmap", "map")],
)
@pytest.mark.parametrize("error", ["Invalid argument", "Bad file descriptor", "-EBADF"])
def test_an_iterator_that_needs_something_to_walk_says_what(
    section: str, what: str, error: str
) -> None:
    line = f"prog 'p': failed to attach to iterator: {error}"
    reason = not_attached(line, "EINVAL", section=section, attach_type="trace_iter")
    assert reason.code == "target-not-told"
    assert f"must be told which {what} it walks" in reason.text
    assert f"link_info.{what}" in reason.remedy


def test_an_iterator_that_needs_nothing_is_not_explained_by_that() -> None:
    line = "prog 'p': failed to attach to iterator: Operation not permitted"
    assert not_attached(line, "EPERM", section="iter/task").code == "unknown"


@pytest.mark.parametrize("errno", ["ENOENT", "ESRCH"])
@pytest.mark.parametrize(
    ("pattern", "missing", "said"),
    [("never_*", "", "no function that matches never_*"), ("never", "never", "no function never")],
)
def test_a_pattern_that_no_function_matches_is_told_where_nothing_is_said(
    errno: str, pattern: str, missing: str, said: str
) -> None:
    reason = not_attached(
        errno=errno,
        kernel=having("f"),
        section=f"kprobe.multi/{pattern}",
        attach_type="trace_kprobe_multi",
    )
    assert (reason.code, reason.missing) == ("attach-target", missing)
    assert said in reason.text


def test_functions_that_may_not_be_traced_are_not_said_to_be_missing() -> None:
    reason = not_attached(
        kernel=having("f_one", "f_two"),
        section="kprobe.session/f_*",
        attach_type="trace_kprobe_session",
    )
    assert reason.text == "this kernel lets no kprobe.multi stand at f_*"
    assert "/proc/kallsyms has f_one and f_two" in reason.evidence


@pytest.mark.parametrize(
    ("section", "attach_type", "said"),
    [
        ("uprobe.multi//bin/true:main", "trace_uprobe_multi", "no function that matches main"),
        ("usdt//bin/true:a:b", "", "no USDT probe a:b"),
        ("usdt.s//bin/true:a:b", "trace_uprobe_multi", "no USDT probe a:b"),
    ],
)
def test_a_file_without_the_function_is_told_where_nothing_is_said(
    section: str, attach_type: str, said: str
) -> None:
    reason = not_attached(section=section, attach_type=attach_type)
    assert reason.text == f"the guest's file /bin/true has {said}"
    assert reason.code == "user-target"


@pytest.mark.parametrize("what", ["devmap", "cpumap"])
def test_an_xdp_program_of_a_map_is_not_for_a_device(what: str) -> None:
    line = "prog 'p': failed to attach to xdp: Invalid argument"
    reason = not_attached(line, "EINVAL", program_type="xdp", attach_type=f"xdp_{what}")
    assert reason.code == "target-not-told"
    assert f"an entry of a map of type {what}" in reason.text
    assert not_attached(line, "EINVAL", program_type="xdp", attach_type="xdp").code == "unknown"


@pytest.mark.parametrize(
    ("section", "form"),
    [("tp/sched", "tp/CATEGORY/EVENT"), ("sk_skb", "sk_skb/stream_verdict")],
)
def test_a_section_that_names_half_of_the_target_says_so(section: str, form: str) -> None:
    reason = not_attached(errno="EINVAL", section=section)
    assert (reason.code, form in reason.remedy) == ("target-not-told", True)


@pytest.mark.parametrize("section", ["tp/sched/sched_switch", "sk_skb/stream_parser"])
def test_a_section_that_names_the_whole_target_is_not_said_to_lack_it(section: str) -> None:
    assert not_attached(errno="EINVAL", section=section).code == "unknown"


def test_silence_of_another_kind_stays_unexplained() -> None:
    assert not_attached(errno="EINVAL", section="kprobe.multi/f").code == "unknown"
    reason = not_attached(errno="EBUSY")
    assert reason.remedy.startswith("attach it on other kernels")


def test_what_an_attachment_is_refused_for_refuses_no_load() -> None:
    line = "libbpf: elf: failed to open x.bpf.o: No such file or directory\n"
    assert explain(Failure("ENOENT", line), MODERN).code == "object"


@pytest.mark.parametrize("error", ["Permission denied", "-EACCES"])
def test_a_program_that_reads_beyond_an_event_says_so(error: str) -> None:
    line = f"prog 'p': failed to attach to tracepoint 'sched/sched_switch': {error}"
    reason = not_attached(line, "EACCES", program_type="tracepoint")
    assert reason.code == "context-access"
    assert "events/sched/sched_switch/format" in reason.remedy


@pytest.mark.parametrize("error", ["Device or resource busy", "-EBUSY", "-16"])
def test_a_function_whose_start_cannot_be_patched_is_told(error: str) -> None:
    """memcpy, say, which is written in assembler."""
    line = f"prog 'p': failed to attach: {error}"
    reason = not_attached(line, "EBUSY", program_type="tracing", section="fentry/memcpy")
    assert (reason.code, "cannot attach to memcpy" in reason.text) == ("attach-target", True)
    assert not_attached(line, "EBUSY", program_type="xdp", section="xdp").code == "unknown"
