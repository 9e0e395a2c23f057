"""What several stages share, one idea a file."""
