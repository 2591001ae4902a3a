"""When coupons can be used next, found by jumping from date to date, against looking at every minute."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.opening import DAY_MINUTES, MAX_CLOSED_DAYS, MAX_DATES, WEEK, Hours, Opening, Weekday, first_overlap
from service.domain.validity import FixedValidity, usable_at
from tests import opening_model as model

DAY = DAY_MINUTES * model.MINUTE
MONDAY = date(2026, 2, 9)
NOON = model.milliseconds(model.EPOCH.replace(year=2026, month=2, day=9, hour=12))
TEN_TO_TEN = Hours(("mon", "tue"), 600, 1320)


def rule(season: tuple[str, str], opening: Opening, until_ms: int) -> FixedValidity:
    return FixedValidity(season[0], None, until_ms, offsets=model.season_offsets(season), opening=opening)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), season=st.sampled_from(model.SEASONS))
def test_the_next_usable_instant_is_open_and_no_minute_before_it_is(
    data: st.DataObject, season: tuple[str, str]
) -> None:
    opening, from_ms = data.draw(model.openings(season)), data.draw(model.instants(season))
    until_ms = from_ms + data.draw(st.integers(1, 4 * DAY))
    found = usable_at(rule(season, opening, until_ms), from_ms, until_ms)
    end_ms = until_ms if found is None else found
    first_minute = from_ms + -from_ms % model.MINUTE
    looked_at = [from_ms, *range(first_minute, end_ms, model.MINUTE)]
    assert not any(model.is_open(opening, season[0], instant) for instant in looked_at if instant < end_ms)
    assert found is None or (from_ms <= found < until_ms and model.is_open(opening, season[0], found))


def test_without_an_opening_the_first_instant_is_usable_and_after_the_expiry_none() -> None:
    unrestricted = FixedValidity("UTC", None, NOON)
    assert usable_at(unrestricted, NOON - 1, NOON) == NOON - 1
    assert usable_at(unrestricted, NOON, NOON) is None


def test_a_night_that_has_begun_is_usable_until_it_ends_on_the_next_day() -> None:
    nights = rule(("UTC", "2026-02-06"), Opening((Hours(("mon",), 1200, 120),)), 2**47)
    ends_ms = NOON + DAY - 10 * 3_600_000
    assert usable_at(nights, ends_ms - 1, 2**47) == ends_ms - 1
    assert usable_at(nights, ends_ms, 2**47) == ends_ms + 7 * DAY - 6 * 3_600_000


def test_the_opening_is_found_behind_as_many_excluded_dates_as_there_can_be() -> None:
    mondays = frozenset(MONDAY + timedelta(weeks=week) for week in range(MAX_DATES))
    weekly = rule(("UTC", "2026-02-06"), Opening((Hours(("mon",), 600, 1320),), mondays), 2**47)
    opens_ms = NOON - 2 * 3_600_000 + MAX_DATES * 7 * DAY
    assert usable_at(weekly, NOON, 2**47) == opens_ms
    assert usable_at(weekly, NOON, opens_ms) is None
    assert opens_ms - NOON < MAX_CLOSED_DAYS * DAY


@pytest.mark.parametrize(
    ("hours", "overlap"),
    [
        ([], None),
        ([TEN_TO_TEN], None),
        ([TEN_TO_TEN, Hours(("mon",), 1320, 600)], None),
        ([TEN_TO_TEN, Hours(("tue",), 1319, 1400)], ("tue", 1319)),
        ([TEN_TO_TEN, Hours(("mon",), 1320, 601)], ("tue", 600)),
        ([Hours(WEEK, 0, DAY_MINUTES)], None),
        ([Hours(("sun",), 1200, 120), Hours(("mon",), 120, 180)], None),
        ([Hours(("sun",), 1200, 121), Hours(("mon",), 120, 180)], ("mon", 120)),
        ([Hours(("mon",), 0, DAY_MINUTES), Hours(("mon",), 720, 721)], ("mon", 720)),
        ([Hours(("mon",), 600, 600 - 1), Hours(("tue",), 0, 1)], ("tue", 0)),
    ],
)
def test_two_hours_overlap_where_both_are_open_at_the_same_minute(
    hours: list[Hours], overlap: tuple[Weekday, int] | None
) -> None:
    assert first_overlap(hours) == overlap
    assert first_overlap(reversed(hours)) == overlap


@settings(max_examples=40, deadline=None)
@given(hours=st.lists(model.entries, max_size=4))
def test_hours_overlap_exactly_where_a_minute_of_the_week_is_counted_twice(hours: list[Hours]) -> None:
    week = len(WEEK) * DAY_MINUTES
    minutes = [
        (WEEK.index(day) * DAY_MINUTES + minute) % week
        for entry in hours
        for day in entry.days
        for minute in range(*entry.span)
    ]
    assert (first_overlap(hours) is None) == (len(set(minutes)) == len(minutes))
