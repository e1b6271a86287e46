"""The spellings of terms have the patterns of these; those from a file are those computed."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ahocorasick_rs import AhoCorasick

from model.errors import PolicyError
from model.policy import matcher, spellings
from model.policy.patterns import Pattern, parts_of
from model.policy.policy import Policy
from model.policy.rules import load_core, load_rules, merge_rules
from model.policy.spellings import CHAINED, FILLER, Spellings

WORDS = [f"{''.join(letters)}en" for letters in product("bcdfg", "aeiou", "kmnpr", "aeiou")]
WORDS += [f"red {word}" for word in WORDS]
"""More than a thousand terms, so that their spellings are kept."""

TERMS = [
    *("old ... tree", "old ... red ... tree", "=fig", "quince=", "plum*", "*berry", "12 pears"),
    *("林檎", "딸기를 먹다", "7歳", "кошка", "aaapple", "m16", "boot", "boots", "b00t", *WORDS),
]
FILLERS = ["cake", "baken", "old"]
OWN_RULES = """
[words]
colour = ["red", "검은"]

[groups.minor]
terms = ["zorble 12", "작은 ... 모자", "{colour} hat"]

[groups.fruit]
terms = ["12 pears", "배*", "app ... pie"]
except = ["12 pears of jam"]

[[rules]]
name = "armed"
when = [{ prompt = ["sword ... drawn", "m16"] }, { prompt = ["school"] }]
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep files in an empty folder during the test."""
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each automaton searches for, by number."""
    lists: list[list[str]] = []

    def automaton(letters: Iterable[str]) -> AhoCorasick:
        lists.append(list(letters))
        return AhoCorasick(lists[-1])

    monkeypatch.setattr(spellings, "AhoCorasick", automaton)
    return lists


def own_groups(terms: list[str]) -> list[frozenset[int]]:
    return [frozenset({number % 7, number % 3}) for number in range(len(terms))]


def test_spellings_have_the_patterns_and_groups_of_their_terms(searched: list[list[str]]) -> None:
    groups = own_groups(TERMS)
    found = Spellings(TERMS, groups, FILLERS)
    ways: dict[str, set[tuple[Pattern, int]]] = defaultdict(set)
    in_groups: dict[str, set[int]] = defaultdict(set)
    for term, text in [*enumerate(TERMS), *((FILLER, filler) for filler in FILLERS)]:
        parts = parts_of(text)
        for part in parts:
            for letters, pattern in part.spellings():
                ways[letters].add((pattern, CHAINED if len(parts) > 1 else term))
                in_groups[letters] |= groups[term] if term != FILLER else set()
    (numbered,) = searched
    assert sorted(ways) == numbered
    for number, letters in enumerate(numbered):
        patterns = [pattern for pattern, _ in ways[letters]]
        got = found.ways(number)
        assert {(found.patterns[kind], found.term_of[part]) for kind, part in got} == ways[letters]
        assert len(set(got)) == len(got)
        assert found.before[number] == any(one.is_open_before for one in patterns)
        assert found.after[number] == any(one.is_open_after for one in patterns)
        assert found.glued[number] == any(one.is_glued for one in patterns)
        assert found.least[number] == min(one.letters for one in patterns)
        for group in range(7):
            assert found.needed({group})[number] == (group in in_groups[letters])
    assert sorted(found.chains) == [0, 1]
    assert found.chains[0] == [found.chains[1][0], found.chains[1][2]], "equal parts are shared"
    assert sorted(found.chained[found.chains[0][0]]) == [0, 1]


def assert_read_as_computed(
    make: Callable[[], Spellings], searched: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = make()
    with monkeypatch.context() as changed:
        changed.delattr(spellings, "_Found")
        read = make()
    assert searched[-1] == searched[-2] != []
    one, other = vars(computed), vars(read)
    assert {*one} == {*other} >= {"term_of", "chains", "before", "patterns", "_more", "_groups"}
    for name in {*one} - {"_automaton", "_needed"}:
        assert one[name] == other[name], name
        assert type(one[name]) is type(other[name]), name
    assert [*map(repr, computed.patterns)] == [*map(repr, read.patterns)], "1 is not True"
    for groups in ({0}, {1, 2}, {3, 7, 11}):
        assert computed.needed(groups) == read.needed(groups)


def test_terms_are_read_as_they_were_computed(
    searched: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = own_groups(TERMS)
    assert_read_as_computed(lambda: Spellings(TERMS, groups, FILLERS), searched, monkeypatch)


@pytest.mark.parametrize("own_rules", [None, OWN_RULES])
def test_policies_are_read_as_they_were_computed(
    own_rules: str | None,
    searched: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = None
    if own_rules:
        path = tmp_path / "rules.toml"
        path.write_text(own_rules, encoding="utf-8")
    made: list[Spellings] = []

    def recorded(terms: list[str], groups: list[frozenset[int]], fillers: list[str]) -> Spellings:
        made.append(Spellings(terms, groups, fillers))
        return made[-1]

    def make() -> Spellings:
        Policy(merge_rules(load_core(), load_rules(path)))
        return made[-1]

    monkeypatch.setattr(matcher, "Spellings", recorded)
    assert_read_as_computed(make, searched, monkeypatch)
    assert len(made) == 2


def test_other_terms_groups_and_fillers_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = own_groups(TERMS)
    of_another = [*groups[:-1], groups[-2]]
    renumbered = [frozenset(number + 1 for number in own) for own in groups]
    computed: list[object] = []
    compute = spellings._Found

    def counted(*arguments: Any) -> object:
        computed.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(spellings, "_Found", counted)
    inputs = (
        (TERMS, groups, FILLERS),
        ([*TERMS[:-1], "other"], groups, FILLERS),
        (TERMS, of_another, FILLERS),
        (TERMS, renumbered, FILLERS),
        (TERMS, groups, FILLERS[1:]),
    )
    for times, given in enumerate(inputs, start=1):
        Spellings(*given)
        Spellings(*given)
        assert len(computed) == times


def test_spellings_of_few_terms_are_not_kept(tmp_path: Path) -> None:
    Spellings(TERMS[:999], own_groups(TERMS), FILLERS)
    assert list(tmp_path.rglob("*.kept")) == []
    Spellings(TERMS[:1000], own_groups(TERMS), FILLERS)
    assert len(list(tmp_path.rglob("spellings-*.kept"))) == 1


def test_an_impossible_term_is_refused_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(PolicyError, match="two letters"):
            Spellings([*TERMS, "!"], own_groups([*TERMS, "!"]), FILLERS)
    assert list(tmp_path.rglob("*.kept")) == []
