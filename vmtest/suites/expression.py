"""What ``-k`` and ``-m`` choose: refused before anything boots, and told when it was nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from vmtest.errors import UsageError

_OPTIONS = ("-k", "-m")
_LEFT_OUT = re.compile(r"\b(\d+) deselected\b")


def check_expressions(options: Sequence[str]) -> None:
    """Raise UsageError, with pytest's own words, for an expression that pytest refuses."""
    try:
        from _pytest.mark.expression import Expression
    except ImportError:
        return  # another version may have it elsewhere; the guest's pytest will say
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
    for place, word in enumerate(options):
        if word in _OPTIONS and place + 1 < len(options):
            yield word, options[place + 1]
        elif word[:2] in _OPTIONS and len(word) > 2:
            yield word[:2], word[2:].removeprefix("=")
