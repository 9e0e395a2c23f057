"""The forms in which a data set leaves the workflow: one file a form."""
