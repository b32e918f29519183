"""``vmtest init`` in three kinds of projects: what it writes works as it is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from command import vmtest

from vmtest.config.file import load
from vmtest.model.project import Config
from vmtest.objects.builds import check_object
from vmtest.objects.compile import clang_argv, run_build
from vmtest.schemas.generate import text_of

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

SEC("cgroup_skb/egress")
int count(struct __sk_buff *skb)
{
    return 1;
}
"""


def lay(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def drafted(root: Path, *options: str) -> Config:
    said = vmtest("init", "--yes", *options, cwd=root)
    assert said.status == 0, said
    return load(root / "kernels.toml")


def builds(config: Config, root: Path) -> None:
    """Assert that [build] makes what kernels.toml names."""
    if config.build is not None:
        run_build(config.build, root, root / "log")
    assert config.objects
    for build in config.objects:
        check_object(build.name, build.path)


def test_sources_without_a_build_are_built_by_vmtest(tmp_path: Path) -> None:
    root = lay(tmp_path, {"bpf/count.bpf.c": PROGRAM, "bpf/net/drop.bpf.c": PROGRAM})
    config = drafted(root)
    assert [build.name for build in config.objects] == ["count", "drop"]
    builds(config, root)


def test_a_makefile_is_what_builds(tmp_path: Path) -> None:
    made = clang_argv(Path("src/count.bpf.c"), Path("out/count.bpf.o"), Path("src/include"))
    makefile = f"all:\n\tmkdir -p out\n\t{shlex.join(made)}\n"
    root = lay(tmp_path, {"src/count.bpf.c": PROGRAM, "Makefile": makefile})
    run_build(["make"], root, root / "log")
    config = drafted(root)
    assert config.build == ("make",)
    assert [build.path for build in config.objects] == [root / "out" / "count.bpf.o"]
    builds(config, root)


def test_objects_that_are_not_built_yet_are_asked_for(tmp_path: Path) -> None:
    root = lay(tmp_path, {"src/count.bpf.c": PROGRAM, "Makefile": "all:\n"})
    said = vmtest("init", "--yes", cwd=root)
    assert "make; vmtest init        no BPF object is built yet" in said.out
    assert "# [[object]]" in (root / "kernels.toml").read_text()


def with_a_makefile(root: Path) -> Path:
    made = clang_argv(Path("src/count.bpf.c"), Path("count.bpf.o"), Path("src/include"))
    makefile = f"all:\n\t{shlex.join(made)}\n"
    return lay(root, {"src/count.bpf.c": PROGRAM, "Makefile": makefile})


def test_after_the_build_it_names_what_is_built(tmp_path: Path) -> None:
    root = with_a_makefile(tmp_path)
    assert not drafted(root).objects
    run_build(["make"], root, root / "log")
    assert [build.name for build in drafted(root).objects] == ["count"]
    vmtest("init", "--yes", cwd=root).refuses(2, "kernels.toml is there already")


def test_a_job_is_written_beside_a_kernels_toml_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").write_text("# mine\n")
    said = vmtest("init", "--yes", "--ci", "github", cwd=tmp_path)
    assert said.status == 0, said
    assert "kernels.toml is there already and stays as it is\n" in said.out
    assert (tmp_path / "kernels.toml").read_text() == "# mine\n"
    assert (tmp_path / ".github/workflows/kernels.yml").is_file()
    again = vmtest("init", "--yes", "--ci", "github", cwd=tmp_path)
    again.refuses(2, "kernels.toml is there already")


def test_what_is_changed_besides_and_what_is_not_written_is_said(tmp_path: Path) -> None:
    said = vmtest("init", "--yes", cwd=tmp_path)
    assert "adding .vmtest/ to .gitignore\n" in said.out
    assert "no CI found: vmtest init --ci github writes a job\n" in said.out
    assert "no CI found" not in vmtest("init", "--yes", "--ci", "none", cwd=tmp_path).out


def test_a_verify_that_built_and_has_no_object_says_that_init_names_them(tmp_path: Path) -> None:
    root = with_a_makefile(tmp_path)
    drafted(root)
    vmtest("verify", cwd=root).refuses(
        2, "kernels.toml has no [[object]]; vmtest init adds what is built now"
    )
    assert [build.name for build in drafted(root).objects] == ["count"]


def test_after_the_build_a_file_that_was_changed_stays(tmp_path: Path) -> None:
    root = with_a_makefile(tmp_path)
    drafted(root)
    mine = (root / "kernels.toml").read_text().replace('tags = ["default"]', "", 1)
    (root / "kernels.toml").write_text(mine)
    run_build(["make"], root, root / "log")
    vmtest("init", "--yes", cwd=root).refuses(2, "kernels.toml is there already")
    assert (root / "kernels.toml").read_text() == mine


GO = {"go.mod": "module x\n", "x_test.go": "package x\n"}, "go test -exec ", " ./...\n"
RUST = (
    {"Cargo.toml": "[package]\n"},
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=",
    " cargo test\n",
)


@pytest.mark.parametrize(
    ("ci", "file"), [("github", ".github/workflows/kernels.yml"), ("gitlab", ".gitlab/kernels.yml")]
)
@pytest.mark.parametrize(("files", "before", "behind"), [GO, RUST], ids=["go", "rust"])
def test_a_project_without_objects_runs_its_own_tests(
    ci: str, file: str, files: Mapping[str, str], before: str, behind: str, tmp_path: Path
) -> None:
    root = lay(tmp_path, files)
    said = vmtest("init", "--yes", "--ci", ci, cwd=root)
    assert f"{before}'vmtest go-exec --kernel 6.12'{behind}" in f"{said.out}\n"
    assert "BPF" not in said.out + (root / "kernels.toml").read_text()
    job = (root / file).read_text()
    assert "for kernel in 5.10 6.1 6.12 newest; do\n" in job
    assert f'{before}"$PWD/.venv/bin/vmtest go-exec --kernel $kernel"{behind}' in job
    assert "junit" not in job and ".venv/bin/vmtest verify" not in job
    names = {kernel.name for kernel in load(root / "kernels.toml").kernels}
    assert names == {"5.10", "6.1", "6.12", "newest"}


@pytest.mark.parametrize(("files", "package"), [(GO[0], "golang-go"), (RUST[0], "cargo")])
def test_a_job_on_gitlab_has_the_tool_of_its_tests(
    files: Mapping[str, str], package: str, tmp_path: Path
) -> None:
    drafted(lay(tmp_path, files), "--ci", "gitlab")
    assert f"python3-venv git {package}\n" in (tmp_path / ".gitlab/kernels.yml").read_text()


def test_a_python_project_runs_its_tests_with_its_package(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "src/mine/__init__.py": "",
            "tests/unit/test_it.py": "",
            "tests/conftest.py": "",
            "bpf/count.bpf.c": PROGRAM,
        },
    )
    (suite,) = drafted(root).suites
    assert (suite.name, suite.tests, suite.root) == ("tests", root / "tests", root)
    assert suite.pythonpath == (root / "src",)
    assert suite.objects == ("count",)


