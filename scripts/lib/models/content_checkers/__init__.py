"""What looks for unsafe pictures and personal data: one file a kind."""
