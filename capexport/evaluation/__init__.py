"""Holding exports against Keras (parity) and captions against people's (quality)."""
