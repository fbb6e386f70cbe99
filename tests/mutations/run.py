"""
Breaks the consume engine on purpose, in a copy, and shows that a test notices each time.

    python tests/mutations/run.py [part of a name ...] [--tests FILE] [--within WORDS]

A mutation replaces one piece of text of the package and names the tests that must fail then. The
same tests must pass on the unbroken copy. Prints a table; status 1 when a mutation survives, or
when its text is not in the file any more. With ``--tests`` it runs those that the contract of
sources notices, against the suite of another source, such as tests/sources/test_kafka_contract.py;
with ``--within`` only tests with WORDS in their names, such as one class. The files beside this one
break the sources of brokers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120

LEDGER = "tests/consumer/test_ledger.py"
ENGINE = "tests/consumer/test_engine.py"
POLICY = "tests/consumer/test_policy.py"
RELIABILITY = "tests/consumer/test_reliability.py"
CONTRACT = "tests/sources/test_memory.py"


# To find a failure is enough here; to find its smallest form takes a minute.
QUICK_HYPOTHESIS = """
from hypothesis import Phase, settings

settings.register_profile("mutations", phases=(Phase.explicit, Phase.generate), database=None)
settings.load_profile("mutations")
"""


@dataclass(frozen=True)
class Mutation:
    """*old* in *file* becomes *new*, and one of *tests* (a file, ``::`` and words for ``-k``) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = [
    Mutation(
        "two messages of a lane start at once",
        "consumer/ledger.py",
        "            elif not (lane.ordered and lane.held):\n                self._list(lane, now)\n        self",
        "            else:\n                self._list(lane, now)\n        self",
        LEDGER,
    ),
    Mutation(
        "a commit jumps over a gap",
        "consumer/ledger.py",
        "while window and window[0].state == DONE:",
        "while window:",
        f"{LEDGER}::contiguous",
    ),
    Mutation(
        "results of a revoked lane are settled",
        "consumer/ledger.py",
        "done = [entry for entry in entries if entry.live]\n        for entry in entries:",
        "done = list(entries)\n        for entry in entries:",
        f"{LEDGER}::revocation",
    ),
    Mutation(
        "finished messages of a revoked lane are still acknowledged",
        "consumer/ledger.py",
        "self._finished = [message for message in self._finished if message.lane not in gone]",
        "pass",
        LEDGER,
    ),
    Mutation(
        "what did not start goes to the end of its lane",
        "consumer/ledger.py",
        "lane.queue.appendleft(entry)",
        "lane.queue.append(entry)",
        LEDGER,
    ),
    Mutation(
        "what waits behind a requeued message overtakes it",
        "consumer/ledger.py",
        "behind = [entry for lane in lanes for entry in lane.queue]",
        "behind: list[Entry] = []",
        f"{ENGINE}::requeueing or exit_lets",
    ),
    Mutation(
        "what never started counts as a delivery",
        "consumer/ledger.py",
        "entry.message.deliveries = max(0, entry.message.deliveries - 1)",
        "pass",
        f"{CONTRACT}::did_not_start",
    ),
    Mutation(
        "a revocation leaves the lane blocked for ever",
        "consumer/ledger.py",
        "            elif entry.state == DELAYED:\n                self._release(entry.lane, now)",
        "",
        LEDGER,
    ),
    Mutation(
        "a message is settled although its dead letter was not published",
        "consumer/worker.py",
        "            self._unburied(entry, verdict, error)\n        else:",
        "            self.hand.done.append(entry)\n        else:",
        f"{CONTRACT}::buried or confirmed",
    ),
    Mutation(
        "a processor that exits takes its worker along",
        "consumer/worker.py",
        "        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the failure of this message",
        "        except Exception as error:",
        f"{CONTRACT}::system_exit",
    ),
    Mutation(
        "a failed batch is settled as a whole",
        "consumer/worker.py",
        "            case _:\n                return entries",
        "            case _:\n                self.hand.done.extend(entries)",
        f"{CONTRACT}::batch",
    ),
    Mutation(
        "a message given out too often is processed once more",
        "consumer/worker.py",
        "else tools.policy.max_deliveries\n",
        "else tools.policy.max_deliveries + 1\n",
        f"{CONTRACT}::too_often",
    ),
    Mutation(
        "undecodable messages are tried again",
        "consumer/policy.py",
        "case DecodeError() | UnknownContentType():",
        "case DecodeError() | UnknownContentType() if False:",
        f"{CONTRACT}::undecodable",
    ),
    Mutation(
        "one attempt more than allowed",
        "reliability/retry.py",
        "return failures >= self.attempts",
        "return failures > self.attempts",
        f"{RELIABILITY}::often",
    ),
    Mutation(
        "a wait after the last try",
        "reliability/retry.py",
        "if policy.exhausted(failures, clock() - started + wait) or stop.wait(wait):",
        "if stop.wait(wait) or policy.exhausted(failures, clock() - started + wait):",
        f"{RELIABILITY}::never_waits",
    ),
    Mutation(
        "a failing message lets its lane go on",
        "consumer/desk.py",
        "        if not lanes or not hand.run:\n            return",
        "        return",
        f"{ENGINE}::long_run",
    ),
    Mutation(
        "a delayed message lets its lane go on",
        "consumer/ledger.py",
        "                kept.append(entry)\n            else:\n                self._release(entry.lane, now)",
        "                kept.append(entry)\n            self._release(entry.lane, now)",
        f"{ENGINE}::holds_only",
    ),
    Mutation(
        "a slow message keeps the others of its run",
        "consumer/desk.py",
        "STEAL_AFTER = 0.02",
        "STEAL_AFTER = 1e9",
        f"{ENGINE}::rest_of_its_run",
    ),
    Mutation(
        "at a stop nothing is given back",
        "consumer/desk.py",
        "                self._nacks.append((0.0, messages))\n            self._work.notify_all()",
        "                pass\n            self._work.notify_all()",
        f"{CONTRACT}::did_not_start",
    ),
    Mutation(
        "leases end while the last messages do",
        "consumer/engine.py",
        "            self._tender.tend(subscription)\n            self._keep_alive(subscription)\n",
        "            self._keep_alive(subscription)\n",
        f"{ENGINE}::last_messages_end",
    ),
    Mutation(
        "leases are never extended",
        "consumer/tending.py",
        "            self._extend(subscription)\n",
        "",
        f"{ENGINE}::leases",
    ),
    Mutation(
        "prefetch is not a bound",
        "consumer/engine.py",
        "room = self._settings.held - self._held",
        "room = self._settings.held",
        f"{ENGINE}::prefetch",
    ),
    Mutation(
        "a full consumer stops polling",
        "consumer/engine.py",
        "            received = subscription.poll(0, 0.0)",
        "            received: list[Any] = []",
        f"{ENGINE}::prefetch",
    ),
    Mutation(
        "a commit that failed is forgotten",
        "consumer/settling.py",
        "        self._failures += 1\n",
        "        self._failures += 1\n        self._finished = []\n",
        f"{ENGINE}::commit",
    ),
    Mutation(
        "results outlive the connection they came over",
        "consumer/engine.py",
        "dropped = self._desk.reset() + self._settler.reset()",
        "dropped = self._settler.reset()",
        f"{ENGINE}::connection_broke",
    ),
    Mutation(
        "a source that fails is opened again without a wait",
        "consumer/engine.py",
        "self._pause(stop, self._settings.reconnect.delay(failures))",
        "pass",
        f"{ENGINE}::hammered",
    ),
    Mutation(
        "the wait for a broker does not see the stop",
        "consumer/engine.py",
        "while not self._ending(stop) and (left := until - monotonic()) > 0:",
        "while (left := until - monotonic()) > 0:",
        f"{ENGINE}::at_once",
    ),
    Mutation(
        "a hung processor takes the whole budget",
        "consumer/engine.py",
        "return remaining - self._reserve",
        "return remaining + 5",
        f"{CONTRACT}::hangs",
    ),
    Mutation(
        "a worker that dies is not noticed",
        "consumer/worker.py",
        "            self._desk.fail(error)\n\n    def _work",
        "            pass\n\n    def _work",
        f"{ENGINE}::dies",
    ),
    Mutation(
        "what an async processor returned counts as done",
        "consumer/worker.py",
        "                if result is not None:\n                    refuse_awaitable(result)\n",
        "",
        f"{ENGINE}::async",
    ),
    Mutation(
        "a batch that an async processor returned counts as done",
        "consumer/worker.py",
        "            if result is not None:\n                refuse_awaitable(result)\n            self",
        "            self",
        f"{ENGINE}::async",
    ),
    Mutation(
        "what is published inside an operation loses its correlation id",
        "correlation.py",
        "return {**outgoing(skip=given), **given}",
        "return given",
        f"{CONTRACT}::carries",
    ),
    Mutation(
        "what is published loses the headers of its own",
        "correlation.py",
        "return {**outgoing(skip=given), **given}",
        "return {**given, **outgoing()}",
        f"{CONTRACT}::carries",
    ),
    Mutation(
        "a lane of the memory source loses its place in the line",
        "sources/_memory_broker.py",
        "        self._in_line = False\n        if len(self):\n            self._line_up()",
        "        self._in_line = False",
        CONTRACT,
    ),
    Mutation(
        "what is given back to an empty lane of the memory source is not seen",
        "sources/_memory_broker.py",
        "            heappush(self.aside, (due, id(record), record))\n        self._line_up()",
        "            heappush(self.aside, (due, id(record), record))",
        CONTRACT,
    ),
    Mutation(
        "what a source cannot read is processed",
        "consumer/worker.py",
        "if message.deliveries > self._most or message.problem is not None or entry.verdict is not None:",
        "if message.deliveries > self._most or entry.verdict is not None:",
        f"{CONTRACT}::cannot_be_read",
    ),
    Mutation(
        "what waits behind a retry fills the prefetch",
        "consumer/engine.py",
        "elif not self._desk.make_room():",
        "else:",
        f"{CONTRACT}::leaves_room",
    ),
    Mutation(
        "what waits behind a retry is given back without its delay",
        "consumer/ledger.py",
        "given.append((max(0.0, due - now), messages))",
        "given.append((0.0, messages))",
        LEDGER,
    ),
    Mutation(
        "nobody looks whether the topics are there",
        "consumer/engine.py",
        "if prepare is not None and not self._prepared:",
        "if False:",
        f"{CONTRACT}::missing",
    ),
    Mutation(
        "lanes that must be given up are given up at once",
        "consumer/engine.py",
        "while self._desk.retire(lanes) and monotonic() < until:",
        "while False:",
        f"{ENGINE}::given_up",
    ),
    Mutation(
        "lanes that must be given up go on starting messages",
        "consumer/ledger.py",
        "        self._drop(doomed, now)\n        return len(doomed)\n\n    def revoke",
        "        return len(doomed)\n\n    def revoke",
        f"{ENGINE}::given_up",
    ),
    Mutation(
        "what is in hand of a lane that must be given up is waited for without end",
        "consumer/engine.py",
        "while self._desk.retire(lanes) and monotonic() < until:",
        "while self._desk.retire(lanes):",
        f"{ENGINE}::revoke_wait",
    ),
    Mutation(
        "something newer is committed over a retired message",
        "consumer/ledger.py",
        "        doomed = [\n            entry\n            for entry in self._entries",
        "        for lane in lanes:\n            self._windows.get(lane, deque()).clear()\n"
        "        doomed = [\n            entry\n            for entry in self._entries",
        LEDGER,
    ),
    Mutation(
        "a consumer has caught up with what it has only read",
        "consumer/state.py",
        "return held == 0 and",
        "return",
        "tests/consumer/test_catching_up.py",
    ),
    Mutation(
        "a poisonous message replaces an older one of its key",
        "consumer/worker.py",
        "for entry in entries if not self._odd(entry)}",
        "for entry in entries}",
        f"{ENGINE}::replaces_no",
    ),
    Mutation(
        "the ids of a message are those of a later look",
        "observe/instrument.py",
        "kept: T = self.__dict__.setdefault(name, value)",
        "kept: T = value",
        f"{ENGINE}::handed_to",
    ),
]


