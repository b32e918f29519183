from datetime import date
from pathlib import Path

import pytest

from vmtest.config.file import builtin, find, load, parse
from vmtest.config.select import needs_versions, select_kernels, select_suites
from vmtest.errors import ConfigError, UsageError
from vmtest.model.kernels import AptSpec, Network, PackageFile, PackageSpec, PathSpec, TreeSpec
from vmtest.model.project import Config, Loading
from vmtest.model.versions import KernelVersion

FILE = Path("/project/kernels.toml")

MINIMAL = """
schema = 1
[apt.debian]
suites = ["trixie-security", "trixie-backports"]
[[kernel]]
name = "6.1"
apt = "debian"
version = "6.1.*"
tags = ["default"]
[[kernel]]
name = "6.12"
apt = "debian"
version = "6.12.*"
tags = ["default", "lts"]
[[kernel]]
name = "mine"
path = "vmlinuz"
[[suite]]
name = "net"
tests = "tests/test_net.py"
objects = ["net"]
[[object]]
name = "net"
path = "build/net.o"
kernels = ">=5.10"
"""


def config(text: str = MINIMAL) -> Config:
    return parse(text, FILE)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config(text)
    return list(caught.value.problems)


def test_paths_are_relative_to_the_file() -> None:
    found = config()
    assert found.suites[0].tests == Path("/project/tests/test_net.py")
    assert found.objects[0].path == Path("/project/build/net.o")
    assert found.kernels[2].spec == PathSpec(Path("/project/vmlinuz"))


def test_a_kernel_takes_the_defaults_it_does_not_set_itself() -> None:
    text = MINIMAL.replace(
        "[apt.debian]", '[defaults]\nmemory = "2G"\nboot_timeout = "1m"\n[apt.debian]'
    ).replace('path = "vmlinuz"', 'path = "vmlinuz"\nmemory = "512M"')
    found = config(text)
    assert [kernel.memory_mib for kernel in found.kernels] == [2048, 2048, 512]
    assert {kernel.limits.boot for kernel in found.kernels} == {60.0}


def test_the_files_of_a_package_kernel_are_relative_to_the_file_unless_elsewhere() -> None:
    digest = "AB" * 32
    url = f'{{url = "https://example.org/k.deb", sha256 = "{digest}"}}'
    found = config(MINIMAL.replace('path = "vmlinuz"', f'package = [{{path = "k.rpm"}}, {url}]'))
    assert found.kernels[2].spec == PackageSpec(
        (
            PackageFile(Path("/project/k.rpm")),
            PackageFile("https://example.org/k.deb", digest.lower()),
        )
    )


def test_a_tree_and_its_config_are_relative_to_the_file() -> None:
    tree = 'tree = {path = "linux", rev = "v6.12", config = "my.config"}'
    spec = config(MINIMAL.replace('path = "vmlinuz"', tree)).kernels[2].spec
    assert spec == TreeSpec(Path("/project/linux"), "v6.12", Path("/project/my.config"))


