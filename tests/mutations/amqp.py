"""
Breaks RabbitMQ's source and client on purpose, in a copy, and shows that a test notices each time.

    python tests/mutations/amqp.py [part of a name ...]

It needs a RabbitMQ, as the tests do; see run.py for what it does.
"""

from __future__ import annotations

import run
from run import Mutation

WIRE = "tests/sources/test_amqp_wire.py"
QUEUES = "tests/sources/test_amqp_queues.py"
CONTRACT = "tests/sources/test_amqp_contract.py"
CLIENT = "tests/clients/test_amqp_publisher.py"

MUTATIONS = [
    Mutation(
        "one frame settles what is not settled",
        "sources/_amqp_tags.py",
        "        upto, tag = 0, self._first\n        while True:",
        "        upto, tag = max(now, default=0), self._first\n        while True:",
        f"{WIRE}::multiple",
    ),
    Mutation(
        "a tag is settled twice",
        "sources/_amqp_tags.py",
        "if self._first <= tag <= self._last} - self._settled",
        "}",
        f"{WIRE}::tags",
    ),
    Mutation(
        "messages of an older connection are settled on the new one",
        "sources/_amqp_subscription.py",
        "for message in messages if message.generation == generation]",
        "for message in messages]",
        f"{QUEUES}::stale",
    ),
    Mutation(
        "nack drops",
        "sources/_amqp_subscription.py",
        'self._send(back, "basic_nack", {"requeue": True})',
        'self._send(back, "basic_nack", {"requeue": False})',
        f"{CONTRACT}::given_back_comes_again and Classic",
    ),
    Mutation(
        "a delayed nack goes back at once",
        "sources/_amqp_subscription.py",
        "if delay <= 0:",
        "if True:",
        f"{CONTRACT}::keeps_a_message_away and Classic",
    ),
    Mutation(
        "a delayed nack never goes back",
        "sources/_amqp_subscription.py",
        "if later and later[0][0] <= monotonic():",
        "if False:",
        f"{QUEUES}::waits_for_its_time",
    ),
    Mutation(
        "the prefetch never grows",
        "sources/_amqp_subscription.py",
        "elif self._fixed is None and",
        "elif False and",
        f"{QUEUES}::first_poll",
    ),
    Mutation(
        "a poll gives more than its limit",
        "sources/_amqp_subscription.py",
        "range(min(limit, len(pushed)))",
        "range(len(pushed))",
        f"{CONTRACT}::never_more and Classic",
    ),
    Mutation(
        "a cancelled consumer waits for ever",
        "sources/_amqp_subscription.py",
        "        self._cancelled = True",
        "        pass",
        f"{QUEUES}::cancels",
    ),
    Mutation(
        "waking does nothing",
        "sources/_amqp_subscription.py",
        "        self._woken = True\n        self._connection.wake()",
        "        pass",
        f"{CONTRACT}::waking and Classic",
    ),
    Mutation(
        "letters come back in any order",
        "sources/_amqp_subscription.py",
        'consumer_tag=f"patron-{self._starts:06}"',
        'consumer_tag=f"patron-{999 - self._starts:06}"',
        f"{QUEUES}::letters_are_handled and quorum",
    ),
    Mutation(
        "exclusive is not asked for",
        "sources/_amqp_subscription.py",
        "exclusive=self._exclusive,",
        "exclusive=False,",
        f"{QUEUES}::exclusive",
    ),
    Mutation(
        "the priority is not asked for",
        "sources/_amqp_subscription.py",
        "arguments=self._arguments,",
        "arguments=None,",
        f"{QUEUES}::priority",
    ),
    Mutation(
        "the heartbeat is the driver's",
        "sources/_amqp_connection.py",
        "        parameters.heartbeat = self.heartbeat\n",
        "",
        f"{QUEUES}::silent",
    ),
    Mutation(
        "a wrong password is tried for ever",
        "sources/_amqp_connection.py",
        'if isinstance(error, kind) and "ByBroker" in text:',
        "if False:",
        f"{QUEUES}::password",
    ),
    Mutation(
        "a connection that breaks while it opens is a wrong password",
        "sources/_amqp_connection.py",
        'if isinstance(error, kind) and "ByBroker" in text:',
        "if isinstance(error, kind):",
        f"{QUEUES}::handshake",
    ),
    Mutation(
        "a bad header breaks the connection",
        "sources/_amqp_properties.py",
        "_UNREADABLE = (ValueError, IndexError, error, RecursionError)",
        "_UNREADABLE = (KeyError,)",
        f"{WIRE}::problem",
    ),
    Mutation(
        "the broker's count is not read",
        "sources/_amqp_messages.py",
        "deliveries = int(count) + 1 if count.isdecimal() else 2",
        "deliveries = 2",
        f"{WIRE}::count",
    ),
    Mutation(
        "copies carry what only the broker may write",
        "sources/_amqp_messages.py",
        "or name.startswith(_BROKERS)",
        "",
        f"{QUEUES}::poison",
    ),
    Mutation(
        "messages are not persistent",
        "sources/_amqp_messages.py",
        "_PERSISTENT = 2",
        "_PERSISTENT = 1",
        f"{WIRE}::comes_back",
    ),
    Mutation(
        "what no queue takes is confirmed",
        "sources/_amqp_publisher.py",
        "mandatory=True",
        "mandatory=False",
        f"{QUEUES}::missing_queue",
    ),
    Mutation(
        "publish does not wait for the confirm",
        "sources/_amqp_publisher.py",
        "lambda: self._confirmed >= self._sent or channel.closed",
        "lambda: True",
        f"{QUEUES}::full_queue or confirm",
    ),
    Mutation(
        "a refusal is a confirm",
        "sources/_amqp_publisher.py",
        'self._refused = frame.method.NAME == "Basic.Nack"',
        "self._refused = False",
        f"{QUEUES}::full_queue",
    ),
    Mutation(
        "a publisher trusts a connection that nobody looked after",
        "sources/_amqp_publisher.py",
        "        connection.turn(0.0)\n        return connection.lost is None and",
        "        return",
        f"{QUEUES}::meanwhile",
    ),
    Mutation(
        "what is there is declared anew",
        "sources/_amqp_topology.py",
        "        if found is None:\n            arguments",
        "        if True:\n            arguments",
        f"{QUEUES}::left_as_it_is",
    ),
    Mutation(
        "a client's message is lost when no queue takes it",
        "clients/_amqp_link.py",
        "    if delivery.returned is None:\n",
        "    if True:\n",
        f"{CLIENT}::no_queue",
    ),
    Mutation(
        "a confirm of many confirms one",
        "clients/_amqp_link.py",
        "if multiple else [tag]",
        "if False else [tag]",
        f"{CLIENT}::many_threads or close_waits or order",
    ),
    Mutation(
        "all exchanges share a channel",
        "clients/_amqp_link.py",
        "self._outlets.get(exchange)",
        'self._outlets.get(exchange := "")',
        f"{CLIENT}::missing",
    ),
    Mutation(
        "nothing has a time",
        "clients/_amqp_link.py",
        "            if delivery.until <= now:",
        "            if False:",
        f"{CLIENT}::says_nothing",
    ),
    Mutation(
        "a client never connects again",
        "clients/_amqp_link.py",
        "        self._loop.call_later(_RECONNECT.delay(self._failures), self._again)",
        "",
        f"{CLIENT}::made_again",
    ),
    Mutation(
        "the content type is no property",
        "clients/amqp.py",
        '        values["content_type"] = content_type\n',
        "",
        f"{CLIENT}::wire",
    ),
]

if __name__ == "__main__":
    run.MUTATIONS[:] = MUTATIONS
    raise SystemExit(run.main())
