"""Frappe's own command line, without the password of the database in an argument of a child process.

Usage, in the folder sites: env/bin/python runner_frappe.py frappe --site SITE COMMAND …
"""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

import frappe.database  # noqa: E402

from runner_common import keep_password_off  # noqa: E402

keep_password_off(frappe.database)

from frappe.utils.bench_helper import main  # noqa: E402

main()
