"""Benchmarks: figures and ratios from one run, printed; nothing here fails on a timing."""
