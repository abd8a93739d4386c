"""Losses, the loop, and what is trained: satellite encoders, the mini teacher, the supervised oracle."""
