import pytest

from service.domain.concurrency import LEAST_LIMIT
from service.domain.saturation import Signal
from service.gate.meters import IDLE_SAMPLES, MOST_CAMPAIGNS, SLOTS, Line
from service.gate.signals import BatchReport, Failure, Reading, Signals, failure_of
from service.store.scripts import StoreRefused, StoreTimeout, StoreUnreachable


def batch(
    waited_s: float = 0.0,
    store_s: float = 0.01,
    failure: Failure | None = None,
    verb: str = "issue",
    size: int = 1,
    campaign: str = "spring",
    least_waited_s: float | None = None,
) -> BatchReport:
    return BatchReport(
        verb, size, waited_s, store_s, failure, campaign, waited_s if least_waited_s is None else least_waited_s
    )


def test_the_queue_wait_is_the_mean_over_the_requests_of_the_last_second() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    signals.observe(batch(waited_s=0.4, size=3))
    signals.observe(batch(waited_s=0.0, size=1))
    readings = [signals.sample(0.1 * step).whole[Signal.QUEUE_WAIT] for step in range(11)]
    assert [round(reading, 9) for reading in readings] == [0.3] * 10 + [0.0]


def test_slow_calls_that_end_together_are_an_accident_and_those_that_go_on_are_a_signal() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    for _call in range(3):
        signals.observe(batch(store_s=0.7))
    assert signals.sample(0.0).whole[Signal.STORE_CALL_TIME] == 0.0
    signals.observe(batch(store_s=0.6))
    assert 0.6 <= signals.sample(0.1).whole[Signal.STORE_CALL_TIME] < 0.6 * 1.25


@pytest.mark.parametrize(("slow", "is_seen"), [(10, False), (11, True)])
def test_of_a_thousand_calls_the_slowest_ten_are_overlooked(slow: int, is_seen: bool) -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    for call in range(1_000):
        signals.observe(batch(store_s=0.9 if call < slow else 0.004))
    assert signals.sample(0.0).whole[Signal.STORE_CALL_TIME] == 0.0
    signals.observe(batch(store_s=2.0))
    seen_s = signals.sample(0.1).whole[Signal.STORE_CALL_TIME]
    assert seen_s >= 0.9 if is_seen else seen_s < 0.005


def test_a_call_slower_than_every_bound_is_still_counted() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    for step in range(2):
        signals.observe(batch(store_s=3_600.0, failure="timeout"))
        reading = signals.sample(0.1 * step).whole
    assert reading[Signal.STORE_CALL_TIME] > 5


def test_failures_are_a_share_of_all_calls_and_a_single_one_is_an_accident() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    for _call in range(3):
        signals.observe(batch())
    signals.observe(batch(failure="timeout"))
    assert signals.sample(0.0).whole[Signal.STORE_FAILURES] == 0.0
    signals.observe(batch(failure="unreachable"))
    assert signals.sample(0.1).whole[Signal.STORE_FAILURES] == 0.4


def test_the_breakers_own_calls_count_while_no_batch_leaves() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    for _call in range(2):
        signals.observe_call(0.0, "unreachable")
    sample = signals.sample(0.0).whole
    assert (sample[Signal.STORE_FAILURES], sample[Signal.QUEUE_WAIT]) == (1.0, 0.0)


def test_redemption_never_trips_anything() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    for _call in range(50):
        signals.observe(batch(waited_s=9.0, store_s=9.0, failure="timeout", verb="redeem"))
    assert not any(signals.sample(0.0).whole.values())


def test_a_late_sample_is_the_event_loops_lag() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    lags = [signals.sample(now_s).whole[Signal.EVENT_LOOP_LAG] for now_s in (50.0, 50.1, 50.6, 50.65)]
    assert [round(lag, 9) for lag in lags] == [0.0, 0.0, 0.4, 0.0]


def test_every_store_error_has_its_word() -> None:
    errors = (StoreTimeout(), StoreUnreachable(), StoreRefused())
    assert [failure_of(error) for error in errors] == ["timeout", "unreachable", "error"]


