"""Why: a newcomer's first hour: one command, three lines to copy, a crash or two, and never a traceback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest
from redis import Redis

from service.cli.processes import FIRST_RESTART_PAUSE_S, MAX_RESTARTS, RESTART_WINDOW_S, RestartBudget
from service.settings import Settings
from tests.store.server import running_store
from tests.story.running import STOP_TIMEOUT_S, Up, environment, eventually, free_port, is_alive, tidegate, up

PARTS = ["store", "API", "worker", "scheduler"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"


def printed_commands(running: Up) -> list[str]:
    """The lines that a newcomer would copy."""
    return [line.strip() for line in running.said().splitlines() if line.startswith("  curl ")]


def paste(command: str) -> dict[str, object]:
    """Run a line in a shell as it stands."""
    done = subprocess.run(("sh", "-c", command), capture_output=True, text=True, timeout=30, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def expiry(answer: dict[str, object]) -> datetime:
    """When a coupon, or what an extension extends, expires."""
    return datetime.fromisoformat(str(answer["expires_at"]))


def is_ready(running: Up) -> bool:
    """Tell whether the API can reach its store."""
    try:
        return httpx.get(f"{running.url}/readyz", timeout=1).is_success
    except httpx.HTTPError:
        return False


def test_one_command_and_three_lines_issue_redeem_and_extend_and_the_data_are_found_again(data: Path) -> None:
    with up(data) as running:
        issue, redeem, extend = printed_commands(running)
        coupon = paste(issue)
        assert str(coupon["code"]).startswith("QWEN-")
        assert paste(issue) == coupon
        assert paste(redeem)["status"] == "committed"
        issued_expiry, extended_expiry = expiry(coupon), expiry(paste(extend))
        assert extended_expiry - issued_expiry == timedelta(days=5)
        assert expiry(paste(f"curl -s {running.url}/v1/coupons/{coupon['code']}")) == extended_expiry
        assert running.stop(signal.SIGINT) == 0
    with up(data) as running:
        assert len(printed_commands(running)) == 3
        again = paste(f"curl -s {running.url}/v1/coupons/{coupon['code']}")
        assert again["status"] == "redeemed"


def test_parts_start_in_order_and_ctrl_c_stops_them_in_reverse(data: Path) -> None:
    with up(data, "--no-demo") as running:
        pids = [running.pid(part) for part in PARTS]
        assert running.stop(signal.SIGINT) == 0
        assert [line["part"] for line in running.events("part started")] == PARTS
        assert [line["part"] for line in running.events("part stopped")] == PARTS[::-1]
        assert running.events("part killed") == []
        assert not any(is_alive(pid) for pid in pids)
        assert "curl" not in running.said()


def kill_and_wait_for_the_next(running: Up, part: str) -> None:
    """Kill a part as a crash would; return when it runs again, or everything has ended."""
    killed = running.pid(part)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: running.pid(part) != killed or running.process.poll() is not None, f"the {part} is restarted")


def test_a_part_that_dies_comes_back_visibly_and_the_store_forgets_nothing(data: Path) -> None:
    with up(data, "--workers", "2") as running:
        coupon = paste(printed_commands(running)[0])
        for part in ("API", "store"):
            kill_and_wait_for_the_next(running, part)
            eventually(lambda: is_ready(running), "the API is ready again")
        deaths = [(line["part"], line["exit_code"]) for line in running.events("part ended")]
        assert deaths == [("API", -9), ("store", -9)]
        assert paste(f"curl -s {running.url}/v1/coupons/{coupon['code']}") == coupon


def held_logs(pid: int) -> list[Path]:
    """The files of the store's log that a process holds open; the kernel says of a deleted one that it is."""
    held = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            held.append(descriptor.readlink())
    return sorted(file for file in held if file.parent.name == "appendonlydir")


def test_what_a_rewrite_of_the_log_deletes_is_held_by_the_supervisor_until_it_is_given_back(data: Path) -> None:
    with up(data, "--no-demo") as running:
        log, supervisor = data / "appendonlydir", running.process.pid
        eventually(lambda: held_logs(supervisor) == sorted(log.iterdir()), "the log is held")
        before = held_logs(supervisor)
        with Redis(unix_socket_path=str(Settings(data_dir=data).store_socket)) as store:
            store.bgrewriteaof()
        eventually(lambda: held_logs(supervisor) == sorted(log.iterdir()) != before, "the new log is held alone")
        assert running.stop() == 0


