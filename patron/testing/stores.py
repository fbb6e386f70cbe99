"""
What every cache store must do: a suite that a store inherits.

::

    class TestMemcachedStore(StoreContract):
        def store(self) -> Store:
            return MemcachedStore("localhost:11211", prefix=self.prefix)

``self.prefix`` is a new name in each test; `store` may be called often in one test and must then mean the same
entries, unless ``shared`` is False: then each store has its own.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from patron.cache import Store
from patron.testing.until import until

__all__ = ["StoreContract"]

VALUES = {
    "text": b"hello",
    "empty": b"",
    "every byte": bytes(range(256)),
    "1 MiB": b"0123456789abcdef" * 65536,
}
KEYS = ["GET /orders?a=1&b=2", "käse ☃ 猫", "[*?]\\", "line\nbreak\0nul", "x" * 4000, "lone \ud800"]


class StoreContract:
    """Inherit it, and write `store`."""

    shared = True

    prefix: str
    _made: list[Store]

    def store(self) -> Store:
        """A new store over the entries of this test."""
        raise NotImplementedError

    def opened(self) -> Store:
        """A store that is closed when the test ends."""
        self._made.append(self.store())
        return self._made[-1]

    @pytest.fixture(autouse=True)
    def _suite(self) -> Iterator[None]:
        self.prefix = f"test-{uuid.uuid4().hex[:12]}"
        self._made = []
        yield
        if self._made:
            self.opened().purge()
        for each in self._made:
            each.close()

    def test_it_is_a_store(self) -> None:
        assert isinstance(self.opened(), Store)

    def test_a_miss_is_none_and_no_error(self) -> None:
        assert self.opened().get("never set") is None

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
    def test_a_value_comes_back_as_it_was_set(self, value: bytes) -> None:
        store = self.opened()
        store.set("key", value, 60)
        got = store.get("key")
        assert got == value
        assert isinstance(got, bytes)

    def test_keys_are_any_text_and_each_has_its_own_value(self) -> None:
        store = self.opened()
        for key in KEYS:
            store.set(key, repr(key).encode(), 60)
        assert [store.get(key) for key in KEYS] == [repr(key).encode() for key in KEYS]

    def test_the_last_value_counts(self) -> None:
        store = self.opened()
        store.set("key", b"first, and longer", 60)
        store.set("key", b"second", 60)
        assert store.get("key") == b"second"

    def test_a_value_is_gone_after_its_time_and_the_others_stay(self) -> None:
        store = self.opened()
        store.set("long", b"value", 60)
        store.set("short", b"value", 0.1)
        begun = time.monotonic()
        until(lambda: store.get("short") is None)
        assert time.monotonic() - begun > 0.05
        assert store.get("long") == b"value"

    def test_setting_again_gives_new_time(self) -> None:
        store = self.opened()
        store.set("key", b"value", 0.1)
        store.set("key", b"value", 60)
        store.set("other", b"value", 0.1)
        until(lambda: store.get("other") is None)
        assert store.get("key") == b"value"

    @pytest.mark.parametrize("ttl", [0, -1, float("nan")])
    def test_no_time_at_all_forgets_the_key(self, ttl: float) -> None:
        store = self.opened()
        store.set("key", b"value", 60)
        store.set("key", b"other", ttl)
        assert store.get("key") is None

    @pytest.mark.parametrize("ttl", [1e-6, 10**10, float("inf")])
    def test_any_positive_time_is_understood(self, ttl: float) -> None:
        store = self.opened()
        store.set("key", b"value", ttl)
        assert store.get("key") in ((b"value",) if ttl > 1 else (b"value", None))

    def test_a_deleted_key_is_gone_and_need_not_have_been_there(self) -> None:
        store = self.opened()
        store.set("key", b"value", 60)
        store.set("other", b"value", 60)
        store.delete("key")
        store.delete("key")
        assert (store.get("key"), store.get("other")) == (None, b"value")

    def test_purge_forgets_all_of_many_keys(self) -> None:
        store = self.opened()
        for number in range(700):
            store.set(f"key {number}", b"value", 60)
        store.purge()
        assert [number for number in range(700) if store.get(f"key {number}") is not None] == []
        store.purge()

    def test_two_stores_over_the_same_entries_see_each_other(self) -> None:
        if not self.shared:
            pytest.skip("each store has entries of its own")
        first, second = self.opened(), self.opened()
        first.set("key", b"value", 60)
        assert second.get("key") == b"value"
        first.close()
        assert second.get("key") == b"value"

    def test_closing_twice_is_no_mistake(self) -> None:
        store = self.store()
        store.close()
        store.close()

    def test_threads_share_it_and_get_what_somebody_set(self) -> None:
        store = self.opened()
        wrong: list[object] = []

        def work(number: int) -> None:
            try:
                for turn in range(60):
                    key = f"key {turn % 5}"
                    store.set(key, key.encode() * (number + 1), 60)
                    got = store.get(key)
                    if got is None or got.replace(key.encode(), b""):
                        wrong.append(got)
            except Exception as error:  # noqa: BLE001 - shown by the assertion
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
