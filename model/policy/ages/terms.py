"""Ages and school years: the ways to write that somebody is younger than a limit."""

from collections.abc import Iterator
from itertools import product

from model.policy.ages.languages import (
    ADULT,
    LEAST_LIMIT,
    ages_in_other_languages,
    classes_in_other_languages,
    filled,
    harmless_in_other_languages,
)

_ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip

_SINO_KOREAN = ("십", "십일", "십이", "십삼", "십사", "십오", "십육", "십칠")
"""From 10 on."""

_KANA = {
    4: "よん", 5: "ご", 6: "ろく", 7: "なな", 8: "はっ", 10: "じゅっ", 11: "じゅういっ",
    12: "じゅうに", 13: "じゅうさん", 14: "じゅうよん", 15: "じゅうご", 16: "じゅうろく",
    17: "じゅうなな",
}  # fmt: skip
"""Those that are no other words together with さい."""

_ROMANISED = {
    7: "nana", 8: "has", 9: "kyuu", 10: "jus", 11: "juuis", 12: "juuni", 13: "juusan",
    14: "juuyon", 15: "juugo", 16: "juuroku", 17: "juunana",
}  # fmt: skip
"""Before the Japanese `sai`; lower ones are also parts of names."""

_ABOUT = "三四 四五 五六 六七 七八 八九 十一二 十二三 十三四 十四五 十五六 十六七"
"""Pairs of ages: 十四五岁 is 14 or 15."""

_CJK = ("十", "十一", "十二", "十三", "十四", "十五", "十六", "十七", "十八")
"""From 10 on."""

_PINYIN = ("yi", "er", "san", "si", "wu", "liu", "qi")
"""After shi, which is ten; "shi sui" is a name."""

_ROMAN = (
    "", "", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv",
    "xv", "xvi", "xvii", "xviii",
)  # fmt: skip
"""Not "i", which is a word; iii is also 111, and therefore an exception."""

_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")

_OLD = (
    "{} years old", "{} year old", "{} yrs old", "{} yr old", "{} yo", "{} y o",
    "{} years of age", "{} years young", "{} year young", "{} yrs young", "{} summers old",
    "{} winters old", "{} springs old", "{} and a half years old", "{} y old", "={} years",
    "between ... {} years",
)  # fmt: skip
_AGED = (
    "age {}", "aged {}", "ages {}", "aging {}", "age is {}", "age was {}", "age of {}",
    "turning {}", "turned {}", "just turned {}", "girl of {}", "boy of {}",
    "={} year", "{} yers old", "{} ys old", "born {} years ago", "age range {}",
)  # fmt: skip
_BIRTHDAYS = ("{} birthday", "{} bday", "{} year of life", "in her {} year=", "in his {} year=")
_IN_DIGITS = (
    "{}歳", "{}才", "{}サイ", "{}岁", "{}歲", "{}周岁", "{}살", "{}세", "{}th birthday", "{} yrs",
    "{} yr", "{} lat", "{} yaşında", "{} tahun", "{} tuổi", "{} year girl", "{} year boy",
    "{} yr girl", "{} yr boy", "{} rokov",
    "{} år", "{} år gammal", "{} éves", "{} ετών", "{} χρονών", "{} سنة", "{} سنوات", "{} سال",
    "年齢{}", "年龄{}", "年齡{}", "{} ani", "{} åring*", "อายุ {}",
    "nena de {}", "meisje van {}", "jongen van {}", "mädchen von {}",
    "{}e verjaardag", "{} geburtstag", "cumple {}", "cumpleaños {}",
    "{} ปี", "{} ขวบ", "{} vuotta", "{} vuotias", "{} godina", "{} років", "{} साल", "בת {}",
    "בן {}", "{}yof", "{}yom",
)  # fmt: skip
_COUNTED = ("{}歳", "{}才", "{}岁", "{}歲")
"""These are also for Roman numerals."""

_ENGLISH_NEAR = 7
"""The first of these are also for Roman numerals."""

