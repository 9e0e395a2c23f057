"""Where this workflow reaches into other libraries: one file a library, each with a test
(tests/test_patches.py) that fails when the library changes under it.
"""
