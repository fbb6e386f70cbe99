"""Whether an entry answers a request: a pure function of the client's wishes, the entry's age and the settings."""

from __future__ import annotations

from typing import Literal, NamedTuple

from patron.http.caching.directives import NO_WISHES, Wishes

__all__ = ["REVALIDATION_FAILED", "STALE", "Entitlement", "Verdict", "decide", "may_join"]

STALE = '110 patron "Response is Stale"'
REVALIDATION_FAILED = '111 patron "Revalidation Failed"'


class Entitlement(NamedTuple):
    """
    How long an entry may be served.

    Args:
        lifetime: seconds for which it is fresh.
        minimum: seconds in which clients cannot ask for a newer one.
        window: seconds behind *lifetime* in which it is still there.
    """

    lifetime: float
    minimum: float = 0.0
    window: float = 0.0


class Verdict(NamedTuple):
    """
    What to do with a request.

    *lookup* is how the lookup ended: ``hit``, ``miss``, or ``replaced`` for *reason*. *warnings* are for
    the answer when it is served.
    """

    act: Literal["serve", "run", "refuse"]
    lookup: Literal["hit", "miss", "replaced"]
    reason: str = ""
    warnings: tuple[str, ...] = ()


HIT = Verdict("serve", "hit")
_MISS = Verdict("run", "miss")
_REFUSED = Verdict("refuse", "miss")


def decide(wishes: Wishes, age: float | None, entitlement: Entitlement) -> Verdict:
    """
    What to do with a request that has *wishes*, when the entry is *age* seconds old (None: there is none).

    An entry is younger than N seconds as long as its age is below N. A wish that goes beyond what
    *entitlement* allows is capped, and the answer warns of it.
    """
    if age is None:
        return _REFUSED if wishes.only_if_cached else _MISS
    if age >= entitlement.lifetime:
        return _of_stale(wishes, age, entitlement)
    if wishes is NO_WISHES:
        return HIT
    return _of_fresh(wishes, age, entitlement)


def _of_fresh(wishes: Wishes, age: float, entitlement: Entitlement) -> Verdict:
    lifetime = entitlement.lifetime
    minimum = min(entitlement.minimum, lifetime)
    ceiling = lifetime - minimum
    warnings = []
    for name, wanted in (("no-cache", wishes.no_cache), ("no-store", wishes.no_store)):
        if wanted:
            if age >= minimum:
                return _replaced(name, wishes)
            warnings.append(f'199 patron "{name} ignored: the answer is younger than {minimum:g} s"')
    if wishes.max_age is not None:
        if age >= max(wishes.max_age, minimum):
            return _replaced("max-age", wishes)
        if wishes.max_age < minimum:
            warnings.append(f'199 patron "max-age raised to {minimum:g}"')
    if wishes.min_fresh is not None:
        # Compared as ages: a subtraction less, and so exact where the age is just the minimum.
        if age > max(lifetime - wishes.min_fresh, minimum):
            return _replaced("min-fresh", wishes)
        if wishes.min_fresh > ceiling:
            warnings.append(f'199 patron "min-fresh lowered to {ceiling:g}"')
    return Verdict("serve", "hit", "", tuple(warnings)) if warnings else HIT


def _of_stale(wishes: Wishes, age: float, entitlement: Entitlement) -> Verdict:
    """Stale answers are for those only who said ``max-stale``, as long as nothing else they said is against it."""
    staleness = age - entitlement.lifetime
    if (
        wishes.max_stale is not None
        and staleness < entitlement.window
        and staleness <= wishes.max_stale
        and not (wishes.no_cache or wishes.no_store or wishes.min_fresh)
        and (wishes.max_age is None or age < wishes.max_age)
    ):
        return Verdict("serve", "hit", "max_stale", (STALE,))
    return _replaced("expired", wishes)


def _replaced(reason: str, wishes: Wishes) -> Verdict:
    return Verdict("refuse" if wishes.only_if_cached else "run", "replaced", reason.replace("-", "_"))


def may_join(wishes: Wishes, running: float, minimum: float) -> bool:
    """
    Whether the answer of a run that began *running* seconds ago will be new enough.

    Another request began it, so that a client that wants nothing older than its own request cannot
    have it, but for what *minimum* allows.
    """
    if wishes.no_cache or wishes.no_store:
        return running < minimum
    return wishes.max_age is None or running < max(wishes.max_age, minimum)
