"""`cohort show`: a run folder as one HTML file."""
