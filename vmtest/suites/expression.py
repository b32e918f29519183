"""What ``-k`` and ``-m`` choose: refused before anything boots, and told when it was nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from packaging.version import Version

from vmtest.errors import UsageError

_OPTIONS = ("-k", "-m")
_KNOWS_ALL = Version("8.3")
"""The pytest that knows ``-m "device(serial='x')"``."""
# pytest's own whose value may be the next word: that one is no -k or -m.
_VALUED = re.compile(
    "-[coprW]|--(assert|basetemp|capture|code-highlight|color|confcutdir|config-file|deselect|"
    "doctest-(glob|report)|durations(-min)?|ignore(-glob)?|import-mode|junit-?(prefix|xml)|lfnf|"
    "log-(cli-|file-)?(date-format|format|level)|log-(auto-indent|disable|file|file-mode)|"
    "maxfail|override-ini|pastebin|pdbcls|pythonwarnings|report-chars|rootdir|show-capture|tb|"
    "verbosity)"
)
_LEFT_OUT = re.compile(r"\b(\d+) deselected\b")


def check_expressions(options: Sequence[str]) -> None:
    """Raise UsageError, with pytest's own words, for an expression that pytest refuses."""
    try:
        import pytest
        from _pytest.mark.expression import Expression
    except ImportError:
        return  # another version may have it elsewhere; the guest's pytest will say
    if Version(pytest.__version__) < _KNOWS_ALL:
        return  # it would refuse what the guest's may take
    for option, text in _given(options):
        if text.startswith("-") or text.endswith(":"):
            continue  # older versions of pytest take these
        try:
            Expression.compile(text)
        except Exception as error:  # its class depends on pytest's version
            where = (
                f"at column {error.offset}: {error.msg}"
                if isinstance(error, SyntaxError)
                else error
            )
            words = f"Wrong expression passed to '{option}': {text}: {where}"
            raise UsageError(f"{words}; write for example {option} 'ipv4 and not slow'") from error


def none_chosen(options: Sequence[str], last_line: str) -> str:
    """``-k nomatch matches none of 7 tests``; "" where pytest's ``last_line`` does not say that."""
    given = " ".join(f"{option} {shlex.quote(text)}" for option, text in _given(options))
    found = _LEFT_OUT.search(last_line)
    if not given or found is None:
        return ""
    return f"{given} matches none of {found[1]} test{'' if found[1] == '1' else 's'}"


def _given(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = iter(options)
    for word in words:
        if word in _OPTIONS and (text := next(words, None)) is not None:
            yield word, text
        elif _VALUED.fullmatch(word):
            next(words, None)
        elif word[:2] in _OPTIONS and len(word) > 2:
            yield word[:2], word[2:].removeprefix("=")
