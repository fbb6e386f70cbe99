"""``patron.wsgi:app`` under a WSGI server that knows nothing of Patron: it works, or it does not start."""

from __future__ import annotations

import sys
from typing import Any

MODULE = """
def show(request):
    return {"service": "shop"}

def process(message): ...
"""
CONFIG = """
name: shop
http: {routes: [{method: GET, path: /show, processor: "shop:show"}]}
"""
CONSUMERS = "consumers: [{name: orders, processor: 'shop:process', source: {type: memory, topic: t}}]\n"


def start(service: Any, config: str, **options: Any) -> None:
    service.write(MODULE, config)
    command = (sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{service.port}", "patron.wsgi:app")
    service.start(*command, env={"PATRON_CONFIG": "config.yaml"}, **options)


def test_a_service_without_components_works(service: Any) -> None:
    start(service, CONFIG)
    assert service.json("/show") == {"service": "shop"}


def test_a_service_with_components_does_not_start_and_says_how_it_would(service: Any) -> None:
    start(service, CONFIG + CONSUMERS, wait=False)
    assert service.wait() != 0
    assert "ConfigError: components (orders) run only under Patron's worker class" in service.output()
    assert "gunicorn -c python:patron.gunicorn patron.wsgi:app" in service.output()


def test_a_configuration_with_a_mistake_does_not_start(service: Any) -> None:
    start(service, CONFIG + "wrokers: 3\n", wait=False)
    assert service.wait() != 0
    assert "wrokers: there is no such key (did you mean 'workers'?)" in service.output()
