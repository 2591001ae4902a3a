"""Why: an operator steers a campaign from a shell, and a script does the same with --json and exit codes."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from redis import Redis

from service.store.keys import state_key
from tests.store.ledgers import drifted
from tests.store.records import rows_key, without
from tests.story.running import (
    START_TIMEOUT_S,
    TIDEGATE,
    Up,
    environment,
    eventually,
    free_port,
    tidegate,
    tidegate_here,
    up,
)

COMMANDS = [
    *((name,) for name in ("up", "serve", "worker", "scheduler", "campaign", "extend", "status", "audit")),
    *(("export",), ("import",), *(("jobs", verb) for verb in ("list", "show"))),
    *(("campaign", verb) for verb in ("create", "list", "show", "start", "pause", "resume", "stop")),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One Tidegate for all stories; each makes a campaign of its own."""
    with up(tmp_path_factory.mktemp("cli") / "data", "--no-demo") as service:
        yield service


def campaign(name: str, **changes: Any) -> str:
    """A campaign file."""
    terms = {
        "id": name,
        "name": name.capitalize(),
        "benefit": {"kind": "amount", "amount": 2500, "currency": "CNY"},
        "max_coupons": 1000,
        "max_coupons_per_user": 3,
        "budget": {"amount": 2_500_000, "currency": "CNY"},
        "validity": {"expires_at": "2035-02-23T23:59:59+08:00", "timezone": "Asia/Shanghai"},
        "issue_rate": {"per_second": 500, "burst": 1000},
        "code_prefix": name.upper(),
    }
    return json.dumps(terms | changes)


def ask(running: Up, *arguments: str, stdin: str = "") -> Any:
    """Run a command with --json as a program would, and return the JSON that is all of its stdout."""
    done = tidegate_here(*arguments, "--json", stdin=stdin, TIDEGATE_URL=running.url)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def issue(running: Up, name: str, user: str) -> str:
    """Give a user one coupon over HTTP and return its code."""
    answer = httpx.post(
        f"{running.url}/v1/campaigns/{name}/coupons",
        json={"user_id": user},
        headers={"Idempotency-Key": user},
        timeout=5,
    )
    return str(answer.raise_for_status().json()["code"])


def test_a_campaign_lives_its_life_from_the_shell(running: Up) -> None:
    assert ask(running, "campaign", "create", "-", stdin=campaign("spring"))["status"] == "draft"
    for verb, status in (("start", "running"), ("pause", "paused"), ("resume", "running"), ("stop", "stopped")):
        assert ask(running, "campaign", verb, "spring", "--reason", "story")["status"] == status
    assert ask(running, "campaign", "show", "spring")["status"] == "stopped"
    assert "spring" in [one["id"] for one in ask(running, "campaign", "list")["campaigns"]]


def test_a_file_and_start_make_a_running_campaign_and_people_read_yuan(running: Up, tmp_path: Path) -> None:
    file = tmp_path / "tea.json"
    file.write_text(campaign("tea"))
    created = tidegate_here("campaign", "create", str(file), "--start", "--url", running.url)
    assert created.returncode == 0
    for shown in ("● running", "CNY 25.00", "CNY 25,000.00", "1,000, 3 for each user"):
        assert shown in created.stdout
    listed = tidegate_here("campaign", "list", "--url", running.url)
    assert [line.split()[:2] for line in listed.stdout.splitlines() if line.startswith("tea ")] == [["tea", "●"]]


def test_a_campaigns_name_is_shown_as_it_is_whatever_stands_in_it(running: Up) -> None:
    name = "Tea [/] 50 % [red]"
    terms = json.loads(campaign("markup")) | {"name": name}
    created = tidegate_here(*("campaign", "create", "-", "--start", "--url", running.url), stdin=json.dumps(terms))
    assert (created.returncode, name in created.stdout) == (0, True)


