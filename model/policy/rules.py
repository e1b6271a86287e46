"""Rule files: what stands in them, and that it makes sense. docs/policy.md explains them to people.

`policies/core.toml` holds always; a second file, the operator's or the one that ships, adds to it.
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import PolicyError
from model.rating import Rating

DEFAULT_FILE: Final = "default.toml"

_MAX_FILE_BYTES = 1_000_000
_NAME = r"^[a-z][a-z0-9_]{0,39}$"
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_AGES = (
    "{} years old", "{} year old", "{} yrs old", "{} yr old", "{} yo", "{} y o", "{} years of age",
    "age {}", "aged {}", "ages {}",
)  # fmt: skip
_AGES_IN_DIGITS = ("{}歳", "{}才", "{}岁", "{}歲", "{}살")

Name = Annotated[str, Field(pattern=_NAME)]
Term = Annotated[str, Field(min_length=1, max_length=100)]


class _RuleTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class TermGroup(_RuleTable):
    """Terms that mean the same to the rules; `ages_below` adds every way to say a lower age."""

    terms: list[Term]
    exceptions: list[Term] = Field(default=[], alias="except")
    ages_below: int | None = Field(default=None, ge=1, le=len(_NUMBERS))

    @property
    def all_terms(self) -> list[str]:
        """The terms with those for ages."""
        ages = []
        for age in range(self.ages_below or 0):
            ages += [how.format(said) for how in _AGES for said in (age, _NUMBERS[age])]
            ages += [how.format(age) for how in _AGES_IN_DIGITS]
        return [*self.terms, *ages]


class Clause(_RuleTable):
    """Holds where any of the terms or `$groups` is in the prompt, or in the negative prompt."""

    prompt: list[Term] = []
    negative: list[Term] = []

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.prompt and not self.negative:
            raise ValueError("prompt, negative or both are needed")
        return self


class Rule(_RuleTable):
    """Refuses where every clause of `when` holds; `blocked` is one clause about the prompt."""

    name: Name
    reason: str = Field(default="the operator does not allow it", min_length=1, max_length=200)
    blocked: list[Term] = []
    when: list[Clause] = []
    exceptions: list[Term] = Field(default=[], alias="except")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if bool(self.blocked) == bool(self.when):
            raise ValueError("either blocked or when is needed, and not both")
        return self

    @property
    def clauses(self) -> list[Clause]:
        """All that must hold."""
        return self.when or [Clause(prompt=self.blocked)]


class RuleFile(_RuleTable):
    """What an operator may write."""

    groups: dict[Name, TermGroup] = {}
    rules: list[Rule] = []


class CoreFile(RuleFile):
    """What only the package may write: whose terms make which rating, and who is held to safe."""

    fillers: list[Term]
    ratings: dict[Rating, Clause]
    safe: Clause


def load_core() -> CoreFile:
    """The rules that always hold."""
    return CoreFile.model_validate(tomllib.loads(_shipped("core.toml")))


def load_rules(path: Path | None) -> RuleFile:
    """The rules of a file, None for those that ship.

    Raises:
        PolicyError: there is no such file, it is no TOML, or a field is wrong; named with its line
            or its place.
    """
    where = path or DEFAULT_FILE
    try:
        return RuleFile.model_validate(
            tomllib.loads(_read(path) if path else _shipped(DEFAULT_FILE))
        )
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise PolicyError(f"policy file {where}: {exc}") from exc
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
        )
        raise PolicyError(f"policy file {where}: {wrong}") from exc


def merge_rules(core: CoreFile, more: RuleFile) -> CoreFile:
    """Both files as one; the second may add terms to the core's groups and take nothing away.

    Raises:
        PolicyError: a name is taken, a group is not there, or an exception would weaken the core.
    """
    groups = dict(core.groups)
    for name, group in more.groups.items():
        known = groups.get(name)
        if known is None:
            groups[name] = group
        elif group.exceptions or group.ages_below is not None:
            raise PolicyError(f"groups.{name} is the core's: only terms can be added to it")
        else:
            groups[name] = known.model_copy(update={"terms": [*known.terms, *group.terms]})
    rules = [*core.rules, *more.rules]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1 or name == MAX_RATING:
            raise PolicyError(f"the rule {name} is there already")
    for rule in rules:
        for clause in rule.clauses:
            for term in (*clause.prompt, *clause.negative):
                if term.startswith("$") and term[1:] not in groups:
                    raise PolicyError(f"the rule {rule.name} names the group {term}, which is none")
    return core.model_copy(update={"groups": groups, "rules": rules})


MAX_RATING: Final = "max_rating"
"""Name of the rule that no file has: the ceiling of a key."""


def _read(path: Path) -> str:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise OSError(f"it is larger than {_MAX_FILE_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def _shipped(name: str) -> str:
    return (resources.files("model") / "policies" / name).read_text("utf-8")
