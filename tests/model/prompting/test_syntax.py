"""Syntax without effect is found, with the right advice, and ordinary text is left alone."""

from collections.abc import Callable, Iterator

from model.prompting.syntax import (
    find_foreign_syntax,
    find_full_width_brackets,
    find_unbalanced_brackets,
)
from tests.support.growth import grows_linearly

Find = Callable[[str], Iterator[str]]


def missing(find: Find, cases: dict[str, str]) -> dict[str, list[str]]:
    """The prompts without exactly one finding that has the expected text."""
    found = {prompt: list(find(prompt)) for prompt in cases}
    return {
        prompt: texts
        for prompt, texts in found.items()
        if len(texts) != 1 or cases[prompt] not in texts[0]
    }


def false_alarms(find: Find, prompts: list[str]) -> dict[str, list[str]]:
    return {prompt: texts for prompt in prompts if (texts := list(find(prompt)))}


def test_foreign_syntax_gets_the_right_advice() -> None:
    cases = {
        # A1111
        "1girl, [red hair]": "[red hair] does not weaken; write (words:0.9)",
        "1girl, [[red hair]]": "[[red hair]] does not weaken; write (words:0.81)",
        "1girl, [red:blue:0.5] hair": "[red:blue:0.5] does not change the prompt at a step",
        "1girl, [red::12]": "[red::12] does not change the prompt at a step",
        "1girl, [hat:0.25]": "[hat:0.25] does not change the prompt at a step",
        "1girl, [(hat:1.2):(cap:1.1):.5]": "does not change the prompt at a step",
        "[red|blue] hair": "[red|blue] does not alternate between words; write one of them",
        "1girl BREAK 1boy": "BREAK is plain text; a prompt is never split",
        "1girl\nBREAK\n1boy": "BREAK is plain text",
        "hat BREAK BREAK cap": "BREAK is plain text",
        "1girl, 3D BREAK 1boy": "BREAK is plain text",
        "1girl, HDR BREAK\n1boy": "BREAK is plain text",
        "1girl, solo AND 1boy, hat": "AND is plain text; prompts are not combined",
        "a cat AND a dog :1.2": "AND is plain text",
        "1girl ADDCOL 1boy": "ADDCOL is plain text; an image has no regions",
        "1girl, <lora:ink:0.8>": "<lora:ink:0.8> is plain text; use the field `loras`",
        "<hypernet:ink:1>": "use the field `loras`",
        # ComfyUI and its nodes
        "embedding:bad_hands, 1girl": "embedding:bad_hands is plain text",
        "(embedding:easynegative:1.2)": "embedding:easynegative is plain text",
        "{red|blue} hair": "{red|blue} is not replaced by one of its choices; write one of them",
        "{2$$red|blue} hair": "is not replaced by one of its choices",
        "__animal__, forest": "__animal__ is plain text; nothing is chosen from a list",
        "__poses/*__": "__poses/*__ is plain text",
        "${color=red} hat": "${color=red} is plain text; there are no variables",
        # NovelAI
        "{red hair}": "{red hair} does not strengthen; write (words:1.05)",
        "{{{red hair}}}": "{{{red hair}}} does not strengthen; write (words:1.16)",
        "[artist:wlop]": "[artist:wlop] does not weaken",
        "[hat:]": "[hat:] does not weaken",
        "1.5::red hair, hat::, 1girl": "1.5:: does not set a weight; write (words:1.5)",
        "-1::hat::": "-1:: does not set a weight; write (words:-1)",
        # SwarmUI
        "<random:red,blue> hat": "<random:red,blue> is plain text; write the words themselves",
        "<alternate:red,blue>": "write the words themselves",
        "<fromto[0.5]:red,blue>": "write the words themselves",
        "<wildcard:hats>": "write the words themselves",
        "<segment:face> smile": "an image has no regions",
        "<embed:bad>": "embeddings are not supported",
        "1girl <break> 1boy": "<break> is plain text",
        # InvokeAI
        "1girl, (red hair)++": ")++ does not strengthen; write (words:1.1)",
        "1girl, (red hair)--, hat": ")-- does not weaken; write (words:0.9)",
        "1girl, (red hair)1.3": ")1.3 does not set a weight; write (words:1.3)",
        "cat++, 1girl": "cat++ does not strengthen; write (cat:1.2)",
        "1girl, hat--, cap": "hat-- does not weaken; write (hat:0.8)",
        '"blue cat"++': '"blue cat"++ does not strengthen',
        '("a", "b").blend(1, 0.5)': ").blend( is plain text; prompts are not combined",
        '("a", "b").and()': ").and( is plain text",
        "a cat.swap(dog)": "t.swap( is plain text",
    }  # fmt: skip
    assert missing(find_foreign_syntax, cases) == {}