def test_people_read_when_coupons_can_be_used(running: Up) -> None:
    hours = [
        {"days": ["mon", "tue"], "from": "10:00", "to": "22:00"},
        {"days": ["fri"], "from": "20:00", "to": "02:00"},
    ]
    opening = {"hours": hours, "excluded_dates": ["2034-02-14"], "extra_dates": ["2034-02-18", "2034-02-19"]}
    rule = {"timezone": "Asia/Shanghai", "duration": "P7D", "waves": {"count": 4, "every": "P1D"}}
    ask(running, "campaign", "create", "-", stdin=campaign("evenings", validity=rule | opening))
    shown = tidegate_here("campaign", "show", "evenings", "--url", running.url).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "Valid timezone Asia/Shanghai, wait P0D, duration P7D",
        "Open mon, tue 10:00-22:00; fri 20:00-02:00",
        "Closed on 2034-02-14",
        "Open also on 2034-02-18, 2034-02-19",
        "Waves 4, one every P1D",
    ):
        assert line in lines


def test_an_extension_is_followed_to_its_end_and_twice_changes_nothing(running: Up) -> None:
    ask(running, "campaign", "create", "-", "--start", stdin=campaign("long"))
    codes = [issue(running, "long", f"user-{number}") for number in range(5)]
    to = "2035-02-28T23:59:59+08:00"
    extend = ("extend", "long", "--to", to, "--reason", "too many visitors")
    assert ask(running, *extend, "--dry-run")["changed"] == 5
    first = ask(running, *extend, "--follow")
    assert (first["status"], first["total"], first["done"], first["changed"]) == ("completed", 5, 5, 5)
    coupon = httpx.get(f"{running.url}/v1/coupons/{codes[0]}", timeout=5).json()
    assert datetime.fromisoformat(coupon["expires_at"]) == datetime.fromisoformat(to)
    assert ask(running, *extend, "--follow")["changed"] == 0
    seen = tidegate_here(*extend, "--follow", "--url", running.url)
    assert "● completed" in seen.stdout
    assert "Extending" in seen.stderr


def test_an_extension_of_some_coupons_is_tried_made_and_taken_back(running: Up) -> None:
    ask(running, "campaign", "create", "-", "--start", stdin=campaign("some"))
    codes = [issue(running, "some", f"user-{number}") for number in range(3)]
    before = httpx.get(f"{running.url}/v1/coupons/{codes[0]}", timeout=5).json()["expires_at"]
    extend = ("extend", "some", "--to", "2035-02-28T23:59:59+08:00", "--reason", "a wrong till", "--user", "user-0")
    trial = ask(running, *extend, "--dry-run", "--include-expired")
    assert (trial["changed"], trial["liability"]) == (1, {"amount": 2500, "currency": "CNY"})
    assert "worth CNY 25.00" in tidegate_here(*extend, "--dry-run", "--url", running.url).stdout
    made = ask(running, *extend, "--follow")
    assert (made["status"], made["changed"]) == ("completed", 1)
    undone = ask(running, "extend", "--undo", made["id"], "--reason", "the right till", "--follow")
    assert (undone["status"], undone["undo"]["shortened"]) == ("undone", 1)
    ended = ask(running, "jobs", "show", "undo-some-1", "--follow")
    assert (ended["kind"], ended["status"], ended["done"], ended["total"]) == ("undo", "completed", 3, 3)
    assert httpx.get(f"{running.url}/v1/coupons/{codes[0]}", timeout=5).json()["expires_at"] == before


def test_an_outage_is_recorded_once(running: Up) -> None:
    outage = ("outage", "--from", "2026-02-06T08:00:00+08:00", "--to", "2026-02-06T09:30:00+08:00")
    assert ask(running, *outage, "--reason", "tills down")["number"] == 1
    again = tidegate_here(*outage, "--reason", "tills down", "--url", running.url)
    assert (again.returncode, again.stdout) == (1, "")