def test_what_a_rewrite_of_the_log_leaves_when_it_is_cut_short_is_gone_when_the_store_is_back(data: Path) -> None:
    data.mkdir()
    (data / "temp-rewriteaof-bg-1.aof").touch()
    with up(data, "--no-demo") as running:
        assert not [*data.glob("temp-*")]
        with Redis(unix_socket_path=str(Settings(data_dir=data).store_socket)) as store:
            store.config_set("rdb-key-save-delay", 60_000_000)
            store.bgrewriteaof()
        eventually(lambda: [*data.glob("temp-*")] != [], "the log is being rewritten")
        kill_and_wait_for_the_next(running, "store")
        assert not [*data.glob("temp-*")]


def test_redemption_can_have_processes_of_its_own_beside_the_others(data: Path) -> None:
    port = str(free_port())
    with up(data, "--redeem-workers", "1", "--redeem-port", port) as running:
        till = f"http://127.0.0.1:{port}"
        assert till in running.said()
        issue, redeem, _ = printed_commands(running)
        paste(issue)
        assert httpx.post(f"{till}/v1/campaigns", json={}).status_code == 421
        assert paste(redeem.replace(f"{running.url}/v1/coupons", f"{till}/v1/coupons", 1))["status"] == "committed"
        started = [line["part"] for line in running.events("part started")]
        assert started == [*PARTS[:2], "redemption", *PARTS[2:]]


def test_a_part_that_keeps_dying_ends_everything_in_one_line(data: Path) -> None:
    with up(data, "--no-demo") as running:
        for _ in range(MAX_RESTARTS + 1):
            kill_and_wait_for_the_next(running, "scheduler")
        assert running.process.wait(STOP_TIMEOUT_S) == 1
        assert running.said().splitlines()[-1].startswith("tidegate: the scheduler ended 6 times within 60 s")
        assert not any(is_alive(line["pid"]) for line in running.events("part started"))


def test_kill_9_leaves_no_process_behind_and_the_next_start_works_at_once(data: Path) -> None:
    with up(data, "--no-demo") as running:
        pids = [running.pid(part) for part in PARTS]
        running.stop(signal.SIGKILL)
    with up(data, "--no-demo") as running:
        eventually(lambda: not any(is_alive(pid) for pid in pids), "the parts of the killed one are gone")
        assert is_ready(running)


def test_a_taken_port_is_said_before_anything_starts(data: Path) -> None:
    with up(data, "--no-demo") as running:
        port = running.url.rpartition(":")[2]
        refused = tidegate("up", "--port", port, "--data-dir", str(data.with_name("other")))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == (
            f"tidegate: cannot listen on 127.0.0.1 port {port}: address already in use; "
            "choose another with --port or TIDEGATE_PORT\n"
        )
        refused = tidegate("up", "--port", str(free_port()), "--data-dir", str(data))
        assert refused.returncode == 1
        assert refused.stderr == (
            f"tidegate: another Tidegate (process {running.process.pid}) is using {data}; "
            "stop it, or choose another folder with --data-dir\n"
        )
        assert is_ready(running)


