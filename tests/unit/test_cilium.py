"""The loader with cilium/ebpf: which release it has, how it is built, and what it says of objects.

With Debian's package, which needs no network.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import go_proxy
import pytest

from vmtest.errors import InfrastructureError, UsageError
from vmtest.guest.loader.cilium import _blamed, _words
from vmtest.objects.compile import build_all
from vmtest.rootfs import cilium
from vmtest.storage.prune import items
from vmtest.storage.verify import verify

SOURCES = Path(__file__).parents[1] / "verify"
needs_package = pytest.mark.skipif(
    not Path("/usr/share/gocode/src/github.com/cilium/ebpf").is_dir(),
    reason="golang-github-cilium-ebpf-dev is not installed",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = build_all(SOURCES, tmp_path_factory.mktemp("objects"))
    return {path.name.removesuffix(".bpf.o"): path for path in made}


@pytest.fixture
def program(cache: Path, tmp_path: Path) -> Path:
    """The loader, as a file that may be run here: to open an object takes no rights."""
    file = tmp_path / "loader"
    file.write_bytes(cilium.take("cilium", tmp_path, cache, print).data)
    file.chmod(0o755)
    return file


@pytest.fixture
def ask(program: Path) -> Callable[..., dict[str, Any]]:
    def asked(**request: object) -> dict[str, Any]:
        done = subprocess.run(
            [program], input=json.dumps(request) + "\n", text=True, capture_output=True, check=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return asked


@needs_package
def test_it_is_built_of_debians_package_once(cache: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = cilium.take("cilium", tmp_path, cache, said.append)
    assert found.name.startswith("cilium/ebpf 0.")
    assert found.origin.startswith("golang-github-cilium-ebpf-dev 0.")
    said.clear()
    assert cilium.take("cilium", tmp_path, cache, said.append) == found
    assert said == []


@needs_package
def test_one_that_was_built_needs_no_go(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cilium.take("cilium", tmp_path, cache, print)
    monkeypatch.setattr("vmtest.host.cache.find_tool", lambda name: None)
    assert cilium.take("cilium", tmp_path, cache, print) == found
    with pytest.raises(InfrastructureError, match="install the package golang-go"):
        cilium.take("cilium", tmp_path, tmp_path / "other", print)


@needs_package
def test_a_damaged_one_is_told_and_built_again(tmp_path: Path) -> None:
    whole = cilium.take("cilium", tmp_path, tmp_path / "cache", print)
    (entry,) = cilium.places(tmp_path / "cache")
    (entry / "loader").write_bytes(b"rot")
    assert [item.broken for item in items(tmp_path / "cache")] == [True]
    assert ["loader has sha256" in str(one.damage) for one in verify(tmp_path / "cache")] == [True]
    assert cilium.take("cilium", tmp_path, tmp_path / "cache", print) == whole


@needs_package
def test_it_tells_programs_and_maps(
    ask: Callable[..., dict[str, Any]], objects: dict[str, Path]
) -> None:
    said = ask(file=str(objects["wishes"]))
    assert said["error"] == ""
    (one,) = said["programs"]
    assert (one["name"], one["section"], one["type"]) == ("wants_much", "xdp", 6)
    maps = {one["name"]: (one["type"], one["max_entries"], one["inner"]) for one in said["maps"]}
    assert maps["slots"] == (2, 0, True)
    assert maps["by_service"] == (13, 4, False)


@needs_package
def test_it_takes_what_the_configuration_says(
    ask: Callable[..., dict[str, Any]], objects: dict[str, Path]
) -> None:
    said = ask(
        file=str(objects["wishes"]),
        types={"wants_much": [3, 0]},
        max_entries={"slots": 7},
        globals={"careful": 1},
        inner_maps={"by_service": [1, 4, 8, 1]},
    )
    assert said["error"] == ""
    assert said["programs"][0]["type"] == 3
    maps = {one["name"]: (one["max_entries"], one["inner"]) for one in said["maps"]}
    assert (maps["slots"], maps["by_service"]) == ((7, True), (4, True))


@needs_package
@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"globals": {"careless": 1}}, "there is no variable careless"),
        ({"globals": {"careful": 1 << 32}}, "4294967296 does not fit in careful, which has 4"),
        ({"globals": {"careful": -(1 << 31) - 1}}, "does not fit in careful"),
        ({"max_entries": {"slotz": 1}}, "there is no map slotz"),
        ({"inner_maps": {"slotz": [1, 4, 8, 1]}}, "there is no map slotz"),
    ],
)
def test_what_the_object_cannot_grant_is_named(
    ask: Callable[..., dict[str, Any]], objects: dict[str, Path], wish: dict[str, Any], said: str
) -> None:
    told = ask(file=str(objects["wishes"]), **wish)
    assert told["stage"] == "configuration"
    assert said in told["error"]


@needs_package
def test_a_value_with_and_without_a_sign_fits(
    ask: Callable[..., dict[str, Any]], objects: dict[str, Path]
) -> None:
    for value in ((1 << 32) - 1, -(1 << 31)):
        assert ask(file=str(objects["wishes"]), globals={"careful": value})["error"] == ""


@needs_package
def test_what_is_no_object_is_told(ask: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "text.o").write_text("no object")
    told = ask(file=str(tmp_path / "text.o"))
    assert told["stage"] == "open"
    assert told["error"]


@pytest.mark.parametrize(
    "error",
    [
        "field F3: program takes: load program: permission denied",  # 0.9.1
        "assign values: field F3: program takes: permission denied",  # 0.22.0
    ],
)
def test_the_message_of_a_refusal_names_the_program_and_no_field_of_ours(error: str) -> None:
    assert _words(error).startswith("program takes: ")
    assert _blamed(error, ["other", "takes"]) == "takes"
    assert _blamed("map seen: map create: operation not permitted", ["seen"]) == ""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Debian's release behind a module proxy, and a cache for what is built by it."""
    folder = tmp_path_factory.mktemp("proxied")
    version = go_proxy.packaged_release()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in go_proxy.made(folder, f"v{version}").items():
            patched.setenv(name, value)
        yield version, folder / "cache"


