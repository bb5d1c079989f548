"""Failures whose users are told what to do."""


class Advised(Exception):
    """What is wrong, in the message, and in `advice` what to do about it."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice
