"""Rule files: rules, groups and exceptions, and messages about mistakes."""

from pathlib import Path

import pytest

from model.errors import PolicyBlocked, PolicyError
from model.policy.policy import Policy, load_policy
from model.policy.rules import Clause, TermGroup, load_core, load_rules


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def rule_of(policy: Policy, prompt: str, negative: str = "") -> str | None:
    try:
        policy.check(prompt, negative, ceiling="explicit")
    except PolicyBlocked as refusal:
        return refusal.rule
    return None


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy with rules, groups and lists of words; compiled once, which takes seconds."""
    return load_policy(
        written(
            tmp_path_factory.mktemp("policy"),
            """
            [words]
            colour = ["red", "blue"]
            thing = ["hat", "long coat"]

            [groups.minor]
            terms = ["zorble"]

            [groups.weapons]
            terms = ["gun", "rifle*", "sword ... drawn"]
            except = ["nail gun"]

            [groups.things]
            terms = ["{colour} {thing}"]
            except = ["blue {thing} of plums"]

            [[rules]]
            name = "brands"
            reason = "no brands"
            blocked = ["acme", "=globex", "*soft"]
            except = ["acme street"]

            [[rules]]
            name = "armed_school"
            when = [{ prompt = ["$weapons"] }, { prompt = ["school"] }]

            [[rules]]
            name = "upside_down"
            when = [{ prompt = ["sky"], negative = ["ground"] }]

            [[rules]]
            name = "things"
            when = [{ prompt = ["$things", "{colour} moon", "torn {underwear}"] }]
            """,
        )
    )


def test_blocked_tags_combinations_and_exceptions(policy: Policy) -> None:
    refused = {
        "acme poster": "brands", "A C M E": "brands", "1girl, globex, smile": "brands",
        "microsoft": "brands", "a gun in a school": "armed_school",
        "schools, riflemen": "armed_school", "school, sword half drawn": "armed_school",
    }  # fmt: skip
    assert {prompt: rule_of(policy, prompt) for prompt in refused} == refused
    for prompt in (
        "acme street", "a globex poster", "software", "gun", "school", "school, nail gun",
        "school, sword is not at all drawn",
    ):  # fmt: skip
        assert rule_of(policy, prompt) is None, prompt
    assert rule_of(policy, "sky") == rule_of(policy, "1girl", "ground") == "upside_down"


def test_lists_of_words_stand_for_many_terms(policy: Policy) -> None:
    for prompt in ("red hats", "blue long coat", "a red moon", "blue hat", "torn panties"):
        assert rule_of(policy, prompt) == "things", prompt
    for prompt in ("red", "green hat", "blue hat of plums", "colour thing", "{colour} {thing}"):
        assert rule_of(policy, prompt) is None, prompt


def test_terms_can_be_added_to_the_core(policy: Policy) -> None:
    assert rule_of(policy, "zorble, nsfw") == "minor_sexual"
    assert rule_of(policy, "child, nsfw") == "minor_sexual"


def test_the_default_rules() -> None:
    policy, names = load_policy(), {rule.name for rule in load_rules(None).rules}
    for prompt in ("rape", "guro", "bestiality", "celebrity, nude", "r.a.p.e",
                   "deepfake, lingerie"):  # fmt: skip
        assert rule_of(policy, prompt) in names, prompt


def test_the_core_applies_beside_an_empty_file(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, ""))
    assert rule_of(policy, "guro") is None
    assert rule_of(policy, "child, nsfw") == "minor_sexual"


def test_mistakes_are_reported_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A mistake in a term is found when all terms are compiled, which takes seconds with the core's.
    core = load_core()
    groups = {name: TermGroup(terms=[]) for name in core.groups}
    small = core.model_copy(
        update={"groups": groups, "ratings": {}, "safe": Clause(prompt=["safe"])}
    )
    monkeypatch.setattr("model.policy.policy.load_core", lambda: small)
    for text, message in (
        ("\nname = = 1", "at line 2, column 8"),
        ("[[rules]]\nblocked = ['a b']", "rules.0.name: Field required"),
        ("[[rules]]\nname = 'Upper'\nblocked = ['ab']", "rules.0.name"),
        ("[[rules]]\nname = 'one'", "either blocked or when"),
        ("[[rules]]\nname = 'one'\nblocked = ['ab']\nwhen = [{prompt=['cd']}]", "not both"),
        ("[[rules]]\nname = 'one'\nwhen = [{}]", "prompt, negative or both"),
        ("[[rules]]\nname = 'one'\nblock = ['ab']", "rules.0.block: Extra inputs"),
        ("[[rules]]\nname = 'one'\nblocked = ['$none']", "the group $none"),
        ("[[rules]]\nname = 'one'\nblocked = ['!?']", "'!?' needs at least two letters"),
        ("[[rules]]\nname = 'one'\nblocked = ['a*b']", "a * belongs at the start"),
        ("[[rules]]\nname = 'one'\nblocked = ['a...b']", "dots"),
        ("[[rules]]\nname = 'minor_sexual'\nblocked = ['ab']", "minor_sexual is already used"),
        ("[[rules]]\nname = 'max_rating'\nblocked = ['ab']", "max_rating is already used"),
        ("[groups.minor]\nterms = []\nexcept = ['child']", "groups.minor belongs to the core"),
        ("[groups.a]\nterms = ['{none} hat']", "the words none, which do not exist"),
        ("[words]\nchild = ['ab']", "words.child belongs to the core"),
        (
            "[words]\nab = ['1', '2', '3']\n[groups.a]\nterms = ['{ab}{ab}{ab}{ab}{ab}{ab}{ab}']",
            "stands for more than 2000 texts",
        ),
        ("[groups.a]\nterms = ['ab']\nexcept = ['!']", "the exception '!' has no letters"),
        ("[ratings]\nnsfw = {prompt = ['ab']}", "ratings: Extra inputs"),
        ("fillers = ['ab']", "fillers: Extra inputs"),
        ("[safe]\nprompt = ['ab']", "safe: Extra inputs"),
    ):
        path = written(tmp_path, text)
        with pytest.raises(PolicyError) as wrong:
            load_policy(path)
        assert message in str(wrong.value)
        assert str(path) in str(wrong.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        load_policy(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="utf-8"):
        load_policy(binary)
    huge = written(tmp_path, "#" * 1_000_001)
    with pytest.raises(PolicyError, match="larger than"):
        load_policy(huge)


def test_every_rating_above_safe_has_terms() -> None:
    core = load_core()
    assert list(core.ratings) == ["sensitive", "nsfw", "explicit"]
    assert {rule.name for rule in core.rules} == {"minor_sexual", "youth_sexual"}
