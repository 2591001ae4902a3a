"""Campaigns are registered once, changed one version at a time, and never promise less than was given out."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from service.domain.campaign import CampaignStatus
from service.domain.limits import DailyLimits
from service.domain.money import Money, Rate
from service.domain.outcomes import IssuancePaused, Issued, SoldOut
from service.domain.validity import Duration, RelativeValidity, zone_offsets
from service.store import catalogue
from service.store.catalogue import CapBelowIssued, Catalogue, Registration, Stale
from service.store.scripts import Scripts
from tests.store.desk import (
    LAUNCH,
    SECRET,
    TURNABLE_CLOCK,
    Desk,
    DyingScripts,
    ProcessDied,
    Room,
    a_campaign,
)

pytestmark = pytest.mark.anyio


def another_process(room: Room) -> Catalogue:
    return Catalogue(room.client, Scripts(room.client, TURNABLE_CLOCK), SECRET)


async def issued(desk: Desk, number: int) -> None:
    outcomes = [await desk.issue(f"user {index}") for index in range(number)]
    assert all(isinstance(outcome, Issued) for outcome in outcomes)


async def test_a_campaign_is_found_by_id_and_by_prefix_as_it_was_registered(room: Room) -> None:
    duration = Duration(days=7, exact_ms=1000)
    validity = RelativeValidity("Europe/Berlin", Duration(), duration, zone_offsets("Europe/Berlin", LAUNCH))
    desk = await room.open(validity=validity, budget=None, user_rate=Rate(1, 1))
    elsewhere = another_process(room)
    assert await elsewhere.load("spring") == desk.campaign
    found = await elsewhere.find_by_prefix("QWEN")
    assert found is not None
    assert found.campaign == desk.campaign
    assert elsewhere.known("spring") is found is await elsewhere.find("spring")
    assert found.codes.code(0, 7) == desk.known.codes.code(0, 7)


async def test_a_crowd_that_meets_a_campaign_in_the_same_moment_asks_the_store_once(room: Room) -> None:
    await room.open()
    elsewhere = another_process(room)
    before = (await room.client.info("commandstats"))["cmdstat_hget"]["calls"]
    found = await asyncio.gather(*(elsewhere.find("spring") for _ in range(300)))
    assert len(set(map(id, found))) == 1
    assert found[0] is not None
    assert (await room.client.info("commandstats"))["cmdstat_hget"]["calls"] == before + 1


async def test_an_id_and_a_prefix_belong_to_the_first_who_comes(room: Room) -> None:
    await room.open()
    assert await room.catalogue.register(a_campaign(code_prefix="OTHER")) is Registration.CAMPAIGN_EXISTS
    assert await room.catalogue.register(a_campaign(id="summer")) is Registration.CODE_PREFIX_TAKEN
    assert [campaign.id for campaign in await room.catalogue.list()] == ["spring"]


async def test_of_many_who_register_at_once_one_succeeds_and_everybody_can_issue(room: Room) -> None:
    processes = [another_process(room) for _ in range(20)]
    campaigns = [a_campaign(max_coupons=100 + number, shards=4) for number in range(20)]
    answers = await asyncio.gather(
        *(process.register(campaign) for process, campaign in zip(processes, campaigns, strict=True))
    )
    assert sorted(answers) == [Registration.CAMPAIGN_EXISTS] * 19 + [Registration.REGISTERED]
    winner = campaigns[answers.index(Registration.REGISTERED)]
    assert await room.catalogue.load("spring") == winner


async def test_there_are_only_so_many_campaigns(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MAX_CAMPAIGNS", 2)
    answers = [
        await room.catalogue.register(a_campaign(id=name, code_prefix=name.upper())) for name in ("a1", "b2", "c3")
    ]
    assert answers[-1] is Registration.TOO_MANY_CAMPAIGNS


async def test_campaigns_are_listed_the_newest_first(room: Room) -> None:
    for number, name in enumerate(("b2", "a1", "c3")):
        await room.open(id=name, code_prefix=name.upper(), created_at_ms=LAUNCH + number // 2)
    assert [campaign.id for campaign in await room.catalogue.list()] == ["c3", "a1", "b2"]


async def test_an_unknown_campaign_is_remembered_only_until_it_is_registered(room: Room) -> None:
    assert await room.catalogue.find("spring") is None
    assert await room.catalogue.find_by_prefix("QWEN") is None
    await room.open()
    assert await room.catalogue.find_by_prefix("QWEN") is not None


async def test_a_registration_that_died_half_way_is_finished_by_whoever_meets_the_campaign(room: Room) -> None:
    campaign = a_campaign(shards=4)
    with pytest.raises(ProcessDied):
        await Catalogue(room.client, DyingScripts(room.client, calls=2), SECRET).register(campaign)
    known = await another_process(room).find("spring")
    assert known is not None
    await issued(Desk(room, known), 20)


async def test_a_change_that_died_half_way_is_finished_by_whoever_looks(room: Room) -> None:
    desk = await room.open(shards=4)
    paused = replace(desk.campaign, version=2, status=CampaignStatus.PAUSED)
    with pytest.raises(ProcessDied):
        await Catalogue(room.client, DyingScripts(room.client, calls=7), SECRET).update(desk.campaign, paused)
    await desk.counters()
    outcomes = [await desk.issue(f"user {number}") for number in range(20)]
    assert {type(outcome) for outcome in outcomes} == {IssuancePaused}


async def test_a_refused_change_that_died_half_way_is_taken_back_by_whoever_looks(room: Room) -> None:
    desk = await room.open(max_coupons=10)
    await issued(desk, 5)
    lower = replace(desk.campaign, version=2, max_coupons=4)
    with pytest.raises(ProcessDied):
        await Catalogue(room.client, DyingScripts(room.client, calls=2), SECRET).update(desk.campaign, lower)
    with pytest.raises(Stale):
        await desk.change(status=CampaignStatus.PAUSED)
    assert await desk.change(status=CampaignStatus.PAUSED) is None
    left = await room.catalogue.load("spring")
    assert left == replace(desk.campaign, version=4, status=CampaignStatus.PAUSED)
    assert isinstance(await desk.issue("bob"), IssuancePaused)


async def test_a_change_takes_effect_for_the_next_request(room: Room) -> None:
    desk = await room.open(max_coupons=1)
    await issued(desk, 1)
    assert await desk.issue("bob") == SoldOut()
    assert await desk.change(max_coupons=2) is None
    assert isinstance(await desk.issue("bob"), Issued)


async def test_a_cap_below_what_was_issued_is_refused_and_the_old_one_holds(room: Room) -> None:
    desk = await room.open(max_coupons=10)
    await issued(desk, 5)
    assert await desk.change(max_coupons=4, issue_rate=Rate(1, 1)) == CapBelowIssued("max_coupons", 5)
    assert await room.catalogue.load("spring") == replace(desk.campaign, version=3)
    assert isinstance(await desk.issue("bob"), Issued)
    assert await desk.change(max_coupons=6) is None
    assert await desk.issue("eve") == SoldOut()


async def test_a_budget_below_what_is_committed_is_refused_and_the_old_one_holds(room: Room) -> None:
    desk = await room.open(budget=Money(25_000, "CNY"))
    await issued(desk, 2)
    await desk.redeem(0)
    assert await desk.change(budget=Money(4999, "CNY")) == CapBelowIssued("budget", 5000)
    assert await room.catalogue.load("spring") == replace(desk.campaign, version=3)
    assert await desk.change(budget=Money(5000, "CNY")) is None


async def test_a_budget_given_to_a_campaign_that_had_none_must_cover_what_is_committed(room: Room) -> None:
    desk = await room.open(budget=None)
    await issued(desk, 2)
    assert await desk.change(budget=Money(4999, "CNY")) == CapBelowIssued("budget", 5000)
    assert await desk.change(budget=Money(5000, "CNY")) is None


async def test_one_shard_that_cannot_follow_takes_the_change_back_in_all(room: Room) -> None:
    desk = await room.open(shards=4, max_coupons=400)
    outcomes = [await desk.issue(f"user {number}") for number in range(20)]
    refused = await desk.change(max_coupons=12, status=CampaignStatus.PAUSED)
    assert isinstance(refused, CapBelowIssued)
    outcomes += [await desk.issue(f"another user {number}") for number in range(20)]
    assert {type(outcome) for outcome in outcomes} == {Issued}


def daily(max_coupons: int) -> DailyLimits:
    return DailyLimits(max_coupons, None, zone_offsets("Asia/Shanghai", LAUNCH))


def money(coupons: int) -> Money:
    return Money(coupons * 2500, "CNY")


async def ask(desk: Desk, shard: int, key: str) -> None:
    """More of the shard's users ask than any limit here lets through."""
    users = (f"user {number}" for number in range(100))
    await desk.issue_batch([(user, key) for user in users if desk.known.place(user)[0] == shard], shard)


