"""Strategies that several fuzz tests draw from."""

from hypothesis import strategies as st

PIECES = st.sampled_from(
    [
        "(", ")", "((", "))", "[", "]", "\\(", "\\)", "\\", ":", "::", ":1.2)", ":-1)", ":1e400)",
        ":nan)", ":1_0)", ",", ", ", "\n", "\r", "\t", "_", " ", "1girl", "(smile:1.2)", "^_^",
        "<lora:hat:0.8>", "<lora:hat:", "<lora:a:1:2:3>", "BREAK", " AND ", "@wlop", "{a|b}",
        "\x00", "\ud800", "\u202e", "\u200b", "ﾟ", "🙂‍↔️", "é", "ß", "İ", "nsfw", "safe",
        "Negative prompt:", "Steps: 20", "__wild__", "a" * 500,
    ]
)  # fmt: skip


TEXTS = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=40).map("".join))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