_NEAR = (
    "under {}", "below {}", "younger than {}", "not yet {}", "not {} yet", "not even {}",
    "not quite {}", "less than {} years", "almost {} years", "nearly {} years", "barely {}",
    "soon to be {}", "soon {} years", "about to turn {}", "going on {}", "yet to turn {}",
    "up to {} years", "until {} years", "before turning {}", "before {} birthday",
    "before her {}th birthday", "before his {}th birthday", "unter {}", "noch nicht {}",
    "jünger als {}", "moins de {}", "pas encore {}", "menos de {}", "menor de {}", "menor que {}",
    "aún no {}", "todavía no {}", "ainda não {}", "meno di {}", "non ancora {}", "младше {}",
    "до {} лет", "моложе {}", "нет {}", "{}歳未満", "{}才未満", "{}歳以下", "{}未満", "不足{}岁",
    "不足{}歲",
    "{}歳ではない", "{}歳じゃない", "{}歳に満たない", "{}歳になっていない", "まだ{}歳",
    "{}才以下", "{}岁以下", "{}歲以下", "小于{}岁", "低于{}岁", "未到{}岁", "还没有{}岁",
    "меньше {} лет", "не достигла {}", "не достиг {}",
    "не исполнилось {}",
    "poniżej {}", "{} yaş altı", "di bawah {}", "dưới {} tuổi",
    "no older than {}", "not older than {}",
    "{} and under", "{} or under", "{} and younger", "{} or younger", "{}세미만",
    "{}세 미만", "{}살 미만", "{}歳になる前", "{} and below", "{} or below", "max {} years",
    "maximum {} years",
)  # fmt: skip
_CJK_NEAR = (
    "未满{}", "未滿{}", "未満{}", "不满{}", "不到{}", "还没{}", "還沒{}", "没满{}", "沒滿{}",
)  # fmt: skip
_NOT_ADULT = (
    "not {}", "isnt {}", "is not {}", "not turned {}", "hasnt turned {}", "havent turned {}",
    "almost {}", "nearly {}", "soon {}", "close to {}", "less than {}", "fewer than {}",
    "=pre {}", "u{}", "sub {}", "will be {}",
    "turning {} soon", "close to turning {}", "before ... {} birthday", "before ... {}th birthday",
    "year short of {}", "years short of {}", "year away from {}", "years away from {}",
    "months away from {}", "months short of {}", "until she turns {}", "until he turns {}",
    "before she turns {}", "before he turns {}", "waiting to turn {}", "shy of {}",
    "year before {}", "months before {}", "{} next year",
)  # fmt: skip
"""Only with 18: other numbers are too often amounts."""

_SHE_IS = (
    "she is {}", "he is {}", "shes {}", "hes {}", "who is {}", "i am {}", "im {}", "girl is {}",
    "girl {}", "boy {}", "she turns {}", "he turns {}", "is only {}", "is just {}", "shes only {}",
    "hes only {}", "shes just {}", "hes just {}", "{}f", "{} y", "{} ish", "turns {}", "only {}=",
    "just {}=", "still {}=", "still only {}", "{} and a half=", "{} and three quarters=",
    "looks {}", "looks like {}", "looks about {}", "looks around {}", "appears {}", "daughter {}",
    "sister {}", "son {}", "brother {}", "aged between {}", "about to be {}", "hardly {}",
    "u{} girl", "u{} boy",
    "female {}", "{} summers", "{} winters", "{} springs", "ей {}", "ему {}",
    "{}の娘", "{}の少女", "{}の女の子", "{}の少年",
)  # fmt: skip

_ERAS = ("ice", "iron", "stone", "bronze", "golden", "dark", "space")
_GRADED = ("master", "high", "perfect", "real", "color", "colour")
_DRINKS = ("whisky", "whiskey", "scotch", "bourbon", "rum", "wine")
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth",
    "eighteenth",
)  # fmt: skip
_GERMAN_ORDINALS = (
    "erst", "zweit", "dritt", "viert", "fünft", "sechst", "siebt", "acht", "neunt", "zehnt",
)  # fmt: skip
_ITALIAN_ORDINALS = ("prima", "seconda", "terza", "quarta", "quinta")
_PORTUGUESE_ORDINALS = (
    "primeira", "segunda", "terceira", "quarta", "quinta", "sexta", "sétima", "oitava",
)  # fmt: skip
_SPANISH_ORDINALS = ("primer", "segundo", "tercer", "cuarto", "quinto", "sexto")
_RUSSIAN_ORDINALS = (
    "втор", "четверт", "пят", "шест", "седьм", "восьм", "девят", "десят", "одиннадцат",
)  # fmt: skip
_RUSSIAN_ENDINGS = ("ый класс", "ой класс", "ом классе", "ого класса")
_SCHOOLS = ("year", "yr", "y", "primary", "secondary", "form", "class", "standard", "ks")
_PUPILS = ("pupil", "student", "girl", "boy")
_CLASSES = ("{} grade", "{} grader", *(f"{{}} form {who}" for who in _PUPILS))
_LAST_GRADE = 12


