"""Tables, and texts that must not command the terminal."""

from rich.cells import cell_len

from cli.output import printable, table_lines

ROWS = [["01J", "running 40%", "青い髪, 1girl"], ["02K", "failed", "a\x1b[2Jb\nc"]]


def test_a_pipe_gets_whole_rows_in_columns() -> None:
    lines = table_lines(("JOB", "STATUS", "PROMPT"), ROWS, width=None)
    assert lines == [
        "JOB  STATUS       PROMPT",
        "01J  running 40%  青い髪, 1girl",
        "02K  failed       a\ufffd[2Jb c",
    ]


def test_a_terminal_gets_no_line_that_is_too_wide() -> None:
    lines = table_lines(("JOB", "STATUS", "PROMPT"), ROWS, width=22)
    assert [cell_len(line) <= 22 for line in lines] == [True] * 3
    assert lines[1].endswith("…")
    assert not lines[0].endswith("…") or cell_len("JOB  STATUS       PROMPT") > 22


def test_control_characters_are_replaced() -> None:
    assert printable("a\tb\r\nc\x07\x9b") == "a b  c\ufffd\ufffd"
