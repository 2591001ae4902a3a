from dataclasses import fields

import pytest

from service.domain.saturation import Signal, Threshold, Thresholds, Verdict, Watch, evaluate, judge, quorum

THRESHOLDS = Thresholds(queue_wait=Threshold(trip=0.5, clear=0.1))


def watched(*readings: float) -> list[tuple[Signal, ...]]:
    watch, tripped = Watch(), []
    for reading in readings:
        watch = evaluate({Signal.QUEUE_WAIT: reading}, watch, THRESHOLDS, 3)
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
    watch = evaluate(sample, Watch(), THRESHOLDS, 1)
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
    assert quorum(votes.values()) == reason


def test_a_breaker_is_well_since_its_first_well_look() -> None:
    verdict = judge(Verdict(), "", 1_000)
    assert judge(verdict, "", 2_000) == Verdict("", 1_000)
    assert judge(judge(verdict, "queue_wait", 3_000), "", 4_000) == Verdict("", 4_000)


def test_a_threshold_clears_below_its_trip() -> None:
    with pytest.raises(ValueError, match="clear must be"):
        Threshold(trip=0.1, clear=0.2)


def test_every_signal_has_a_threshold_of_its_name_and_none_is_left_over() -> None:
    assert {field.name for field in fields(Thresholds)} == {signal.value for signal in Signal}
    assert all(isinstance(Thresholds().of(signal), Threshold) for signal in Signal)