def test_an_apt_kernel_carries_archive_and_pattern() -> None:
    assert config().kernels[1].spec == AptSpec("debian", "6.12.*", ())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'version = "6.1.*"',
            'version = "6.1.*"\ncmdlne = []',
            'kernels.toml: kernel "6.1": unknown key "cmdlne" (did you mean "cmdline"?)',
        ),
        (
            "[apt.debian]",
            "[default]\n[apt.debian]",
            'kernels.toml: unknown key "default" (did you mean "defaults"?)',
        ),
        (
            "schema = 1",
            "schema = 2",
            "kernels.toml: schema = 2 is not known; this vmtest reads schema = 1",
        ),
        ("schema = 1", "", 'kernels.toml: the key "schema" is missing: add schema = 1'),
        (
            'version = "6.1.*"',
            'version = "6.1.*"\nboot_timeout = "30"',
            "kernels.toml: kernel \"6.1\": boot_timeout = '30' is not a duration; "
            'write for example "30s", "5m" or "1h"',
        ),
        (
            'version = "6.1.*"',
            'version = "6.1.*"\nmemory = "64M"',
            "kernels.toml: kernel \"6.1\": memory = '64M' is too small: "
            "a guest needs 256M and more",
        ),
        (
            'version = "6.1.*"',
            "",
            'kernels.toml: kernel "6.1": needs a version, for example version = "6.12.*"',
        ),
        (
            'apt = "debian"\nversion = "6.1.*"',
            'apt = "debain"\nversion = "6.1.*"',
            'kernels.toml: kernel "6.1": there is no [apt.debain] (did you mean "debian"?)',
        ),
        (
            'version = "6.1.*"',
            'version = "6.1.*"\nsuites = ["trixie-backport"]',
            'kernels.toml: kernel "6.1": [apt.debian] has no suite "trixie-backport" '
            '(did you mean "trixie-backports"?)',
        ),
        (
            'path = "vmlinuz"',
            'path = "vmlinuz"\napt = "debian"',
            'kernels.toml: kernel "mine": needs exactly one of apt, dnf, oci, path, package, '
            "mainline, tree (has apt and path)",
        ),
        (
            'path = "vmlinuz"',
            "",
            'kernels.toml: kernel "mine": needs exactly one of apt, dnf, oci, path, package, '
            "mainline, tree (has none)",
        ),
        (
            'path = "vmlinuz"',
            'path = "vmlinuz"\nversion = "6.1"',
            'kernels.toml: kernel "mine": "version" goes with apt and dnf and oci, not with path; '
            "remove it",
        ),
        (
            'path = "vmlinuz"',
            'package = [{path = "k.deb", sha265 = "x"}]',
            'kernels.toml: kernel "mine": package number 1: unknown key "sha265" '
            '(did you mean "sha256"?)',
        ),
        (
            'path = "vmlinuz"',
            'package = [{path = "k.deb"}, {url = "https://example.org/k.deb"}]',
            'kernels.toml: kernel "mine": package number 2: needs the sha256 of what is at its url',
        ),
        (
            'path = "vmlinuz"',
            'package = [{sha256 = "' + 64 * "0" + '"}]',
            'kernels.toml: kernel "mine": package number 1: needs exactly one of path and url',
        ),
        (
            'path = "vmlinuz"',
            'package = [{url = "example.org/k.deb", sha256 = "' + 64 * "0" + '"}]',
            'kernels.toml: kernel "mine": package number 1: '
            "url = 'example.org/k.deb' is not an address; write it as https://HOST/FILE",
        ),
        (
            'path = "vmlinuz"',
            'package = [{path = "k.deb", sha256 = "abc"}]',
            'kernels.toml: kernel "mine": package number 1: '
            "sha256 = 'abc' is not a sha256, which has 64 hexadecimal digits",
        ),
        (
            "[apt.debian]",
            '[apt.debian]\narchitectures = ["arm64"]',
            "kernels.toml: [apt.debian]: architectures = ['arm64'] vmtest boots x86-64 kernels "
            'only; write ["amd64"], or leave it out',
        ),
        (
            "[apt.debian]",
            '[apt.debian]\nflavour = "Azure VM"',
            "kernels.toml: [apt.debian]: flavour = 'Azure VM' is not a flavour; "
            'write it as "generic", "azure" or "rt"',
        ),
        (
            'path = "vmlinuz"',
            'tree = {path = "linux", ref = "x"}',
            'kernels.toml: kernel "mine": tree: unknown key "ref" (did you mean "rev"?)',
        ),
        (
            'path = "vmlinuz"',
            'mainline = "6.6.17"',
            "kernels.toml: kernel \"mine\": mainline = '6.6.17' is not a tag of the kernel; "
            'write it as "v6.6.17" or "v6.7-rc2", or "6.6.*" for the newest of a series',
        ),
        (
            'name = "mine"',
            'name = "6.1"',
            'kernels.toml: kernel "6.1" stands 2 times; keep one',
        ),
        (
            'objects = ["net"]',
            'objects = ["nett"]',
            'kernels.toml: suite "net": there is no [[object]] "nett" (did you mean "net"?)',
        ),
        (
            'kernels = ">=5.10"',
            'kernels = "5.10"',
            "kernels.toml: object \"net\": kernels = '5.10' is not a version constraint; "
            "write for example '>=6.1,<6.13'",
        ),
        (
            'name = "mine"',
            'name = "a/b"',
            "kernels.toml: kernel \"a/b\": name = 'a/b' is not a valid name: "
            "letters, digits and . _ + - are allowed",
        ),
    ],
)
def test_a_problem_is_said_with_place_and_cure(old: str, new: str, said: str) -> None:
    assert old in MINIMAL
    assert problems(MINIMAL.replace(old, new, 1)) == [said]


