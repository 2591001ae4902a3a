from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.breaker import (
    ALL,
    BreakerPolicy,
    BreakerRecord,
    Issuance,
    Mode,
    Override,
    Signal,
    State,
    Threshold,
    Verdict,
    Watch,
    advance,
    evaluate,
    judge,
    overridden,
    quorum,
    ramp_begins_in_ms,
    ramp_invites_after_ms,
    ramp_reaches_after_ms,
    share_permille,
)

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
WELL = Verdict(sick="", well_since_ms=0)
SICK = Verdict(sick="queue_wait")
FORCED_OPEN = Override(Mode.FORCED_OPEN, "mei", "the tills are down", None)


def watched(*readings: float) -> list[tuple[Signal, ...]]:
    watch, tripped = Watch(), []
    for reading in readings:
        watch = evaluate({Signal.QUEUE_WAIT: reading}, watch, POLICY)
        tripped.append(watch.tripped)
    return tripped


def test_three_bad_samples_in_a_row_trip_a_signal_and_two_do_not() -> None:
    tripped = (Signal.QUEUE_WAIT,)
    assert watched(0.6, 0.6, 0.2, 0.6, 0.6) == [()] * 5
    assert watched(0.6, 0.6, 0.5) == [(), (), tripped]


def test_a_tripped_signal_stays_tripped_until_it_is_below_its_clear_threshold() -> None:
    tripped = (Signal.QUEUE_WAIT,)
    assert watched(0.6, 0.6, 0.6, 0.3, 0.1, 0.09, 0.3) == [(), (), tripped, tripped, tripped, (), ()]


def test_the_gravest_signal_is_named_first() -> None:
    sample = {Signal.EVENT_LOOP_LAG: 9.0, Signal.STORE_FAILURES: 1.0}
    watch = evaluate(sample, Watch(), replace(POLICY, samples_to_trip=1))
    assert watch.tripped == (Signal.STORE_FAILURES, Signal.EVENT_LOOP_LAG)


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ({}, ""),
        ({"a": "queue_wait"}, "queue_wait"),
        ({"a": "queue_wait", "b": ""}, ""),
        ({"a": "queue_wait", "b": "", "c": ""}, ""),
        ({"a": "queue_wait", "b": "store_failures", "c": "store_failures", "d": ""}, "store_failures"),
    ],
)
def test_only_most_of_the_live_replicas_are_a_quorum(votes: dict[str, str], reason: str) -> None:
    assert quorum(votes) == reason


def test_a_breaker_is_well_since_its_first_well_look() -> None:
    verdict = judge(Verdict(), "", 1_000)
    assert judge(verdict, "", 2_000) == Verdict("", 1_000)
    assert judge(judge(verdict, "queue_wait", 3_000), "", 4_000) == Verdict("", 4_000)


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


@given(place=st.integers(0, ALL - 1))
def test_a_user_who_comes_when_the_ramp_reaches_him_may_pass_and_not_a_millisecond_before(place: int) -> None:
    ramp = BreakerRecord(2, State.HALF_OPEN, 0)
    reached_ms = ramp_reaches_after_ms(place, POLICY)
    assert place < share_permille(ramp, reached_ms, POLICY)
    assert reached_ms == 0 or place >= share_permille(ramp, reached_ms - 1, POLICY)


def test_unknown_callers_come_back_in_proportion_to_the_share_open_at_that_time() -> None:
    draws = 20_000
    arrivals = [ramp_invites_after_ms(draw / draws, POLICY) for draw in range(draws)]
    ramp = BreakerRecord(2, State.HALF_OPEN, 0)
    mean_share = (POLICY.ramp_start_permille + ALL) / 2
    for begin_ms in range(0, POLICY.ramp_ms, 3_000):
        arrived = sum(begin_ms <= arrival < begin_ms + 3_000 for arrival in arrivals)
        share = share_permille(ramp, begin_ms + 1_500, POLICY)
        assert arrived == pytest.approx(draws / 10 * share / mean_share, rel=0.05)


@given(elapsed_ms=st.integers(-1_000, 60_000), later_ms=st.integers(0, 60_000))
def test_the_share_never_falls_on_the_ramp(elapsed_ms: int, later_ms: int) -> None:
    ramp = BreakerRecord(2, State.HALF_OPEN, 0)
    share, later = (share_permille(ramp, at_ms, POLICY) for at_ms in (elapsed_ms, elapsed_ms + later_ms))
    assert POLICY.ramp_start_permille <= share <= later <= ALL


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
                Mode.FORCED_OPEN: 0,
                Mode.FORCED_CLOSED: ALL,
            }.get(mode)
    record = overridden(record, Override(), now_ms, POLICY)
    for _second in range(60):
        now_ms += 1_000
        verdict = judge(verdict, "", now_ms)
        record = advance(record, verdict, now_ms, POLICY)
    assert (record.state, share_permille(record, now_ms, POLICY)) == (State.CLOSED, ALL)


def assert_legal(before: BreakerRecord, after: BreakerRecord, now_ms: int) -> None:
    if after is before:
        return
    assert after.epoch == before.epoch + 1
    if before.override.mode is not Mode.AUTO:
        assert before.override.expires_at_ms is not None
        assert before.override.expires_at_ms <= now_ms
        assert (after.state, after.override) == (before.state, Override())
        return
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
        {"minimum_pause_ms": 60_001},
        {"minimum_pause_ms": 0},
        {"ramp_ms": 0},
        {"ramp_start_permille": ALL},
        {"samples_to_trip": 0},
        {"trip_memory_ms": -1},
    ],
)
def test_figures_that_contradict_each_other_are_refused(contradiction: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BreakerPolicy(**contradiction)  # type: ignore[arg-type]


def test_a_threshold_clears_below_its_trip() -> None:
    with pytest.raises(ValueError, match="clear must be"):
        Threshold(trip=0.1, clear=0.2)
