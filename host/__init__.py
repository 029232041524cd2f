"""Programs on the workstation: the Python API, the command line, data sets, studies, boards, training and reports."""
