"""The configuration file: read completely, checked completely, every mistake reported at once."""

from patron.config.described import service_of, with_environment
from patron.config.loading import Configuration, build, inspect, load
from patron.service import Inspection

__all__ = ["Configuration", "Inspection", "build", "inspect", "load", "service_of", "with_environment"]
