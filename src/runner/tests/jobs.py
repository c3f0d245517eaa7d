"""What the workers of the tests do: like Frappe's execute_job, with the site among its arguments."""

import os
import subprocess
import time


def execute_job(site, method, kwargs):
    """`insert` adds a row to the site's table, `hold` runs until the file is there."""
    if method == "insert":
        insert(kwargs["name"])
    while method == "hold" and not os.path.exists(kwargs["release"]):
        time.sleep(0.02)


def insert(name):
    """A row in the site's database, by the client and the account that the test names."""
    subprocess.run(["mariadb", f"--defaults-extra-file={os.environ['JOBS_OPTIONS']}", os.environ["JOBS_DATABASE"], "--execute",
                    f"INSERT INTO tabNote (name) VALUES ('{name}')"], check=True)
