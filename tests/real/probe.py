"""Runs in the bench's Python, in a pod with the site's Secrets: asks Frappe itself what a site is, or makes what a user makes.

Usage, in the folder sites: env/bin/python probe.py JSON, where the object has `site` and `do`. Prints JSON in its last line.
"""

import json
import sys

request = json.loads(sys.argv[1])

import frappe  # noqa: E402

frappe.init(request["site"])
frappe.connect()

from frappe.utils.password import check_password, get_decrypted_password  # noqa: E402

THING = "Tiny Thing"


def secret(name):
    with open(f"/run/frappe-secrets/{name}", encoding="utf-8") as file:
        return file.read()


def accepted(password):
    try:
        return bool(check_password("Administrator", password))
    except frappe.AuthenticationError:
        return False


def things():
    """Rows of the test's own DocType, with their decrypted passwords."""
    if not frappe.db.exists("DocType", THING):
        return None
    found = {}
    for name in sorted(frappe.get_all(THING, pluck="name")):
        try:
            found[name] = get_decrypted_password(THING, name, "secret", raise_exception=False)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        frappe.clear_messages()
    return found


def truth():
    """What makes a site complete."""
    frappe.set_user("Administrator")
    patches = frappe.db.sql("select patch from `tabPatch Log`" if frappe.conf.db_type != "postgres" else 'select patch from "tabPatch Log"')
    patches = [it[0] for it in patches]
    return {
        "version": frappe.__version__, "apps": frappe.get_installed_apps(), "accepted": accepted(secret("admin-password")),
        "wrong": accepted("wrong"), "patches": len(patches), "twice": len(patches) - len(set(patches)), "things": things(),
        "scheduler": int(frappe.db.get_single_value("System Settings", "enable_scheduler") or 0),
        "maintenance": int(frappe.conf.maintenance_mode or 0), "paused": int(frappe.conf.pause_scheduler or 0),
        "doctypes": frappe.db.count("DocType"), "config": {key: frappe.conf.get(key) for key in request.get("keys", [])},
    }


def add():
    """A row with a password, a public and a private file."""
    frappe.set_user("Administrator")
    if frappe.db.exists("DocType", THING):
        frappe.get_doc({"doctype": THING, "title": request["name"], "secret": f"secret of {request['name']}"}).insert()
    for is_private in (0, 1):
        content = f"{request['name']} {'private' if is_private else 'public'}"
        frappe.get_doc({"doctype": "File", "file_name": f"{request['name']}-{is_private}.txt", "content": content, "is_private": is_private}).insert()
    frappe.get_doc({"doctype": "Note", "title": request["name"], "content": "ä €"}).insert()
    frappe.db.commit()
    return {}


def enqueue():
    """Jobs in the queues."""
    for queue in request["queues"]:
        frappe.enqueue("tiny.jobs.note", queue=queue, what=f"{request['name']} {queue}", seconds=request.get("seconds", 0))
    frappe.db.commit()
    return {}


def notes():
    """Titles of the notes."""
    return {"notes": sorted(frappe.get_all("Note", pluck="title"))}


print(json.dumps({"truth": truth, "add": add, "enqueue": enqueue, "notes": notes}[request["do"]]()))
