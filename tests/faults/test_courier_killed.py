"""kill -9 of the worker while it tells a webhook: nothing is lost, the order is kept, one message may come twice."""

from functools import partial
from pathlib import Path
from typing import Final

from service.domain.webhooks import Webhook, written_secret
from service.store.webhooks import WebhookStore
from tests.store.desk import Room
from tests.store.server import running_store
from tests.story.running import eventually
from tests.worker.processes import Process, in_the_store, open_with_coupons, running
from tests.worker.receiver import Message, receiving

BATCHES: Final = 12
KILLED_AT: Final = (0, 3, 8)
CODE_SECRET: Final = "nobody-may-know-this-" * 2


async def register(room: Room, url: str) -> None:
    await open_with_coupons(room, BATCHES)
    terms = {"types": ("coupon.issued",), "campaign_id": None, "created_at_ms": 0}
    webhook = Webhook(id="wh-1", url=url, secret=written_secret(b"\1" * 32), **terms)  # type: ignore[arg-type]
    assert await WebhookStore(room.client, room.scripts).register(webhook)


async def forget_the_lease(room: Room) -> None:
    """As if the dead worker's lease had run out."""
    await room.client.delete("tg:{webhooks}:lease:wh-1")


def test_whoever_is_killed_the_next_worker_tells_every_event_in_order(tmp_path: Path) -> None:
    workers: list[Process] = []
    variables = {"TIDEGATE_WEBHOOKS__ALLOW_PRIVATE": "true", "TIDEGATE_CODE_SECRET": CODE_SECRET}
    with running_store() as server, receiving() as receiver:
        in_the_store(server.url, partial(register, url=receiver.url))

        def kill_or_accept(message: Message) -> int:
            arrived = len({each.id for each in receiver.messages})
            first_time = [each.id for each in receiver.messages].count(message.id) == 1
            if first_time and arrived - 1 in KILLED_AT:
                workers[-1].kill()
            return 200

        receiver.answer = kill_or_accept
        for _ in range(len(KILLED_AT) + 1):
            with running("worker", server.url, tmp_path, **variables) as worker:
                workers.append(worker)
                is_over = partial(over, worker, receiver.messages)
                eventually(is_over, "the worker is killed or has told everything")
            in_the_store(server.url, forget_the_lease)
    ids = [message.id for message in receiver.messages]
    once = list(dict.fromkeys(ids))
    assert len(once) == BATCHES
    assert len(ids) == BATCHES + len(KILLED_AT)
    codes = [code for message in receiver.accepted() for code in message.told()["data"]["codes"]]
    assert len(set(codes)) == len(codes) == sum(len(message.told()["data"]["codes"]) for message in receiver.accepted())
    order = [tuple(map(int, each.rsplit("_", 1)[1].split("-"))) for each in once]
    assert order == sorted(order)


def over(worker: Process, messages: list[Message]) -> bool:
    return worker.process.poll() is not None or len({message.id for message in messages}) == BATCHES
