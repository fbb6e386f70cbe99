"""
Breaks Kafka's source on purpose, in a copy, and shows that the contract of sources notices each time.

    python tests/mutations/kafka.py [part of a name ...] [--within TestCooperative]

It needs a Kafka, as the tests do; see run.py for what it does.
"""

from __future__ import annotations

import run
from run import Mutation

CONTRACT = "tests/sources/test_kafka_contract.py"
RECORDS = "tests/sources/test_kafka_records.py"

MUTATIONS = [
    Mutation(
        "an ack commits nothing",
        "sources/_kafka_subscription.py",
        "            self._commits.commit({lane: after(message) for lane, message in last.items()})\n",
        "",
        f"{CONTRACT}::acknowledged",
    ),
    Mutation(
        "the offset of the last message is committed, not the one after it",
        "sources/_kafka_commits.py",
        "OffsetAndMetadata(message.position + 1,",
        "OffsetAndMetadata(message.position,",
        f"{CONTRACT}::acknowledged",
    ),
    Mutation(
        "the first message of a partition is committed, not the last",
        "sources/_kafka_lanes.py",
        "(last[lane].position or 0) < (message.position or 0)",
        "(last[lane].position or 0) > (message.position or 0)",
        f"{CONTRACT}::acknowledged or many_workers or any_order",
    ),
    Mutation(
        "what is given back does not come again",
        "sources/_kafka_subscription.py",
        "            self._seek(lane.partition, lane.give_back(given, until))",
        "            lane.give_back(given, until)",
        f"{CONTRACT}::given_back",
    ),
    Mutation(
        "reading goes back too far",
        "sources/_kafka_lanes.py",
        "            self.delivered = min(self.delivered, message.position)",
        "            self.delivered = 0",
        f"{CONTRACT}::given_back",
    ),
    Mutation(
        "a delay is none",
        "sources/_kafka_subscription.py",
        "until = monotonic() + delay if delay > 0 else 0.0",
        "until = 0.0",
        f"{CONTRACT}::delay",
    ),
    Mutation(
        "a partition that was paused is never read again",
        "sources/_kafka_subscription.py",
        "            self._take_up()\n",
        "",
        f"{CONTRACT}::leaves_room",
    ),
    Mutation(
        "a poll for nothing fetches",
        "sources/_kafka_subscription.py",
        "            self._flow(limit > 0)\n",
        "            self._flow(True)\n",
        f"{CONTRACT}::polling_for_nothing",
    ),
    Mutation(
        "partitions are given up without asking",
        "sources/_kafka_subscription.py",
        "            if self.revoking is not None:",
        "            if False:",
        f"{CONTRACT}::given_up",
    ),
    Mutation(
        "what cannot be read looks as if it could",
        "sources/_kafka_messages.py",
        "        decoded, problem = _decode_headers(headers)\n",
        "        decoded, problem = _decode_headers(headers)[0], None\n",
        f"{CONTRACT}::cannot_be_read",
    ),
    Mutation(
        "reading goes on before what was given out last",
        "sources/_kafka_records.py",
        "        part.next_fetch_offset = offset + 1\n",
        "",
        RECORDS,
    ),
    Mutation(
        "a record that lies about its length is believed",
        "sources/_kafka_records.py",
        "if at != end or end > limit:",
        "if False:",
        RECORDS,
    ),
    Mutation(
        "after a record that cannot be read, the rest of its batch is left out",
        "sources/_kafka_records.py",
        "        yield _given_out(record, tp, part)\n\n\ndef _plain",
        "        yield _given_out(record, tp, part)\n        return\n\n\ndef _plain",
        RECORDS,
    ),
    Mutation(
        "what was aborted is given out",
        "sources/_kafka_batches.py",
        "    return bool(part._is_batch_aborted(batch))",
        "    return False",
        RECORDS,
    ),
    Mutation(
        "the end of a transaction is given out",
        "sources/_kafka_batches.py",
        "(_aborted(part, batch) or batch.is_control_batch)",
        "_aborted(part, batch)",
        RECORDS,
    ),
    Mutation(
        "damage is given out as if it were a message",
        "sources/_kafka_batches.py",
        "if self._check and not batch.validate_crc():",
        "if False:",
        RECORDS,
    ),
]

if __name__ == "__main__":
    run.MUTATIONS[:] = MUTATIONS
    raise SystemExit(run.main())
