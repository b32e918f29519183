"""From bpf/ to the cases that a VM has to judge."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.build import Built, Kept, Unit, Workshop, source_of
from tests.mutants.operators import OPERATORS, Mutant, mutants
from tests.mutants.source import read_vocabulary
from tests.mutants.verdicts import Judged, Verdict
from tests.mutants.vm import Case
from vmtest.errors import UsageError
from vmtest.model.kernels import KernelImage
from vmtest.model.project import Config
from vmtest.objects.builds import choose


def make(programs: Path) -> list[Mutant]:
    """Every mutant of the programs and headers of ``programs``; mocks are no programs of ours."""
    files = [*sorted(programs.glob("*.bpf.c")), *sorted((programs / "include").rglob("*.h"))]
    if not files:
        raise UsageError(f"there is no *.bpf.c in {programs}")
    texts = {str(file.relative_to(programs)): file.read_bytes() for file in files}
    vocabulary = read_vocabulary(texts.values())
    return [mutant for name, text in texts.items() for mutant in mutants(name, text, vocabulary)]


def select(made: Sequence[Mutant], only: Sequence[str]) -> list[Mutant]:
    """The mutants that ``only`` means: of one of its files, by one of its operators, these ids."""
    operators = {each for each in only if each in OPERATORS}
    ids = {mutant.id for mutant in made} & set(only)
    files = {each for each in only if any(_in(mutant, each) for mutant in made)}
    strange = set(only) - operators - ids - files
    if strange:
        raise UsageError(
            f"--only {strange.pop()}: is no file of bpf/, no operator ({', '.join(OPERATORS)}) "
            "and no mutant; see --list"
        )
    return [
        mutant
        for mutant in made
        if (not operators or mutant.operator in operators)
        and (not ids or mutant.id in ids)
        and (not files or any(_in(mutant, file) for file in files))
    ]


def _in(mutant: Mutant, file: str) -> bool:
    return mutant.file == file or mutant.file.endswith(f"/{file}")


def survey(
    settings: Config, image: KernelImage, programs: Path, work: Path
) -> tuple[list[Unit], dict[str, Path]]:
    """The objects that the suites use on the kernel of ``image``, and their unmutated files."""
    needed = {name for suite in settings.suites for name in suite.objects}
    workshop = Workshop(programs, work / "survey")
    units: list[Unit] = []
    originals: dict[str, Path] = {}
    folder = work / "originals"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in choose(settings.objects, image.version).items():
        if name in needed:
            unit, data = workshop.survey(name, source_of(name, path, programs))
            units.append(unit)
            originals[name] = folder / f"{name}.o"
            originals[name].write_bytes(data)
    return units, originals


def build_all(
    programs: Path, chosen: Sequence[Mutant], units: Sequence[Unit], work: Path, whole: bool
) -> list[Built]:
    """The objects of each mutant of ``chosen``, in its order.

    ``whole``: ``chosen`` is all of them, so that what else was kept is of older texts.
    """
    workers = len(os.sched_getaffinity(0))
    kept = Kept(work.parent / "compiled")
    shops: SimpleQueue[Workshop] = SimpleQueue()
    for number in range(workers):
        shops.put(Workshop(programs, work / f"build{number}", kept))

    def build(mutant: Mutant) -> Built:
        shop = shops.get()
        try:
            return shop.build(mutant, units)
        finally:
            shops.put(shop)

    with ThreadPoolExecutor(workers) as pool:
        made = list(pool.map(build, chosen))
    if whole:
        kept.prune()
    return made


def sort_out(
    chosen: Iterable[Mutant], built: Iterable[Built], earlier: Mapping[str, Judged]
) -> tuple[dict[str, Judged], list[Case]]:
    """What is decided without a VM, and the cases that are not."""
    judged: dict[str, Judged] = {}
    cases: list[Case] = []
    twins: dict[str, str] = {}
    for mutant, objects in zip(chosen, built, strict=True):
        if objects.error:
            judged[mutant.id] = Judged(Verdict.NOT_COMPILED, message=objects.error)
        elif not objects.objects:
            judged[mutant.id] = Judged(Verdict.SAME_CODE)
        elif objects.signature in twins:
            judged[mutant.id] = Judged(Verdict.DUPLICATE, same_as=twins[objects.signature])
        else:
            twins[objects.signature] = mutant.id
            if objects.signature in earlier:
                judged[mutant.id] = earlier[objects.signature]
            else:
                cases.append(Case(mutant, objects))
    return judged, cases
