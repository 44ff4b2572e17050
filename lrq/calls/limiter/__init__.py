"""Limits on requests, tokens and concurrency that hold over all processes and machines, and that are learnt."""

from lrq.calls.limiter.limiter import SLACK, Limiter, read_lanes
from lrq.calls.limiter.records import Lane, LaneView, Limits, Outcome, Permit, Rate

__all__ = ["SLACK", "Lane", "LaneView", "Limiter", "Limits", "Outcome", "Permit", "Rate", "read_lanes"]
