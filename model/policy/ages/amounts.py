"""Blanks what reads like an age or a minor and is none: measures, grades of things, keys of music.

Exceptions of the policy are phrases; here they would be thousands: every limit with every number
and every unit. Every step takes linear time.
"""

import re
from functools import cache

from model.policy.folding import BARRIER, fold

_compiled = cache(re.compile)
"""Most texts need none of these large patterns."""

_GAP = r"[\s_-]{1,3}"
_END = r"(?![^\W_])"
_BESIDE = 48
"""Letters before a word that are looked at."""


def _any_of(words: str) -> str:
    return rf"(?:{'|'.join(fold(word.strip()) for word in words.split(','))})"


_LIMIT = _any_of(
    "under, below, less than, fewer than, onder de, minder dan, unter, weniger als, moins de, "
    "menos de, meno di"
)
_IN_LIMITS = ("nder", "elow", "than", "nter", "moins", "meno", "weniger")
"""One of them is in every limit."""

_UNIT = _any_of(
    "inch, inches, cm, mm, km, centimet(?:er|re)s?, millimet(?:er|re)s?, (?:kilo)?met(?:er|re)s?, "
    "feet, foot, ft, yards?, miles?, mph, knots?, km/h, acres?, hectares?, kg, kilos?, kilograms?, "
    "grams?, lbs?, pounds?, oz, ounces?, tons?, tonnes?, lit(?:er|re)s?, ml, cl, gallons?, pints?, "
    "degrees?, celsius, fahrenheit, volts?, watts?, kw, amps?, hz, khz, mhz, ghz, [kmgt]b, bits?, "
    "bytes?, pixels?, px, dpi, fps, seconds?, secs?, minutes?, mins?, hours?, hrs?, dollars?, "
    "bucks, euros?, cents?, usd, percent, points?, pts, words?, letters?, lines?, pages?, steps?, "
    "samples?, frames?, layers?, wheels?, stars?, people, oak trees, trees, candles, blankets, "
    "karat, carat, holes, lumens?, psi, "
    "calories, grad, zentimeter, sekunden, minuten, stunden, gramm, prozent, mètres?, degrés?, "
    "secondes?, heures?, litros?, metros?, grados?, graus?, segundos?, minutos?, horas?, dólares, "
    "reales, reais, pesos, metri, gradi, secondi, minuti, litri, graden, seconden, uur"
)
_MEASURE = (
    rf"({_LIMIT}[\s_-]{{0,3}}[$€£¥]?\s?)(?:1?\d(?:\.\d+)?(?![\d.])"
    rf"|(?:ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh)teen){_END})"
    rf"(?=[\s_-]{{0,3}}{_UNIT}{_END}(?!{_GAP}old)|\s?(?:[*°]\s?[cf]{_END}|[%€£])|(?<=[$€£¥]\d)"
    r"|(?<=[$€£¥]\d\d))"
)
"""`under 18 inches`, but not "under 18 m", which may be a male."""

_PERSON = r"[^\W_]$|(?:girls?|boys?|females?|males?|she|he|is|someone|anyone|teens?|kids?)\W*$"
"""A limit that is the end of a word, or of a person: "a girl under 18 pounds"."""

_THING = _any_of(
    "bolts?, screws?, nuts?, fasteners?, washers?, studs?, steel, stainless, titanium, "
    "alumini?um, alloys?, iron, metal, brass, cement, concrete, asphalt, gravel, chains?, "
    "hardware, materials?, lumber, timber, plywood, sandpaper, "
    "carbon, gasoline, petrol, fuel, diesel, listed, hull, bearings?, rebar, schrauben?, stahl, "
    "titan, titane, acier, acero, titanio, acciaio"
)
_BEFORE_THING = _any_of("hex, high, strength, stainless, steel, titanium, structural, alloy, zinc")
_NO_PUPIL = rf"(?!{_GAP}(?:girl|boy|kid|teen|pupil|student|class|school))"
_GRADE = (
    rf"(grade(?<![^\W_]grade)[\s_-]{{0,3}})(?:(?:1?\d|[a-z]{{3,6}}|x?[iv]{{1,4}})"
    rf"(?=[\s_-]{{0,3}}(?:{_BEFORE_THING}{_GAP}){{0,2}}{_THING}(?:xl)?{_END})|(1?\d){_END}{_NO_PUPIL})"
)
_ENDS_WITH_THING = rf"(?<![^\W_]){_THING}(?:{_GAP}of)?[\s_-]{{0,3}}$"

_MINOR_THING = _any_of(
    "keys?, scales?, chords?, thirds?, sixths?, sevenths?, triads?, pentatonic, arpeggios?, blues, "
    "interval, harmony, melody, sonata, prelude, injury, injuries, wound, scratch, bruise, cut, "
    "burn, scar, detail, change, adjustment, edit, flaw, imperfections?, blemish, defects?, issue, "
    "problems?, bug, error, glitch, artifact, repair, leagues?, planets?, arcana, "
    "spoiler, surgery, accidents?, crime, offen[cs]e, road, earthquakes?, variation, "
    "differences?, inconveniences?, setback, tweak, fault, deity, roles?(?![\\s_-]?play)"
)
_OF_PERSON = _any_of(
    "victim, patient, survivor, model, girl, boy, fan, pupil, student, kid, teen, child, actor, "
    "actress, room"
)
"""What makes a person of a thing: "minor burn victim"."""

_MUSIC = _any_of(
    "music, songs?, piano, guitar, violin, organ, sonata, concerto, prelude, waltz, étude, fugue, "
    "nocturne, symphony, scherzo, mazurka, ballade, quartet, trio, minuet, melody, tune, suite, "
    "bagatelle, rhapsody, polonaise, toccata, keys?, composed, notes?"
)
_MINOR = rf"minor(?={_GAP}{_MINOR_THING}{_END}(?!{_GAP}{_OF_PERSON}))|(minor)(?<=a.minor){_END}"
_BEFORE_KEY = _any_of(
    r"no, nr, op, opus, number, \d+, for, and, solo, piano, violin, cello, flute, guitar, "
    "is, was, set, written, composed, played, all, one"
)
_ENDS_WITH_MUSIC = (
    rf"(?<![^\W_]){_MUSIC}(?:[\s_.-]{{1,3}}{_BEFORE_KEY}){{0,4}}{_GAP}(?:in|of){_GAP}a{_GAP}$"
)


def without_amounts(folded: str) -> str:
    """A folded text with a barrier in place of numbers and words that mean no person."""
    if "minor" in folded:
        folded = _compiled(_MINOR).sub(_without_minor, folded)
    if "grade" in folded:
        folded = _compiled(_GRADE).sub(_without_grade, folded)
    if any(map(folded.__contains__, _IN_LIMITS)):
        folded = _compiled(_MEASURE).sub(_without_measure, folded)
    return folded


def _without_measure(match: re.Match[str]) -> str:
    return match[0] if _compiled(_PERSON).search(_before(match)) else f"{match[1]}{BARRIER}"


def _without_grade(match: re.Match[str]) -> str:
    if match[2] and not _compiled(_ENDS_WITH_THING).search(_before(match)):
        return match[0]
    return f"{match[1]}{BARRIER}"


def _without_minor(match: re.Match[str]) -> str:
    before = _before(match)
    if match[1] and not _compiled(_ENDS_WITH_MUSIC).search(before):
        return match[0]
    return match[0] if before[-1:].isalnum() else BARRIER


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - _BESIDE) : match.start()]
