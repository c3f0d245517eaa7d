"""Frappe's own command line, without the password of the database in an argument of a child process, and without questions to GitHub.

Usage, in the folder sites: env/bin/python runner_frappe.py frappe --site SITE COMMAND …
"""

from runner_common import end_when_told, keep_off_github, keep_password_off

end_when_told()

import frappe.database  # noqa: E402
import frappe.installer  # noqa: E402

keep_password_off(frappe.database)
keep_off_github(frappe.installer)

from frappe.utils.bench_helper import main  # noqa: E402

main()
