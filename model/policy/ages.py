"""Ages and school years: the ways to write that somebody is younger than a limit."""

from collections.abc import Iterable, Iterator

_ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_OTHER_WORDS = {
    "german": (
        "null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn",
        "elf", "zwölf", "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn",
    ),
    "french": (
        "zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix",
        "onze", "douze", "treize", "quatorze", "quinze", "seize", "dix sept",
        "dix huit",
    ),
    "spanish": (
        "cero", "un", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez",
        "once", "doce", "trece", "catorce", "quince", "dieciséis", "diecisiete",
        "dieciocho",
    ),
    "portuguese": (
        "zero", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove", "dez",
        "onze", "doze", "treze", "catorze", "quinze", "dezesseis", "dezessete",
        "dezoito",
    ),
    "italian": (
        "zero", "un", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci",
        "undici", "dodici", "tredici", "quattordici", "quindici", "sedici", "diciassette",
        "diciotto",
    ),
    "russian": (
        "ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять",
        "десять", "одиннадцать", "двенадцать", "тринадцать", "четырнадцать", "пятнадцать",
        "шестнадцать", "семнадцать", "восемнадцать",
    ),
    "of russian": (
        "ноль", "одно", "двух", "трех", "четырех", "пяти", "шести", "семи", "восьми", "девяти",
        "десяти", "одиннадцати", "двенадцати", "тринадцати", "четырнадцати", "пятнадцати",
        "шестнадцати", "семнадцати", "восемнадцати",
    ),
    "korean": (
        "영", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열", "열한", "열두",
        "열세", "열네", "열다섯", "열여섯", "열일곱", "열여덟",
    ),
}  # fmt: skip
"""Numbers from 0 to 18 in words, by language."""

_SINO_KOREAN = ("십", "십일", "십이", "십삼", "십사", "십오", "십육", "십칠")
"""From 10 on."""

_KANA = (
    "じゅっ", "じゅういっ", "じゅうに", "じゅうさん", "じゅうよん", "じゅうご", "じゅうろく",
    "じゅうなな",
)  # fmt: skip
"""From 10 on."""

_ROMAN = (
    "", "", "", "", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv",
    "xvi", "xvii",
)  # fmt: skip
"""Not "ii" and "iii", which are also 11 and 111 with digits for letters."""

_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
_OLD = (
    "{} years old", "{} year old", "{} yrs old", "{} yr old", "{} yo", "{} y o",
    "{} years of age", "{} years young", "{} year young", "{} yrs young", "{} summers old",
    "{} winters old", "{} springs old", "{} and a half years old",
)  # fmt: skip
_AGED = (
    "age {}", "aged {}", "ages {}", "aging {}", "age is {}", "age was {}", "age of {}",
    "turning {}", "turned {}", "just turned {}", "girl of {}", "boy of {}",
)  # fmt: skip
_IN_OTHER_WORDS = {
    "german": ("{} jahre alt", "{} jahre", "{} jährig*", "mit {} jahren", "im alter von {}"),
    "french": ("{} ans", "âgée de {}", "âgé de {}"),
    "spanish": ("{} años", "{} añera*"),
    "portuguese": ("{} anos",),
    "italian": ("{} anni", "{} enne"),
    "russian": ("{} лет", "{} года", "{} год"),
    "of russian": ("{} летн*",),
    "korean": ("{} 살",),
}
_IN_DIGITS = (
    "{}歳", "{}才", "{}サイ", "{}岁", "{}歲", "{}周岁", "{}살", "{}세", "{}th birthday", "{} yrs",
    "{} jaar", "{} lat", "{} yaşında", "{} tahun", "{} tuổi", "{} year girl", "{} year boy",
    "{} år", "{} år gammal", "{} éves", "{} ετών", "{} χρονών", "{} سنة", "{} سنوات", "{} سال",
    "{} ปี", "{} ขวบ", "{} vuotta", "{} vuotias", "{} godina", "{} років", "{} साल", "בת {}",
    "בן {}", "{}yof", "{}yom",
)  # fmt: skip
_NEAR = (
    "under {}", "below {}", "younger than {}", "not yet {}", "not {} yet", "not even {}",
    "not quite {}", "less than {} years", "almost {} years", "nearly {} years", "barely {}",
    "soon to be {}", "soon {} years", "about to turn {}", "going on {}", "yet to turn {}",
    "up to {} years", "until {} years", "before turning {}", "before {} birthday",
    "before her {}th birthday", "before his {}th birthday", "unter {}", "noch nicht {}",
    "jünger als {}", "moins de {}", "pas encore {}", "menos de {}", "menor de {}", "menor que {}",
    "aún no {}", "todavía no {}", "ainda não {}", "meno di {}", "non ancora {}", "младше {}",
    "до {} лет", "моложе {}", "нет {}", "{}歳未満", "{}才未満", "{}歳以下", "{}未満", "未满{}",
    "未滿{}", "不满{}", "不到{}", "还没{}", "還沒{}", "没满{}", "沒滿{}", "不足{}岁", "不足{}歲",
    "{}歳ではない", "{}歳じゃない", "{}歳に満たない", "{}歳になっていない", "まだ{}歳",
    "{} and under", "{} or under", "{} and younger", "{} or younger", "{}세미만",
    "{}세 미만", "{}살 미만",
)  # fmt: skip
_NEAR_IN_OTHER_WORDS = {
    "german": ("unter {}", "noch keine {}", "noch nicht {}", "jünger als {}"),
    "french": ("moins de {}", "pas encore {}", "pas {} ans"),
    "spanish": ("menor de {}", "menos de {}", "no tiene {}", "aún no tiene {}", "sin cumplir {}"),
    "portuguese": ("menor de {}", "menos de {}", "não tem {}", "ainda não tem {}"),
    "italian": ("minore di {}", "meno di {}", "non ha {}", "non ancora {}"),
    "of russian": ("до {}", "младше {}", "моложе {}", "нет {}"),
}
_NOT_ADULT = (
    "not {}", "isnt {}", "is not {}", "not turned {}", "hasnt turned {}", "havent turned {}",
    "almost {}", "nearly {}", "soon {}", "close to {}", "u{}",
)  # fmt: skip
"""Only with 18: other numbers are too often amounts."""

