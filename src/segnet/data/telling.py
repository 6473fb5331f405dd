"""Lines for people, from the first process. Lightning prints them, and its import, of seconds, comes with the first."""


def info(text: str) -> None:
    """A line."""
    from lightning.pytorch.utilities import rank_zero_info

    rank_zero_info(text)


def warn(text: str) -> None:
    """A warning."""
    from lightning.pytorch.utilities import rank_zero_warn

    rank_zero_warn(text, stacklevel=5)
