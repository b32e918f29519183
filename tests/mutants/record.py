"""results.jsonl: one line a verdict, on disk before the next mutant is judged."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutants.operators import Mutant
from tests.mutants.verdicts import Judged, Killers, Verdict


def row(mutant: Mutant, judged: Judged) -> dict[str, Any]:
    """A mutant and its verdict, as in the file and in ``--json``."""
    return {**asdict(mutant), **asdict(judged), "verdict": judged.verdict.value}


class Record:
    """The file of a run.  ``ground`` is a digest of kernel, suites and unmutated objects."""

    def __init__(self, file: Path, ground: str) -> None:
        self._file = file
        self._ground = ground
        self._lines = self._read()

    def _read(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        # The last line of a run that was killed may be a part of one.
        lines = self._file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def known(self) -> dict[str, Judged]:
        """Earlier verdicts on the same ground, by signature of the mutant's objects.

        Not of guests that died: what killed them may not have been the mutant.
        """
        found: dict[str, Judged] = {}
        for line in self._lines:
            if line["ground"] != self._ground:
                continue
            if line.get("withdrawn") or line["verdict"] in (Verdict.CRASHED, Verdict.TIMED_OUT):
                found.pop(line["signature"], None)
            else:
                found[line["signature"]] = Judged(
                    Verdict(line["verdict"]), line["test"], line["message"], line["seconds"]
                )
        return found

    def teach(self, killers: Killers) -> None:
        """Whatever killed before, on whatever ground: it is only the order of tests."""
        for line in self._lines:
            if line.get("verdict") == Verdict.KILLED:
                killers.record_place(line["file"], line["function"], line["test"])

    def begin(self) -> None:
        """Forget earlier verdicts, but for which tests killed: those stay as lessons."""
        lessons = {
            line["id"]: {**line, "ground": ""}
            for line in self._lines
            if line.get("verdict") == Verdict.KILLED
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text("".join(f"{json.dumps(line)}\n" for line in lessons.values()))

    def add(self, mutant: Mutant, judged: Judged, signature: str) -> None:
        """A verdict."""
        self._write({**row(mutant, judged), "signature": signature})

    def withdraw(self, mutant: Mutant, signature: str) -> None:
        """It was none."""
        self._write({"id": mutant.id, "signature": signature, "withdrawn": True})

    def _write(self, line: dict[str, Any]) -> None:
        with self._file.open("a") as stream:
            stream.write(json.dumps({**line, "ground": self._ground}) + "\n")