def _suffix(number: int) -> str:
    return {1: "st", 2: "nd", 3: "rd"}.get(number, "th")


def ages_below(limit: int) -> Iterator[str]:
    """Terms for every age below a limit, which is at most 18; and "under 18"."""
    for age in range(limit):
        yield from _written_in_english(age)
        yield from (phrase.format(age) for phrase in _IN_DIGITS)
        yield from _counted_in_asia(age)
    for age in range(min(LEAST_LIMIT, limit), limit + 1):
        yield from _near(age)
        if age < limit:
            yield from filled(_SHE_IS, str(age), _ENGLISH[age])
    yield from (f"{pair}{years}" for pair in _ABOUT.split() for years in "岁歲歳")
    yield from ages_in_other_languages(limit)
    if limit == ADULT:
        yield from filled(_NOT_ADULT, str(limit), _ENGLISH[limit], _ORDINALS[limit - 1])
        yield from filled(_NEAR[:_ENGLISH_NEAR], _ROMAN[limit])


def _near(age: int) -> Iterator[str]:
    """An age below another one."""
    yield from filled(_NEAR, str(age), _ENGLISH[age])
    yield from filled(_CJK_NEAR, str(age), _CJK[age - LEAST_LIMIT])


def _counted_in_asia(age: int) -> Iterator[str]:
    if age in _ROMANISED:
        yield f"{_ROMANISED[age]}sai"
    if age > 2:  # "2 sai" are weapons
        yield f"{age} sai"
    if age >= LEAST_LIMIT:
        ones = age - LEAST_LIMIT
        yield f"{age} sui"
        if ones:
            yield f"=shi {_PINYIN[ones - 1]} sui"
    if age in _KANA:
        yield from (f"{_KANA[age]}さい", f"{_KANA[age]}歳")
    if age >= LEAST_LIMIT:
        yield f"{_SINO_KOREAN[age - LEAST_LIMIT]}세"


def _written_in_english(age: int) -> Iterator[str]:
    yield from filled((*_OLD, *_AGED), str(age), _ENGLISH[age])
    if _ROMAN[age]:
        yield from filled((*_OLD, *_AGED[:3]), _ROMAN[age])
    if len(_ROMAN[age]) > 1 and age != len(_ROMAN[age]):  # iii is also 111
        yield from filled(_COUNTED, _ROMAN[age])
    if age:
        yield from filled(_BIRTHDAYS, _ORDINALS[age - 1], f"{age}{_suffix(age)}")


def ages_above() -> Iterator[str]:
    """Ages that look like a lower one: "thirty seven years old", XVIII for XVI, 111 for iii."""
    yield from filled((*_OLD, *_AGED[:3]), "111")
    yield from filled(_OLD, "eighty")  # a letter may be longer than in "eight years"
    for phrase, ones in product(_AGED[:8], _ENGLISH[1:10]):
        yield from (f"{phrase.format(ones)} {unit}" for unit in ("hundred", "thousand"))
    for tens in ("x", "xx", "xxx", "xl", "l"):
        for ones in ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"):
            if f"{tens}{ones}" not in _ROMAN[:ADULT]:
                yield from filled((*_OLD, *_AGED[:3], *_COUNTED), f"{tens}{ones}")
    for tens in _TENS:
        for ones in _ENGLISH[1:10]:
            yield from (phrase.format(f"{tens} {ones}") for phrase in _OLD)
    yield from harmless_in_other_languages()
    for ones in (*range(1, 20), *_ENGLISH[1:20]):
        yield from filled(_OLD[:2], f"hundred and {ones}")
    yield from _above_in_asia()
    yield from _no_ages()