class CrowdAtTheFirstShard(Scripts):
    """The scripts of a process whose changes find the first shard's users asking without a pause."""

    def __init__(self, room: Room, desk: Desk) -> None:
        super().__init__(room.client, TURNABLE_CLOCK)
        self._desk = desk

    async def run(self, name: str, keys: list[str], *args: str | bytes | int) -> Any:
        """Run a script; whatever it has configured, the crowd is there before the next shard is."""
        reply = await super().run(name, keys, *args)
        if name == "configure" and keys == self._desk.known.state_keys[:1]:
            await ask(self._desk, 0, str(args))
        return reply


@pytest.mark.parametrize(
    ("promised", "given_back", "wanted", "refused"),
    [
        ({"max_coupons": 20}, 0, {"max_coupons": 40, "budget": money(12)}, "budget"),
        ({"max_coupons": 20, "budget": None}, 0, {"max_coupons": 40, "budget": money(12)}, "budget"),
        ({"budget": money(20)}, 1, {"budget": money(40), "max_coupons": 24}, "max_coupons"),
        ({"budget": money(20)}, 1, {"budget": None, "max_coupons": 24}, "max_coupons"),
        ({"daily_limits": daily(20)}, 0, {"daily_limits": daily(40), "budget": money(12)}, "budget"),
    ],
)
async def test_nothing_is_issued_by_a_change_that_another_shard_refuses(
    room: Room, promised: dict[str, Any], given_back: int, wanted: dict[str, Any], refused: str
) -> None:
    desk = await room.open(shards=2, **promised)
    for key in ("first", "second"):
        for shard in range(2):
            await ask(desk, shard, key)
        await desk.deactivate(*range(5), shard=given_back)
    before = await desk.counters()
    await ask(desk, 0, "third")
    assert await desk.counters() == before
    crowded = Catalogue(room.client, CrowdAtTheFirstShard(room, desk), SECRET)
    answer = await crowded.update(desk.campaign, replace(desk.campaign, version=2, **wanted))
    assert isinstance(answer, CapBelowIssued)
    assert answer.field == refused
    assert await desk.counters() == before
    assert await room.catalogue.load("spring") == replace(desk.campaign, version=3)
    assert await desk.change(status=CampaignStatus.PAUSED, max_coupons=99) is None
    assert isinstance(await desk.issue("bob"), IssuancePaused)


