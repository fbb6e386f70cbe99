"""
The cache of routes: answers are kept and served again, by the rules of HTTP (RFC 9111) as far as clients may ask.

What describes a cache is imported at once, what makes it live when it is first used.
"""

from __future__ import annotations

from patron.http.caching.settings import RouteCache

__all__ = ["RouteCache"]
