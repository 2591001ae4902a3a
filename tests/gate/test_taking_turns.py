"""Lines do not wait for each other; before one server they share its calls, so that each leaves with more."""

import asyncio

import pytest

from service.domain.outcomes import StoreUnavailable
from service.gate.group_commit import MAX_CALLS
from service.store.scripts import StoreError, StoreRefused, StoreTimeout
from tests.gate.door import CAMPAIGNS, SUMMER, UNAVAILABLE, Door, settle

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_stays")]


async def test_campaigns_and_shards_do_not_wait_for_each_other() -> None:
    door = Door()
    asked = [*door.ask("ab"), *door.ask("c", shard=1), *door.ask("d", SUMMER)]
    await settle()
    assert sorted(door.under_way) == [("spring", 0, ["a", "b"]), ("spring", 1, ["c"]), ("summer", 0, ["d"])]
    asked += [one for campaign in CAMPAIGNS for one in door.ask("e", campaign)]
    await settle()
    assert len(door.under_way) == 3 + len(CAMPAIGNS)
    await door.let_through()
    assert [await one for one in asked] == [*"ABCD", *["E"] * len(CAMPAIGNS)]
    assert door.commit._lines == {}


async def test_before_one_server_lines_grow_while_others_are_served_and_take_turns() -> None:
    door = Door(one_server=True)
    asked = [one for campaign in CAMPAIGNS[: 2 * MAX_CALLS] for one in door.ask("a", campaign)]
    await settle()
    assert [name for name, _, _ in door.under_way] == [f"c{number}" for number in range(MAX_CALLS)]
    asked += [one for campaign in CAMPAIGNS[: 2 * MAX_CALLS] for one in door.ask("bc", campaign)]
    await settle()
    assert len(door.under_way) == MAX_CALLS
    await door.let_through()
    waited = [(f"c{number}", 0, ["a", "b", "c"]) for number in range(MAX_CALLS, 2 * MAX_CALLS)]
    again = [(f"c{number}", 0, ["b", "c"]) for number in range(MAX_CALLS)]
    assert door.under_way == waited
    await door.let_through()
    assert door.under_way == again
    await door.let_through()
    assert {await one for one in asked} == {"A", "B", "C"}
    assert door.commit._lines == {}


async def test_before_one_server_the_lines_whose_turn_it_is_leave_before_others_are_answered() -> None:
    door = Door(one_server=True)
    campaigns = CAMPAIGNS[: 2 * MAX_CALLS + 1]
    watchers = [watcher for campaign in campaigns for watcher in door.watch("a", campaign)]
    await settle()
    await door.let_through()
    assert [watcher.told_after for watcher in watchers[:MAX_CALLS]] == [(2 * MAX_CALLS, MAX_CALLS)] * MAX_CALLS
    for _ in range(2):
        await door.let_through()


async def test_before_one_server_every_second_call_that_many_lines_want_is_under_way() -> None:
    door = Door(one_server=True)
    asked = [one for campaign in CAMPAIGNS for one in door.ask("a", campaign)]
    await settle()
    assert len(door.under_way) == len(CAMPAIGNS) // 2
    await door.let_through()
    await door.let_through()
    assert {await one for one in asked} == {"A"}
    # What was wanted is forgotten: two lines wait for two others, as at first.
    asked = [one for campaign in CAMPAIGNS[: 2 * MAX_CALLS] for one in door.ask("a", campaign)]
    await settle()
    assert len(door.under_way) == MAX_CALLS
    await door.let_through()
    await door.let_through()
    assert {await one for one in asked} == {"A"}


@pytest.mark.parametrize(
    ("error", "outcome"), [(StoreTimeout("no answer"), UNAVAILABLE), (StoreRefused("out of memory"), "A")]
)
async def test_before_one_server_all_fail_who_wait_behind_a_silence_but_not_behind_a_refusal(
    error: StoreError, outcome: str | StoreUnavailable
) -> None:
    door = Door(one_server=True)
    asked = [one for campaign in CAMPAIGNS[: MAX_CALLS + 1] for one in door.ask("a", campaign)]
    await settle()
    await door.let_through(error)
    await door.let_through()
    assert [await one for one in asked] == [*[UNAVAILABLE] * MAX_CALLS, outcome]
    assert len(door.calls) == MAX_CALLS + (outcome == "A")


async def test_a_mistake_of_ours_in_one_line_leaves_nobody_hanging_in_another() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    door = Door(one_server=True)
    asked = [one for campaign in CAMPAIGNS[: MAX_CALLS + 1] for one in door.ask("a", campaign)]
    await settle()
    await door.let_through(RuntimeError("a mistake of ours"))
    await door.let_through()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*asked) == [*[UNAVAILABLE] * MAX_CALLS, "A"]
