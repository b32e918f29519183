from typing import Any

from datapath import summary, table


def measured(ns: list[int], voluntary: list[int], involuntary: list[int]) -> dict[str, Any]:
    return {
        "peer": "127.0.0.1:1",
        "voluntary": voluntary,
        "involuntary": involuntary,
        "system_switches": 30,
        "segments": 20,
        "ns": ns,
    }


def lines(way: str, *rounds: dict[str, Any]) -> list[dict[str, Any]]:
    counts = {"system calls": {"client": 2.0, "server": 3.0}, "segments": {"sent": 2.0}, "runs": {}}
    about = {"way": way, "mode": "requests"}
    return [{**about, "counts": counts}, *({**about, "client": one} for one in rounds)]


STEADY = [1000] * 10
THREE_ROUNDS = (
    measured(STEADY, [10, 8], [0, 2]),
    measured([3000] * 10, [90, 90], [90, 90]),
    measured([2000] * 10, [10, 10], [0, 10]),
)


def test_a_figure_is_the_median_of_the_rounds() -> None:
    of = summary(lines("direct", *THREE_ROUNDS))["requests"]["direct"]
    assert (of["p50"], of["p99"]) == (2.0, 2.0)


def test_switches_are_those_of_all_processes_divided_by_the_operations() -> None:
    of = summary(lines("direct", *THREE_ROUNDS))["requests"]["direct"]
    assert (of["switches"], of["involuntary"], of["system switches"]) == (3.0, 1.0, 3.0)


def test_the_table_compares_with_the_first_way() -> None:
    ways = summary(
        lines("direct", measured(STEADY, [10], [10]))
        + lines("proxy", measured([2500] * 10, [40], [10]))
    )["requests"]
    assert table(ways).splitlines()[-1] == (
        "| proxy | 5.00 | 1.00 | 3.00 | 5.00 | 2.00 | 2 | 2.50 | 2 | 2.50 |"
    )
