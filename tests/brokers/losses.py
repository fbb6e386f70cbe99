"""
Counts what the service loses, repeats and reorders while it and its broker are killed.

    python tests/brokers/losses.py crash kafka               # 100,000 messages, 10 + 5 kills
    python tests/brokers/losses.py crash amqp --messages 5000
    python tests/brokers/losses.py group kafka               # processes join and leave
    python tests/brokers/losses.py slow amqp --scale 0.1     # a processor slower than the broker's patience
    python tests/brokers/losses.py stop sqs                  # SIGTERM under load

The subjects are sqlite, kafka, confluent, amqp, shared (amqp without a single active consumer) and sqs. Each
runs ``python -m patron run`` with 8 workers against a private broker. Status 1 when something was lost or out
of order, or repeated without a cause.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from brokers.loss_run import PATIENCE, Run, running
from brokers.loss_service import LossService, Record
from brokers.loss_sources import SUBJECTS
from brokers.loss_subject import LANES


def crash(run: Run, messages: int, services: int = 10, brokers: int = 5) -> None:
    """Kill the service and the broker while messages are processed with random errors."""
    each = messages // LANES
    total = each * LANES
    run.publish(each)
    service = run.service(errors=0.02)
    service.start()
    acts = ["group", "worker"] * ((services + 1) // 2)
    acts = acts[:services] + ["broker"] * brokers
    random.shuffle(acts)
    for number, act in enumerate(acts):
        at = int(total * (number + random.uniform(0.3, 1.0)) / (len(acts) + 1))
        run.until(run.processed(at), f"{at} processed", service)
        _break(run, service, act)
    run.settled(service, total)
    run.say("all processed, the service stopped")
    run.common(total)
    run.table(kills=f"{services} of the service, {brokers} of the broker")
    run.check_repeats()
    if run.subject.positional:
        leaps = run.records.leaps()
        run.table(left_out_by_a_process=len(leaps))
        run.check(not leaps, "a process left something out", *leaps)


def _break(run: Run, service: LossService, act: str) -> None:
    done = run.records.update()
    if act == "broker":
        run.say(f"{done} processed: {run.interrupt()}")
    elif act == "worker":
        with run.killing():
            service.kill_worker()
        run.say(f"{done} processed: kill -9 of the worker process")
    else:
        with run.killing():
            service.kill()
        service.start()
        run.say(f"{done} processed: kill -9 of the service, started again")


def group(run: Run, pause: float = 12.0, rate: float = 4000) -> None:
    """Processes of one consumer group join and leave while *rate* messages flow in each second."""
    rounds = threading.Event()
    published = 0

    def produce() -> None:
        nonlocal published
        begun = time.monotonic()
        while not rounds.wait(0.02):
            due = int((time.monotonic() - begun) * rate / LANES) - published
            if due > 0:
                run.subject.publish(published, due)
                published += due

    services = [run.service(f"service{number}", seconds=0.001) for number in range(4)]
    producer = threading.Thread(target=produce, name="producer")
    changes: list[tuple[str, float]] = []
    try:
        services[0].start()
        services[1].start()
        for each in services[:2]:
            each.wait_ready()
        producer.start()
        time.sleep(pause)
        for what, index, join in (
            ("a third joins", 2, True),
            ("a fourth joins", 3, True),
            ("one leaves", 0, False),
            ("another leaves", 3, False),
            ("one joins again", 0, True),
            ("one is killed (kill -9)", 2, None),
        ):
            changes.append((what, time.monotonic()))
            _change(run, services[index], join)
            run.records.update()
            run.say(f"{what}; {published * LANES} published, {len(run.records.ends)} processed")
            time.sleep(pause)
    finally:
        rounds.set()
        if producer.ident is not None:
            producer.join()
    total = published * LANES
    run.until(run.processed(total), f"all {total} processed", services[1])
    for each in services:
        if each.running:
            run.check(each.stop() == 0, f"{each.config.stem} failed to stop")
    run.common(total)
    seconds = run.records.lines[-1].at - changes[0][1] + pause
    run.table(messages_a_second=round(total / seconds))
    _progress(run, changes, pause)
    run.check_repeats()


def _change(run: Run, service: LossService, join: bool | None) -> None:
    if join:
        service.start()
    elif join is None:
        with run.killing():
            service.kill()
    else:
        run.check(service.stop() == 0, f"{service.config.stem} failed to stop")


def _progress(run: Run, changes: Sequence[tuple[str, float]], pause: float) -> None:
    """How long nothing was processed around each change: at all, and in the partition that waited longest."""
    print("    without progress, seconds:           anywhere   in a partition   repeated")
    ends = [each for each in run.records.lines if each.what == "end"]
    for what, at in changes:
        near = [each for each in ends if at - 0.5 <= each.at <= at + pause]
        lanes = [[each for each in near if each.lane == str(lane)] for lane in range(LANES)]
        longest = max(_gap(lane) for lane in lanes)
        repeated = len(near) - len({(each.lane, each.number) for each in near})
        print(f"    {what:34} {_gap(near):11.2f} {longest:16.2f} {repeated:10}")


def _gap(records: Sequence[Record]) -> float:
    times = sorted(each.at for each in records)
    return max((b - a for a, b in itertools.pairwise(times)), default=float("nan"))


def slow(run: Run, scale: float) -> None:
    """A processor takes longer than the broker waits for a sign of life."""
    seconds = 90 * scale
    source = run.subject.slow(scale)
    told = {k: v for k, v in source.items() if run.subject.source().get(k) != v or k == "lease"}
    run.subject.publish(0, 2, lanes=8)
    run.say(f"16 messages of {seconds:g} s each in 8 lanes; {told}")
    service = run.service(seconds=seconds, **source)
    service.start()
    run.until(run.processed(16), "all 16 processed", service, PATIENCE + seconds)
    run.check(service.stop() == 0, "the service failed to stop")
    run.records.update()
    begun = run.records.begun()
    run.common(16)
    run.table(begun=begun.total())
    run.check(begun.total() == 16, f"begun {begun.total()} times")


def stop(run: Run, messages: int, stops: int = 3) -> None:
    """SIGTERM under load, and start again."""
    each = messages // LANES
    total = each * LANES
    run.publish(each)
    service = run.service(seconds=0.005)
    for number in range(stops):
        service.start()
        at = int(total * (number + 1) / (stops + 1))
        run.until(run.processed(at), f"{at} processed", service)
        begun = time.monotonic()
        status = service.stop()
        took = time.monotonic() - begun
        run.records.update()
        open_ = run.records.begun() - run.records.ends
        left = run.subject.backlog()
        done = len(run.records.ends)
        run.say(
            f"SIGTERM: status {status} after {took:.1f} s, {done} processed, "
            f"{open_.total()} unfinished, {left} not acknowledged"
        )
        run.check(status == 0, f"status {status}")
        run.check(not open_, f"begun and not finished: {list(open_)[:5]}")
        due = run.published * LANES - done
        run.check(left == due, f"{due} are not processed, and {left} not acknowledged")
    service.start()
    run.settled(service, total)
    run.common(total)
    run.check(run.records.duplicates == 0, f"{run.records.duplicates} were processed twice")
    run.check(run.records.begun().total() == total, "something was begun twice")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", choices=["crash", "group", "slow", "stop"])
    parser.add_argument("subject", choices=list(SUBJECTS))
    parser.add_argument(
        "--messages", type=int, help="how many; crash: 100000 (sqs: 3000), stop: 20000 (1000)"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the times of slow: 0.1 takes 9 s, not 90 s"
    )
    parser.add_argument("--pause", type=float, default=12.0, help="seconds between two changes of group")
    parser.add_argument("--rate", type=float, default=4000, help="messages a second that group publishes")
    parser.add_argument(
        "--kills", type=int, nargs=2, default=(10, 5), help="of the service and of the broker"
    )
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends, too
    with tempfile.TemporaryDirectory(prefix="patron-losses-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with running(options.subject, folder) as run:
            print(f"{options.test}, {options.subject}")
            _test(run, options)
    print("FAILED" if run.failures else "passed")
    return bool(run.failures)


def _test(run: Run, options: argparse.Namespace) -> None:
    size = run.subject.size
    if options.test == "crash":
        crash(run, options.messages or size, *options.kills)
    elif options.test == "group":
        group(run, options.pause, options.rate)
    elif options.test == "slow":
        slow(run, options.scale)
    else:
        stop(run, options.messages or (20_000 if size > 3000 else 1000))


if __name__ == "__main__":
    sys.exit(main())
