from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.breaker import (
    BreakerPolicy,
    BreakerRecord,
    Issuance,
    Mode,
    Override,
    State,
    advance,
    overridden,
    ramp_begins_in_ms,
    ramp_of,
    share_permille,
)
from service.domain.ramp import ALL, Ramp
from service.domain.saturation import Threshold, Verdict, judge

POLICY = BreakerPolicy(
    queue_wait=Threshold(trip=0.5, clear=0.1),
    samples_to_trip=3,
    minimum_pause_ms=5_000,
    maximum_pause_ms=20_000,
    well_before_reopening_ms=2_000,
    ramp_ms=30_000,
    ramp_start_permille=50,
    trip_memory_ms=120_000,
)
LONGEST_RAMP_MS = POLICY.ramp_ms << POLICY.maximum_ramp_halvings
WELL = Verdict(sick="", well_since_ms=0)
SICK = Verdict(sick="queue_wait")
FORCED_OPEN = Override(Mode.FORCED_OPEN, "mei", "the tills are down", None)


def test_the_tide_rises_the_gate_shuts_waits_reopens_by_a_ramp_and_is_open_again() -> None:
    calm = BreakerRecord()
    assert calm.issuance is Issuance.ISSUING
    assert advance(calm, WELL, 9_000, POLICY) is calm

    paused = advance(calm, SICK, 10_000, POLICY)
    assert (paused.epoch, paused.state, paused.since_ms, paused.reason) == (1, State.OPEN, 10_000, "queue_wait")
    assert (paused.issuance, paused.pause_ms) == (Issuance.PAUSED, 5_000)

    assert advance(paused, WELL, 14_999, POLICY) is paused
    assert advance(paused, SICK, 99_000, POLICY) is paused
    barely_well = Verdict(sick="", well_since_ms=13_001)
    assert advance(paused, barely_well, 15_000, POLICY) is paused

    recovering = advance(paused, barely_well, 15_001, POLICY)
    assert (recovering.state, recovering.issuance) == (State.HALF_OPEN, Issuance.RECOVERING)
    assert advance(recovering, WELL, 45_000, POLICY) is recovering

    issuing = advance(recovering, WELL, 45_001, POLICY)
    assert (issuing.epoch, issuing.state, issuing.since_ms) == (3, State.CLOSED, 45_001)


def test_a_trip_during_the_ramp_pauses_again_for_twice_as_long_up_to_the_maximum() -> None:
    recovering = BreakerRecord(2, State.HALF_OPEN, 0, "pause_over", 5_000)
    again = advance(recovering, SICK, 1_000, POLICY)
    assert (again.state, again.pause_ms) == (State.OPEN, 10_000)
    assert advance(replace(recovering, pause_ms=16_000), SICK, 1_000, POLICY).pause_ms == 20_000


def test_a_trip_during_the_ramp_halves_the_next_one_and_a_trip_long_after_forgets_that() -> None:
    first = BreakerRecord(2, State.HALF_OPEN, 0, "pause_over", 5_000)
    assert ramp_of(first, POLICY) == Ramp(50, 30_000)
    second = advance(first, SICK, 1_000, POLICY)
    assert ramp_of(second, POLICY) == Ramp(25, 60_000)
    again = advance(second, WELL, 11_000, POLICY)
    rates = [
        (share_permille(first, at_ms, POLICY), share_permille(again, 11_000 + at_ms, POLICY)) for at_ms in (0, 9_000)
    ]
    assert rates == [(50, 25), (335, 171)]
    assert advance(again, WELL, 70_999, POLICY) is again
    closed = advance(again, WELL, 71_000, POLICY)
    assert closed.state is State.CLOSED
    assert ramp_of(advance(closed, SICK, 72_000, POLICY), POLICY) == Ramp(25, 60_000)
    assert ramp_of(advance(closed, SICK, 191_000, POLICY), POLICY) == Ramp(50, 30_000)
    worst = advance(replace(first, ramp_halvings=3), SICK, 1_000, POLICY)
    assert ramp_of(worst, POLICY) == Ramp(6, LONGEST_RAMP_MS)


