"""Comparison of trials and adapter versions side by side: subjects, paired differences, report and charts."""
