"""Everybody is told in the language that suits him best, whatever his browser sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.languages import preferred

AVAILABLE = ["de-CH", "zh-Hans", "en", "fr", "zh-Hant"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("", "de-CH"),
        ("en", "en"),
        ("EN", "en"),
        ("en-GB,en;q=0.9", "en"),
        ("zh", "zh-Hans"),
        ("zh-Hant-TW, zh;q=0.8", "zh-Hant"),
        ("zh-TW", "zh-Hans"),
        ("fr;q=0.5, en;q=0.9", "en"),
        ("en;q=0, *", "de-CH"),
        ("de-ch;q=0, *;q=0.1", "zh-Hans"),
        ("ja, *;q=0.5", "de-CH"),
        ("ja, ko;q=0.5", "de-CH"),
        ("fr ; q = 1", "fr"),
        ("fr;q=much, en;q=0.1", "en"),
        ("e", "de-CH"),
        (",;q=,,en", "en"),
    ],
)
def test_the_best_language_is_found(wanted: str, told: str) -> None:
    assert preferred(wanted, AVAILABLE) == told


@given(st.text(alphabet="enzh-*;q=01.,, é\x00", max_size=60))
def test_whatever_is_sent_there_is_an_answer(wanted: str) -> None:
    assert preferred(wanted, AVAILABLE) in AVAILABLE
