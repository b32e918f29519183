"""survivors.toml: the mutants that are known to survive, each with its reason."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from tests.mutants.operators import Mutant
from tests.mutants.verdicts import Survivor
from vmtest.errors import UsageError

FILE = Path(__file__).with_name("survivors.toml")
_KEYS = {"id", "mutant", "equivalent", "owed"}


def read(file: Path = FILE) -> tuple[Survivor, ...]:
    """The entries of ``file``; raises UsageError for one without exactly one reason."""
    try:
        parsed = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file.name}: {error}") from error
    found: dict[str, Survivor] = {}
    for entry in parsed.get("survivor", []):
        name = entry.get("id", "without an id")
        strange = entry.keys() - _KEYS
        if strange or not {"id", "mutant"} <= entry.keys():
            raise UsageError(
                f"{file.name}: survivor {name}: write id, mutant and one of equivalent and owed"
                + (f", not {', '.join(sorted(strange))}" if strange else "")
            )
        if bool(entry.get("equivalent")) == bool(entry.get("owed")):
            raise UsageError(
                f"{file.name}: survivor {name}: say either why it is equivalent or what is owed"
            )
        if name in found:
            raise UsageError(f"{file.name}: survivor {name} is listed twice")
        found[name] = Survivor(**entry)
    return tuple(found.values())


def entry(mutant: Mutant) -> str:
    """What to add to survivors.toml for ``mutant``; the reason is to be filled in."""
    text = str(mutant).removeprefix(f"{mutant.id} ")
    # A JSON string without control characters is a TOML string.
    return f'[[survivor]]\nid = "{mutant.id}"\nmutant = {json.dumps(text)}\nowed = ""\n'