def test_a_line_that_never_empties_stands_and_a_burst_that_leaves_at_once_does_not() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    signals.observe(batch(waited_s=0.9, least_waited_s=0.8))
    assert signals.sample(0.0).whole[Signal.QUEUE_STANDING] == 0.8
    signals.observe(batch(waited_s=0.9, least_waited_s=0.8))
    signals.observe(batch(waited_s=0.9, least_waited_s=0.0))
    assert signals.sample(0.1).whole[Signal.QUEUE_STANDING] == 0.0


def test_time_outs_are_a_share_of_all_calls_and_a_single_one_is_an_accident() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    signals.observe_call(1.0, "timeout")
    signals.observe_call(0.0, "unreachable")
    assert signals.sample(0.0).whole[Signal.STORE_TIMEOUTS] == 0.0
    signals.observe_call(1.0, "timeout")
    signals.observe_call(0.01, None)
    assert signals.sample(0.1).whole[Signal.STORE_TIMEOUTS] == 0.5


def silences(*steps: tuple[float, float, str | None]) -> list[float]:
    """What is read at these times, with a call of that age under way, after a call that ended so (`-`: none did)."""
    signals, found = Signals(cpu_clock=lambda: 0.0), []
    for now_s, age_s, ended in steps:
        if ended != "-":
            signals.observe_call(0.4, ended)  # type: ignore[arg-type]  # a dash was sorted out
        found.append(round(signals.sample(now_s, age_s).whole[Signal.STORE_SILENCE], 9))
    return found


def test_the_oldest_call_under_way_says_how_long_the_store_owes_an_answer() -> None:
    assert silences((0.0, 0.0, "-"), (0.1, 0.1, "-"), (0.2, 0.2, "-"), (0.3, 0.0, None)) == [0.0, 0.1, 0.2, 0.0]


def test_a_call_that_is_given_up_and_made_again_does_not_end_the_silence() -> None:
    assert silences((0.0, 0.3, "-"), (0.1, 0.0, "timeout"), (0.2, 0.1, "-"), (0.3, 0.0, None)) == [0.3, 0.4, 0.5, 0.0]


def test_a_store_that_cannot_be_reached_is_silent_from_the_first_refused_call_on() -> None:
    refused = [(0.1 * step, 0.0, "unreachable") for step in range(1, 4)]
    assert silences((0.0, 0.0, None), *refused, (0.4, 0.0, None)) == [0.0, 0.1, 0.2, 0.3, 0.0]


def test_a_lost_connection_is_no_silence_once_the_next_call_is_answered() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    signals.observe_call(0.0, "unreachable")
    signals.observe_call(0.0, None)
    assert [signals.sample(0.1 * step).whole[Signal.STORE_SILENCE] for step in range(3)] == [0.0] * 3


def test_after_its_last_answer_in_a_sample_a_store_that_cannot_be_reached_is_silent() -> None:
    signals = Signals(cpu_clock=lambda: 0.0)
    signals.sample(0.0)
    signals.observe_call(0.0, None)
    signals.observe_call(0.0, "unreachable")
    assert [round(signals.sample(0.1 * step).whole[Signal.STORE_SILENCE], 9) for step in (1, 2)] == [0.1, 0.2]


def test_a_store_that_answers_with_an_error_is_not_silent() -> None:
    assert silences((0.0, 0.2, "-"), (0.1, 0.0, "error"), (0.2, 0.0, "error")) == [0.2, 0.0, 0.0]


def test_an_answer_that_nobody_could_read_while_the_loop_was_stuck_is_no_silence() -> None:
    assert silences((0.0, 0.0, "-"), (0.5, 0.4, "-")) == [0.0, 0.0]


def test_the_process_may_keep_more_than_one_core_busy() -> None:
    ticks = iter([0.0, 0.05, 0.25, 0.45])
    signals = Signals(cpu_clock=lambda: next(ticks))
    cores = [signals.sample(now_s).whole[Signal.PROCESS_CPU] for now_s in (0.0, 0.1, 0.2)]
    assert [round(core, 9) for core in cores] == [0.5, 1.25, 1.5]


