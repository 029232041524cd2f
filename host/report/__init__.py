"""What people see of a study's results: captions and figures."""
