from __future__ import annotations

import pytest

from openfero_gitops.domain.url_template import check_template


@pytest.mark.parametrize(
    "text",
    [
        "https://git.example.com/heal",
        "https://git.example.com/{sha}/{commit}",
        "javascript:alert({commit})",
        "https://user:secret@git.example.com/{commit}",
        "https:///{commit}",
        "https://[x/{commit}",
        'https://git.example.com/"{commit}',
    ],
)
def test_bad_templates(text: str) -> None:
    """A template that is no address of a commit is refused, without repeating it."""
    with pytest.raises(ValueError, match=r"^(must|is not|contains)") as error:
        check_template(text)
    assert "secret" not in str(error.value)


def test_good_templates() -> None:
    """A template may be absent."""
    assert check_template(" ") == ""
    assert check_template("https://g.example/x/{commit}?p={path} ").startswith("https://g.example")
