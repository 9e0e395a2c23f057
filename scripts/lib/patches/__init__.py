"""What this workflow replaces in, or reads out of, other libraries beside their public interfaces.

One file a library, one small function a patch; tests/test_patches.py fails where a library changes
under one.
"""
