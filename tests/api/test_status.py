"""The public sees whether coupons are issued, in its language, at once when that changes, and asks no store for it."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.types import ASGIApp, Message
from structlog.typing import EventDict

from service.api import noticeboard, status
from service.api.app import fastapi_lane
from service.api.parts import Parts
from service.domain.saturation import Signal
from service.gate.signals import Reading
from tests.api.caller import PATIENT, Caller, field_errors, refusal, settings
from tests.api.test_operations import commands
from tests.store.desk import TURNABLE_CLOCK, Room

pytestmark = pytest.mark.anyio

PATIENCE_S = 10.0
MESSAGES = {"de": "Gleich geht es weiter.", "zh-Hans": "马上继续。"}


@pytest.fixture
async def parts(room: Room, store_url: str) -> AsyncIterator[Parts]:
    """The parts of an API that looks at its campaigns only when the test says so."""
    del room
    parts = Parts(settings(store_url), TURNABLE_CLOCK)
    await parts.breaker.tick()
    yield parts
    async with parts.running():
        pass


@pytest.fixture
async def app(parts: Parts) -> ASGIApp:
    return fastapi_lane(parts)


@pytest.fixture
async def api(app: ASGIApp) -> AsyncIterator[Caller]:
    async with Caller(app) as caller:
        yield caller


async def told(api: Caller, languages: str = "", campaign: str = "spring") -> tuple[dict[str, Any], str]:
    headers = {"Accept-Language": languages} if languages else {}
    answer = await api.http.get("/v1/status", params={"campaign_id": campaign}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["vary"], answer.headers["cache-control"]) == ("accept-language", "public, max-age=1")
    return answer.json(), answer.headers["content-language"]


class Listener:
    """Somebody who follows the status, as a server would hand him over."""

    def __init__(self, app: ASGIApp, target: str, **headers: str) -> None:
        url = urlsplit(target)
        self._app = app
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._received.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def begin(self) -> None:
        self.life = asyncio.ensure_future(self._app(self._scope, self._received.get, self._sent.put))

    async def hear(self) -> Message:
        async with asyncio.timeout(PATIENCE_S):
            return await self._sent.get()

    async def text(self) -> str:
        """The next piece of the stream."""
        body: bytes = (await self.hear())["body"]
        return body.decode()

    async def event(self) -> dict[str, Any]:
        """The next event's data and id, past every comment."""
        while True:
            if (text := await self.text()).startswith("event"):
                kind, mark, data, *_ = text.split("\n")
                assert kind == "event: status"
                body: dict[str, Any] = json.loads(data.removeprefix("data: "))
                return body | {"id": mark.removeprefix("id: ")}

    async def leave(self) -> None:
        self._received.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(PATIENCE_S):
            await self.life


@asynccontextmanager
async def following(app: ASGIApp, target: str = "/v1/status/stream", **headers: str) -> AsyncIterator[Listener]:
    listener = Listener(app, target, **headers)
    listener.begin()
    start = await listener.hear()
    assert start["status"] == 200, start
    assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
    assert await listener.text() == f"retry: {status.RECONNECT_MS}\n\n"
    yield listener
    await listener.leave()


