"""Two workers, each with a tree of its own: recording, and one mutant after the other."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mutants.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType

    from mutants.choice import Chooser
    from mutants.operators import Mutant
    from mutants.record import Records

T = TypeVar("T")
R = TypeVar("R")
# A run may take this many times what its tests took without a mutant, and a slow start.
PATIENCE = 10
START = 30.0
RECORDING = 900.0
# As much longer may it take on a machine that is too slow for the tests themselves.
SLOWNESS = 5

# Each run would compile everything anew; or the trees would get in each other's way.
_LEFT_OUT = frozenset({"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONPATH"})

KILLED, LATE, SURVIVED, UNSEEN = "killed", "late", "survived", "unseen"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant, and which test said so; ``unseen`` when no cheap test comes by."""

    mutant: Mutant
    outcome: str
    by: str = ""

    @property
    def dead(self) -> bool:
        """Whether it was noticed."""
        return self.outcome in {KILLED, LATE}


class Worker:
    """One tree and the process that runs tests in it."""

    def __init__(self, top: Path, folder: Path, *, start: float = START) -> None:
        folder.mkdir()
        self._start = start
        self.tree = Tree(top, folder / "tree")
        self._scratch = folder
        self._process = subprocess.Popen(
            [self.tree.python, "-m", "mutants.server", self.tree.root, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.tree.root / "tests",
            env={name: value for name, value in os.environ.items() if name not in _LEFT_OUT},
            start_new_session=True,
        )

    def run(self, **job: object) -> dict[str, Any]:
        """Run tests and return how that ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker has died")
        return json.loads(line)  # type: ignore[no-any-return]

    def log(self) -> str:
        """Return the end of what the last run printed."""
        path = self._scratch / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def record(self, file: str) -> dict[str, Any]:
        """Return the record of a test file. Raises: RuntimeError when it cannot be run."""
        answer = self.run(files=[file], record=True, seconds=RECORDING)
        if not answer.get("readable"):
            raise RuntimeError(f"{file} cannot be recorded ({answer['ended']}):\n{self.log()}")
        return {"tests": answer["tests"], "lines": answer["lines"]}

    def judge(self, mutant: Mutant, chooser: Chooser, records: Records) -> Verdict:
        """Let the tests have a look at a mutant."""
        stages = chooser.stages(mutant)
        if not stages:
            return Verdict(mutant, UNSEEN)
        for stage in stages:
            known = [name for file in stage.files for name in records.files[file]]
            job: dict[str, object] = {"files": stage.files, "tests": stage.tests, "known": known}
            answer = self._look(mutant, job, self._start + PATIENCE * stage.seconds)
            if answer["ended"] == "late":
                return Verdict(mutant, LATE)
            if answer["ended"] != "passed":
                return Verdict(mutant, KILLED, answer.get("failed", ""))
        return Verdict(mutant, SURVIVED)

    def _look(self, mutant: Mutant, job: dict[str, object], seconds: float) -> dict[str, Any]:
        """Run tests on a mutant. Late are only those that are not so without it."""
        answer = self._changed(mutant, job, seconds)
        if answer["ended"] != "late" or self.run(**job, seconds=seconds)["ended"] != "late":
            return answer
        return self._changed(mutant, job, seconds * SLOWNESS)

    def _changed(self, mutant: Mutant, job: dict[str, object], seconds: float) -> dict[str, Any]:
        self.tree.write(mutant.path, mutant.apply((self.tree.root / mutant.path).read_bytes()))
        try:
            return self.run(**job, seconds=seconds)
        finally:
            self.tree.restore(mutant.path)

    def close(self, *, now: bool) -> None:
        """End the process, in the midst of a run if ``now``; what it started ends with it."""
        assert self._process.stdin is not None
        if now:
            self._process.terminate()
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Workers:
    """As many workers as there are processors to use, for the length of a block."""

    def __init__(self, top: Path, scratch: Path, count: int) -> None:
        self._workers = [Worker(top, scratch / str(number)) for number in range(count)]
        # A copy of the sources as they are now, whatever is edited meanwhile.
        self.root = self._workers[0].tree.root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.close(now=error is not None)

    def each(
        self, things: Iterable[T], act: Callable[[Worker, T], R], done: Callable[[T, R], None]
    ) -> None:
        """Do something with each thing on the next free worker; ``done`` is told, one at a time.

        Raises: what ``act`` raised first; what had not begun by then is left.
        """
        waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
        for thing in things:
            waiting.put(thing)
        lock = threading.Lock()
        faults: list[BaseException] = []

        def work(worker: Worker) -> None:
            while not faults:
                try:
                    thing = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    result = act(worker, thing)
                    with lock:
                        done(thing, result)
                except BaseException as error:  # noqa: BLE001 (raised again below)
                    faults.append(error)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
