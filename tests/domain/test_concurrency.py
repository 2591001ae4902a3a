import pytest

from service.domain.concurrency import LEAST_LIMIT, MOST_LIMIT, ConcurrencyLimit


def after(limit: ConcurrencyLimit, samples: int, round_trip_s: float, in_flight: int) -> ConcurrencyLimit:
    for _sample in range(samples):
        limit = limit.after(round_trip_s, in_flight)
    return limit


def test_while_times_are_as_usual_a_limit_that_is_used_grows_up_to_the_most() -> None:
    grown = after(ConcurrencyLimit(), 50, 0.01, 10_000)
    assert LEAST_LIMIT < grown.limit < MOST_LIMIT
    assert after(grown, 10_000, 0.01, 10**6).limit == MOST_LIMIT


def test_a_limit_that_nobody_needs_stays_as_it_is() -> None:
    assert after(ConcurrencyLimit(), 50, 0.01, 100).limit == LEAST_LIMIT


def test_when_times_rise_the_limit_falls_but_never_below_the_least() -> None:
    usual = after(ConcurrencyLimit(), 200, 0.01, 10_000)
    once = usual.after(0.1, 10_000)
    assert 0.85 * usual.limit < once.limit < usual.limit
    assert after(usual, 60, 0.1, 100_000).limit == LEAST_LIMIT


def test_after_a_long_overload_the_usual_time_is_soon_known_again() -> None:
    overloaded = after(after(ConcurrencyLimit(), 600, 0.01, 5_000), 2_000, 1.0, 5_000)
    assert overloaded.long_term_s > 0.9
    assert after(overloaded, 60, 0.01, 5_000).long_term_s == pytest.approx(0.02, rel=0.2)
