"""Tiny random checkpoints of the architectures that the workflow runs, one file an architecture; in
`benchmarks`, tiny benchmarks to ask them.

`registry` names them all, `checkpoints` builds one into a folder. What architectures share is in
`words`, `tokenization`, `initialisation`, `grammar`, `language_model` and `saving`. A checkpoint is
built anew when its architecture's file changes, or a file that this one imports.
"""
