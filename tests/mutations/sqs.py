"""
Breaks SQS's source on purpose, in a copy, and shows that the contract of sources notices each time.

    python tests/mutations/sqs.py [part of a name ...] [--within TestStandard]

It needs moto's server, as the tests do; see run.py for what it does.
"""

from __future__ import annotations

import run
from run import Mutation

CONTRACT = "tests/sources/test_sqs_contract.py"

MUTATIONS = [
    Mutation(
        "an ack deletes nothing",
        "sources/_sqs_subscription.py",
        "        self._settle(messages, self._delete)\n",
        "",
        f"{CONTRACT}::acknowledged",
    ),
    Mutation(
        "only the first ten of a call are settled",
        "sources/_sqs_subscription.py",
        "outcomes = self._crew.each(act, aws.batches_of(BATCH, leases))",
        "outcomes = self._crew.each(act, aws.batches_of(BATCH, leases[:10]))",
        f"{CONTRACT}::acknowledged",
    ),
    Mutation(
        "what is given back is deleted",
        "sources/_sqs_subscription.py",
        "self._settle(messages, lambda batch: self._change(batch, seconds))",
        "self._settle(messages, self._delete)",
        f"{CONTRACT}::given_back",
    ),
    Mutation(
        "a delay is none",
        "sources/_sqs_subscription.py",
        "        seconds = math.ceil(delay)\n",
        "        seconds = 0\n",
        f"{CONTRACT}::delay_keeps",
    ),
    Mutation(
        "leases are not renewed",
        "sources/_sqs_subscription.py",
        "        outcomes = self._crew.each(self._renew, aws.batches_of(BATCH, due))\n",
        "        outcomes: list[Outcome] = []\n",
        f"{CONTRACT}::extended_lease",
    ),
    Mutation(
        "closing keeps what was not settled until its lease ends",
        "sources/_sqs_subscription.py",
        "        for batch in aws.batches_of(BATCH, [*self._held.values(), *unseen]):\n",
        "        for batch in aws.batches_of(BATCH, [*unseen]):\n",
        f"{CONTRACT}::closing_gives_back",
    ),
    Mutation(
        "what never started counts as a delivery",
        "sources/_sqs_subscription.py",
        "            remember_count(message)\n        seconds",
        "            pass\n        seconds",
        f"{CONTRACT}::never_started",
    ),
]

if __name__ == "__main__":
    run.MUTATIONS[:] = MUTATIONS
    raise SystemExit(run.main())
