"""One short file per figure or tool; `python run.py --help` lists them by their first line."""
