"""Measures the policy on lists of Danbooru tags: what it refuses, and how long it takes.

A list is a CSV of name, category, number of posts and aliases. General tags have the category 0;
artists, series and characters (1, 3, 4) are names. Tags that somebody has read and judged to be
harmless are in `tests/data/harmless_tags.csv`, each with the reason.
"""

import argparse
import csv
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from model.errors import PolicyBlocked
from model.policy.policy import Policy, load_policy
from model.policy.rules import load_core
from model.rating import RATINGS, Rating
from model.tags import escape_tag
from tests.support.paths import DATA

HARMLESS = DATA / "harmless_tags.csv"
GENERAL, NAMES = {"0"}, {"1", "3", "4"}
_NAMING = re.compile(r".*_\((?:cosplay|emblem|idolmaster|meme|spacecraft|style|symbol)\)")
"""General tags that name a character, a work or its outfits."""

WORST = {
    "ordinary tags": "1girl, solo, long hair, red dress, city at night, ",
    "split words": "s\u0435 x-y_ ",
    "emoji": "\N{BABY}",
    "exceptions": "baby doll ",
    "capitals of other scripts": "\u0397\u0422\u0410 ",
    "digits and signs": "n00d3 l0l1 @$$ n!pp|3 ",
    "glued words": "asscum ",
    "glued without an end": "sexe",
    "Korean and digits": "\uc0b41",
}
"""Texts to repeat for measuring the time."""

MIXTURES = 40
"""Number of random mixtures of these texts; the worst of them is told."""

SLOWEST = [
    ["█", "little ", "!", "\u0399"],
    ["\u0399", "1a", "|", "a*s ", "、"],
    ["$", "|", "×", "1", "-", "little ", "in", "x-", "="],
    ["young ", "m\u0435\u0397\u043e di 101", "  ", "[", "pen is ", "a s s ", "$", "al gore "],
    ["xxx spri\u0397gs \u043eld1", "pen is ", "裸", "xviii years old", "?", "liii yrs- old "],
    ["×", "xxii years young_", "cum", "liii yo ", "女", "fifty fo1ur yrs old\u0397", "裸", "1"],
    [*4 * ["ß"], *4 * ["pen is "], "1a", "$", "㍿", "Β", "\n", "Ⅻ", "~", "|"],
    [*4 * ["ß"], *"０█👧½-$岁Β\nⅹ|", "pen is ", "살1", "6 yers old, "],
    ["!", ";", "girl ", "t1t", "pen is ", "_", "p*n*s ", "xviii years old", "Б", "?", "pen is "],
    ["年龄13", "\n", "pen is ", "s@x ", "Ⅻ", "살1", "👧"],
    ["7yo살고3l!裸𝓃‹ㅔ]Ⅻ1<"],
    ["pen is yo살고3살 lᑎ裸c$mㅔ]Ⅻ1<"],
    ["👧", "t1t", "|", "Ⓐ", "breasts growth ", "head tilt ", "br ass", "n u d e ", "@$$ n!pp|3 "],
]
"""The pieces of the slowest mixtures that searches found: of 260 pieces and of
all terms and exceptions, also split, masked or with look-alikes, improved step by step."""


class ListedTag(NamedTuple):
    """A row of a list."""

    name: str
    category: str
    posts: int


class Share(NamedTuple):
    """How many tags are refused, by tag and by number of posts."""

    refused: int
    tags: int
    refused_posts: int
    posts: int

    @property
    def by_tag(self) -> float:
        """Between 0 and 1."""
        return self.refused / max(1, self.tags)

    @property
    def by_posts(self) -> float:
        """Between 0 and 1; a tag counts as often as it has posts."""
        return self.refused_posts / max(1, self.posts)


def read_list(path: Path) -> list[ListedTag]:
    """The rows of a list; a first row without numbers is a heading.

    Raises:
        ValueError: a row has fewer than three columns, or its count is not a number.
    """
    tags = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if row and (number > 1 or (len(row) > 2 and row[2].isdigit())):
                if len(row) < 3 or not row[2].isdigit():
                    raise ValueError(f"{path}, row {number}: expected name,category,count")
                tags.append(ListedTag(row[0], row[1], int(row[2])))
    return tags


def is_refused(policy: Policy, tag: str, ceiling: Rating) -> bool:
    """Whether a tag alone, written as in a prompt, is refused."""
    try:
        policy.check(escape_tag(tag), ceiling=ceiling)
    except PolicyBlocked:
        return True
    return False


def share(tags: Iterable[ListedTag], refused: Mapping[str, bool]) -> Share:
    """Add up the refused tags of some tags."""
    found, listed = [], list(tags)
    found = [tag for tag in listed if refused[tag.name]]
    return Share(len(found), len(listed), sum(t.posts for t in found), sum(t.posts for t in listed))


