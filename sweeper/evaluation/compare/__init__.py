"""Side-by-side comparison of trials, adapter versions and base models, with a report."""
