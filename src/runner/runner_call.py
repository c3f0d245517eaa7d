"""Calls a function, or runs a script, with a connection to a site, as `bench execute` does, but without evaluating any argument.

Usage, in the folder sites: env/bin/python runner_call.py < REQUEST

REQUEST is JSON: `site`, and either `method` with `args` and `kwargs`, or `script` with its `name`. What the function returns is written as
JSON to the file descriptor SITE_RUNNER_RESULT. Changes of the database are committed at the end, unless there was an error.
"""

import json
import os
import sys

from runner_common import end_when_told, keep_password_off

end_when_told()

import frappe  # noqa: E402
import frappe.database  # noqa: E402

keep_password_off(frappe.database)


def call(request):
    """The result of the function."""
    if "method" in request:
        return frappe.get_attr(request["method"])(*request.get("args", []), **request.get("kwargs", {}))
    names = {"__name__": "__main__", "__file__": request["name"], "frappe": frappe}
    exec(compile(request["script"], request["name"], "exec"), names)
    return None


def main():
    result = int(os.environ.pop("SITE_RUNNER_RESULT"))
    request = json.load(sys.stdin)
    frappe.init(request["site"])
    frappe.connect()
    try:
        returned = call(request)
        frappe.db.commit()
    finally:
        frappe.destroy()
    if returned is not None:
        with os.fdopen(result, "w", encoding="utf-8") as file:
            json.dump(returned, file, default=str, ensure_ascii=False)


main()
