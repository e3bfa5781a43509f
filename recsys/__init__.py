"""Raycommend's library: what it means to recommend. It knows nothing of Ray or HTTP."""

__version__ = "0.1.0"