def copy(target: Path) -> None:
    """A copy of what the tests need."""
    skip = shutil.ignore_patterns("__pycache__", "mutations")
    shutil.copytree(ROOT / "patron", target / "patron", ignore=skip)
    shutil.copytree(ROOT / "tests", target / "tests", ignore=skip)
    shutil.copy(ROOT / "setup.cfg", target)
    (target / "tests" / "consumer" / "conftest.py").write_text(QUICK_HYPOTHESIS)


def passes(target: Path, tests: str) -> tuple[bool, str]:
    """Whether *tests* pass in the copy, and the first that failed."""
    file, _, words = tests.partition("::")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        file,
    ]
    # A hypothesis database of an earlier run would make a mutation look easier to find than it is.
    environment = {
        **os.environ,
        "PYTHONPATH": str(target),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(target / "examples"),
    }
    try:
        run = subprocess.run(
            [*command, *(("-k", words) if words else ())],
            cwd=target,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no end within {TIMEOUT} s"
    if run.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests}:\n{run.stdout}{run.stderr}")
    failed = re.search(r"^(?:FAILED|ERROR) \S*::(\S+)", run.stdout, re.MULTILINE)
    return run.returncode == 0, failed[1] if failed else ""


def survives(target: Path, mutation: Mutation) -> tuple[str, str]:
    """What came of *mutation*, and the test that noticed it."""
    path = target / "patron" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        return f"TEXT FOUND {text.count(mutation.old)} TIMES", ""
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        unharmed, test = passes(target, mutation.tests)
    finally:
        path.write_text(text)
    return ("SURVIVED", "") if unharmed else ("caught", test)


