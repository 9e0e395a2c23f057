"""Tables, figures, and where each of their numbers comes from."""