@pytest.mark.parametrize("calls", range(11))
async def test_a_change_that_raises_and_lowers_and_died_half_way_promises_nothing_new_and_can_be_made_again(
    room: Room, calls: int
) -> None:
    desk = await room.open(shards=2, max_coupons=20)
    wanted: dict[str, Any] = {"max_coupons": 40, "budget": money(30)}
    dying = Catalogue(room.client, DyingScripts(room.client, calls), SECRET)
    with suppress(ProcessDied):
        await dying.update(desk.campaign, replace(desk.campaign, version=2, **wanted))
    left = await room.catalogue.load("spring")
    assert left is not None
    assert left.max_coupons == 20 or left == replace(desk.campaign, version=3, **wanted)
    for shard in range(2):
        await ask(desk, shard, "first")
    assert (await desk.counters()).issued <= min(left.max_coupons, 30)
    assert await desk.change(**wanted) is None
    for shard in range(2):
        await ask(desk, shard, "second")
    assert (await desk.counters()).issued == 30


async def test_a_change_to_something_that_has_changed_is_stale(room: Room) -> None:
    desk = await room.open()
    await desk.change(max_coupons=7)
    with pytest.raises(Stale):
        await room.catalogue.update(desk.campaign, replace(desk.campaign, version=2, max_coupons=8))
    current = await room.catalogue.load("spring")
    assert current == replace(desk.campaign, version=2, max_coupons=7)


async def test_an_older_version_that_comes_late_changes_nothing(room: Room) -> None:
    desk = await room.open()
    await desk.change(status=CampaignStatus.PAUSED)
    await another_process(room).align(desk.campaign)
    assert isinstance(await desk.issue(), IssuancePaused)


async def test_of_two_changes_at_once_one_is_stale(room: Room) -> None:
    desk = await room.open()
    answers = await asyncio.gather(
        *(
            another_process(room).update(desk.campaign, replace(desk.campaign, version=2, max_coupons=number))
            for number in (7, 8)
        ),
        return_exceptions=True,
    )
    assert sorted(map(type, answers), key=str) == [type(None), Stale]


async def test_a_change_made_on_top_of_one_that_is_taken_back_leaves_no_impossible_cap(room: Room) -> None:
    desk = await room.open(max_coupons=10)
    await issued(desk, 5)

    async def operator(**changes: object) -> None:
        for _ in range(20):
            try:
                await Desk(room, desk.known).change(**changes)
            except Stale:
                continue

    await asyncio.gather(
        operator(max_coupons=4),
        operator(max_coupons=3),
        operator(status=CampaignStatus.PAUSED),
        operator(status=CampaignStatus.RUNNING),
    )
    left = await room.catalogue.load("spring")
    assert left is not None
    assert left.max_coupons == 10
    assert await desk.change(status=CampaignStatus.PAUSED) is None
    assert isinstance(await desk.issue("bob"), IssuancePaused)


async def test_the_ledger_shows_the_tokens_that_wait(room: Room) -> None:
    desk = await room.open(issue_rate=Rate(1000, 100), shards=2)
    await issued(desk, 20)
    await room.clock.advance(1500)
    ledger = await room.catalogue.ledger(desk.campaign)
    assert (ledger.bucket_tokens, ledger.now_ms) == (81.5, LAUNCH + 1500)
