"""A job: its items, its journal, the record of what it did."""