LOADING = """
required = false
skip = ["debug_*"]
types = { auth = "xdp" }
max_entries = { scratch = "cpus", big = 1024 }
globals = { debug = 1, on = true }
inner_maps = { outer = { type = "hash", key_size = 4, value_size = 8 } }
"""


def test_an_object_says_how_it_wants_to_be_loaded() -> None:
    (found,) = config(MINIMAL + LOADING).objects
    assert not found.required
    assert found.loading == Loading(
        types={"auth": "xdp"},
        max_entries={"scratch": "cpus", "big": 1024},
        globals={"debug": 1, "on": True},
        inner_maps={"outer": {"type": "hash", "key_size": 4, "value_size": 8, "max_entries": 1}},
        skip=("debug_*",),
    )


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("xpd", 'there is no program type "xpd" (did you mean "xdp"?)'),
        ("tc", 'there is no program type "tc" (did you mean "sched_cls"?)'),
        ("xdp:xpd", 'there is no attach type "xpd" (did you mean "xdp"?)'),
    ],
)
def test_a_type_that_libbpf_does_not_know_is_refused(told: str, said: str) -> None:
    (problem,) = problems(MINIMAL + LOADING.replace('auth = "xdp"', f'auth = "{told}"'))
    assert said in problem
    assert "auth" in problem


def test_an_object_is_required_and_loads_by_itself_when_nothing_is_said() -> None:
    (found,) = config().objects
    assert (found.required, found.loading) == (True, Loading())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_entries = { m = 0 }", "greater than 0"),
        ('max_entries = { m = "cpu" }', "'cpus'"),
        ('inner_maps = { m = { type = "hash" } }', 'the key "inner_maps.m.key_size" is missing'),
        ("requird = true", 'unknown key "requird" (did you mean "required"?)'),
    ],
)
def test_a_wrong_word_about_loading_is_said_with_its_place(line: str, said: str) -> None:
    found = problems(f"{MINIMAL}{line}\n")
    assert all('object "net"' in problem for problem in found)
    assert any(said in problem for problem in found), found


def test_the_built_in_matrix_is_a_whole_configuration(tmp_path: Path) -> None:
    found = builtin(tmp_path)
    assert [kernel.name for kernel in found.kernels] == ["5.10", "6.1", "6.12", "backports"]
    assert found.directory == tmp_path


