"""How text of a guest gets into the page: as text, whatever it is; and what the page may do."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from vmtest.model.text import printable

_IN_SCRIPT = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&'\u2028\u2029"}


def shown(value: Any) -> Any:
    """``value`` as the template writes it: no control and no bidirectional character is left."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def environment() -> Environment:
    """Where the template is read: everything is escaped, and a name that is not there raises."""
    return Environment(
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def own(name: str) -> str:
    """A file that lies beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def data(value: Any) -> Markup:
    """``value`` as JSON for a script element: nothing in it can end the element."""
    text = json.dumps(_shown(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(_IN_SCRIPT))


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int):  # most are, and the next questions take longer
        return value
    if isinstance(value, Mapping):
        return {printable(str(key)): _shown(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(part) for part in value]
    return value


def policy(style: str, script: str) -> str:
    """The page's Content-Security-Policy: this style, this script, and nothing from anywhere."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