def test_a_go_project_keeps_its_objects_in_git(tmp_path: Path) -> None:
    root = lay(tmp_path, {"go.mod": "module x\n", "count.bpf.c": PROGRAM})
    made = clang_argv(root / "count.bpf.c", root / "count_bpfel.o", root / "include")
    run_build(made, root, root / "log")
    said = vmtest("init", "--yes", cwd=root)
    assert "go test -exec 'vmtest go-exec" in said.out
    config = load(root / "kernels.toml")
    assert config.build is None
    assert [(build.name, build.path.name) for build in config.objects] == [
        ("count", "count_bpfel.o")
    ]


def test_the_makefile_beside_the_sources_builds_them(tmp_path: Path) -> None:
    made = clang_argv(Path("src/count.bpf.c"), Path("count.bpf.o"), Path("src/include"))
    makefile = f"all:\n\t{shlex.join(made)}\n"
    root = lay(tmp_path, {"a/src/count.bpf.c": PROGRAM, "a/Makefile": makefile, "b/Makefile": ""})
    said = vmtest("init", "--yes", cwd=root)
    assert "  make -C a; vmtest init" in said.out
    run_build(["make", "-C", "a"], root, root / "log")
    config = drafted(root)
    assert config.build == ("make", "-C", "a")
    builds(config, root)


def test_objects_of_other_machines_and_half_built_ones_are_left_out(tmp_path: Path) -> None:
    root = lay(tmp_path, {"go.mod": "module x\n", "x.bpf.c": PROGRAM})
    for name in ("x_x86_bpfel.o", "x_arm64_bpfel.o", "y.bpf.o", "y.tmp.bpf.o", "my_bpfel.o"):
        run_build(clang_argv(root / "x.bpf.c", root / name, root / "include"), root, root / "log")
    assert [build.name for build in drafted(root).objects] == ["my", "x", "y"]


def test_objects_of_one_name_are_told_apart(tmp_path: Path) -> None:
    root = lay(tmp_path, {"bpf/a/x.bpf.c": PROGRAM, "bpf/b/x.bpf.c": PROGRAM})
    assert [build.name for build in drafted(root).objects] == ["x", "b-x"]


def test_objects_beside_kernels_toml_that_share_a_name_are_numbered(tmp_path: Path) -> None:
    root = lay(tmp_path, {"go.mod": "module x\n", "x.bpf.c": PROGRAM})
    for name in ("x_bpfel.o", "x.bpf.o", "_x.o"):
        run_build(clang_argv(root / "x.bpf.c", root / name, root / "include"), root, root / "log")
    assert [build.name for build in drafted(root).objects] == ["x", "x-2", "x-3"]