def test_a_data_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/inside"):
        refused = tidegate("up", "--data-dir", str(tmp_path / folder))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(f"tidegate: cannot keep data in {tmp_path / folder}: ")
        assert len(refused.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a coupon in it, stopped; copy it before you damage it."""
    folder = tmp_path_factory.mktemp("kept") / "data"
    with up(folder) as running:
        paste(printed_commands(running)[0])
    return folder


def append_only_file(data: Path) -> Path:
    """The file that the store writes to."""
    return max((data / "appendonlydir").glob("*.incr.aof"))


def test_a_half_written_append_only_file_is_mended_and_said(kept: Path, data: Path) -> None:
    shutil.copytree(kept, data)
    with append_only_file(data).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$100\r\nwritt")
    with up(data) as running:
        (mended,) = running.events("store mended its data")
        assert "had been cut short and was removed" in mended["what"]
        coupons = paste(f"curl -s {running.url}/v1/campaigns/spring-festival/users/ada/coupons")["coupons"]
        assert isinstance(coupons, list)
        assert len(coupons) == 1


def test_a_damaged_append_only_file_is_one_line_with_the_way_out(kept: Path, data: Path) -> None:
    shutil.copytree(kept, data)
    with append_only_file(data).open("ab") as file:
        file.write(b"garbage, then more\r\n*1\r\n$4\r\nPING\r\n")
    refused = tidegate("up", "--port", str(free_port()), "--data-dir", str(data))
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        f"tidegate: the store ended while starting: the data in {data / 'appendonlydir'} are damaged"
    )
    assert "valkey-check-aof --fix" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("left", [None, "", "half a secret"])
def test_data_without_the_secret_that_sealed_their_codes_are_one_line_with_the_way_out(
    left: str | None, kept: Path, data: Path
) -> None:
    shutil.copytree(kept, data)
    secret = data / "code-secret"
    secret.unlink()
    if left is not None:
        secret.write_text(left)
    refused = tidegate("up", "--port", str(free_port()), "--data-dir", str(data))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"tidegate: TIDEGATE_CODE_SECRET: {secret} is ")
    assert "restore it from a backup" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert (secret.read_text() if secret.exists() else None) == left


@pytest.mark.parametrize("command", ["up", "serve", "worker", "scheduler"])
def test_a_missing_store_is_one_line(command: str, data: Path) -> None:
    address = f"redis://127.0.0.1:{free_port()}"
    refused = tidegate(command, "--data-dir", str(data), TIDEGATE_STORE_URL=address, TIDEGATE_CODE_SECRET="s" * 32)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("tidegate: no store answers: ")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_store_that_says_nothing_is_one_line(command: str, data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        refused = tidegate(command, "--data-dir", str(data), TIDEGATE_STORE_URL=address, TIDEGATE_CODE_SECRET="s" * 32)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("tidegate: no store answers: ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_store_elsewhere_without_a_code_secret_is_one_line(data: Path) -> None:
    with running_store() as store:
        refused = tidegate("serve", "--data-dir", str(data), TIDEGATE_STORE_URL=store.url)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("tidegate: TIDEGATE_CODE_SECRET: must be set with TIDEGATE_STORE_URL")
    assert len(refused.stderr.splitlines()) == 1


def test_the_password_of_a_store_elsewhere_is_told_nowhere(data: Path) -> None:
    with running_store() as store:
        with Redis.from_url(store.url) as client:
            client.config_set("requirepass", "hush")
        variables = {"TIDEGATE_STORE_URL": f"{store.url}?password=hush", "TIDEGATE_CODE_SECRET": "s" * 32}
        with up(data, "--no-demo", **variables) as running:
            assert f"Data    {store.url}\n" in running.said()
            assert "hush" not in running.said() + running.stdout.read_text()


def test_a_bad_setting_is_one_line(data: Path) -> None:
    refused = tidegate("up", "--host", "192.0.2.7", "--data-dir", str(data))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("tidegate: TIDEGATE_API_KEYS: 192.0.2.7 can be reached from other machines")
    assert not data.exists()


def test_a_reader_of_the_log_who_leaves_first_is_no_error() -> None:
    talk = "import logging, service.logs as logs; logs.configure_logs('info'); [logging.info('step') for _ in range(2)]"
    reader, writer = os.pipe()
    os.close(reader)
    # Without a buffer nothing would be left to write at the end.
    buffered = environment(PYTHONUNBUFFERED="")
    command = (sys.executable, "-c", talk)
    done = subprocess.run(command, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


HANG_UP: Final = """
import os, signal, sys
from service.cli.processes import Part, Supervisor

signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))

def tend() -> None:
    print("still here", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

part = Part("sleep", ("sleep", "60"), os.environ, stop_within_s=5, tend=tend)
Supervisor([part]).run(when_ready=lambda: os.kill(os.getpid(), signal.SIGHUP))
"""
"""A supervisor whose terminal goes away as soon as all is ready; nohup would have left it with SIG_IGN."""


@pytest.mark.parametrize(("before", "survives"), [("SIG_DFL", False), ("SIG_IGN", True)])
def test_the_end_of_the_terminal_ends_everything_unless_it_was_ignored_before(before: str, survives: bool) -> None:
    command = (sys.executable, "-c", HANG_UP, before)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "still here" in done.stdout) == (0, survives)


def test_the_restart_budget_doubles_its_pause_runs_out_and_refills_with_time() -> None:
    budget = RestartBudget()
    pauses = [budget.spend(float(second)) for second in range(MAX_RESTARTS)]
    assert pauses == [FIRST_RESTART_PAUSE_S * 2**number for number in range(MAX_RESTARTS)]
    assert budget.spend(RESTART_WINDOW_S - 0.1) is None
    assert budget.spend(RESTART_WINDOW_S) is not None
    assert budget.spend(RESTART_WINDOW_S) is None
    assert budget.spend(3 * RESTART_WINDOW_S) == FIRST_RESTART_PAUSE_S
