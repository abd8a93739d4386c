"""Benchmarks: cards, metrics, results and reports."""