def against(mutation: Mutation, suite: str) -> Mutation:
    """*mutation* with the tests of *suite* instead of the memory source's."""
    return replace(mutation, tests=mutation.tests.replace(CONTRACT, suite))


def narrowed(mutation: Mutation, words: str) -> Mutation:
    """*mutation* with only those of its tests that have *words* in their names."""
    file, _, own = mutation.tests.partition("::")
    both = " and ".join(f"({each})" for each in (own, words) if each)
    return replace(mutation, tests=f"{file}::{both}" if both else file)


def _is_general(mutation: Mutation) -> bool:
    return mutation.tests.startswith(CONTRACT) and not mutation.file.startswith("sources/")


def main() -> int:
    """Run the mutations whose names have one of the given parts in them."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--tests", help="another suite that inherits the contract")
    parser.add_argument("--within", default="", help="only tests with these words in their names")
    arguments = parser.parse_args()
    parts = arguments.parts
    chosen = [mutation for mutation in MUTATIONS if not parts or any(part in mutation.name for part in parts)]
    if arguments.tests:
        chosen = [against(mutation, arguments.tests) for mutation in chosen if _is_general(mutation)]
    chosen = [narrowed(mutation, arguments.within) for mutation in chosen]
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        target = Path(name)
        copy(target)
        for tests in sorted({mutation.tests for mutation in chosen}):
            unharmed, test = passes(target, tests)
            if not unharmed:
                print(f"{tests} fails without any mutation, in {test}")
                return 1
        for mutation in chosen:
            began = time.monotonic()
            result, test = survives(target, mutation)
            bad += result != "caught"
            print(f"{result:10} {mutation.name:68} {time.monotonic() - began:5.1f} s  {test}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} mutations caught")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