def test_all_problems_come_at_once() -> None:
    text = MINIMAL.replace('"6.1.*"', '"6.1.*"\ntgs = []\ncpus = 0').replace(
        'objects = ["net"]', 'objects = ["nett"]'
    )
    assert len(problems(text)) == 3


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('cpus = "2"', "cpus = '2' is not a number but text; write 2 without quotes"),
        ("cpus = true", "cpus = True is not a whole number; write for example 2"),
        ("cpus = 1.0", "cpus = 1.0 is not a whole number; write for example 2"),
        ("cpus = 0", "cpus = 0 must be greater than 0"),
        ('gate = "false"', "gate = 'false' is neither true nor false; write one of them"),
        ("gate = 0", "gate = 0 is neither true nor false; write one of them"),
        ('suites = "sid"', "suites = 'sid' is not a list; write [\"sid\"]"),
        ("suites = [13]", 'suites.0 = 13 is not text; write "13"'),
        ("suites = [[]]", "suites.0 = [] is not text; write it in quotes"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_how_to_write_it(written: str, said: str) -> None:
    (problem,) = problems(MINIMAL.replace('"6.1.*"', f'"6.1.*"\n{written}'))
    assert said in problem and problem.startswith('kernels.toml: kernel "6.1": ')


def test_one_table_where_there_are_many_is_told_by_its_brackets() -> None:
    (problem,) = problems('schema = 1\n[kernel]\nname = "x"\n')
    assert "is one table, and there may be many; write its name in double brackets" in problem


def test_a_file_without_kernels_is_told_what_to_add() -> None:
    assert problems("schema = 1\n") == [
        'kernels.toml: the key "kernel" is missing: add a [[kernel]]'
    ]


def test_a_range_that_is_none_is_told_once() -> None:
    text = MINIMAL + "[[known_failure]]\ntest = 'a.py::t'\nreason = 'r'\nkernels = '6.x'\n"
    (problem,) = problems(text)
    assert problem.count("'6.x'") == 1 and "kernels = '6.x' is not" in problem


@pytest.mark.parametrize("version", ["6.12.x", "6.X"])
def test_a_series_in_another_spelling_is_told_as_it_is_written(version: str) -> None:
    (problem,) = problems(MINIMAL.replace('"6.1.*"', f'"{version}"'))
    assert problem.endswith(f'is not a version; write "{version[:-1]}*"')


@pytest.mark.parametrize("text", ['schema = 1\nname = "x\n', "schema = 1\nbuild = "])
def test_malformed_toml_at_the_end_names_the_line(text: str) -> None:
    assert "line 2" in problems(text)[0]


def test_malformed_toml_names_line_and_column() -> None:
    assert "line 2, column" in problems("schema = 1\n[[kernel\n")[0]


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"kernels\.toml does not exist; name another"):
        load(tmp_path / "kernels.toml")


def test_the_nearest_file_upwards_is_found(tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find(below) == tmp_path / "kernels.toml"


def names(patterns: list[str], versions: dict[str, str] | None = None) -> list[str]:
    known = {name: KernelVersion.parse(text) for name, text in (versions or {}).items()}
    return [kernel.name for kernel in select_kernels(config().kernels, patterns, known)]


VERSIONS = {"6.1": "6.1.192", "6.12": "6.12.117", "mine": "7.3.4"}


def test_without_a_pattern_the_default_tag_runs() -> None:
    assert names([]) == ["6.1", "6.12"]


def test_a_name_is_exact() -> None:
    assert names(["6.1"]) == ["6.1"]


def test_a_tag_means_all_that_carry_it() -> None:
    assert names(["tag:lts"]) == ["6.12"]


def test_a_range_means_resolved_versions() -> None:
    assert names([">=6.1,<6.13"], VERSIONS) == ["6.1", "6.12"]


def test_a_kernel_of_unknown_version_is_never_lost_from_a_range() -> None:
    assert names(["<6.2"], {"6.1": "6.1.192", "6.12": "6.12.117"}) == ["6.1", "mine"]


def test_kernels_keep_the_order_of_the_file() -> None:
    assert names(["mine", "6.1"]) == ["6.1", "mine"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("6.13", r'`kernels` 6\.13: there is no kernel "6\.13" \(there are: 6\.1, 6\.12, mine\); '),
        ("6.13", r"ARCHIVE/VERSION: vmtest kernels available 6\.13 lists them$"),
        ("mien", r'there is no kernel "mien" \(there are: 6\.1, 6\.12, mine\)$'),
        ("tag:lst", r'no kernel has the tag "lst" \(did you mean "lts"\?\)'),
        (">=9", r"`kernels` >=9: no kernel is within this range"),
        (">=six", r"'>=six' is not a version constraint"),
    ],
)
def test_a_pattern_without_meaning_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        names([pattern], VERSIONS)


def test_only_ranges_need_the_index() -> None:
    assert not needs_versions(["6.1", "tag:lts"])
    assert needs_versions(["6.1", "<7"])


def test_an_unknown_suite_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r'there is no suite "nett" \(did you mean "net"\?\)'):
        select_suites(config().suites, ["nett"])


