import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.ramp import ALL, FILLED, LONGEST_TAIL_MS, WHOLE_SECOND_MS, Ramp, StrangersPlaces

RAMP = Ramp(start_permille=50, length_ms=30_000)
HALVED = Ramp(start_permille=25, length_ms=60_000)
ramps = st.builds(Ramp, st.integers(1, ALL - 1), st.integers(1, 600_000))


@given(ramp=ramps, place=st.integers(0, ALL - 1))
def test_a_user_who_comes_when_the_ramp_reaches_him_may_pass_and_not_a_millisecond_before(
    ramp: Ramp, place: int
) -> None:
    reached_ms = ramp.reaches_user_after_ms(place)
    assert place < ramp.share_permille(reached_ms)
    assert reached_ms == 0 or place >= ramp.share_permille(reached_ms - 1)


@given(ramp=ramps, elapsed_ms=st.integers(-1_000, 700_000), later_ms=st.integers(0, 700_000))
def test_the_share_never_falls(ramp: Ramp, elapsed_ms: int, later_ms: int) -> None:
    share, later = ramp.share_permille(elapsed_ms), ramp.share_permille(elapsed_ms + later_ms)
    assert ramp.start_permille <= share <= later <= ALL


@pytest.mark.parametrize("ramp", [RAMP, HALVED])
def test_strangers_and_those_of_them_who_must_come_twice_arrive_in_proportion_to_the_share(ramp: Ramp) -> None:
    dice, callers, arrivals = random.Random(1), 50_000, []
    for caller in range(callers):
        at_ms = ramp.invites_stranger_after_ms(caller / callers)
        arrivals.append(at_ms)
        place = dice.randrange(ALL)
        if place >= ramp.share_permille(at_ms):
            arrivals.append(ramp.reaches_user_after_ms(place))
    tenth_ms = ramp.length_ms // 10
    mean_share = (ramp.start_permille + ALL) / 2
    for begin_ms in range(0, ramp.length_ms, tenth_ms):
        arrived = sum(begin_ms <= arrival < begin_ms + tenth_ms for arrival in arrivals)
        share = ramp.share_permille(begin_ms + tenth_ms // 2)
        assert arrived == pytest.approx(len(arrivals) / 10 * share / mean_share, rel=0.05)


@pytest.mark.parametrize("per_second", [100.0, 1_270.0, 8_500.0])
def test_as_many_strangers_have_a_place_on_the_ramp_as_it_can_take_and_the_others_come_behind_it_in_a_line(
    per_second: float,
) -> None:
    places = StrangersPlaces(RAMP, per_second)
    on_ramp = RAMP.strangers(per_second)
    for number in (0, 1, on_ramp - 1):
        assert places.after_ms(number) <= RAMP.length_ms
    ends_ms = RAMP.length_ms + WHOLE_SECOND_MS
    behind = [places.after_ms(on_ramp + n) - ends_ms for n in range(round(30 * per_second))]
    assert min(behind) >= 0
    for begin_ms in range(0, 30_000, 1_000):
        comes = sum(begin_ms <= behind_ms < begin_ms + 1_000 for behind_ms in behind)
        assert comes == pytest.approx(FILLED * per_second, rel=0.05)


def test_those_invited_leave_a_tenth_of_the_ramps_room_to_the_unpunctual() -> None:
    per_second, dice, arrivals = 3_000.0, random.Random(2), []
    places = StrangersPlaces(RAMP, per_second)
    for number in range(RAMP.strangers(per_second)):
        arrivals.append(places.after_ms(number))
        place = dice.randrange(ALL)
        if place >= RAMP.share_permille(arrivals[-1]):
            arrivals.append(RAMP.reaches_user_after_ms(place))
    for begin_ms in range(0, RAMP.length_ms, 3_000):
        room = per_second * 3 * RAMP.share_permille(begin_ms + 1_500) / ALL
        came = sum(begin_ms <= arrival < begin_ms + 3_000 for arrival in arrivals)
        assert came == pytest.approx(FILLED * room, rel=0.05)


def test_a_line_that_is_too_long_ends_all_the_same_and_its_end_is_spread() -> None:
    ends_ms = RAMP.length_ms + WHOLE_SECOND_MS
    places = StrangersPlaces(RAMP, 100.0)
    behind = [places.after_ms(number) - ends_ms for number in range(10**6, 10**6 + 100)]
    assert 0 <= min(behind) < LONGEST_TAIL_MS / 20
    assert LONGEST_TAIL_MS * 19 / 20 < max(behind) <= LONGEST_TAIL_MS


@given(ramp=ramps, turn=st.integers(0, 10**6), per_second=st.floats(1.0, 1e5))
def test_a_turn_comes_when_so_many_have_had_room(ramp: Ramp, turn: int, per_second: float) -> None:
    due_ms = ramp.reaches_turn_after_ms(turn, per_second)
    start, length_s, due_s = ramp.start_permille / ALL, ramp.length_ms / 1000, due_ms / 1000
    on_ramp_s = min(due_s, length_s)
    room = per_second * (start * on_ramp_s + (1 - start) / length_s * on_ramp_s**2 / 2 + max(0.0, due_s - length_s))
    assert room == pytest.approx(turn, rel=1e-6, abs=per_second * 0.002)


def test_in_a_line_each_turn_comes_after_the_one_before() -> None:
    due = [RAMP.reaches_turn_after_ms(turn, 500.0) for turn in range(0, 20_000, 50)]
    assert due == sorted(set(due) | {0})
