"""Loads and validates rule files. docs/policy.md describes the format.

`policies/core.toml` always applies; a second file, by default `policies/default.toml`, adds to it.
"""

import re
import tomllib
from collections.abc import Container, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import PolicyError
from model.policy.ages.terms import ages_above, ages_below, school_years
from model.rating import Rating

DEFAULT_FILE: Final = "default.toml"

_MAX_FILE_BYTES = 1_000_000
_MAX_TEXTS = 2000
"""Maximum number of texts that a term with names of word lists stands for."""

_WORDS = re.compile(r"\{([a-z][a-z0-9_]*)\}")
File = TypeVar("File", bound="RuleFile")
_NAME = r"^[a-z][a-z0-9_]{0,39}$"
Identifier = Annotated[str, Field(pattern=_NAME)]
Term = Annotated[str, Field(min_length=1, max_length=100)]


class _RuleTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class TermGroup(_RuleTable):
    """Terms that mean the same to the rules; `ages_below` adds all ways to write a lower age."""

    terms: list[Term]
    exceptions: list[Term] = Field(default=[], alias="except")
    ages_below: int | None = Field(default=None, ge=1, le=18)

    @property
    def all_terms(self) -> list[str]:
        """The terms, including those for ages and school years."""
        ages = [*ages_below(self.ages_below), *school_years()] if self.ages_below else []
        return [*self.terms, *ages]

    @property
    def all_exceptions(self) -> list[str]:
        """The exceptions, including ages that end like a lower one."""
        return [*self.exceptions, *(ages_above() if self.ages_below else ())]


class Clause(_RuleTable):
    """Met if a term or `$group` of `prompt` or `negative` is in that prompt of the request."""

    prompt: list[Term] = []
    negative: list[Term] = []

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if not self.prompt and not self.negative:
            raise ValueError("prompt, negative or both are required")
        return self


class Rule(_RuleTable):
    """Refuses a request if all clauses of `when` are met; `blocked` is one clause on the prompt."""

    name: Identifier
    reason: str = Field(default="the operator does not allow it", min_length=1, max_length=200)
    blocked: list[Term] = []
    when: list[Clause] = []
    exceptions: list[Term] = Field(default=[], alias="except")

    @model_validator(mode="after")
    def _check_one_form(self) -> Self:
        if bool(self.blocked) == bool(self.when):
            raise ValueError("either blocked or when is required, not both")
        return self

    @property
    def clauses(self) -> list[Clause]:
        """The clauses that must be met."""
        return self.when or [Clause(prompt=self.blocked)]


class RuleFile(_RuleTable):
    """The format of an operator's rule file."""

    words: dict[Identifier, list[Term]] = {}
    groups: dict[Identifier, TermGroup] = {}
    rules: list[Rule] = []


class CoreFile(RuleFile):
    """The format of `core.toml`, which also defines the ratings and what is limited to `safe`."""

    fillers: list[Term]
    ratings: dict[Rating, Clause]
    safe: Clause


def load_core() -> CoreFile:
    """Load the rules that always apply, with the lists of words written out."""
    core = CoreFile.model_validate(tomllib.loads(_shipped("core.toml")))
    return _with_words(core, core.words)


def load_rules(path: Path | None) -> RuleFile:
    """Load a rule file; None means the default file of the package.

    Raises:
        PolicyError: the file does not exist, is not valid TOML or has a wrong field; the message
            names the line or the field.
    """
    name = path or DEFAULT_FILE
    try:
        return RuleFile.model_validate(
            tomllib.loads(_read(path) if path else _shipped(DEFAULT_FILE))
        )
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise PolicyError(f"policy file {name}: {exc}") from exc
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
        )
        raise PolicyError(f"policy file {name}: {wrong}") from exc


def merge_rules(core: CoreFile, extra: RuleFile) -> CoreFile:
    """Add a rule file to the core. It may add terms to the core's groups but not remove any.

    Raises:
        PolicyError: a name is already used, a group does not exist, or an exception would weaken
            the core.
    """
    extra = _with_words(extra, {**core.words, **extra.words})
    groups = dict(core.groups)
    for name, group in extra.groups.items():
        known = groups.get(name)
        if known is None:
            groups[name] = group
        elif group.exceptions or group.ages_below is not None:
            raise PolicyError(f"groups.{name} belongs to the core: a rule file can only add terms")
        else:
            groups[name] = known.model_copy(update={"terms": [*known.terms, *group.terms]})
    rules = [*core.rules, *extra.rules]
    _check_names([*core.words, *extra.words], rules, groups)
    return core.model_copy(update={"groups": groups, "rules": rules})


def _check_names(words: Sequence[str], rules: Sequence[Rule], groups: Container[str]) -> None:
    for name in words:
        if words.count(name) > 1:
            raise PolicyError(f"words.{name} belongs to the core: choose another name")
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1 or name == MAX_RATING:
            raise PolicyError(f"the rule name {name} is already used")
    for rule in rules:
        for clause in rule.clauses:
            for term in (*clause.prompt, *clause.negative):
                if term.startswith("$") and term[1:] not in groups:
                    raise PolicyError(
                        f"the rule {rule.name} uses the group {term}, which does not exist"
                    )


MAX_RATING: Final = "max_rating"
"""Name of the built-in rule that enforces the maximum rating of a key."""


def _with_words(file: File, words: Mapping[str, Sequence[str]]) -> File:
    """Replace terms such as `{colour} hat` by one term for each of the words of that name."""

    def written_out(terms: Sequence[str]) -> list[str]:
        return [
            text
            for term in terms
            for text in (_written_out(term, words) if "{" in term else (term,))
        ]

    def clause(one: Clause) -> Clause:
        return Clause(prompt=written_out(one.prompt), negative=written_out(one.negative))

    groups = {
        name: group.model_copy(
            update={
                "terms": written_out(group.terms),
                "exceptions": written_out(group.exceptions),
            }
        )
        for name, group in file.groups.items()
    }
    rules = [
        rule.model_copy(
            update={
                "blocked": written_out(rule.blocked),
                "when": [clause(one) for one in rule.when],
                "exceptions": written_out(rule.exceptions),
            }
        )
        for rule in file.rules
    ]
    return file.model_copy(update={"groups": groups, "rules": rules})


def _written_out(term: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    """Every text that a term with names of word lists stands for.

    Raises:
        PolicyError: there is no list of that name, or the term stands for too many texts.
    """
    texts = [""]
    for place, part in enumerate(_WORDS.split(term)):
        if place % 2 and part not in words:
            raise PolicyError(f"the term {term!r} uses the words {part}, which do not exist")
        texts = [text + word for text in texts for word in (words[part] if place % 2 else (part,))]
        if len(texts) > _MAX_TEXTS:
            raise PolicyError(f"the term {term!r} stands for more than {_MAX_TEXTS} texts")
    return texts


def _read(path: Path) -> str:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise OSError(f"the file is larger than {_MAX_FILE_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def _shipped(name: str) -> str:
    return (resources.files("model") / "policies" / name).read_text("utf-8")