@needs_package
def test_a_release_that_is_named_comes_by_the_module_proxy(
    proxied: tuple[str, Path], tmp_path: Path
) -> None:
    version, cache = proxied
    found = cilium.take(f"cilium@{version}", tmp_path, cache, print)
    assert (found.name, found.origin) == (
        f"cilium/ebpf {version}",
        f"github.com/cilium/ebpf v{version}",
    )
    (tmp_path / "loader").write_bytes(found.data)
    (tmp_path / "loader").chmod(0o755)
    told = subprocess.run(
        [tmp_path / "loader"], input=b'{"file": "none.o"}\n', capture_output=True, check=True
    )
    assert json.loads(told.stdout)["stage"] == "open"


@needs_package
def test_a_release_of_go_mod_is_the_one_that_was_named_and_says_who_requires_it(
    proxied: tuple[str, Path], tmp_path: Path
) -> None:
    version, cache = proxied
    (tmp_path / "go.mod").write_text(f"module x\n\nrequire {cilium.MODULE} v{version}\n")
    found = cilium.take("cilium", tmp_path, cache, print)
    assert found.origin == f"{cilium.MODULE} v{version}, as {tmp_path}/go.mod requires"
    assert found.data == cilium.take(f"cilium@{version}", tmp_path, cache, print).data
    assert len(cilium.places(cache)) == 1


@needs_package
def test_a_release_that_the_proxy_lacks_is_named(proxied: tuple[str, Path], tmp_path: Path) -> None:
    _, cache = proxied
    with pytest.raises(UsageError, match=r"cilium/ebpf 0\.0\.1 does not build; name another"):
        cilium.take("cilium@0.0.1", tmp_path, cache, print)


def test_a_release_that_nobody_names_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cilium, "_GOCODE", tmp_path / "none")
    (tmp_path / "go.mod").write_text("module x\n\nrequire example.org/y v1.0.0\n")
    with pytest.raises(UsageError, match=r"which release\? .* name one, for example cilium@"):
        cilium.take("cilium", tmp_path, tmp_path / "cache", print)


@pytest.mark.parametrize(
    "text",
    [
        "require github.com/cilium/ebpf v0.999.0",
        "require (\n\texample.org/y v1.0.0\n\tgithub.com/cilium/ebpf v0.999.0 // indirect\n)",
    ],
)
def test_the_release_is_that_of_the_go_mod_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "go.mod").write_text(f"module x\n\ngo 1.19\n\n{text}\n")
    (tmp_path / "below").mkdir()
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    with pytest.raises(UsageError) as caught:
        cilium.take("cilium", tmp_path / "below", tmp_path / "cache", print)
    said = str(caught.value)
    assert "the loader with cilium/ebpf 0.999.0 does not build; name another release" in said
    assert "module lookup disabled by GOPROXY=off" in said
    assert cilium.places(tmp_path / "cache") == []


def test_a_replacement_cannot_be_followed(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text(
        "module x\nrequire github.com/cilium/ebpf v0.16.0\nreplace github.com/cilium/ebpf => ../e\n"
    )
    with pytest.raises(UsageError, match=r"replaces .* name a release, .* cilium@0\.16\.0"):
        cilium.take("cilium", tmp_path, tmp_path / "cache", print)
