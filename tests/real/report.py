"""The table of what was run: printed as it grows, and as a whole at the end."""

import atexit
import os

HEAD = ("Frappe", "what", "outcome", "s", "CPU s", "database CPU s", "checked")
ROWS = []


def row(version, what, outcome, seconds=None, cpu=None, database=None, checked=""):
    """One line of the table."""
    numbers = ["" if it is None else f"{it:.1f}" for it in (seconds, cpu, database)]
    ROWS.append((version, what, outcome, *numbers, checked))
    print(f"\n    {' | '.join(ROWS[-1])}", flush=True)


def shown():
    """The table in Markdown."""
    lines = [HEAD, ("---",) * len(HEAD), *ROWS]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@atexit.register
def finish():
    """Prints the whole table, also to the file REAL_REPORT."""
    if not ROWS:
        return
    print(f"\n{shown()}\n", flush=True)
    if path := os.environ.get("REAL_REPORT"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(shown() + "\n\n")
