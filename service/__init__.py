"""Tidegate: coupon issuance that pauses by itself before it breaks."""

__version__ = "0.3.0"