def test_redemptions_that_wait_are_a_backlog() -> None:
    signals = Signals(redeeming=lambda: [Line("spring", 30, 10, 0.1), Line("summer", 12, 0, 0.0)])
    assert signals.backlog() == 42


class Street:
    """Lines before the desks of several campaigns."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.signals = Signals(lambda: self.lines, cpu_clock=lambda: 0.0)
        self.now_s = 0.0

    def sample(self) -> Reading:
        self.now_s += 0.1
        return self.signals.sample(self.now_s)


def test_what_is_in_flight_is_told_against_the_limit_and_the_oldest_call_is_a_silence() -> None:
    street = Street()
    street.lines = [Line("spring", 4_096, 256, 0.2)]
    whole = street.sample().whole
    assert whole[Signal.IN_FLIGHT] == 4_352 / LEAST_LIMIT
    assert whole[Signal.STORE_SILENCE] == 0.2


def test_one_campaigns_line_is_its_own_trouble_as_long_as_it_has_a_neighbour() -> None:
    street = Street()
    street.signals.observe(batch(waited_s=2.0, size=256, campaign="spring"))
    alone = street.sample()
    assert (alone.whole[Signal.QUEUE_WAIT], alone.campaigns) == (2.0, {})
    street.signals.observe(batch(waited_s=0.01, campaign="summer"))
    street.lines = [Line("spring", 4_096, 0, 0.0), Line("summer", 1, 0, 0.0)]
    beside = street.sample()
    assert beside.whole[Signal.QUEUE_WAIT] == 0.01
    assert beside.whole[Signal.IN_FLIGHT] == 1 / street.signals.limit.limit
    assert {name: sample[Signal.QUEUE_WAIT] for name, sample in beside.campaigns.items()} == {
        "spring": 2.0,
        "summer": 0.01,
    }


def test_two_campaigns_that_wait_are_everybodys_trouble() -> None:
    street = Street()
    for campaign in ("spring", "summer"):
        street.signals.observe(batch(waited_s=2.0, size=256, campaign=campaign))
    assert street.sample().whole[Signal.QUEUE_WAIT] == 2.0


def test_whoever_has_asked_for_nothing_in_a_minute_is_nobodys_neighbour() -> None:
    street = Street()
    street.signals.observe(batch(campaign="summer"))
    neighbours = []
    for _sample in range(SLOTS + IDLE_SAMPLES):
        street.signals.observe(batch(campaign="spring"))
        neighbours.append("summer" in street.sample().campaigns)
    assert neighbours == [True] * (len(neighbours) - 1) + [False]


def test_campaigns_beyond_so_many_are_measured_together() -> None:
    street = Street()
    for number in range(MOST_CAMPAIGNS + 3):
        street.signals.observe(batch(waited_s=0.2, campaign=f"campaign-{number}"))
    street.lines = [Line(f"campaign-{MOST_CAMPAIGNS + 2}", 7, 0, 0.0)]
    reading = street.sample()
    assert len(reading.campaigns) == MOST_CAMPAIGNS
    assert f"campaign-{MOST_CAMPAIGNS}" not in reading.campaigns
    assert reading.whole[Signal.IN_FLIGHT] == 7 / LEAST_LIMIT


def test_the_most_that_was_served_in_a_second_is_remembered_for_a_while_and_failures_are_no_service() -> None:
    street = Street()
    for _sample in range(10):
        street.signals.observe(batch(size=50, campaign="spring"))
        street.signals.observe(batch(size=5_000, campaign="spring", failure="unreachable", store_s=0.0))
        street.sample()
    meters = street.signals.campaigns
    assert (meters.peak_per_second("spring"), meters.peak_per_second("")) == (500.0, 500.0)
    for _sample in range(100):
        street.sample()
    assert 400 < meters.peak_per_second("spring") < 500
    assert meters.peak_per_second("unheard-of") == 0.0