KNOWN = """
[[known_failure]]
test = "test_net.py::test_v6_*"
kernels = ">=5.10,<5.15"
reason = "issue 7"
until = {until}
"""


@pytest.mark.parametrize("until", ['"2026-12-31"', "2026-12-31"])
def test_a_known_failure_is_read(until: str) -> None:
    (entry,) = config(MINIMAL + KNOWN.format(until=until)).known_failures
    assert (entry.test, entry.reason, entry.until) == (
        "test_net.py::test_v6_*",
        "issue 7",
        date(2026, 12, 31),
    )
    assert entry.kernels is not None
    assert KernelVersion.parse("5.10.1") in entry.kernels


def test_a_known_failure_takes_every_kernel_and_any_day_by_itself() -> None:
    text = '[[known_failure]]\ntest = "test_net.py::test_a"\nreason = "issue 7"\n'
    (entry,) = config(MINIMAL + text).known_failures
    assert entry.kernels is None and entry.until is None


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("test_net.py::", "", "test = 'test_v6_*' names no test; write FILE::TEST"),
        ("<5.15", "5.15", "kernels = '>=5.10,5.15' '5.15' is not a version constraint"),
        ("issue 7", "  ", "reason = '  ' says nothing; write why the test fails"),
        ("2026-12-31", "2026-13-31", "until = '2026-13-31' is not a date; write for example"),
        ('"2026-12-31"', "2026-12-31T10:00:00", "is not a date; write for example"),
        ("until", "util", 'unknown key "util" (did you mean "until"?)'),
        ('reason = "issue 7"', "", 'the key "reason" is missing'),
    ],
)
def test_a_wrong_known_failure_is_named_with_its_place_and_cure(
    old: str, new: str, problem: str
) -> None:
    (said,) = problems(MINIMAL + KNOWN.format(until='"2026-12-31"').replace(old, new))
    assert said.startswith('kernels.toml: known_failure "')
    assert problem in said


def test_the_same_known_failure_twice_is_refused() -> None:
    (said,) = problems(MINIMAL + 2 * KNOWN.format(until='"2026-12-31"'))
    assert 'known_failure "test_net.py::test_v6_* (>=5.10,<5.15)" stands 2 times' in said


def test_a_flaky_test_is_read() -> None:
    text = KNOWN.replace("known_failure", "flaky").format(until="2026-12-31")
    (entry,) = config(MINIMAL + text).flaky
    assert (entry.test, entry.reason, entry.until) == (
        "test_net.py::test_v6_*",
        "issue 7",
        date(2026, 12, 31),
    )
    assert entry.kernels is not None
    assert KernelVersion.parse("5.15.1") not in entry.kernels


@pytest.mark.parametrize("limit", ["0", "1", "10", '"0.1"', "true", "nan"])
def test_a_limit_that_is_no_part_of_the_runs_is_refused(limit: str) -> None:
    text = KNOWN.replace("known_failure", "flaky").format(until="2026-12-31")
    (said,) = problems(MINIMAL + text + f"limit = {limit}\n")
    assert "must lie between 0 and 1; write for example 0.1 for one in ten" in said


def test_a_flaky_test_has_the_limit_of_its_entry_or_none() -> None:
    text = KNOWN.replace("known_failure", "flaky").format(until="2026-12-31")
    assert config(MINIMAL + text).flaky[0].limit is None
    assert config(MINIMAL + text + "limit = 0.1\n").flaky[0].limit == 0.1


def test_the_same_flaky_test_twice_is_refused() -> None:
    text = KNOWN.replace("known_failure", "flaky").format(until="2026-12-31")
    (said,) = problems(MINIMAL + 2 * text)
    assert 'flaky "test_net.py::test_v6_* (>=5.10,<5.15)" stands 2 times' in said


def test_a_boot_that_failed_is_tried_again_once_unless_kernels_toml_says_otherwise() -> None:
    def retries(text: str) -> int:
        return config(text).kernels[0].retries

    assert retries(MINIMAL) == 1
    defaults = MINIMAL.replace("[apt.debian]", "[defaults]\nretries = 0\n[apt.debian]")
    assert retries(defaults) == 0 and config(defaults).defaults.retries == 0
    assert retries(defaults.replace("[[kernel]]", "[[kernel]]\nretries = 3", 1)) == 3