@pytest.mark.parametrize(
    "arguments", [(), ("spring",), ("--undo", "spring.1", "--dry-run"), ("spring", "--undo", "spring.1")]
)
def test_half_an_extension_is_bad_input(arguments: tuple[str, ...]) -> None:
    refused = tidegate_here("extend", *arguments, "--reason", "story", "--url", "http://127.0.0.1:9")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) == 1


def test_long_jobs_are_listed_shown_and_followed(running: Up) -> None:
    ask(running, "campaign", "create", "-", "--start", stdin=campaign("work"))
    issue(running, "work", "ann")
    ask(running, "extend", "work", "--to", "2035-02-28T23:59:59+08:00", "--reason", "story")
    done = ask(running, "jobs", "show", "extension-work-1", "--follow")
    assert (done["kind"], done["status"], done["done"], done["total"]) == ("extension", "completed", 1, 1)
    assert done in ask(running, "jobs", "list")["jobs"]
    shown = tidegate_here("jobs", "show", "extension-work-1", "--follow", "--url", running.url)
    assert ("● completed" in shown.stdout, "Extension" in shown.stderr) == (True, True)
    assert "extension-work-1" in tidegate_here("jobs", "list", "--url", running.url).stdout
    eventually(
        lambda: any(
            (job["kind"], job["campaign_id"], job["status"]) == ("recount", "work", "completed")
            for job in ask(running, "jobs", "list")["jobs"]
        ),
        "the records of every campaign are recounted by themselves",
    )
    unknown = tidegate_here("jobs", "show", "extension-work-9", "--url", running.url)
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (1, 1)


def test_a_merchants_codes_are_imported_from_a_file_or_the_bad_line_is_named(running: Up, tmp_path: Path) -> None:
    ask(running, "campaign", "create", "-", stdin=campaign("own", codes="imported"))
    file = tmp_path / "codes.csv"
    file.write_text("code\nOWN-1\nEWN-2\n")
    refused = tidegate_here("import", "own", str(file), "--url", running.url)
    assert refused.returncode == 1
    assert refused.stderr.endswith("tidegate: nothing was imported: line 3 does not begin with OWN\n")
    file.write_text("code\nOWN-1\nOWN-2\n")
    job = ask(running, "import", "own", str(file))
    assert (job["status"], job["total"], job["done"]) == ("completed", 2, 2)
    ask(running, "campaign", "start", "own")
    assert [issue(running, "own", user) for user in ("ann", "bob")] == ["OWN-1", "OWN-2"]
    missing = tidegate_here("import", "own", str(tmp_path / "nowhere.csv"), "--url", running.url)
    assert (missing.returncode, missing.stdout) == (2, "")


def test_coupons_and_redemptions_are_taken_home_as_a_file(running: Up) -> None:
    ask(running, "campaign", "create", "-", "--start", stdin=campaign("file"))
    code = issue(running, "file", "ann")
    body = {"merchant_id": "tea-house", "order_id": "1"}
    httpx.post(f"{running.url}/v1/coupons/{code}/redemptions", json=body, timeout=5).raise_for_status()
    for options, cells in (((), [code, "ann", "redeemed"]), (("--redemptions",), [code, "ann", "tea-house"])):
        taken = tidegate_here("export", "file", *options, "--url", running.url)
        assert (taken.returncode, len(taken.stdout.splitlines())) == (0, 2)
        assert ",".join(cells) in taken.stdout
        assert "1/1" in taken.stderr
    unknown = tidegate_here("export", "nowhere", "--url", running.url)
    assert (unknown.returncode, unknown.stdout, unknown.stderr) == (
        1,
        "",
        "tidegate: Nothing is here under that name.\n",
    )
    away = tidegate_here("export", "file", "--url", "http://127.0.0.1:9")
    assert (away.returncode, away.stdout) == (3, "")