def test_odd_spellings_get_the_right_advice() -> None:
    cases = {
        "1girl, <LORA:ink:1>": "<LORA:ink:1> is plain text; use the field `loras`",
        "1girl, < lora:ink:1>": "< lora:ink:1> is plain text",
        "＜lora:ink:1＞": "＜lora:ink:1＞ is plain text",
        "<lora：ink：1>": "<lora：ink：1> is plain text",
        "<Random:a,b>": "<Random:a,b> is plain text; write the words themselves",
        "<Break>": "<Break> is plain text",
        "1girl --no hat": "--no is plain text; options are fields of the request",
        "1girl --ar 16:9": "--ar is plain text",
        "1girl --n bad": "--n is plain text",
        "||red|blue|| hair": "||red|blue|| is not replaced by one of its choices",
        "1girl, [hat, cap": "[hat does not weaken; write (words:0.9)",
        "1girl, {hat": "{hat does not strengthen; write (words:1.05)",
        "1girl, hat]": "hat] does not weaken",
        ".5::hat::": ".5:: does not set a weight; write (words:.5)",
        "cat::2 dog": "::2 does not set a weight; write (words:2)",
        "(smile):1.2, hat": "):1.2 does not set a weight; write (words:1.2)",
        '(smile:"1.2")': "does not set a weight; write (words:1.2)",
        "(smile:1.2:0.5)": ":1.2:0.5) has two numbers, and only the last is a weight",
        "1girl --style raw": "--style is plain text; options are fields of the request",
        "a cat AND_PERP a dog": "AND_PERP is plain text; prompts are not combined",
        "1girl <lora:ink:1, hat": "<lora:i is plain text; use the field `loras`",
        "1girl <locon:ink:1>": "<locon:ink:1> is plain text; use the field `loras`",
        "a cat COUPLE(0 0.5) a dog": "COUPLE( is plain text; an image has no regions",
        "1girl\nNegative prompt: lowres": "Negative prompt: is plain text; use the field `negative",
        "1girl\nSteps: 20, Sampler: Euler": "Steps: 20, Sampler is plain text; settings are fields",
    }
    assert missing(find_foreign_syntax, cases) == {}


def test_weights_that_are_no_numbers_or_have_no_brackets_get_the_right_advice() -> None:
    cases = {
        "(smile:1,2), 1girl": ":1,2) does not set a weight; write (words:1.2)",
        "(smile:1.2f)": ":1.2f) does not set a weight; write (words:1.2)",
        "(smile:120%)": ":120%) does not set a weight; write (words:1.2)",
        "(smile:1.2.3)": "write (words:1.2)",
        "(smile:−1.2)": ":−1.2) does not set a weight; write (words:-1.2)",
        "(smile:1_0)": ":1_0) does not set a weight; write (words:1",
        "((smile:1,3))": "write (words:1.3)",
        "(a (b):1,3)": "write (words:1.3)",
        "(smile:)": ":) does not set a weight",
        "(a:)": ":) does not set a weight",
        "(smile=1.3)": "=1.3) does not set a weight; write (words:1.3)",
        "hat, smile:1.3, 1girl": "smile:1.3 does not set a weight; write (smile:1.3)",
        "1girl, (hat:1.2, red cap:1.3)": "hat:1.2 does not set a weight; write (hat:1.2)",
    }  # fmt: skip
    assert missing(find_foreign_syntax, cases) == {}


