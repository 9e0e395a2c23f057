"""What can be wrong with preference pairs, whoever made them: a small function a check."""