@pytest.mark.parametrize(
    ("files", "suites"),
    [
        (["my tests/test_a.py", "_more/test_b.py"], {"my-tests": "my tests", "more": "_more"}),
        (["_a/test_a.py", "a/test_a.py"], {"a": "_a", "a-2": "a"}),
        (["prüfung/test_a.py"], {"pr-fung": "prüfung"}),
        (["😀/test_a.py"], {"tests": "😀"}),
        (["test_a.py", "tests/test_b.py"], {"tests": "."}),
    ],
    ids=["spaces", "the same name", "umlaut", "nothing left", "beside kernels.toml"],
)
def test_a_folder_of_any_name_is_a_suite(
    files: list[str], suites: dict[str, str], tmp_path: Path
) -> None:
    found = drafted(lay(tmp_path, dict.fromkeys(files, ""))).suites
    assert {s.name: s.tests for s in found} == {n: tmp_path / path for n, path in suites.items()}


@pytest.mark.parametrize(
    ("ci", "there", "file"),
    [
        ("github", ".github/dependabot.yml", ".github/workflows/kernels.yml"),
        ("gitlab", ".gitlab-ci.yml", ".gitlab/kernels.yml"),
    ],
)
def test_a_job_is_written_for_the_ci_in_use(ci: str, there: str, file: str, tmp_path: Path) -> None:
    drafted(lay(tmp_path, {there: "", "bpf/count.bpf.c": PROGRAM}))
    assert "vmtest verify " in (tmp_path / file).read_text()


def test_without_a_ci_there_is_no_job(tmp_path: Path) -> None:
    drafted(lay(tmp_path, {"bpf/count.bpf.c": PROGRAM}))
    made = {".gitignore", ".vmtest", "bpf", "kernels.toml"}
    assert {path.name for path in tmp_path.iterdir()} == made


def test_the_line_for_git_is_added_once(tmp_path: Path) -> None:
    root = lay(tmp_path, {".gitignore": "*.o", "bpf/count.bpf.c": PROGRAM})
    drafted(root)
    (root / "kernels.toml").unlink()
    drafted(root)
    assert (root / ".gitignore").read_text() == "*.o\n.vmtest/\nbuild/\n"


def test_a_job_on_gitlab_has_the_make_that_builds(tmp_path: Path) -> None:
    drafted(with_a_makefile(tmp_path), "--ci", "gitlab")
    job = (tmp_path / ".gitlab/kernels.yml").read_text()
    assert "--no-install-recommends python3-venv git make\n" in job


def test_what_a_makefile_builds_is_its_own_matter(tmp_path: Path) -> None:
    drafted(with_a_makefile(tmp_path))
    assert (tmp_path / ".gitignore").read_text() == ".vmtest/\n"


def test_the_schema_that_the_first_line_names_lies_there_and_is_of_this_version(
    tmp_path: Path,
) -> None:
    lay(tmp_path, {"bpf/count.bpf.c": PROGRAM})
    vmtest("init", "--yes", cwd=tmp_path)
    first = (tmp_path / "kernels.toml").read_text().partition("\n")[0]
    named = tmp_path / first.removeprefix("#:schema ")
    assert named.read_text() == text_of("kernels.toml")


def test_the_schema_is_listed_and_written_beside_a_new_kernels_toml_only(tmp_path: Path) -> None:
    schema = lay(tmp_path, {".vmtest/kernels.schema.json": "mine"}) / ".vmtest/kernels.schema.json"
    (tmp_path / "kernels.toml").write_text("# mine\n")
    said = vmtest("init", "--yes", "--ci", "github", cwd=tmp_path)
    assert (said.status, schema.read_text()) == (0, "mine")
    (tmp_path / "kernels.toml").unlink()
    said = vmtest("init", "--yes", "--ci", "none", cwd=tmp_path)
    assert "writing .vmtest/kernels.schema.json\n" in said.out
    assert schema.read_text() == text_of("kernels.toml")


def test_a_draft_from_before_the_schema_is_known(tmp_path: Path) -> None:
    root = with_a_makefile(tmp_path)
    drafted(root)
    old = (root / "kernels.toml").read_text().partition("\n\n")[2]
    assert old.startswith("# Which kernels")
    (root / "kernels.toml").write_text(old)
    run_build(["make"], root, root / "log")
    assert [build.name for build in drafted(root).objects] == ["count"]


def test_a_kernels_toml_is_never_written_over(tmp_path: Path) -> None:
    lay(tmp_path, {"kernels.toml": "mine", "bpf/count.bpf.c": PROGRAM})
    vmtest("init", "--yes", cwd=tmp_path).refuses(2, "kernels.toml is there already")
    assert (tmp_path / "kernels.toml").read_text() == "mine"


def test_without_anybody_to_ask_nothing_is_written(tmp_path: Path) -> None:
    lay(tmp_path, {"bpf/count.bpf.c": PROGRAM})
    vmtest("init", cwd=tmp_path).refuses(2, "add --yes")
    assert [path.name for path in tmp_path.iterdir()] == ["bpf"]


def test_a_ci_that_is_not_known_is_refused(tmp_path: Path) -> None:
    vmtest("init", "--ci", "jenkins", cwd=tmp_path).refuses(2, "--ci jenkins: write github, gitlab")
