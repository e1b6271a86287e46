"""Lists of tags: completion by frequency, aliases, similar names, and mistakes in files."""

import random
import sys
import tracemalloc
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from model.card import load_card
from model.errors import TagListError
from model.prompting.known_tags import KnownTag, KnownTags, load_known_tags

PROMPTING = load_card("kirazuri-v1").prompting
LIST = """tag,type,count,aliases
1girl,0,900,"1girls,sole_female"
long_hair,0,800,"longhair,/lh"
long_sleeves,0,700,
looking_at_viewer,0,600,
lolita_hairband,0,2,
^_^,0,50,
wlop,1,40,wang_ling
ganyu_(genshin_impact),4,300,"cocogoat,ganyu"
genshin_impact,3,500,"genshin"
highres,5,990,hires
Long_Hair,0,1,
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tags.csv"
    path.write_text(LIST, encoding="utf-8")
    return path


@pytest.fixture
def known(path: Path) -> KnownTags:
    return load_known_tags(path, PROMPTING)


def names(found: list[KnownTag]) -> list[str]:
    return [tag.name for tag in found]


def test_tags_are_completed_by_frequency(known: KnownTags) -> None:
    assert names(known.complete("lo", 10)) == [
        "long hair", "long sleeves", "looking at viewer", "lolita hairband", "low quality",
    ]  # fmt: skip
    assert names(known.complete("LONG_", 1)) == ["long hair"]
    assert names(known.complete("^_", 9)) == ["^_^"]
    assert known.complete("zzz", 9) == []
    assert names(known.complete("", 3)) == ["highres", "1girl", "long hair"]


def test_aliases_are_found_and_each_tag_once(known: KnownTags) -> None:
    assert known.complete("sole", 9) == [KnownTag("sole female", "subject", 900, "1girl")]
    assert names(known.complete("1g", 9)) == ["1girl"]
    assert known.complete("gan", 9) == [KnownTag("ganyu (genshin impact)", "character", 300)]
    assert known.find("cocogoat") == KnownTag(
        "cocogoat", "character", 300, "ganyu (genshin impact)"
    )
    assert known.find("Genshin_Impact") == KnownTag("genshin impact", "series", 500)
    assert known.find("") is known.find("nothing") is None


def test_the_words_of_the_card_keep_their_groups(known: KnownTags) -> None:
    assert [tag.group for tag in known.complete("highr", 1)] == ["meta"]
    assert known.find("masterpiece") == KnownTag("masterpiece", "quality", 0)
    alone = load_known_tags(None, PROMPTING)
    assert names(alone.complete("very", 5)) == ["very aesthetic"]
    assert alone.complete("water", 5) == [KnownTag("watercolor (medium)", "general", None)]
    assert alone.has_counts is False


def test_similar_names_are_found(known: KnownTags) -> None:
    for name in ("long hiar", "longhairr", "lon hair", "long_haie", "llong hair"):
        found = known.find_near(name, 100)
        assert found, name
        assert (found.alias_of or found.name) == "long hair", name
    assert known.find_near("long hare", 100) is None
    assert known.find_near("lolita hairban", 100) is None, "too rare"


def test_mistakes_are_named_with_their_row(tmp_path: Path, path: Path) -> None:
    for text, message in (
        ("a,0,1\nb,0\n", "row 2: expected name,category,count,aliases"),
        ("a,0,1\nb,0,x\n", "row 2"),
        ("a,0," + "9" * 30, "row 1"),
        ('a,0,1\n"b' + "x" * 200_000, "field larger"),
    ):
        path.write_text(text)
        with pytest.raises(TagListError, match=message):
            load_known_tags(path, PROMPTING)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TagListError, match="utf-8"):
        load_known_tags(path, PROMPTING)
    with pytest.raises(TagListError, match="No such file"):
        load_known_tags(tmp_path / "none.csv", PROMPTING)


# -- size ----------------------------------------------------------------------------------------


def _steps(work: Any) -> int:
    """Number of calls, of Python and built-in functions."""
    count = 0

    def count_call(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_call)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnownTags, float]:
    """A list of 100 000 tags with aliases, and the megabytes that it takes."""
    path = tmp_path_factory.mktemp("tags") / "large.csv"
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(100_000):
            word = "".join(draw.choices("abcdefghijklmnopqrst", k=draw.randint(4, 20)))
            alias = "".join(draw.choices("abcdefghijklmnopqrst", k=12))
            file.write(f'tag_{word}_{number},0,{draw.randint(0, 10**6)},"tag_{alias},{alias}"\n')
    tracemalloc.start()
    try:
        known = load_known_tags(path, PROMPTING)
        return known, tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_a_large_list_takes_little_memory(large: tuple[KnownTags, float]) -> None:
    known, megabytes = large
    assert len(known) > 100_000
    assert megabytes < 60


def test_completion_of_a_large_list_takes_few_steps(large: tuple[KnownTags, float]) -> None:
    """Also if all tags start alike: 5 milliseconds are about 30 000 steps."""
    known, _ = large
    for prefix in ("", "t", "tag", "tag_a", "tag_abc", "a", "zz"):
        assert _steps(lambda prefix=prefix: known.complete(prefix, 100)) < 10_000, prefix
    best = known.complete("tag", 100)
    assert [tag.posts for tag in best] == sorted((tag.posts or 0 for tag in best), reverse=True)
    assert len({tag.alias_of or tag.name for tag in best}) == 100
