"""Tiny benchmarks of drawn shapes with known answers, in the formats of the real ones: one file a
benchmark.

`registry` names them all. What they share is in `scenes` (what is drawn) and `files` (what is
written).
"""
