from __future__ import annotations

import pytest

from store.urls import mask_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h:5432/n", "postgresql://u:***@h:5432/n"),
        ("postgresql+psycopg://u:se:cr@et@h/n", "postgresql+psycopg://u:***@h/n"),
        (
            "postgresql://u:s%2Fc@[::1]:5/n?sslmode=require",
            "postgresql://u:***@[::1]:5/n?sslmode=require",
        ),
        ("postgresql://h/n?user=u&password=secret&x=1", "postgresql://h/n?user=u&password=***&x=1"),
        ("postgresql://h/n?sslpassword=secret", "postgresql://h/n?sslpassword=***"),
        ("https://u:secret@registry:8081", "https://u:***@registry:8081"),
        ("postgresql://u@h:5432/n", "postgresql://u@h:5432/n"),
        ("https://registry:8081/a@b", "https://registry:8081/a@b"),
        ("sqlite:////a/b:c@d.sqlite", "sqlite:////a/b:c@d.sqlite"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_password(url) == shown
    assert mask_password(shown) == shown
