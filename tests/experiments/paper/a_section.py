"""A section for the tests: writes that it began, waits if asked to, then writes its table.

a_section.py NAME [wait|fail] --csv=DIR/NAME/table.csv
"""

import sys
import time
from pathlib import Path

*options, csv = sys.argv[1:]
table = Path(csv.partition("=")[2])
with open(table.with_name("began"), "a") as began:
    began.write(f"{options}\n")
if "fail" in options:
    sys.exit(3)
while "wait" in options and not table.with_name("go").exists():
    time.sleep(0.05)
table.write_text("x\n1\n")