def test_pauses_differ_by_the_draw_and_stay_within_their_bounds() -> None:
    pauses = [advance(BreakerRecord(), SICK, 10_000, POLICY, draw).pause_ms for draw in (0.0, 0.5, 0.999)]
    assert pauses == [5_000, 5_250, 5_500]
    recovering = BreakerRecord(2, State.HALF_OPEN, 0, "pause_over", 16_000)
    assert advance(recovering, SICK, 1_000, POLICY, 0.5).pause_ms == 19_000


def test_in_shadow_the_signals_decide_as_ever_until_the_shadow_expires() -> None:
    shadow = overridden(BreakerRecord(), Override(Mode.SHADOW, "mei", "let us see", 60_000), 0, POLICY)
    assert (shadow.state, shadow.epoch) == (State.CLOSED, 1)
    paused = advance(shadow, SICK, 10_000, POLICY)
    assert (paused.state, paused.override) == (State.OPEN, shadow.override)
    assert advance(paused, WELL, 15_000, POLICY).state is State.HALF_OPEN
    in_earnest = advance(paused, SICK, 60_000, POLICY)
    assert (in_earnest.state, in_earnest.override) == (State.OPEN, Override())


def test_a_record_is_at_rest_once_nothing_about_it_must_be_remembered() -> None:
    closed = BreakerRecord(3, State.CLOSED, 10_000, "ramp_over", 5_000)
    assert not closed.is_at_rest(129_999, POLICY)
    assert closed.is_at_rest(130_000, POLICY)
    assert not replace(closed, override=FORCED_OPEN).is_at_rest(130_000, POLICY)
    assert not replace(closed, state=State.HALF_OPEN).is_at_rest(130_000, POLICY)


def test_a_recent_trip_is_remembered_and_an_old_one_forgotten() -> None:
    closed_again = BreakerRecord(3, State.CLOSED, 0, "ramp_over", 5_000)
    assert advance(closed_again, SICK, 119_999, POLICY).pause_ms == 10_000
    assert advance(closed_again, SICK, 120_000, POLICY).pause_ms == 5_000


def test_the_operator_outranks_the_signals_until_the_override_expires() -> None:
    held_open = overridden(BreakerRecord(), replace(FORCED_OPEN, expires_at_ms=60_000), 10_000, POLICY)
    assert (held_open.state, held_open.reason, held_open.override.actor) == (State.OPEN, "operator", "mei")
    assert advance(held_open, WELL, 59_999, POLICY) is held_open

    lifted = advance(held_open, WELL, 60_000, POLICY)
    assert (lifted.override.mode, lifted.state) == (Mode.AUTO, State.OPEN)
    assert advance(lifted, WELL, 60_000, POLICY).state is State.HALF_OPEN

    held_closed = overridden(lifted, Override(Mode.FORCED_CLOSED, "mei", "a false alarm", None), 61_000, POLICY)
    assert advance(held_closed, SICK, 999_000, POLICY) is held_closed
    automatic = overridden(held_closed, Override(), 999_000, POLICY)
    assert advance(automatic, SICK, 999_100, POLICY).state is State.OPEN


def test_an_override_that_changes_no_state_keeps_the_time_since_when_it_holds() -> None:
    paused = advance(BreakerRecord(), SICK, 10_000, POLICY)
    held = overridden(paused, FORCED_OPEN, 12_000, POLICY)
    assert held == replace(paused, epoch=2, override=FORCED_OPEN)


def test_a_record_survives_json_and_what_is_no_record_is_refused() -> None:
    record = overridden(advance(BreakerRecord(), SICK, 10_000, POLICY), FORCED_OPEN, 11_000, POLICY)
    assert BreakerRecord.from_json(record.to_json()) == record
    assert BreakerRecord.from_json(record.to_json().replace("{", '{"added_later":1,', 1)) == record
    older = record.to_json().replace(',"ramp_halvings":0', "")
    assert BreakerRecord.from_json(older) == record
    for text in ("", "[]", "{}", record.to_json().replace('"open"', '"ajar"')):
        with pytest.raises(ValueError, match=r"."):
            BreakerRecord.from_json(text)


