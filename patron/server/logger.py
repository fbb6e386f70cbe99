"""gunicorn's own messages in the format of the service's lines, instead of text between JSON."""

from __future__ import annotations

from typing import Any

from patron.server.internals import GunicornLogger

__all__ = ["ServerLog"]


class ServerLog(GunicornLogger):  # type: ignore[misc]
    """
    Hands gunicorn's messages to the root logger, where Patron's handler writes them.

    Where the user's gunicorn settings send them elsewhere (a file, syslog, a log configuration), they
    go there as usual. Until the handler is there, as before the arbiter is ready, warnings and errors
    are printed plainly.
    """

    def setup(self, cfg: Any) -> None:
        """Called at the start and at each reload, in the arbiter."""
        super().setup(cfg)
        chosen_otherwise = cfg.errorlog != "-" or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json
        self.error_log.propagate = not chosen_otherwise
        if not chosen_otherwise:
            for handler in [h for h in self.error_log.handlers if getattr(h, "_gunicorn", False)]:
                self.error_log.removeHandler(handler)
