from __future__ import annotations

import pytest

from openfero_gitops.web.highlight import highlight, language_of


def test_keys_values_and_comments_have_classes() -> None:
    """YAML is split into lines, whose parts have style classes."""
    first, second = highlight('kind: Job # it\nname: "x"\n', "yaml").lines
    assert first == (
        '<span class="key">kind</span>: <span class="scalar">Job</span> '
        '<span class="comment"># it</span>'
    )
    assert second == '<span class="key">name</span>: <span class="string">&#34;x&#34;</span>'


@pytest.mark.parametrize("language", ["yaml", "json"])
def test_markup_in_a_file_is_text(language: str) -> None:
    """Markup and invisible characters of a file are shown, not obeyed."""
    (line,) = highlight('"<img src=x onerror=alert(1)>\u202e"', language).lines
    assert "<img" not in line
    assert "&lt;img" in line
    assert "\\u202e" in line


def test_a_text_over_several_lines_keeps_its_style() -> None:
    """A block of text has its class on each of its lines, and empty lines stay."""
    lines = highlight("run: |\n  one\n\n  two", "yaml").lines
    assert len(lines) == 4
    assert lines[1].striptags().strip() == "one"
    assert lines[2].striptags() == ""


def test_long_files_are_cut() -> None:
    """Of a long file the first lines are highlighted, and the others are counted."""
    text = highlight("a: 1\n" * 5000, "yaml")
    assert len(text.lines) + text.left_out == 5000
    assert 0 < len(text.lines) < 5000
    assert len(highlight("a: " + "x" * 1_000_000, "yaml").lines[0]) < 100_000


@pytest.mark.parametrize(
    ("text", "lines", "left_out", "cut"),
    [
        ("a: " + "x" * 60_000, 1, 0, True),
        ("- x\n" * 10 + "z: " + "y" * 60_000 + "\nend: 1", 11, 1, True),
        ("a" * 48 * 1024, 1, 0, False),
        ("a" * 48 * 1024 + "\nb", 1, 1, False),
        ("a" * (48 * 1024 - 1) + "\nb", 1, 1, False),
        ("a: " + "x" * 40 + "\n" + "b: 1\n" * 999 + "c" * 60_000, 1000, 1, False),
    ],
)
def test_a_line_that_is_cut_is_reported(text: str, lines: int, left_out: int, *, cut: bool) -> None:
    """The text says whether its last line is shown in part, and how many lines follow."""
    shown = highlight(text, "yaml")
    assert (len(shown.lines), shown.left_out, shown.cut) == (lines, left_out, cut)


def test_long_lines_do_not_take_long() -> None:
    """A text on which a lexer takes many seconds is shown without colors."""
    (line,) = highlight("a: " + "- " * 20_000, "yaml").lines
    assert line.startswith("a: - - ")


def test_the_name_of_a_file_says_its_language() -> None:
    """Files are YAML unless their name ends with .json."""
    assert language_of("a/b.JSON") == "json"
    assert language_of("a/b.yml") == "yaml"