def test_each_kind_of_brackets_is_named_once() -> None:
    found = list(find_foreign_syntax("[a], [b], [a:b:0.5], [a|b], {a}, {b}, {a|b}, {{a}}"))
    assert [text.partition(" ")[0] for text in found] == [
        "[a]", "[a:b:0.5]", "[a|b]", "{a}", "{a|b}", "{{a}}"
    ]  # fmt: skip


def test_ordinary_text_is_no_foreign_syntax() -> None:
    prompts = [
        "1girl and 1boy, break, breakdance, and, brand, Android",
        "a poster of ROCK AND ROLL, the title PRISON BREAK, BREAK DANCE, SALT AND PEPPER",
        'a sign that says "AND", another one that says "BREAK"',
        r"1girl, \[text\], [], {}, [ ], :[, :], :3, >:], \{x\}",
        "<3, <3 >, i <3 you, a < b > c, <br>, >_<",
        "^__^, o__o, __, ____, snake_case, two  blanks",
        "(red hair:1.2), ((hat)), 16:9, 10:30, year 2025, re:zero, fate/stay night, c++, 1+1",
        "(o)-(o), (hat)-like, a girl (tall)-- she waves, a -- b, std::vector",
        '{"subject": "1girl", "style": "ink"}',
        "an embedding: of words, embeddings, lora, a wildcard",
        "c++, g++ code, notepad++, dev-c++, A+, 18+, google+, cat+, x--, jean--luc, a--, wait-- x",
        "she said -- and waved --, --, left --no one saw it, a--no b, pre--ar, self.and, (a)",
        "(smile:1.2), (smile: 1.2 ), (smile:.5), (smile:+1.2), (hat:-1), (hat:1e0), (hat:１.２)",
        "16:9, 4:3, aspect ratio 16:9, ratio:1.5, f:1.8, version:1.5, (16:9), (ratio 3:4), 10:30",
        "1girl, :d, :3, (:3), d:, (D:), (x:), :), (happy :), score_9, (re:zero), (nier:automata)",
        "(fate:stay night), text: hello, title: 2.5, 1girl: hat, @wlop, [:, >:[, :{, =], d], :]",
        "{_}, [_], {__}, evangelion:2.22, kingdom hearts:2.8, (evangelion:2.22:1.2)",
        "(watercolor (medium):1.2), (a (b):1.2 ), std::x, a::b, negative space, steps: 3",
        'she says: "1.2" (hat), a masked man, MASK, COUPLE, an area (large), --s-- <3, i <lora',
        "a | b, || a, a||b, <a> b, hat: 1.2 is a number, https://a.b/c:1.2",
    ]
    assert false_alarms(find_foreign_syntax, prompts) == {}


def test_unbalanced_brackets_are_found() -> None:
    cases = {
        "(1girl:1.2, solo": "the ( in '(1girl:1.2, solo' is never closed",
        "solo, (1girl": "the ( in '(1girl' is never closed",
        "((1girl:1.2), solo": "never closed: it is plain text, and brackets after it may lose",
        "1girl:1.2), solo": "the ) in '1girl:1.2)' was never opened",
        "(1girl)), solo, (hat:1.2)": "was never opened: it is plain text, and brackets after it",
        r"oil painting \(medium)": "was never opened",
        r"oil painting (medium\), 1girl": "is never closed",
        "a) , hat), (b": "the ) in 'a) , hat)' was never opened",
        "1girl, ;), (red hair:1.2)": "the ) in '1girl, ;)' was never opened",
        "(1girl, :), solo:1.2)": "was never opened",
    }
    assert missing(find_unbalanced_brackets, cases) == {}