def test_a_file_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_half() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ncode\r\n\r\n")

        answering = threading.Thread(target=answer_half)
        answering.start()
        taken = tidegate_here("export", "spring", "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
        answering.join()
    assert (taken.returncode, taken.stdout) == (3, "code\r\n")
    assert "the file broke off, it is not whole" in taken.stderr


def test_status_says_in_one_line_whether_coupons_are_issued(running: Up) -> None:
    assert ask(running, "status")["issuance"] == "issuing"
    assert tidegate_here("status", "--url", running.url).stdout.startswith("● issuing since ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (campaign("bad", max_coupon=3), "max_coupon: "),
        (campaign("bad", max_coupons=-1), "max_coupons: "),
        (campaign("bad", budget={"amount": 1, "currency": "EUR"}), "EUR"),
        (
            campaign("bad", validity={"expires_at": "2035-02-23T23:59:59", "timezone": "Asia/Shanghai"}),
            "validity.expires_at: ",
        ),
        (campaign("bad", validity={"duration": "P7D", "timezone": "Asia/Atlantis"}), "validity.timezone: "),
    ],
)
def test_a_campaign_file_with_a_mistake_is_refused_in_one_line_that_names_it(running: Up, text: str, said: str) -> None:
    refused = tidegate_here("campaign", "create", "-", "--url", running.url, stdin=text)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert tidegate_here("campaign", "show", "bad", "--url", running.url).returncode == 1


@pytest.mark.parametrize("text", ["", "{", '["a list"]', '"' + "x" * 17_000 + '"'])
def test_a_file_that_holds_no_json_object_never_reaches_the_service(text: str) -> None:
    refused = tidegate_here("campaign", "create", "-", "--url", "http://127.0.0.1:9", stdin=text)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) == 1