_SHE_IS = (
    "she is {}", "he is {}", "shes {}", "hes {}", "who is {}", "i am {}", "im {}", "girl is {}",
    "girl {}", "boy {}", "she turns {}", "he turns {}", "is only {}", "is just {}", "shes only {}",
    "hes only {}", "shes just {}", "hes just {}", "{}f",
)  # fmt: skip
_ADULT = 18
_LEAST_NEAR = 10
"""The lowest age for which "under" and "she is" alone mean an age."""

_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth",
)  # fmt: skip
_GERMAN_ORDINALS = (
    "erst", "zweit", "dritt", "viert", "fünft", "sechst", "siebt", "acht", "neunt", "zehnt",
)  # fmt: skip
_ITALIAN_ORDINALS = ("prima", "seconda", "terza", "quarta", "quinta")
_PORTUGUESE_ORDINALS = (
    "primeira", "segunda", "terceira", "quarta", "quinta", "sexta", "sétima", "oitava",
)  # fmt: skip
_LAST_GRADE = 12


def _suffix(number: int) -> str:
    return {1: "st", 2: "nd", 3: "rd"}.get(number, "th")


def ages_below(limit: int) -> Iterator[str]:
    """Terms for every age below a limit, which is at most 18; and "under 18"."""
    for age in range(limit):
        yield from _written_in_english(age)
        yield from (phrase.format(age) for phrase in _IN_DIGITS)
        for language, phrases in _IN_OTHER_WORDS.items():
            yield from _filled(phrases, str(age), _OTHER_WORDS[language][age])
        yield f"{_OTHER_WORDS['italian'][age][:-1]}enn*"
    for age, (korean, kana) in enumerate(zip(_SINO_KOREAN, _KANA, strict=True), start=10):
        if age < limit:
            yield from (f"{korean}세", f"{kana}さい")
    for age in range(min(_LEAST_NEAR, limit), limit + 1):
        yield from _filled(_NEAR, str(age), _ENGLISH[age])
        if age < limit:
            yield from _filled(_SHE_IS, str(age), _ENGLISH[age])
        for language, phrases in _NEAR_IN_OTHER_WORDS.items():
            yield from _filled(phrases, str(age), _OTHER_WORDS[language][age])
    if limit == _ADULT:
        yield from _filled(_NOT_ADULT, str(limit), _ENGLISH[limit])


def _written_in_english(age: int) -> Iterator[str]:
    yield from _filled((*_OLD, *_AGED), str(age), _ENGLISH[age])
    if _ROMAN[age]:
        yield from _filled((*_OLD, *_AGED[:3]), _ROMAN[age])
    if age:
        yield from (f"{_ORDINALS[age - 1]} birthday", f"{age}{_suffix(age)} birthday")


def _filled(phrases: Iterable[str], *ages: str) -> Iterator[str]:
    return (phrase.format(age) for age in ages for phrase in phrases)


def ages_above() -> Iterator[str]:
    """Ages that look like a lower one: "thirty seven years old", and XVIII for XVI."""
    for tens in ("x", "xx", "xxx", "xl", "l"):
        for ones in ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"):
            if f"{tens}{ones}" not in _ROMAN:
                yield from (phrase.format(f"{tens}{ones}") for phrase in (*_OLD, *_AGED[:3]))
    for tens in _TENS:
        for ones in _ENGLISH[1:10]:
            yield from (phrase.format(f"{tens} {ones}") for phrase in _OLD)


def school_years() -> Iterator[str]:
    """Terms for classes of schools for children."""
    for year, ordinal in enumerate(_ORDINALS[:_LAST_GRADE], start=1):
        for written in (f"{year}{_suffix(year)}", ordinal):
            yield from (f"{written} grade", f"{written} grader")
        for written in (str(year), _ENGLISH[year]):
            yield from (f"year {written} {who}" for who in ("pupil", "student", "girl", "boy"))
        yield from (
            f"grade {year}",
            f"grade {_ENGLISH[year]}",
            f"{year} класс",
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
        )
    for year in range(1, 4):
        yield from (f"中{year}", f"中学{year}年", f"初{year}", f"중{year}", f"{year} de la eso")
    yield from (f"小{year}{who}" for year in "一二三四五六" for who in ("女子", "男子"))
    yield from (f"中{year}{who}" for year in "一二三" for who in ("女子", "男子"))
    yield from (f"{year}klässler*" for year in _GERMAN_ORDINALS)
    yield from (f"{year} elementare" for year in _ITALIAN_ORDINALS)
    yield from (f"{year} media" for year in _ITALIAN_ORDINALS[:3])
    yield from (f"{year} série" for year in _PORTUGUESE_ORDINALS)
    for french in ("sixième", "cinquième", "quatrième", "troisième", "6e", "5e", "4e", "3e"):
        yield from (f"classe de {french}", f"élève de {french}")
    yield from ("cm1", "cm2", "ce1", "ce2", "6eme", "5eme", "4eme", "3eme")
