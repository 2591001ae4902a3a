"""Durations are read and written as ISO 8601 has it, and a zone's offsets are found where they change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.validity import DAY_MS, MAX_DURATION_DAYS, Duration, zone_exists, zone_offsets

HOUR = 3_600_000
JANUARY_2026 = 1_767_225_600_000


@given(st.builds(Duration, st.integers(0, 3_000), st.integers(0, 600 * 86_400).map(lambda seconds: seconds * 1000)))
def test_a_duration_is_read_back_as_it_was_written(duration: Duration) -> None:
    assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("P7D", Duration(days=7)),
        ("P2W", Duration(days=14)),
        ("PT90M", Duration(exact_ms=90 * 60_000)),
        ("P1DT12H", Duration(days=1, exact_ms=12 * HOUR)),
        ("PT0S", Duration()),
        ("PT36H", Duration(exact_ms=36 * HOUR)),
        (f"P{MAX_DURATION_DAYS}D", Duration(days=MAX_DURATION_DAYS)),
    ],
)
def test_a_duration_keeps_days_apart_from_hours(text: str, duration: Duration) -> None:
    assert Duration.parse(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "7D",
        "P1Y",
        "P1M",
        "P1.5D",
        "P-1D",
        "P1W1D",
        "p7d",
        "P7D ",
        "PT1S1M",
        "P99999D",
        "PT999999999S",
    ],
)
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        Duration.parse(text)


def test_a_zone_without_changes_has_one_offset() -> None:
    assert zone_offsets("Asia/Shanghai", JANUARY_2026) == ((0, 8 * HOUR),)


def test_a_zone_with_summer_time_changes_twice_a_year_to_the_second() -> None:
    offsets = zone_offsets("Europe/Berlin", JANUARY_2026)
    assert offsets[:3] == ((0, HOUR), (1_774_746_000_000, 2 * HOUR), (1_792_890_000_000, HOUR))
    assert len(offsets) == 21
    assert offsets[-1][0] < JANUARY_2026 + MAX_DURATION_DAYS * DAY_MS


def test_the_offset_before_a_change_near_the_beginning_is_known_too() -> None:
    assert zone_offsets("Europe/Berlin", 1_774_746_000_000)[:2] == ((0, HOUR), (1_774_746_000_000, 2 * HOUR))


@pytest.mark.parametrize(
    ("name", "exists"), [("Asia/Shanghai", True), ("UTC", True), ("Asia/Qwen", False), ("", False)]
)
def test_only_zones_that_exist_are_zones(name: str, exists: bool) -> None:
    assert zone_exists(name) is exists
