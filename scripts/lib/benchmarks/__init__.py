"""Benchmarks: one file each, with all that is known of it; lmms-eval's harness beside them.

benchmark = load_benchmark("pope")
score = benchmark.score(benchmark.read_answers(path), benchmark.read_reference(folder))
"""