def test_the_beginning_of_the_ramp_is_told_as_far_as_it_is_known() -> None:
    paused = advance(BreakerRecord(), SICK, 10_000, POLICY)
    assert ramp_begins_in_ms(paused, 11_000, POLICY) == 4_000
    assert ramp_begins_in_ms(paused, 99_000, POLICY) == 0
    held = overridden(paused, replace(FORCED_OPEN, expires_at_ms=70_000), 11_000, POLICY)
    assert ramp_begins_in_ms(held, 11_000, POLICY) == 59_000
    assert ramp_begins_in_ms(replace(held, override=FORCED_OPEN), 11_000, POLICY) == POLICY.maximum_pause_ms
    assert ramp_begins_in_ms(BreakerRecord(2, State.HALF_OPEN, 10_000), 13_000, POLICY) == -3_000


looks = st.tuples(st.sampled_from(["", "", "queue_wait"]), st.integers(0, 40_000))
words = st.sampled_from([None, None, None, *Mode])


@given(history=st.lists(st.tuples(looks, words, st.none() | st.integers(1, 90_000)), max_size=60))
def test_whatever_happens_the_breaker_keeps_its_promises_and_closes_once_it_is_left_well(
    history: list[tuple[tuple[str, int], Mode | None, int | None]],
) -> None:
    record, verdict, now_ms = BreakerRecord(), Verdict(), 0
    for (sick, elapsed_ms), mode, ttl_ms in history:
        now_ms += elapsed_ms
        verdict = judge(verdict, sick, now_ms)
        before = record
        record = advance(before, verdict, now_ms, POLICY)
        assert_legal(before, record, now_ms)
        if mode is not None:
            expires_at_ms = None if ttl_ms is None else now_ms + ttl_ms
            record = overridden(record, Override(mode, "mei", "rehearsal", expires_at_ms), now_ms, POLICY)
            assert share_permille(record, now_ms, POLICY) == {
                Mode.AUTO: share_permille(record, now_ms, POLICY),
                Mode.SHADOW: share_permille(record, now_ms, POLICY),
                Mode.FORCED_OPEN: 0,
                Mode.FORCED_CLOSED: ALL,
            }.get(mode)
    record = overridden(record, Override(), now_ms, POLICY)
    for _second in range(POLICY.maximum_pause_ms // 1000 + LONGEST_RAMP_MS // 1000 + 10):
        now_ms += 1_000
        verdict = judge(verdict, "", now_ms)
        record = advance(record, verdict, now_ms, POLICY)
    assert (record.state, share_permille(record, now_ms, POLICY)) == (State.CLOSED, ALL)


def assert_legal(before: BreakerRecord, after: BreakerRecord, now_ms: int) -> None:
    if after is before:
        return
    assert after.epoch == before.epoch + 1
    expires_at_ms = before.override.expires_at_ms
    if after.override != before.override:
        assert expires_at_ms is not None
        assert expires_at_ms <= now_ms
        assert (after.state, after.override) == (before.state, Override())
        return
    assert before.override.mode.follows_signals
    assert (before.state, after.state) in {
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.OPEN),
        (State.HALF_OPEN, State.CLOSED),
    }
    if after.state is State.OPEN:
        assert POLICY.minimum_pause_ms <= after.pause_ms <= POLICY.maximum_pause_ms
    if before.state is State.OPEN:
        assert now_ms - before.since_ms >= before.pause_ms


@pytest.mark.parametrize(
    "contradiction",
    [
        {"hold_after_ms": 0},
        {"hold_after_ms": 501},
        {"minimum_pause_ms": 60_001},
        {"minimum_pause_ms": 0},
        {"ramp_ms": 0},
        {"ramp_start_permille": ALL},
        {"samples_to_trip": 0},
        {"pause_jitter_permille": ALL + 1},
        {"maximum_ramp_halvings": 11},
        {"trip_memory_ms": -1},
    ],
)
def test_figures_that_contradict_each_other_are_refused(contradiction: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BreakerPolicy(**contradiction)  # type: ignore[arg-type]
