"""An event loop that runs late sheds newcomers a sample before it pauses everybody who wants a coupon."""

import pytest

from service.domain.breaker import Mode, State
from tests.gate.tide import POLICY, Replica, Store, Tide, run

LATE_S = 2 * POLICY.event_loop_lag.trip


async def samples(tide: Tide, replica: Replica, lates_s: list[float]) -> list[bool]:
    """Whether newcomers are shed after each sample that is so late."""
    shed = []
    for late_s in lates_s:
        tide.now_s += late_s
        await tide.turn(replica, seconds=0.1)
        shed.append(replica.breaker.sheds_newcomers)
    return shed


def test_newcomers_are_shed_before_all_are_refused_and_let_in_when_the_loop_is_in_time_again(store: Store) -> None:
    async def story(tide: Tide) -> None:
        replica = tide.replica("a")
        assert POLICY.samples_to_trip == 3
        assert await samples(tide, replica, [0, LATE_S, 0, LATE_S, LATE_S]) == [False, False, False, False, True]
        assert not replica.breaker.refuses_everybody("spring")
        await samples(tide, replica, [0])
        assert not replica.breaker.sheds_newcomers
        await samples(tide, replica, [LATE_S] * 3)
        assert (replica.breaker.own_record.state, replica.breaker.own_record.reason) == (State.OPEN, "event_loop_lag")
        assert replica.breaker.refuses_everybody("spring")

    run(story, store)


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.FORCED_CLOSED])
def test_nobody_is_shed_where_the_operator_refuses_nobody(store: Store, mode: Mode) -> None:
    async def story(tide: Tide) -> None:
        replica = tide.replica("a")
        await samples(tide, replica, [0])
        await replica.breaker.override(mode, "ada", "a drill", None)
        assert await samples(tide, replica, [LATE_S] * 2) == [False, False]

    run(story, store)
