"""Ways of living with failure: retries and deadlines."""

from patron.reliability.deadline import Deadline, deadline, remaining
from patron.reliability.retry import RetryPolicy, retry

__all__ = ["Deadline", "RetryPolicy", "deadline", "remaining", "retry"]
