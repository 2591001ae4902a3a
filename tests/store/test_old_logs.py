"""What a rewrite leaves of the store's log goes piece by piece, and nothing that the store still needs goes with it."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from service.store.old_logs import MOST_HELD, STEP_BYTES, OldLogs
from tests.store.server import StoreServer

PATIENCE_S: Final = 10.0
PIECE: Final = b"x" * (1 << 20)


def rewrite_the_log(client: Redis) -> None:
    """Let the server rewrite its log, and delete the old one."""
    client.bgrewriteaof()
    deadline = time.monotonic() + PATIENCE_S
    while client.info("persistence")["aof_rewrite_in_progress"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    """A server whose data the test can look at."""
    server = StoreServer(tmp_path)
    server.start()
    yield server
    server.kill()


def test_a_deleted_log_goes_in_steps_and_the_store_finds_its_data_again(server: StoreServer, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "appendonlydir"
    old_logs = OldLogs(folder)
    with Redis.from_url(server.url) as client:
        for number in range(10):
            client.set("overwritten", PIECE + str(number).encode())
        (log,) = folder.glob("*.incr.aof")
        witness = os.open(log, os.O_RDONLY)
        size = os.fstat(witness).st_size
        assert size > 10 * len(PIECE)
        assert old_logs.give_back_some() == 0
        assert os.fstat(witness).st_size == size
        rewrite_the_log(client)
        client.set("afterwards", "kept")

        assert not log.exists()
        for left in (size - STEP_BYTES, size - 2 * STEP_BYTES, 0, 0):
            assert old_logs.give_back_some() == left
            assert os.fstat(witness).st_size == left
    server.kill()
    server.start()
    with Redis.from_url(server.url) as client:
        assert client.get("overwritten") == PIECE + b"9"
        assert client.get("afterwards") == b"kept"
    os.close(witness)
    old_logs.release()


def test_no_more_files_are_held_than_a_log_can_have(tmp_path: Path) -> None:
    files = [tmp_path / f"appendonly.aof.{number}.incr.aof" for number in range(MOST_HELD + 1)]
    for file in files:
        file.touch()
        os.truncate(file, 2 * STEP_BYTES)
    old_logs = OldLogs(tmp_path)
    assert old_logs.give_back_some() == 0
    for file in files:
        file.unlink()
    assert old_logs.give_back_some() == MOST_HELD * STEP_BYTES
    old_logs.release()


def test_what_is_no_file_or_not_there_yet_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    old_logs = OldLogs(folder)
    assert old_logs.give_back_some() == 0
    for number in range(20):
        (folder / f"appendonly.aof.{number}.folder").mkdir(parents=True)
    log = folder / "appendonly.aof.1.incr.aof"
    log.touch()
    os.truncate(log, STEP_BYTES + 1)
    assert old_logs.give_back_some() == 0
    log.unlink()
    assert old_logs.give_back_some() == 1
    old_logs.release()


def test_what_cannot_be_cut_is_let_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _length: int) -> None:
        raise OSError

    log = tmp_path / "appendonly.aof.1.incr.aof"
    log.touch()
    os.truncate(log, 3 * STEP_BYTES)
    old_logs = OldLogs(tmp_path)
    assert old_logs.give_back_some() == 0
    log.unlink()
    monkeypatch.setattr(os, "ftruncate", fail)
    assert old_logs.give_back_some() == 0
    monkeypatch.undo()
    assert old_logs.give_back_some() == 0


def descriptors_of(file: Path) -> int:
    """How many descriptors of this process are open on the file, whatever it is called now."""
    facts = file.stat()
    held = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            held += os.path.samestat(descriptor.stat(), facts)
    return held


@pytest.mark.parametrize("kept_as", [".nfs1", ".fuse_hidden1", "appendonly.aof.1.incr.aof.kept"])
def test_a_log_that_lost_its_name_and_has_another_is_let_go_and_left_whole(kept_as: str, tmp_path: Path) -> None:
    log, kept = tmp_path / "appendonly.aof.1.incr.aof", tmp_path / "elsewhere" / kept_as
    kept.parent.mkdir()
    log.touch()
    os.truncate(log, 2 * STEP_BYTES)
    old_logs = OldLogs(tmp_path)
    old_logs.give_back_some()
    os.link(log, kept)
    old_logs.give_back_some()
    assert descriptors_of(kept) == 1
    log.unlink()
    old_logs.give_back_some()
    assert descriptors_of(kept) == 0
    assert kept.stat().st_size == 2 * STEP_BYTES


def test_a_log_that_the_file_system_only_renames_is_let_go_and_not_held_again(tmp_path: Path) -> None:
    log, renamed = tmp_path / "appendonly.aof.1.incr.aof", tmp_path / ".nfs1"
    log.touch()
    old_logs = OldLogs(tmp_path)
    old_logs.give_back_some()
    assert descriptors_of(log) == 1
    log.rename(renamed)
    for _ in range(2):
        old_logs.give_back_some()
        assert descriptors_of(renamed) == 0
