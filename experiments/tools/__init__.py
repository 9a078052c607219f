"""What is run besides the paper's figures: planning, evaluation, sweeps, checks, reports."""
