"""Preference pairs as others write them: one file a form, behind one protocol (base.py)."""
