"""What stages hand on: prompts, shards, rows, image files."""
