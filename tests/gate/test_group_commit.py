"""Requests that arrive while a call is under way leave together in the next one, and nobody is left hanging."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from service.domain.outcomes import Issued, IssueOutcome, Overloaded
from service.gate.batch_size import LEAST, BatchSize
from service.gate.group_commit import FEW, JOIN_S, MAX_CALLS, WORTH_ANOTHER_CALL, Bounds, GroupCommit, HeldStore
from service.gate.signals import BatchReport
from service.store.catalogue import KnownCampaign
from service.store.coupons import IssueRequest
from service.store.scripts import StoreTimeout
from tests.gate.door import ANSWER_S, MAX_WAIT_S, SPRING, UNAVAILABLE, Door, settle
from tests.store.desk import Room

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_stays")]


async def test_whoever_comes_alone_leaves_alone_at_once() -> None:
    door = Door()
    for request in ("a", "b"):
        (asked,) = door.ask([request])
        await settle()
        assert door.under_way == [("spring", 0, [request])]
        await door.let_through()
        assert await asked == request.upper()
    assert [report.size for report in door.reports] == [1, 1]
    assert door.counted == [["A"], ["B"]]


async def test_those_who_come_while_a_call_is_under_way_leave_together_and_each_gets_his_own() -> None:
    door = Door()
    first = door.ask("a")
    await settle()
    later = door.ask("bcd")
    await settle()
    assert door.calls == [["a"]]
    await door.let_through()
    assert door.calls == [["a"], ["b", "c", "d"]]
    await door.let_through()
    assert [await asked for asked in [*first, *later]] == ["A", "B", "C", "D"]
    assert door.counted == [["A"], ["B", "C", "D"]]
    assert [report.size for report in door.reports] == [1, 3]
    assert all(report.failure is None and report.store_s > 0 for report in door.reports)
    assert door.reports[1].waited_s > 0


async def test_a_batch_is_bounded_and_the_rest_keeps_its_order() -> None:
    door = Door(max_batch=3)
    asked = door.ask("abcdefgh")
    await settle()
    for _ in range(3):
        await door.let_through()
    assert door.calls == [["a", "b", "c"], ["d", "e", "f"], ["g", "h"]]
    assert [await one for one in asked] == list("ABCDEFGH")


async def test_batches_shrink_after_those_that_held_the_store_for_long() -> None:
    door = Door(max_waiting=1_000, held=HeldStore(BatchSize(100), lambda: 1.0))
    asked = door.ask(["a"] * 1_000)
    await settle()
    while not all(one.done() for one in asked):
        await door.let_through()
    sizes = [len(call) for call in door.calls]
    assert sizes[:4] == [100, 100, 79, 63]
    assert min(sizes[:-1]) == LEAST


async def test_a_call_that_was_alone_on_its_way_tells_how_long_calls_take() -> None:
    lone_calls = []

    class Noted(BatchSize):
        def learn_lone_call(self, size: int, call_s: float) -> None:
            lone_calls.append((size, round(call_s, 3)))

    door = Door(held=HeldStore(Noted(100), lambda: 0.0))
    (asked,) = door.ask("a")
    await settle()
    door.now_s += 0.25
    await door.let_through()
    assert await asked == "A"
    assert lone_calls == [(1, 0.25)]


async def test_a_full_line_turns_people_away_at_once_and_takes_them_again_later() -> None:
    door = Door(max_waiting=2)
    first = door.ask("a")
    await settle()
    waiting, turned_away = door.ask("bc"), door.ask("de")
    await settle()
    assert [asked.done() for asked in waiting + turned_away] == [False, False, True, True]
    assert [await asked for asked in turned_away] == [Overloaded(), Overloaded()]
    await door.let_through()
    later = door.ask("f")
    await settle()
    await door.let_through()
    await door.let_through()
    assert [await asked for asked in first + waiting + later] == ["A", "B", "C", "F"]


async def test_a_line_is_nearly_full_when_only_an_eighth_of_its_places_is_left() -> None:
    door = Door(max_waiting=17)
    first = door.ask("a")
    await settle()
    waiting = door.ask("b" * 14)
    await settle()
    assert not door.commit.is_nearly_full
    waiting += door.ask("c")
    await settle()
    assert door.commit.is_nearly_full
    kept, turned_away = door.ask("de"), door.ask("f")
    await settle()
    assert [asked.done() for asked in kept + turned_away] == [False, False, True]
    await door.let_through()
    await door.let_through()
    assert not door.commit.is_nearly_full
    await asyncio.gather(*first, *waiting, *kept, *turned_away)


async def test_whoever_has_waited_too_long_is_sent_away_and_those_behind_him_are_served() -> None:
    door = Door()
    first = door.ask("a")
    await settle()
    patient = door.ask("b")
    await settle()
    door.now_s += MAX_WAIT_S
    late = door.ask("c")
    await settle()
    await door.let_through()
    assert door.calls == [["a"], ["c"]]
    await door.let_through()
    assert [await one for one in [*first, *patient, *late]] == ["A", Overloaded(), "C"]


async def test_those_who_come_together_share_two_calls_so_that_neither_the_store_nor_the_answers_wait() -> None:
    door = Door(max_waiting=1_000)
    asked = door.ask(["a"] * (2 * WORTH_ANOTHER_CALL + 6))
    await settle()
    assert [len(batch) for batch in door.calls] == [WORTH_ANOTHER_CALL + 3] * 2
    more = door.ask(["b"] * 10)
    await settle()
    await door.let_through()
    assert [len(batch) for batch in door.calls[2:]] == [10]
    await door.let_through()
    assert {await one for one in [*asked, *more]} == {"A", "B"}


@pytest.mark.parametrize(
    ("there", "arriving", "each_s", "leave"),
    [
        pytest.param(1, 5, 0.0, 6, id="until-nobody-more-arrives"),
        pytest.param(FEW - 3, 8, 0.0, FEW, id="until-they-are-many"),
        pytest.param(1, 8, JOIN_S / 4, 5, id="for-a-millisecond"),
    ],
)
async def test_few_let_those_join_them_who_are_just_arriving(
    there: int, arriving: int, each_s: float, leave: int
) -> None:
    door = Door()
    door.watch("a" * there)
    for _ in range(arriving):
        await asyncio.sleep(0)
        door.now_s += each_s
        door.watch("a")
    await settle()
    assert list(map(len, door.calls)) == [leave]
    for _ in range(2):
        await door.let_through()
    assert sum(map(len, door.calls)) == there + arriving


async def test_a_batch_with_many_behind_it_is_answered_when_the_next_has_left_and_any_other_at_once() -> None:
    for behind, told_after, answers_meanwhile in ((0, (1, 0), 0), (1, (1, 1), 0), (FEW, (2, 1), 1)):
        door = Door()
        (first,) = door.watch("a")
        await settle()
        others = door.watch("b" * behind)
        await door.let_through()
        assert first.told_after == told_after
        await door.let_through()
        assert [other.told_after for other in others] == [(2, 1)] * behind
        # Where the first was answered during the second's call, that call took so long; its own answers are no part.
        assert [report.store_s // ANSWER_S for report in door.reports] == [0, answers_meanwhile][: 1 + bool(behind)]


async def test_when_many_wait_a_second_call_leaves_and_no_third() -> None:
    door = Door(max_batch=WORTH_ANOTHER_CALL, max_waiting=1_000)
    first = door.ask("a")
    await settle()
    few = door.ask(["b"] * (WORTH_ANOTHER_CALL - 1))
    await settle()
    assert len(door.under_way) == 1
    many = door.ask(["c"] * (2 * WORTH_ANOTHER_CALL))
    await settle()
    assert [len(batch) for _, _, batch in door.under_way] == [1, WORTH_ANOTHER_CALL]
    assert len(door.under_way) == MAX_CALLS
    for _ in range(3):
        await door.let_through()
    assert {await one for one in [*first, *few, *many]} == {"A", "B", "C"}
    assert sum(map(len, door.calls)) == 3 * WORTH_ANOTHER_CALL


async def test_a_call_that_fails_fails_for_all_who_wait_at_once_and_the_next_are_served() -> None:
    door = Door(max_batch=2)
    asked = door.ask("abcde")
    await settle()
    await door.let_through(StoreTimeout("no answer"))
    assert [one.done() for one in asked] == [True] * 5
    assert [await one for one in asked] == [UNAVAILABLE] * 5
    assert door.calls == [["a", "b"]]
    assert ([report.failure for report in door.reports], door.counted) == (["timeout"], [])
    again = door.ask("f")
    await settle()
    await door.let_through()
    assert await again[0] == "F"


@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), asyncio.CancelledError()])
async def test_a_mistake_of_ours_leaves_nobody_hanging(error: BaseException) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    door = Door(max_batch=1)
    asked = door.ask("abc")
    await settle()
    await door.let_through(error)
    assert [one.done() for one in asked] == [True] * 3
    assert [await one for one in asked] == [UNAVAILABLE] * 3
    again = door.ask("d")
    await settle()
    await door.let_through()
    assert await again[0] == "D"


async def test_a_store_that_answers_too_little_leaves_nobody_hanging() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)

    async def half(_campaign: KnownCampaign, _shard: int, batch: Sequence[str]) -> list[str]:
        return [request.upper() for request in batch[::2]]

    commit: GroupCommit[str, str] = GroupCommit(
        "issue", half, Bounds(9, 9, MAX_WAIT_S), lambda _report: None, lambda _known, _outcomes: None
    )
    async with asyncio.timeout(5):
        assert await asyncio.gather(*[commit.submit(SPRING, 0, request) for request in "ab"]) == [UNAVAILABLE] * 2


async def test_whoever_gives_up_is_taken_out_of_the_line_and_the_others_are_served() -> None:
    door = Door()
    first = door.ask("a")
    await settle()
    waiting = door.ask("bcd")
    await settle()
    waiting[1].cancel()
    await door.let_through()
    assert door.calls == [["a"], ["b", "d"]]
    # Too late: the store has his request already, and what it decides stands.
    waiting[0].cancel()
    await door.let_through()
    assert await first[0] == "A"
    assert [asked.cancelled() for asked in waiting] == [True, True, False]
    assert await waiting[2] == "D"
    assert door.counted[1] == ["B", "D"]


async def test_a_line_in_which_all_have_given_up_makes_no_call() -> None:
    door = Door()
    first = door.ask("a")
    await settle()
    waiting = door.ask("bc")
    await settle()
    for asked in waiting:
        asked.cancel()
    await door.let_through()
    assert (await first[0], door.calls) == ("A", [["a"]])


async def test_the_store_tells_for_how_long_a_batch_held_it(room: Room) -> None:
    desk = await room.open(max_coupons=2_000)
    held_s = []
    for number in (1, 1_000):
        await room.coupons.issue(desk.known, 0, [desk.wish(f"{number}-{user}", "first") for user in range(number)])
        held_s.append(room.coupons.issue_held_s)
    assert 0 < 2 * held_s[0] < held_s[1] < 1


async def test_a_thousand_requests_get_a_thousand_coupons_in_few_calls(room: Room) -> None:
    desk = await room.open(shards=2, max_coupons=900)
    reports: list[BatchReport] = []
    call: Callable[[KnownCampaign, int, Sequence[IssueRequest]], Awaitable[list[IssueOutcome]]] = room.coupons.issue
    commit = GroupCommit("issue", call, Bounds(256, 4_096, MAX_WAIT_S), reports.append, lambda _known, _outcomes: None)
    users = [f"user-{number}" for number in range(1_000)]
    outcomes = await asyncio.gather(
        *[commit.submit(desk.known, desk.known.place(user)[0], desk.wish(user, "first")) for user in users]
    )
    issued = [outcome for outcome in outcomes if isinstance(outcome, Issued)]
    assert len(issued) == (await desk.counters()).issued == 900
    assert len(reports) == 4
    assert {report.failure for report in reports} == {None}
    assert replace(issued[0], sequence=0) == replace(issued[-1], sequence=0)
