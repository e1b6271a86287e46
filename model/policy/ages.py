"""Ages and school years: the ways to write that somebody is younger than a limit."""

from collections.abc import Iterator

_ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_OTHER_WORDS = {
    "german": (
        "null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn",
        "elf", "zwölf", "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn",
    ),
    "french": (
        "zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix",
        "onze", "douze", "treize", "quatorze", "quinze", "seize", "dix sept",
    ),
    "spanish": (
        "cero", "un", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez",
        "once", "doce", "trece", "catorce", "quince", "dieciséis", "diecisiete",
    ),
    "portuguese": (
        "zero", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove", "dez",
        "onze", "doze", "treze", "catorze", "quinze", "dezesseis", "dezessete",
    ),
    "italian": (
        "zero", "un", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci",
        "undici", "dodici", "tredici", "quattordici", "quindici", "sedici", "diciassette",
    ),
    "russian": (
        "ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять",
        "десять", "одиннадцать", "двенадцать", "тринадцать", "четырнадцать", "пятнадцать",
        "шестнадцать", "семнадцать",
    ),
    "of russian": (
        "ноль", "одно", "двух", "трех", "четырех", "пяти", "шести", "семи", "восьми", "девяти",
        "десяти", "одиннадцати", "двенадцати", "тринадцати", "четырнадцати", "пятнадцати",
        "шестнадцати", "семнадцати",
    ),
    "korean": (
        "영", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열", "열한", "열두",
        "열세", "열네", "열다섯", "열여섯", "열일곱",
    ),
}  # fmt: skip
"""Numbers from 0 in words, by language."""

_ROMAN = (
    "", "", "", "", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv",
    "xvi", "xvii",
)  # fmt: skip
"""Not "ii" and "iii", which are also 11 and 111 with digits for letters."""

_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
_OLD = (
    "{} years old", "{} year old", "{} yrs old", "{} yr old", "{} yo", "{} y o",
    "{} years of age", "{} years young", "{} summers old", "{} and a half years old",
)  # fmt: skip
_AGED = (
    "age {}", "aged {}", "ages {}", "aging {}", "age is {}", "age was {}", "age of {}",
    "turning {}", "turned {}", "just turned {}", "girl of {}", "boy of {}",
)  # fmt: skip
_IN_OTHER_WORDS = {
    "german": ("{} jahre alt", "{} jährig*", "mit {} jahren", "im alter von {}"),
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
    "{} jahre",
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
    "未滿{}", "不满{}", "不到{}", "还没{}", "{}세미만", "{}세 미만", "{}살 미만",
)  # fmt: skip
_SHE_IS = (
    "she is {}", "he is {}", "shes {}", "hes {}", "who is {}", "i am {}", "im {}", "girl is {}",
    "girl {}", "boy {}",
)  # fmt: skip
_LEAST_NEAR = 10
"""The lowest age for which "under" and "she is" alone mean an age."""

_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth",
)  # fmt: skip
_SUFFIXES = ("th", "st", "nd", "rd", *("th",) * 9)


def ages_below(limit: int) -> Iterator[str]:
    """Terms for every age below a limit, which is at most 18; and "under 18"."""
    for age in range(limit):
        for written in (str(age), _ENGLISH[age]):
            yield from (phrase.format(written) for phrase in (*_OLD, *_AGED))
        if _ROMAN[age]:
            yield from (phrase.format(_ROMAN[age]) for phrase in (*_OLD, *_AGED[:3]))
        yield from (phrase.format(age) for phrase in _IN_DIGITS)
        for language, phrases in _IN_OTHER_WORDS.items():
            for written in (str(age), *_OTHER_WORDS[language][age : age + 1]):
                yield from (phrase.format(written) for phrase in phrases)
    for age in range(min(_LEAST_NEAR, limit), limit + 1):
        for written in (str(age), _ENGLISH[age]):
            yield from (phrase.format(written) for phrase in _NEAR)
            if age < limit:
                yield from (phrase.format(written) for phrase in _SHE_IS)


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
    for year, ordinal in enumerate(_ORDINALS, start=1):
        for written in (f"{year}{_SUFFIXES[year]}", ordinal):
            yield from (f"{written} grade", f"{written} grader")
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
    yield from ("cm1", "cm2", "ce1", "ce2", "6eme", "5eme", "4eme", "3eme")
