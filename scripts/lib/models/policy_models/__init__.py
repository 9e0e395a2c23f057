"""What answers instructions: the role of the four LLaVA-1.6 in the paper (3.3, Eq. 8)."""
