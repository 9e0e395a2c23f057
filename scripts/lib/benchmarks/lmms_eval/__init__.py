"""lmms-eval: its tasks, and its harness in a process of its own."""