@pytest.mark.parametrize("value", ["-1", "11", "true", '"1"', "1.5"])
def test_a_wrong_number_of_retries_is_refused(value: str) -> None:
    (said,) = problems(
        MINIMAL.replace("[apt.debian]", f"[defaults]\nretries = {value}\n[apt.debian]")
    )
    assert said.startswith("kernels.toml: [defaults]: retries = ")


SPLAT = """
[[known_splat]]
pattern = "WARNING in check_*"
kernels = ">=5.10,<5.15"
reason = "issue 8"
until = 2026-12-31
"""


def test_a_known_splat_is_read() -> None:
    (entry,) = config(MINIMAL + SPLAT).known_splats
    assert (entry.pattern, entry.reason, entry.until) == (
        "WARNING in check_*",
        "issue 8",
        date(2026, 12, 31),
    )
    assert entry.concerns(KernelVersion.parse("5.10.1"))
    assert not entry.concerns(KernelVersion.parse("6.1.1"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("WARNING in check_*", "* ?", "pattern = '* ?' matches every complaint; write a part"),
        ("WARNING in check_*", "a\\nb", "has a line break or another control character"),
        ("<5.15", "5.15", "kernels = '>=5.10,5.15' '5.15' is not a version constraint"),
        ("issue 8", " ", "reason = ' ' says nothing; write why the kernel complains"),
        ("2026-12-31", '"soon"', "until = 'soon' is not a date; write for example"),
        ("until", "strict", 'unknown key "strict"'),
        ('reason = "issue 8"', "", 'the key "reason" is missing'),
    ],
)
def test_a_wrong_known_splat_is_named_with_its_place_and_cure(
    old: str, new: str, problem: str
) -> None:
    (said,) = problems(MINIMAL + SPLAT.replace(old, new))
    assert said.startswith('kernels.toml: known_splat "')
    assert problem in said


def test_the_same_known_splat_twice_is_refused() -> None:
    (said,) = problems(MINIMAL + 2 * SPLAT)
    assert 'known_splat "WARNING in check_* (>=5.10,<5.15)" stands 2 times' in said


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("a='b", "has a quote that is not closed"),
        ('dyndbg=\\"+p', "holds"),
        ("-x", "begins with -"),
        ("quiet --", "begins with -"),
        ("a\\nb", "has a line break"),
    ],
)
def test_an_option_that_virtme_ng_cannot_pass_on_is_refused(option: str, why: str) -> None:
    text = MINIMAL.replace('path = "vmlinuz"', f"path = \"vmlinuz\"\ncmdline = ['''{option}''']")
    text = text.replace("'''a\\nb'''", '"a\\nb"')
    (problem,) = problems(text)
    assert 'kernel "mine": cmdline' in problem and why in problem


def test_several_options_in_one_string_and_quoted_ones_are_taken() -> None:
    text = MINIMAL.replace(
        'path = "vmlinuz"', "path = \"vmlinuz\"\ncmdline = ['quiet a.b=1', 'dyndbg=\"file x +p\"']"
    )
    assert config(text).kernels[2].cmdline == ("quiet a.b=1", 'dyndbg="file x +p"')


@pytest.mark.parametrize(
    ("value", "card"),
    [("false", Network.NONE), ("true", Network.CLOSED), ('"outbound"', Network.OUTBOUND)],
)
def test_a_suite_has_the_network_card_that_is_written(value: str, card: Network) -> None:
    text = f'{MINIMAL}[[suite]]\nname = "more"\ntests = "more.py"\nnetwork = {value}\n'
    assert config(text).suites[-1].network is card


def test_a_network_card_that_is_none_is_refused() -> None:
    text = f'{MINIMAL}[[suite]]\nname = "more"\ntests = "more.py"\nnetwork = "bridge"\n'
    (found,) = problems(text)
    assert found.endswith("network = 'bridge' is not a network; write false, true or \"outbound\"")
