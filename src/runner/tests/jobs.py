"""Jobs for the workers of the tests: like Frappe's execute_job, with the site among the arguments."""

import os
import subprocess
import time


def execute_job(site, method, kwargs):
    """`insert` adds a row to the site's table, `note` a line to a file, `hold` runs until the file exists."""
    if method == "insert":
        insert(kwargs["name"])
    if method == "note":
        with open(os.environ["JOBS_NOTES"], "a", encoding="utf-8") as file:
            file.write(f"{kwargs['name']} {os.environ['JOBS_BENCH']}\n")
    while method == "hold" and not os.path.exists(kwargs["release"]):
        time.sleep(0.02)


def insert(name):
    """Inserts a row into the site's database, with the client and account that the test chooses."""
    subprocess.run(["mariadb", f"--defaults-extra-file={os.environ['JOBS_OPTIONS']}", os.environ["JOBS_DATABASE"], "--execute",
                    f"INSERT INTO tabNote (name) VALUES ('{name}')"], check=True)