NOT_UTF_8: Final = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale whose encoding reads no more than ASCII, as GBK reads no UTF-8."""


def test_files_are_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    file = tmp_path / "tea.json"
    file.write_text(campaign("tea").replace("Tea", "茶"), encoding="utf-8")
    sent = tidegate("campaign", "create", str(file), "--url", "http://127.0.0.1:9", **NOT_UTF_8)
    assert (sent.returncode, sent.stderr[:38]) == (3, "tidegate: no Tidegate answers at http:")
    readme = tmp_path / "README.md"
    readme.write_text("茶\n<!-- settings:begin -->\n<!-- settings:end -->\n", encoding="utf-8")
    assert tidegate("settings", "--write", str(readme), **NOT_UTF_8).returncode == 0
    assert tidegate("settings", "--check", str(readme), **NOT_UTF_8).returncode == 0
    load = "from service.store.scripts import *; [load(file.stem, STORE_CLOCK) for file in LUA.glob('*.lua')]"
    subprocess.run((sys.executable, "-c", load), env=environment(**NOT_UTF_8), check=True, timeout=START_TIMEOUT_S)


@pytest.mark.parametrize(
    ("moment", "said"), [("2026-02-28T23:59:59", "needs its offset"), ("tomorrow", "is no RFC 3339 time")]
)
def test_an_expiry_without_an_offset_is_bad_input(moment: str, said: str) -> None:
    refused = tidegate_here("extend", "spring", "--to", moment, "--reason", "story", "--url", "http://127.0.0.1:9")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr


def test_a_program_gets_the_problem_as_json_on_stderr(running: Up) -> None:
    refused = tidegate_here("campaign", "show", "nobody", "--json", "--url", running.url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert json.loads(refused.stderr)["status"] == 404
    unreachable = tidegate_here("status", "--json", "--url", f"http://127.0.0.1:{free_port()}")
    assert (unreachable.returncode, unreachable.stdout) == (3, "")
    assert json.loads(unreachable.stderr)["title"] == "unreachable"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[bad", "ftp://127.0.0.1"])
def test_a_service_that_does_not_answer_is_one_line(url: str) -> None:
    refused = tidegate_here("status", "--url", url)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith(f"tidegate: no Tidegate answers at {url}")
    assert len(refused.stderr.splitlines()) == 1


def test_an_id_with_slashes_stays_one_id(running: Up) -> None:
    refused = tidegate_here("campaign", "show", "../status", "--json", "--url", running.url)
    assert json.loads(refused.stderr)["status"] in (404, 422)


def test_one_part_can_be_run_alone_beside_the_others(running: Up, tmp_path: Path) -> None:
    port = free_port()
    data = running.stdout.with_name("data")
    with (tmp_path / "serve.log").open("wb") as log:
        alone = subprocess.Popen(
            (*TIDEGATE, "serve", "--port", str(port), "--data-dir", str(data)),
            env=environment(),
            stdout=log,
            stderr=log,
        )
    try:
        transport = httpx.HTTPTransport(retries=20)
        with httpx.Client(transport=transport, timeout=START_TIMEOUT_S) as client:
            assert client.get(f"http://127.0.0.1:{port}/livez").is_success
    finally:
        alone.send_signal(signal.SIGTERM)
        alone.wait(30)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    helped = tidegate_here(*command, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert f"Usage: tidegate {' '.join(command)}" in helped.stdout


@pytest.mark.parametrize("arguments", [("upp",), ("up", "--port", "many"), ("extend", "spring"), ("campaign", "show")])
def test_a_misspelt_command_ends_with_2(arguments: tuple[str, ...]) -> None:
    refused = tidegate_here(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")


def test_the_settings_table_can_be_written_and_checked(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- settings:begin -->\nold\n<!-- settings:end -->\nafter\n")
    assert tidegate_here("settings", "--check", str(readme)).returncode == 1
    assert tidegate_here("settings", "--write", str(readme)).returncode == 0
    assert tidegate_here("settings", "--check", str(readme)).returncode == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| `TIDEGATE_PORT` | `8000` | " in text
    assert "| `TIDEGATE_GROUP_COMMIT__MAX_BATCH` | `128` | " in text


def audit(running: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Audit in the data folder of that Tidegate."""
    return tidegate_here("audit", *arguments, "--data-dir", str(data_of(running)))


def data_of(running: Up) -> Path:
    return running.stdout.with_name("data")


def test_an_audit_counts_every_coupon_again_and_names_what_differs(running: Up) -> None:
    ask(running, "campaign", "create", "-", "--start", stdin=campaign("counted"))
    for user in ("ann", "bob", "cid"):
        issue(running, "counted", user)
    exported = data_of(running) / "export" / "counted"
    eventually(lambda: any(exported.glob("*.ndjson.gz")), "events are exported")
    issue(running, "counted", "dan")
    sound = audit(running, "counted")
    assert sound.returncode == 0, sound
    assert "1 of 1 shards agree with 4 events" in sound.stdout
    (told,) = json.loads(audit(running, "counted", "--json").stdout)
    assert (told["sound"], told["told"]["issued"], told["told"]["budget_committed"]) == (True, 4, 10_000)
    with Redis(unix_socket_path=str(data_of(running) / "store.sock")) as store:
        ledger = store.hget(state_key("counted", 0), "ledger")
        store.hset(state_key("counted", 0), "ledger", drifted(ledger, {"redeemed": 1}))
        store.hset(rows_key("counted"), mapping=without(store.hgetall(rows_key("counted")), 2))
        differs = audit(running)
        store.hset(state_key("counted", 0), "ledger", ledger)
    assert differs.returncode == 1
    assert "store" in differs.stdout.split(), "the drifted counter has a row of its own"
    assert "counted, shard 0, coupon 2: events issued, record no record" in " ".join(differs.stdout.split())
    unknown = audit(running, "nowhere")
    assert (unknown.returncode, unknown.stderr) == (1, "tidegate: there is no campaign nowhere\n")
