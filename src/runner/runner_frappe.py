"""Frappe's own command line, without the password of the database in an argument of a child process.

Usage, in the folder sites: env/bin/python runner_frappe.py frappe --site SITE COMMAND …
"""

from runner_common import end_when_told, keep_password_off

end_when_told()

import frappe.database  # noqa: E402

keep_password_off(frappe.database)

from frappe.utils.bench_helper import main  # noqa: E402

main()