def test_balanced_brackets_emoticons_and_numbered_points_are_left_alone() -> None:
    prompts = [
        "",
        "1girl, (red hair:1.2), ((hat)), ()",
        r"oil painting \(medium\), ganyu \(genshin impact\), \(, \)",
        ":), ;), :(, >:), >:(, :-), ;-(, =), (:, x), :'(, ^_^",
        "1girl, (red hair:1.2), smile, ;)",
        r"\(^o^)/, m(_ _)m, (o)_(o), (^_^), (>_<)",
        "1) a girl, 2) a boy",
        "a) a girl in the rain, b) a boy, ii) a dog, :)))))",
        "[hat, {cap, 夜（雨",
    ]
    assert false_alarms(find_unbalanced_brackets, prompts) == {}


def test_full_width_brackets_are_found() -> None:
    cases = {
        "（1girl：1.2）, solo": "（1girl：1.2） has no weight; write (1girl:1.2)",
        "solo, (1girl：1.2)": "write (1girl:1.2)",
        "solo, （1girl:1.2）": "write (1girl:1.2)",
        "solo, (1girl:1.2）": "write (1girl:1.2)",
        "（夜の街，雨：１．３）": "write (夜の街，雨:1.3)",
        "1girl, （red hair）, hat": "（red hair） has no weight; write (red hair)",
        "（（傑作））, 1girl": "（（傑作）） has no weight; write ((傑作))",
        "(smile:１．２), 1girl": "(smile:１．２) has no weight; write (smile:1.2)",
        "［hat］, 1girl": "［hat］ has no weight; write (hat:0.9)",
        "1girl, ｛red hair｝": "｛red hair｝ has no weight; write (red hair:1.05)",
        "〈smile：1.2〉": "〈smile：1.2〉 has no weight; write (smile:1.2)",
        "【hat：1.2】, 1girl": "【hat：1.2】 has no weight; write (hat:1.2)",
        "〔傑作：１．３〕": "write (傑作:1.3)",
    }
    assert missing(find_full_width_brackets, cases) == {}
    assert false_alarms(find_unbalanced_brackets, list(cases)) == {}


def test_full_width_brackets_of_prose_are_left_alone() -> None:
    prompts = [
        "夜の街（雨）、少女が傘を差している。（遠景）",
        "刻晴（genshin impact）, 1girl",
        "放課後（15：30）の教室、比率（16：9）",
        "(smile:１.２), (smile:١.٢), 【画风】wlop, ［・∀・］, 「夜：3」, 【第1：章】, [hat]",
        "(夜の街:1.2), (½ body:1.2), (it’s…:0.9), 1girl：hat",
        "（・∀・）, （笑）, （＾＿＾）, （T_T）",
    ]
    assert false_alarms(find_full_width_brackets, prompts) == {}


def test_hostile_prompts_take_linear_time() -> None:
    pieces = (
        "(", ")", "()", ":)", "[", "]", "[a", "{a", "{", "$", "${", "__", "__a", "/__a", "<a",
        "<lora:", "<a[", "<random[", "embedding:", "BREAK ", "AND ", "A", "A ", "1:", "1::", ")+",
        ")1", "（", "（a", "（a：", "（a：1", "（（", "）", ":", "1", ".", "a", " ", ",",
        "\\(", "|", "[a:", "[a|", '":', "a:1,2)", "a:)", ",a:1.2", "a++", "a--,", '"', '"a"',
        "＜lora:", "< ", "--no ", "||a", "|a", " [a", " {a", "aa]", "［a", "【a：1", ".swap(",
        "a=1.2)",
    )  # fmt: skip
    for find in (find_foreign_syntax, find_unbalanced_brackets, find_full_width_brackets):
        for piece in pieces:

            def run(text: str, find: Find = find) -> None:
                assert sum(map(len, find(text))) < 2_000

            assert grows_linearly(run, piece), (find.__name__, piece)
