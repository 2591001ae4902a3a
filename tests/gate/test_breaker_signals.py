from service.domain.breaker import Signal
from service.gate.signals import BatchReport, Failure, Signals, failure_of
from service.store.scripts import StoreRefused, StoreTimeout, StoreUnreachable


def batch(
    waited_s: float = 0.0, store_s: float = 0.01, failure: Failure | None = None, verb: str = "issue", size: int = 1
) -> BatchReport:
    return BatchReport(verb, size, waited_s, store_s, failure)


def test_the_queue_wait_is_the_mean_over_the_requests_of_the_last_second() -> None:
    signals = Signals()
    signals.observe(batch(waited_s=0.4, size=3))
    signals.observe(batch(waited_s=0.0, size=1))
    readings = [signals.sample(0.1 * step)[Signal.QUEUE_WAIT] for step in range(11)]
    assert [round(reading, 9) for reading in readings] == [0.3] * 10 + [0.0]


def test_one_slow_call_in_a_second_is_an_accident_and_two_are_a_signal() -> None:
    signals = Signals()
    signals.observe(batch(store_s=0.7))
    assert signals.sample(0.0)[Signal.STORE_CALL_TIME] == 0.0
    signals.observe(batch(store_s=0.7))
    assert 0.7 <= signals.sample(0.1)[Signal.STORE_CALL_TIME] < 0.7 * 1.25


def test_of_a_thousand_calls_the_slowest_ten_are_overlooked() -> None:
    signals = Signals()
    for call in range(1_000):
        signals.observe(batch(store_s=0.9 if call < 10 else 0.004))
    assert signals.sample(0.0)[Signal.STORE_CALL_TIME] < 0.005
    signals.observe(batch(store_s=0.9))
    assert signals.sample(0.1)[Signal.STORE_CALL_TIME] >= 0.9


def test_a_call_slower_than_every_bound_is_still_counted() -> None:
    signals = Signals()
    for _call in range(2):
        signals.observe(batch(store_s=3_600.0, failure="timeout"))
    assert signals.sample(0.0)[Signal.STORE_CALL_TIME] > 5


def test_failures_are_a_share_of_all_calls_and_a_single_one_is_an_accident() -> None:
    signals = Signals()
    for _call in range(3):
        signals.observe(batch())
    signals.observe(batch(failure="timeout"))
    assert signals.sample(0.0)[Signal.STORE_FAILURES] == 0.0
    signals.observe(batch(failure="unreachable"))
    assert signals.sample(0.1)[Signal.STORE_FAILURES] == 0.4


def test_the_breakers_own_calls_count_while_no_batch_leaves() -> None:
    signals = Signals()
    for _call in range(2):
        signals.observe_call(0.0, "unreachable")
    sample = signals.sample(0.0)
    assert (sample[Signal.STORE_FAILURES], sample[Signal.QUEUE_WAIT]) == (1.0, 0.0)


def test_redemption_never_trips_anything() -> None:
    signals = Signals()
    for _call in range(50):
        signals.observe(batch(waited_s=9.0, store_s=9.0, failure="timeout", verb="redeem"))
    assert not any(signals.sample(0.0).values())


def test_a_late_sample_is_the_event_loops_lag() -> None:
    signals = Signals()
    lags = [signals.sample(now_s)[Signal.EVENT_LOOP_LAG] for now_s in (50.0, 50.1, 50.6, 50.65)]
    assert [round(lag, 9) for lag in lags] == [0.0, 0.0, 0.4, 0.0]


def test_every_store_error_has_its_word() -> None:
    errors = (StoreTimeout(), StoreUnreachable(), StoreRefused())
    assert [failure_of(error) for error in errors] == ["timeout", "unreachable", "error"]
