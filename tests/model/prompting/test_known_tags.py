"""Lists of tags: completion by frequency, aliases, similar names, and mistakes in files."""

import gzip
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
from model.prompting.tag_list import read_tag_list

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
@_@,0,45,
yoneyama_mai,1,30,
smile,0,20,
smiley_face,0,10,
café,0,9,
solo,0,880,
6+girls,0,8,
solo_focus,0,7,
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
    assert names(known.complete("", 3)) == ["highres", "1girl", "solo"]


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
    assert known.find("masterpiece") == KnownTag("masterpiece", "quality", None)
    alone = load_known_tags(None, PROMPTING)
    assert names(alone.complete("very", 5)) == ["very aesthetic"]
    assert alone.complete("water", 5) == [KnownTag("watercolor (medium)", "general", None)]
    assert alone.has_counts is False


def test_words_of_the_card_are_completed_after_frequent_tags(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("".join(f"mask_{number},0,{999 - number},\n" for number in range(900)))
    found = names(load_known_tags(path, PROMPTING).complete("", 999))
    place = found.index("masterpiece")
    assert (found[place - 1], found[place + 1]) == ("mask 299", "best quality")
    assert (found[0], found[-1]) == ("mask 0", "mask 899")
    assert len(found) == len(set(found)) > 900


def test_similar_names_are_found(known: KnownTags) -> None:
    for name in ("long hiar", "longhairr", "lonng hair", "long_haie", "long hairs"):
        found = known.find_near(name, 100)
        assert found, name
        assert (found.alias_of or found.name) == "long hair", name
    assert known.find_near("masterpeice", 100) == KnownTag("masterpiece", "quality", None)
    for name in ("long hare", "lolita hairban", "yoneyama mia"):
        assert known.find_near(name, 100) is None, f"{name}: another word, too rare, or an artist"


def test_a_blank_at_the_end_of_a_prefix_ends_a_word(known: KnownTags) -> None:
    for prefix in ("long_", "Long ", "  long  "):
        assert names(known.complete(prefix, 9)) == ["long hair", "long sleeves"], prefix
    assert names(known.complete("long", 9))[0] == "long hair"
    assert names(known.complete("smile ", 9)) == ["smile"], "a whole tag is still told"


def test_a_prefix_may_be_written_as_in_a_prompt(known: KnownTags) -> None:
    for prefix in ("ganyu (g", "ganyu_(g", r"ganyu \(g", r"Ganyu_\(genshin impact\)"):
        assert names(known.complete(prefix, 9)) == ["ganyu (genshin impact)"], prefix
    for prefix in ("cafe\u0301", "café", "ＣＡＦÉ"):
        assert names(known.complete(prefix, 9)) == ["café"], prefix


def test_the_mark_of_an_artist_finds_artists_and_emoticons(known: KnownTags) -> None:
    assert names(known.complete("@w", 9)) == ["wlop"]
    assert known.complete("@l", 9) == []
    assert names(known.complete("@", 9)) == ["@_@", "wlop", "yoneyama mai"]
    for prefix in ("@_", "@_@"):
        assert names(known.complete(prefix, 9)) == ["@_@"]
    assert known.find("@wang ling") == KnownTag("wang ling", "artist", 40, "wlop")
    assert known.find("@long hair") is None
    assert names(known.complete("_", 9)) == []


def test_people_are_subjects(known: KnownTags) -> None:
    for name in ("solo", "6+girls", "solo focus"):
        found = known.find(name)
        assert found, name
        assert found.group == "subject", name


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "posts"),
    [
        ("smile,0", None), ("smile,0,,", None), ("smile,5,Quality tag,,", None),
        ("smile,0,-3,", None), ("smile, 0, 800, grin", 800), ('smile,0,"4,114,588",', 4_114_588),
        ("smile,0,800.0", 800), ("\n\nname,category\nsmile,0", None),
        ("\ufeffsmile,-1,5,\r\n   \r\n", 5),
    ],
)  # fmt: skip
def test_counts_and_aliases_may_be_left_out(tmp_path: Path, text: str, posts: int | None) -> None:
    path = tmp_path / "tags.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = load_known_tags(path, PROMPTING).find("smile")
    assert found, text
    assert found.posts == posts


def test_escapes_of_a_prompt_are_removed_but_not_arms(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text('rem_\\(re:zero\\),4,9,"rem \\(x\\) \\(y\\)"\n\\(^o^)/,0,1\n\\m/,0,1\n')
    rem, joy, rock = read_tag_list(path)
    assert (rem.name, rem.aliases) == ("rem (re:zero)", ("rem (x) (y)",))
    assert (joy.name, rock.name) == (r"\(^o^)/", r"\m/")
    known = load_known_tags(path, PROMPTING)
    for prefix in (r"\(^", r"\(^o^)/", "\\"):
        assert r"\(^o^)/" in names(known.complete(prefix, 9)), prefix


def test_names_that_the_field_refuses_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    names = ('"a,b"', "a\x00b", '"a\nb"', "_", "", "a" * 201, "(smile:1.2)", "hat")
    path.write_text("".join(f"{name},0,1,\n" for name in names), newline="")
    assert [tag.name for tag in read_tag_list(path)] == ["hat"]


def test_mistakes_are_named_with_their_row(tmp_path: Path, path: Path) -> None:
    for text, message in (
        ("a,0,1\nb\n", "row 2: expected name,category,count,aliases"),
        ("a,0,1\nb,x,1\n", "row 2"),
        ("a,0,1\nb,4350743,1\n", "row 2"),
        ("long_hair;0;800;longhair\n", "row 1"),
        ('a,0,1\n"b' + "x" * 200_000, "row 2: field larger"),
        ('a,0,1\nb,0,1,"x\nc,0,1,y\n', "row 2: unexpected end of data; check its quot"),
        ("", "has no tags"),
        ("tag,type,count,aliases\n\n", "has no tags"),
    ):
        path.write_text(text)
        with pytest.raises(TagListError, match=message):
            load_known_tags(path, PROMPTING)
    for data in (b"\xff\xfea\x00", gzip.compress(LIST.encode()), "é,0,1".encode("latin-1")):
        path.write_bytes(data)
        with pytest.raises(TagListError, match="is not text in UTF-8"):
            load_known_tags(path, PROMPTING)
    with pytest.raises(TagListError, match=r"none\.csv: No such file or directory$"):
        load_known_tags(tmp_path / "none.csv", PROMPTING)
    for no_file in (tmp_path, Path("/dev/zero")):
        with pytest.raises(TagListError, match="is not a file"):
            load_known_tags(no_file, PROMPTING)


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
            file.write(
                f'tag_{word}_{number},{number % 2},{draw.randint(0, 10**6)},"tag_{alias},{alias}"\n'
            )
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
    for prefix in ("", "t", "tag", "tag_a", "tag_abc", "a", "zz", "@", "@t"):
        assert _steps(lambda prefix=prefix: known.complete(prefix, 100)) < 10_000, prefix
    best = known.complete("tag", 100)
    assert [tag.posts for tag in best] == sorted((tag.posts or 0 for tag in best), reverse=True)
    assert len({tag.alias_of or tag.name for tag in best}) == 100