async def test_a_paused_campaign_speaks_in_its_own_words_and_in_the_readers_language(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open(messages=MESSAGES)
    assert (await told(api, "zh-CN"))[0]["message"] == noticeboard.WORDS["issuing"]["zh"]
    await room.clock.advance(60_000)
    await api.tell("pause")
    await parts.noticeboard.look()
    german, language = await told(api)
    assert (language, german["message"], german["reason"]) == ("de", MESSAGES["de"], "operator")
    assert german["since"] == "2026-02-05T23:47:00.000+00:00"
    assert (german["issuance"], german["retry_after_s"]) == ("paused", 30)
    assert (await told(api, "zh-CN, en;q=0.5"))[1] == "zh-Hans"
    english, language = await told(api, "en-US,en;q=0.9")
    assert (language, english["message"]) == ("en", noticeboard.WORDS["paused"]["en"])
    await api.tell("resume")
    await parts.noticeboard.look()
    assert (await told(api))[0]["issuance"] == "issuing"
    await api.tell("stop")
    await parts.noticeboard.look()
    stopped, _ = await told(api, "zh")
    assert (stopped["issuance"], stopped["reason"], stopped["retry_after_s"]) == ("paused", "stopped", 0)


async def test_the_breakers_pause_is_told_of_each_campaign_and_of_all(api: Caller) -> None:
    await api.open(messages=MESSAGES)
    await told(api)
    await api.override("forced_open", ttl_s=60)
    everything = (await api.http.get("/v1/status")).json()
    campaign, _ = await told(api)
    assert (everything["issuance"], everything["message"]) == ("paused", noticeboard.WORDS["paused"]["en"])
    assert (campaign["issuance"], campaign["message"]) == ("paused", MESSAGES["de"])
    assert campaign["retry_after_s"] >= 60


async def test_while_people_wait_in_line_the_campaign_is_recovering(api: Caller, parts: Parts) -> None:
    await api.open(issue_rate={"per_second": 1, "burst": 1})
    await api.tell("pause")
    for number in range(9):
        await api.http.post("/v1/campaigns/spring/tickets", json={"user_id": f"user-{number}"})
    await api.tell("resume")
    await parts.waiting_rooms.tick()
    body, _ = await told(api)
    assert (body["issuance"], body["reason"]) == ("recovering", "waiting_room")
    assert body["retry_after_s"] >= 9


async def test_however_many_read_the_store_is_asked_once(api: Caller, room: Room) -> None:
    await api.open()
    await asyncio.gather(*[told(api) for _ in range(50)])
    before = await commands(room)
    await asyncio.gather(*[told(api) for _ in range(50)], *[api.http.get("/v1/status") for _ in range(50)])
    assert await commands(room) == before


async def test_of_a_campaign_that_is_not_there_nothing_is_told(api: Caller, app: ASGIApp) -> None:
    for path in ("/v1/status?campaign_id=autumn", "/v1/status/stream?campaign_id=autumn", "/v1/status?campaign_id="):
        assert refusal(await api.http.get(path)) == (404, "not_found")
    assert (await api.http.get("/v1/status", params={"campaign_id": "a" * 65})).status_code == 422
    listener = Listener(app, "/v1/status/stream?campaign_id=%0A")
    listener.begin()
    assert (await listener.hear())["status"] == 404


async def test_only_so_many_campaigns_are_kept_in_mind_and_those_nobody_reads_about_are_forgotten(
    api: Caller, parts: Parts, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noticeboard, "MAX_WATCHED", 3)
    for number in range(5):
        await api.open(id=f"campaign-{number}", code_prefix=f"C{number}")
        await told(api, campaign=f"campaign-{number}")
    before = await commands(room)
    await told(api, campaign="campaign-4")
    assert await commands(room) == before
    await told(api, campaign="campaign-0")
    assert await commands(room) != before
    monkeypatch.setattr(noticeboard, "FORGOTTEN_AFTER_S", 0.0)
    before = await commands(room)
    await parts.noticeboard.look()
    assert await commands(room) == before


@pytest.mark.parametrize(
    "messages",
    [{"english": "x"}, {"e": "x"}, {"en": ""}, {"en": "a\nb"}, {"en": 1}, {"en": "x" * 501}, {"en-": "x"}, ["en"]],
)
async def test_messages_that_no_reader_could_be_shown_are_refused(api: Caller, messages: Any) -> None:
    assert field_errors(await api.create(messages=messages))
    assert field_errors(await api.create(messages={f"e{letter}": "x" for letter in "abcdefghijklmnopqrstu"}))
    await api.open()
    assert field_errors(await api.change(messages=messages))
    assert (await api.campaign())["messages"] == {}


async def test_messages_can_be_changed_and_taken_away(api: Caller) -> None:
    await api.open(messages=MESSAGES)
    assert (await api.change(messages={"fr": "Bientôt."})).json()["messages"] == {"fr": "Bientôt."}
    assert (await api.change(3, messages={})).json()["messages"] == {}
    assert field_errors(await api.change(4, messages=None))


async def test_a_listener_hears_what_holds_and_then_every_change_at_once(app: ASGIApp, api: Caller) -> None:
    await api.open(messages=MESSAGES)
    async with (
        following(app) as everything,
        following(app, "/v1/status/stream?campaign_id=spring", accept_language="zh") as campaign,
    ):
        assert (await everything.event())["issuance"] == (await campaign.event())["issuance"] == "issuing"
        await api.override("forced_open")
        assert (await everything.event())["issuance"] == "paused"
        paused = await campaign.event()
        assert (paused["issuance"], paused["message"]) == ("paused", MESSAGES["zh-Hans"])
        await api.override("forced_closed")
        reopened = await everything.event()
    async with following(app, last_event_id=reopened["id"]) as informed, following(app, last_event_id="old") as late:
        assert (await late.event())["id"] == reopened["id"]
        await api.override("forced_open")
        assert (await informed.event())["issuance"] == "paused"


async def test_listeners_and_the_log_tell_that_all_wait_for_a_silent_store_and_when_it_has_answered(
    app: ASGIApp, api: Caller, parts: Parts, log: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.open()
    silence = {Signal.STORE_SILENCE: 0.0}
    monkeypatch.setattr(parts.breaker._signals, "sample", lambda *_: Reading(silence, {}))
    async with following(app) as everything, following(app, "/v1/status/stream?campaign_id=spring") as campaign:
        before = [await everything.event(), await campaign.event()]
        assert {event["issuance"] for event in before} == {"issuing"}
        silence[Signal.STORE_SILENCE] = PATIENT.hold_after_ms / 1000
        await parts.breaker.tick()
        held = [await everything.event(), await campaign.event()]
        assert {(event["issuance"], event["reason"]) for event in held} == {("paused", "store_silence")}
        # Else a pause that follows would not be told: it has the same issuance, and the shared epoch stands still.
        assert all("hold" in event["id"] for event in held)
        silence[Signal.STORE_SILENCE] = 0.0
        await parts.breaker.tick()
        after = [await everything.event(), await campaign.event()]
        assert [event["id"] for event in after] == [event["id"] for event in before]
    told = [line["event"] for line in log if line["log_level"] == "warning"]
    assert told == ["the store owes an answer, nobody is let in", "nobody waits for the store any more"]
    assert "tidegate_breaker_holds_total 1.0" in await api.metrics()


async def test_an_operators_pause_reaches_those_who_listen_to_the_campaign(
    app: ASGIApp, api: Caller, parts: Parts
) -> None:
    await api.open()
    async with following(app, "/v1/status/stream?campaign_id=spring") as listener:
        await listener.event()
        await parts.noticeboard.look()
        await api.tell("pause")
        await parts.noticeboard.look()
        assert (await listener.event())["reason"] == "operator"


async def test_a_campaign_opens_and_closes_by_its_window_though_no_worker_has_noted_it(
    app: ASGIApp, api: Caller, parts: Parts, room: Room
) -> None:
    await api.open(issue_window={"starts_at": "2026-02-06T07:47:00+08:00", "ends_at": "2026-02-06T07:48:00+08:00"})
    async with following(app, "/v1/status/stream?campaign_id=spring") as listener:
        before = await listener.event()
        assert (before["issuance"], before["reason"]) == ("paused", "scheduled")
        assert before["since"] == "2026-02-05T23:46:00.000+00:00"
        await room.clock.advance(61_000)
        await parts.breaker.tick()
        assert (await told(api))[0]["issuance"] == "issuing"
        await parts.noticeboard.look()
        assert (await listener.event())["issuance"] == "issuing"
        await room.clock.advance(60_000)
        await parts.breaker.tick()
        await parts.noticeboard.look()
        after = await listener.event()
        assert (after["issuance"], after["reason"]) == ("paused", "ended")
        assert after["since"] == "2026-02-05T23:48:00.000+00:00"


async def test_a_silent_stream_is_kept_alive(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "KEEP_ALIVE_S", 0.01)
    async with following(app) as listener:
        await listener.event()
        assert await listener.text() == await listener.text() == ": still here\n\n"


async def test_only_so_many_listen_and_a_place_is_free_when_one_leaves(
    app: ASGIApp, api: Caller, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_LISTENERS", 2)
    async with following(app) as staying:
        await staying.event()
        async with following(app) as leaving:
            await leaving.event()
            full = await api.http.get("/v1/status/stream")
            assert refusal(full) == (503, "too_many_listeners")
            assert int(full.headers["retry-after"]) > 0
            assert "tidegate_status_listeners 2.0" in await api.metrics()
        assert parts.noticeboard.listeners == 1
        async with following(app) as next_one:
            await next_one.event()
    assert parts.noticeboard.listeners == 0


async def test_when_the_process_stops_all_listeners_are_sent_home(app: ASGIApp, parts: Parts) -> None:
    async with following(app) as listener:
        await listener.event()
        parts.noticeboard.close()
        assert await listener.hear() == {"type": "http.response.body", "body": b"", "more_body": False}
        async with asyncio.timeout(PATIENCE_S):
            await listener.life


async def test_the_page_is_whole_and_nothing_else_runs_in_it(api: Caller) -> None:
    page = await api.http.get("/status")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    for element in ("style", "script"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", page.text, re.DOTALL)
        assert f"{element}-src 'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" in policy
    assert "//" not in re.sub(r"^ *// .*$", "", page.text, flags=re.MULTILINE)
    assert not re.search(r"innerHTML|document\.write|eval|\son\w+=|style=", page.text)
