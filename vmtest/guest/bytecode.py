# SPDX-License-Identifier: MIT
"""Code of the suites' test modules, as an earlier guest compiled it or this one does.

Parsing, rewriting and compiling them takes an emulated guest seconds. What comes of it depends on
nothing but the module's text, its place, Python and pytest, as long as nobody else has a hand in
it: so all is compiled before any code of the project's runs, and the host is told before that too.
"""

import ast
import base64
import builtins
import hashlib
import json
import marshal
import sys
import time
import warnings
from pathlib import Path
from types import CodeType
from typing import Any

from _pytest.assertion import rewrite

from vmtest.guest.payload import BYTECODE, code_key

MOST = 8 << 20
"""Bytes of code that are told to the host."""
LONGEST = 10.0
"""Seconds to compile, while nothing is heard of this process: pytest and later guests do the rest.

Not every module may be one that pytest comes to.
"""

CLEAN = False
"""Whether this process was started before the project came into the guest (vm/standby.py)."""

_REWRITE: Any = rewrite


class Bytecode:
    """Code for a pytest in the folder `payload`: `laid` by the host, by key, and to be compiled.

    The modules at the places `wanted` have none yet.
    """

    def __init__(self, payload: Path, laid: dict[str, bytes], wanted: list[str]) -> None:
        self._suites = f"{payload}/suites/"
        self._original: Any = getattr(_REWRITE, "_rewrite_test", None)
        self._rewriter = _rewriter()
        self._laid = laid
        self._wanted = wanted
        self._codes: dict[str, CodeType] = {}

    @classmethod
    def of(cls, payload: Path) -> "Bytecode":
        """What the host laid in `payload`; nothing where it keeps no code."""
        if not (payload / BYTECODE).is_file():
            return cls(payload, {}, [])
        with (payload / BYTECODE).open("rb") as stream:
            told = json.loads(stream.readline())
            laid = {key: stream.read(size) for key, size in told["sizes"].items()}
        return cls(payload, laid, told["wanted"])

    def compile(self) -> str:
        """Compile what lacks code; returns that for the host, "" where there is nothing to tell.

        It is base64 of a line of JSON, whose ``sizes`` has that of each code by its key, and then
        the codes.
        A module whose compilation warns is left to pytest, which knows what becomes of a warning.
        """
        if not CLEAN or self._original is None:  # another pytest
            return ""
        made: dict[str, bytes] = {}
        room = MOST
        deadline = time.monotonic() + LONGEST
        for place in self._wanted:
            if time.monotonic() > deadline:
                break
            try:
                with warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always")
                    key = _key(Path(place))
                    code = self._original(Path(place), None)[1]
            except Exception:  # whatever is wrong with it, pytest comes to it again, and tells
                continue
            data = marshal.dumps(code)
            if not warned and len(data) <= room:
                self._codes[key], made[key] = code, data
                room -= len(data)
        # The encoding that a module names may have been one of the project's.
        if not made or any(map(self._of_project, [*sys.modules.values()])):
            return ""
        head = json.dumps({"sizes": {key: len(data) for key, data in made.items()}})
        return base64.b64encode(b"\n".join([head.encode(), b"".join(made.values())])).decode()

    def use(self) -> None:
        """Have pytest take the code from here, of modules that are as they were compiled."""
        if self._original is not None and (self._laid or self._codes):
            _REWRITE._rewrite_test = self._rewritten

    def _of_project(self, module: object) -> bool:
        return str(getattr(module, "__file__", "")).startswith(self._suites)

    def _rewritten(self, module: Path, config: Any) -> Any:
        # What pytest would write to a file as well needs more than the code.  The code is another
        # with the hook, and where the project has changed what rewrites.
        alike = sys.dont_write_bytecode and _rewriter() == self._rewriter
        if alike and not config.getini("enable_assertion_pass_hook"):
            code = self._code(module)
            if code is not None:
                return None, code
        return self._original(module, config)

    def _code(self, module: Path) -> Any:
        key = _key(module)
        code, laid = self._codes.pop(key, None), self._laid.pop(key, b"")  # a guest's memory
        if code is None and laid:
            try:
                code = marshal.loads(laid)
            except (EOFError, ValueError, TypeError):
                return None
        return code


def _rewriter() -> list[object]:
    """What decides how a module is rewritten."""
    own = {"_rewrite_test", "__warningregistry__"}
    pytests = {name: value for name, value in vars(_REWRITE).items() if name not in own}
    classes = [dict(vars(kind)) for kind in (_REWRITE.AssertionRewriter, ast.NodeVisitor)]
    return [pytests, classes, ast.parse, builtins.compile]


def _key(module: Path) -> str:
    return code_key(str(module), hashlib.sha256(module.read_bytes()).hexdigest())
