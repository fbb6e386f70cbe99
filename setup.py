"""Packaging entry point; every setting stands in ``setup.cfg``."""

from setuptools import setup

setup()