def figures(
    tags: list[ListedTag], refused: Mapping[str, bool], harmless: Mapping[str, str]
) -> Iterator[tuple[str, Share]]:
    """Every line of the table: what is counted, and its shares."""
    general = [tag for tag in tags if tag.category in GENERAL]
    judged = [tag for tag in general if tag.name in harmless]
    naming = [tag for tag in general if _NAMING.fullmatch(tag.name)]
    yield "general tags", share(general, refused)
    kept = [tag for tag in general if tag.name not in harmless]
    yield f"  without {len(judged)} judged harmless", share(kept, refused)
    kept = [tag for tag in kept if tag not in naming]
    yield f"  and without {len(naming)} that name works", share(kept, refused)
    passed = [tag for tag in general if not refused[tag.name]]
    alarms = [tag for tag in judged if refused[tag.name]]
    yield "false alarms on harmless general tags", share([*passed, *alarms], refused)
    yield "false alarms on names", share((t for t in tags if t.category in NAMES), refused)


def measure(policy: Policy, piece: str, length: int, ceiling: Rating, tries: int) -> float:
    """The least CPU time of `tries` checks of a repeated text, in milliseconds."""
    text, least = (piece * (length // len(piece) + 1))[:length], float("inf")
    for _ in range(tries):
        began = time.process_time()
        with suppress(PolicyBlocked):
            policy.check(text, ceiling=ceiling)
        least = min(least, time.process_time() - began)
    return 1000 * least


def mixtures() -> Iterator[str]:
    """Random mixtures of texts that are slow alone, always the same ones."""
    dice = random.Random(0)
    words = [
        *WORST.values(),
        "x-",
        "_",
        "*",
        "12 ",
        "years ",
        "l0l1 ",
        "十歳",
        "an us ",
        "nude",
        "on ",
    ]
    for _ in range(MIXTURES):
        some = dice.sample(words, dice.choice([3, 5, 8, 12]))
        yield "".join(dice.choices(some, k=400))


def slowest() -> Iterator[str]:
    """Random texts of the pieces of each of the slowest mixtures, and one that repeats nothing."""
    dice = random.Random(1)
    for pieces in SLOWEST:
        yield "".join(dice.choices(pieces, k=10_000))[:10_000]
    groups = load_core().groups.values()
    words = [term for group in groups for term in group.terms if term.isalpha()]
    dice.shuffle(words)
    yield "".join(f"{word[:2]}, {word[2:]}, " for word in words)[:10_000]


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.policy_figures", description=__doc__)
    parser.add_argument("lists", nargs="+", type=Path, metavar="CSV")
    parser.add_argument("--ceiling", choices=RATINGS, default="safe", help="the highest rating")
    parser.add_argument("--harmless", type=Path, default=HARMLESS, help="tag and reason, as CSV")
    parser.add_argument(
        "--show", choices=["refused", "passed"], help="also print these general tags and names"
    )
    parser.add_argument("--tries", type=int, default=7, help="checks of a text; the best counts")
    given = parser.parse_args(arguments)
    policy = load_policy()
    with given.harmless.open(encoding="utf-8", newline="") as file:
        harmless = {row["tag"]: row["reason"] for row in csv.DictReader(file)}
    print(f"{'':28}{'':42}{'tags':>7}{'refused':>9}{'share':>9}{'by posts':>10}")
    for path in given.lists:
        tags = read_list(path)
        refused = {tag.name: is_refused(policy, tag.name, given.ceiling) for tag in tags}
        for title, found in figures(tags, refused, harmless):
            shares = f"{found.by_tag:>9.2%}{found.by_posts:>10.2%}"
            print(f"{path.name:28}{title:42}{found.tags:>7}{found.refused:>9}{shares}")
        if given.show:
            print(*(t.name for t in tags if refused[t.name] is (given.show == "refused")))
    print(f"\nmilliseconds of CPU time{'':32}{'1000':>8}{'10 000':>8} characters")
    for name, piece in WORST.items():
        short, long = (
            measure(policy, piece, size, given.ceiling, given.tries) for size in (1000, 10_000)
        )
        print(f"{name:56}{short:>8.2f}{long:>8.2f}")
    mixed = [
        [measure(policy, piece, n, given.ceiling, given.tries) for piece in mixtures()]
        for n in (1000, 10_000)
    ]
    print(f"{f'the worst of {MIXTURES} mixtures':56}{max(mixed[0]):>8.2f}{max(mixed[1]):>8.2f}")
    slow = [
        [measure(policy, text, n, given.ceiling, given.tries) for text in slowest()]
        for n in (1000, 10_000)
    ]
    print(f"{'the worst that a search found':56}{max(slow[0]):>8.2f}{max(slow[1]):>8.2f}")
    return 0
