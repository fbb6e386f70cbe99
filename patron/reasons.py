"""What an error says in a log line or a message: its kind and its text, without the wrappers of drivers."""

from __future__ import annotations

__all__ = ["innermost", "told"]


def told(error: BaseException) -> str:
    """
    The kind and the text of *error*, in the one form that all log lines have.

    >>> told(ValueError("no number"))
    'ValueError: no number'
    """
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def innermost(error: BaseException) -> str:
    """
    What was wrong in the end: some drivers wrap it several times, and their wrappers print each other.

    pika's AMQPConnectionError has what went wrong as its argument, a workflow's error all that it tried as
    ``exceptions``, and a connector's error what it met as ``exception``. Of an operating system's error it
    is the plain text.

    >>> innermost(RuntimeError(ConnectionRefusedError(111, "Connection refused")))
    'Connection refused'
    """
    while inner := _within(error):
        error = inner
    text = getattr(error, "strerror", None) or str(error)
    return text if text and isinstance(error, OSError) else told(error)


def _within(error: BaseException) -> BaseException | None:
    met = (*error.args, getattr(error, "exception", None), *getattr(error, "exceptions", ()))
    return next((each for each in reversed(met) if isinstance(each, BaseException)), None)
