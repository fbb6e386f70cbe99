"""gunicorn's arbiter and workers, as a run of a service uses them."""

from patron.server.app import ServiceApp
from patron.server.start import run_config, run_service

__all__ = ["ServiceApp", "run_config", "run_service"]
