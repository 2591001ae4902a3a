"""Why: the rehearsal's store is made to hang, dies and comes back with the data that it had."""

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

from loadtest.bench.processes import Cores
from loadtest.bench.stores import Store, running_store


class UnsteadyStore:
    """A store that is started, hung, woken, killed and started again over the same data."""

    def __init__(self, folder: Path, cores: Cores) -> None:
        self._folder = folder
        self._cores = cores
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        """Run it, ready. Raises CommandError."""
        self.now: Store = self._running.enter_context(running_store(self._folder, self._cores))

    def hang(self) -> None:
        """Stop it where it stands, as a disk that does not answer would."""
        os.kill(self.now.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        os.kill(self.now.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        os.kill(self.now.pid, signal.SIGKILL)
        self._running.close()

    def close(self) -> None:
        """Stop it for good, whatever state it is in."""
        with suppress(ProcessLookupError):
            # One that hangs would not hear that it is to end.
            self.wake()
        self._running.close()