def _above_in_asia() -> Iterator[str]:
    yield from ("열아홉 살", "열아홉살")
    for tens, pair in product("二三四五六七八九", _ABOUT.split()):
        if pair.startswith("十"):
            yield from (f"{tens}{pair}{years}" for years in "岁歲歳")


def _no_ages() -> Iterator[str]:
    """Amounts, eras, drinks and universities that read like an age or a class."""
    for number in range(1, ADULT):
        yield from (f"{era} age {number}" for era in _ERAS)
        yield from (f"{kind} grade {number}" for kind in _GRADED)
        yield f"looks like {number}mm"
        for drink, years in product(_DRINKS, ("year", "years")):
            yield from (f"{number} {years} old {drink}", f"{drink} aged {number} {years}")
        yield from (f"{number}{century}" for century in ("세기", "세기의", "세기에"))
    for year, years in product("1234一二三四", ("年级", "年級")):
        yield f"大学{year}{years}"


def school_years() -> Iterator[str]:
    """Terms for classes of schools for children."""
    yield from classes_in_other_languages()
    for year, ordinal in enumerate(_ORDINALS[:_LAST_GRADE], start=1):
        for written in (f"{year}{_suffix(year)}", ordinal):
            yield from filled(_CLASSES, written)
        for written in (str(year), _ENGLISH[year]):
            yield f"=year {written}"
            for school in _SCHOOLS:
                yield from (f"{school} {written} {who}" for who in _PUPILS)
        if len(_ROMAN[year]) > 1:
            yield f"grade {_ROMAN[year]}"
        yield from (
            f"grade {year}",
            f"grade {_ENGLISH[year]}",
            f"groep {year}",
            f"{year} класс",
            f"{year} й класс",
            f"{year} класса",
            f"{year} классни*",
            f"{year} klasse",
            f"{year}학년",
            f"{year}年级",
            f"{year}年級",
        )
    for year in range(1, 7):
        yield from (
            f"小{year}",
            f"小学{year}年",
            f"小学校{year}年",
            f"{year} de primaria",
            f"초{year}",
            f"js{year}",
            f"key stage {year}",
        )
    for year in range(1, 4):
        yield from (f"中{year}", f"中学{year}年", f"初{year}", f"중{year}", f"{year} de la eso")
        yield f"jc{year}"
    for who in ("女子", "男子", "女生", "男生", "生"):
        yield from (f"小{year}{who}" for year in "一二三四五六")
        yield from (f"中{year}{who}" for year in "一二三")
    yield from (f"=小{year}" for year in "一二四五六")  # 小三 is a mistress
    yield from (f"=中{year}" for year in "一二三")
    yield from (f"{year}klässler*" for year in _GERMAN_ORDINALS)
    yield from (f"{year}e{n} klasse" for year in _GERMAN_ORDINALS[1:] for n in ("", "n", "r"))
    yield from (f"{year} grado" for year in _SPANISH_ORDINALS)
    yield from (f"{year} de secundaria" for year in ("primero", "segundo", "tercero"))
    yield from (f"{year}{end}" for year in _RUSSIAN_ORDINALS for end in _RUSSIAN_ENDINGS)
    yield from ("третий класс", "третьем классе", "третьего класса")
    yield from (f"{year} elementare" for year in _ITALIAN_ORDINALS)
    yield from (f"{year} media" for year in _ITALIAN_ORDINALS[:3])
    yield from (f"{year} série" for year in _PORTUGUESE_ORDINALS)
    yield from (f"{year} ano=" for year in ("quinto", "sexto", "sétimo", "oitavo", "nono"))
    yield from (f"{who} do {year}" for who in ("aluna", "aluno") for year in range(1, 10))
    for french in ("sixième", "cinquième", "quatrième", "troisième", "6e", "5e", "4e", "3e"):
        yield from (f"classe de {french}", f"élève de {french}", f"en {french}=")
    yield from ("cm1", "cm2", "ce1", "ce2", "6eme", "5eme", "4eme", "3eme")
