"""Stacks of running threads, taken quickly and told later: nothing is looked up while threads wait for the lock."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

from patron.profiling.model import Frame, Stack

__all__ = ["DEEPEST", "Raw", "Stacks", "current", "frame_of", "function_name"]

#: Calls of a stack that are kept, the innermost ones.
DEEPEST = 1000
#: Code and instruction of each call, by turns, the innermost first: cheap to take, cheap to compare.
Raw = tuple[int, ...]
_CUT = 0  # no object's id


class Stacks:
    """Takes the stacks of one profile; the thread that samples owns it."""

    def __init__(self) -> None:
        # By identity: a code object's own hash reads all of it, and equal code may be of two modules.
        self._codes: dict[int, tuple[CodeType, object]] = {}
        self._frames: dict[tuple[int, int], Frame] = {}

    def take(self, frame: FrameType | None) -> Raw:
        """The stack whose innermost call is *frame*."""
        codes = self._codes
        raw: list[int] = []
        while frame is not None and len(raw) < 2 * DEEPEST:
            code = frame.f_code
            key = id(code)
            if key not in codes:
                codes[key] = code, frame.f_globals.get("__name__")
            raw += key, frame.f_lasti
            frame = frame.f_back
        if frame is not None:
            raw += _CUT, 0
        return tuple(raw)

    def tell(self, raw: Raw) -> Stack:
        """*raw* with names and lines."""
        return tuple(self._frame(*pair) for pair in zip(raw[::2], raw[1::2], strict=True))

    def code(self, raw: Raw) -> CodeType:
        """The code of the innermost call."""
        return self._codes[raw[0]][0]

    def _frame(self, key: int, instruction: int) -> Frame:
        if key == _CUT:
            return Frame("(more calls, left out)")
        known = self._frames.get((key, instruction))
        if known is None:
            code, module = self._codes[key]
            known = self._frames[key, instruction] = frame_of(code, module, _line(code, instruction))
        return known


def frame_of(code: CodeType, module: object, line: int) -> Frame:
    """The call of *code*, a function of *module*, at *line*."""
    return Frame(function_name(code, module), code.co_filename, line, code.co_firstlineno)


def function_name(code: CodeType, module: object) -> str:
    """``module.Class.function``, as it is imported."""
    return f"{module}.{code.co_qualname}" if isinstance(module, str) else code.co_qualname


def _line(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end:
            return line or code.co_firstlineno
    return code.co_firstlineno


def current(stacks: Stacks) -> dict[int, Stack]:
    """Thread ident → what it does now, of every thread that runs Python."""
    raw = {ident: stacks.take(frame) for ident, frame in sys._current_frames().items()}
    return {ident: stacks.tell(stack) for ident, stack in raw.items()}
