"""Webhooks: every event is told, in order, signed, and to nobody inside our own networks."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from service.domain.imported_codes import sorted_order
from service.domain.webhooks import Health, Webhook, WebhookStatus, written_secret
from service.store.events import EventStore
from service.store.webhooks import WebhookStore
from tests.store.desk import LATER, Desk, DyingScripts, ProcessDied, Room
from tests.worker.receiver import Message, Receiver, receiving
from worker.courier import Courier
from worker.postman import NotDelivered, Postman
from worker.telling import Telling

pytestmark = pytest.mark.anyio

A_DAY = 86_400_000
ALL_TYPES = ("coupon.issued", "coupon.redeemed")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
async def postman() -> AsyncIterator[Postman]:
    postman = Postman(allow_private=True)
    yield postman
    await postman.close()


def store(room: Room) -> WebhookStore:
    return WebhookStore(room.client, room.scripts)


def courier(room: Room, postman: Postman, webhooks: WebhookStore | None = None) -> Courier:
    webhooks = webhooks or store(room)
    telling = Telling(webhooks, EventStore(room.client), postman, A_DAY)
    return Courier(webhooks, room.catalogue, telling)


async def tell(courier: Courier) -> None:
    await courier.begin_turns()
    await courier.end_turns()


async def register(room: Room, url: str, **changes: Any) -> Webhook:
    terms = {"id": "wh-1", "types": ALL_TYPES, "campaign_id": None, "created_at_ms": 0} | changes
    webhook = Webhook(url=url, secret=written_secret(b"\1" * 32), **terms)
    assert await store(room).register(webhook)
    return webhook


async def health(room: Room) -> Health:
    ((_, health),) = await store(room).list()
    return health


async def codes(desk: Desk, number: int) -> list[str]:
    """Issue that many coupons, an event each, and return their codes."""
    for index in range(number):
        await desk.issue(f"user {index}")
    return [desk.known.codes.code(0, index) for index in range(number)]


def told_codes(messages: list[Message]) -> list[str]:
    return [code for message in messages for code in message.told()["data"]["codes"]]


async def test_events_are_told_in_order_signed_and_once(room: Room, postman: Postman, receiver: Receiver) -> None:
    desk = await room.open()
    webhook = await register(room, f"{receiver.url}/hook?shop=1")
    issued = await codes(desk, 5)
    await desk.redeem(3, order="order-7")
    for _ in range(2):
        await tell(courier(room, postman))
    assert told_codes(receiver.messages) == [*issued, issued[3]]
    assert all(message.is_signed_by(webhook.secret) for message in receiver.messages)
    assert all(abs(int(message.headers["webhook-timestamp"]) - time.time()) < 60 for message in receiver.messages)
    assert {message.path for message in receiver.messages} == {"/hook?shop=1"}
    last = receiver.messages[-1].told()
    assert (last["type"], last["campaign_id"]) == ("coupon.redeemed", "spring")
    (redemption,) = last["data"]["redemptions"]
    assert redemption["id"].startswith("rd-QWEN-")
    assert (redemption["merchant_id"], redemption["order_id"]) == ("tea house", "order-7")
    assert (await health(room)) == Health()


async def test_a_merchants_own_codes_are_told(room: Room, postman: Postman, receiver: Receiver) -> None:
    lines = [f"QWEN-{number}".encode() for number in range(3)]
    await room.imports.put_codes("spring", "a", 0, b"\n".join(lines), {})
    await room.imports.put_order("spring", "a", sorted_order(lines), 1)
    assert await room.imports.publish("spring", "a") == "published"
    desk = await room.open(imported_codes=3, max_coupons=3)
    await register(room, receiver.url)
    assert await codes(desk, 3) == ["QWEN-0", "QWEN-1", "QWEN-2"]
    await tell(courier(room, postman))
    assert told_codes(receiver.messages) == ["QWEN-0", "QWEN-1", "QWEN-2"]


async def test_only_the_types_and_the_campaign_that_were_asked_for_are_told(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk, other = await room.open(), await room.open(id="autumn", code_prefix="LEAF")
    await register(room, receiver.url, types=("coupon.deactivated",), campaign_id="spring")
    for each in (desk, other):
        await codes(each, 3)
        await each.deactivate(1)
    await tell(courier(room, postman))
    assert told_codes(receiver.messages) == [desk.known.codes.code(0, 1)]
    assert await store(room).delivered("autumn", 0) is None
    newest = (await room.events())[-1].id
    assert await store(room).delivered("spring", 0) == newest


async def test_a_webhook_is_told_what_happens_after_its_creation(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk = await room.open()
    await codes(desk, 2)
    newest = (await room.events())[-1].id
    await register(room, receiver.url, created_at_ms=newest.at_ms + 1)
    await tell(courier(room, postman))
    assert receiver.messages == []


async def test_a_refused_message_is_repeated_under_its_id_before_those_behind_it(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk = await room.open()
    await register(room, receiver.url)
    issued = await codes(desk, 4)
    receiver.answer = lambda message: 500 if issued[1] in message.body.decode() else 200
    at_work = courier(room, postman)
    await tell(at_work)
    ill = await health(room)
    assert (ill.status, ill.failures, ill.failure) == (WebhookStatus.ACTIVE, 1, "HTTP status 500")
    assert 500 <= ill.retry_at_ms - room.clock.now_ms <= 1_000
    await tell(at_work)
    assert told_codes(receiver.messages) == issued[:2]
    receiver.answer = lambda _message: 200
    await room.clock.advance(1_001)
    await tell(at_work)
    assert told_codes(receiver.messages) == [*issued[:2], *issued[1:]]
    assert receiver.messages[1].id == receiver.messages[2].id
    assert (await health(room)) == Health()


async def test_a_webhook_that_fails_for_a_day_is_disabled_and_holds_nothing_back(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk = await room.open()
    await register(room, receiver.url)
    await codes(desk, 1)
    receiver.answer = lambda _message: 503
    at_work = courier(room, postman)
    await tell(at_work)
    assert await store(room).delivered("spring", 0) is not None
    pauses = []
    for _ in range(60):
        before = await health(room)
        pauses.append(before.retry_at_ms - room.clock.now_ms)
        await room.clock.set(before.retry_at_ms)
        await tell(at_work)
        if (await health(room)).status is WebhookStatus.DISABLED:
            break
    assert max(pauses) <= 3_600_000
    assert pauses[-1] > 1_700_000
    assert room.clock.now_ms - before.failing_since_ms >= A_DAY
    assert await store(room).delivered("spring", 0) is None
    sent = len(receiver.messages)
    await room.clock.advance(A_DAY)
    await tell(at_work)
    assert len(receiver.messages) == sent


async def test_events_that_are_passed_over_do_not_hide_that_the_receiver_is_down(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk = await room.open(shards=2)
    await register(room, receiver.url, types=("coupon.redeemed",))
    receiver.answer = lambda _message: 503
    at_work = courier(room, postman)
    await desk.issue_batch([("bob", "first")], shard=1)
    await desk.redeem(shard=1)
    failures = []
    for number in range(60):
        await desk.issue_batch([(f"user {number}", "first")], shard=0)
        await tell(at_work)
        ill = await health(room)
        failures.append(ill.failures)
        if ill.status is WebhookStatus.DISABLED:
            break
        await room.clock.set(ill.retry_at_ms)
    assert failures == list(range(1, len(failures) + 1))
    assert room.clock.now_ms - ill.failing_since_ms >= A_DAY
    assert ill.status is WebhookStatus.DISABLED


async def test_a_receiver_that_is_gone_for_good_is_told_no_more(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk = await room.open()
    await register(room, receiver.url)
    await codes(desk, 2)
    receiver.answer = lambda _message: 410
    await tell(courier(room, postman))
    assert (await health(room)).status is WebhookStatus.DISABLED
    assert len(receiver.messages) == 1


async def test_an_event_of_many_coupons_is_told_in_messages_of_bounded_size(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk = await room.open()
    await register(room, receiver.url, types=("coupon.extended",))
    for batch in range(5):
        await desk.issue_batch([(f"user {batch} {number}", "first") for number in range(256)])
    await desk.write_through((await desk.extend(LATER)).number)
    await tell(courier(room, postman))
    assert told_codes(receiver.messages) == [desk.known.codes.code(0, sequence) for sequence in range(1280)]
    assert max(len(message.body) for message in receiver.messages) < 20_000
    assert len({message.id for message in receiver.messages}) == len(receiver.messages)


async def test_two_couriers_never_tell_a_webhook_at_the_same_time(
    room: Room, postman: Postman, receiver: Receiver
) -> None:
    desk = await room.open()
    await register(room, receiver.url)
    issued = await codes(desk, 3)
    await tell(courier(room, postman))
    issued += (await codes(desk, 4))[3:]
    await tell(courier(room, postman))
    assert told_codes(receiver.messages) == issued[:3]


@pytest.mark.parametrize("calls", range(12))
async def test_whoever_takes_over_after_a_death_loses_nothing_and_keeps_the_order(
    room: Room, postman: Postman, receiver: Receiver, calls: int
) -> None:
    desk = await room.open()
    webhook = await register(room, receiver.url)
    issued = await codes(desk, 4)
    webhooks = WebhookStore(room.client, DyingScripts(room.client, calls))
    dying = Telling(webhooks, EventStore(room.client), postman, A_DAY)
    try:
        await dying.tell(webhook, desk.known, room.clock.now_ms)
    except ProcessDied:
        await room.client.delete("tg:{webhooks}:lease:wh-1")
    await tell(courier(room, postman))
    ids = list(dict.fromkeys(message.id for message in receiver.messages))
    assert told_codes(receiver.accepted()) == issued
    assert len(ids) == 4
    assert len(receiver.messages) <= 5


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fd00::1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0/",
        "http://8.8.8.8/",
    ],
)
async def test_nothing_is_sent_to_an_address_that_is_not_public(url: str) -> None:
    strict = Postman(allow_private=False)
    refused = await strict.deliver(url, {}, b"{}")
    await strict.close()
    assert isinstance(refused, NotDelivered)
    assert "ValueError" in refused.reason or "gaierror" in refused.reason, refused


async def test_redirects_are_not_followed(postman: Postman, receiver: Receiver) -> None:
    receiver.answer = lambda _message: 302
    assert await postman.deliver(receiver.url, {"webhook-id": "1"}, b"{}") == NotDelivered("HTTP status 302")
    assert len(receiver.messages) == 1


async def test_a_receiver_that_is_not_there_is_a_failure_like_any_other(postman: Postman) -> None:
    refused = await postman.deliver("http://127.0.0.1:1/", {}, b"{}")
    assert isinstance(refused, NotDelivered)
    assert not refused.is_final
