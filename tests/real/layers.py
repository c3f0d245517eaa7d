"""Layers over a bench's image: small apps of the tests, and another version of one of them."""

import json
import pathlib
import textwrap

FIELDS = [
    {"fieldname": "title", "fieldtype": "Data", "label": "Title"},
    {"fieldname": "secret", "fieldtype": "Password", "label": "Secret"},
]
HOOKS = """\
    app_name = "{name}"
    app_title = "{name}"
    app_publisher = "Tests"
    app_description = "An app of the tests"
    app_email = "tests@example.com"
    app_license = "Apache-2.0"
    required_apps = {requires}
    after_install = "{name}.install.after_install"
"""
INSTALL = """\
    import frappe

    def after_install():
        frappe.get_doc({{"doctype": "Note", "title": "{name} was installed", "content": "by its hook"}}).insert(ignore_permissions=True)
"""
JOBS = """\
    import time

    import frappe

    def note(what, seconds=0):
        time.sleep(seconds)
        frappe.get_doc({"doctype": "Note", "title": what, "content": "by a job"}).insert(ignore_permissions=True)
        frappe.db.commit()
"""
# Changes rows and structure before it fails: what it has done is committed by the server.
FAILING = """\
    import frappe

    def execute():
        frappe.db.sql_ddl("ALTER TABLE tabNote ADD COLUMN half varchar(140)")
        frappe.db.sql("UPDATE tabNote SET content = 'changed by half a patch'")
        frappe.db.commit()
        frappe.db.sql_ddl("CREATE TABLE half_made (name varchar(140) PRIMARY KEY)")
        frappe.db.sql_ddl("DROP TABLE `tabTiny Thing`")
        raise RuntimeError("this patch fails after half of its work")
"""
WORKING = """\
    import frappe

    def execute():
        frappe.get_doc({"doctype": "Note", "title": "the patch has run", "content": "once"}).insert(ignore_permissions=True)
"""


def write(folder, files):
    for name, text in files.items():
        path = pathlib.Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def doctype(module, fields):
    text = {
        "doctype": "DocType", "name": "Tiny Thing", "module": module, "engine": "InnoDB", "custom": 0, "autoname": "field:title", "fields": fields,
        "field_order": [it["fieldname"] for it in fields], "naming_rule": "By fieldname", "modified": "2026-01-01 00:00:00.000000",
        "permissions": [{"role": "System Manager", "read": 1, "write": 1, "create": 1, "delete": 1}],
    }
    return json.dumps(text, indent=1)


def app(folder, image, name, requires=(), version="1.0.0", fields=None, patches=(), python=None):
    """A layer with an app, where pip would have installed it; with `fields`, it has a DocType; `python` has its modules of patches."""
    top, module = f"apps/{name}/{name}", name.title()
    site_packages = next(image.bench.glob("env/lib/python3*")).name
    files = {
        f"{top}/__init__.py": f'__version__ = "{version}"\n',
        f"{top}/hooks.py": textwrap.dedent(HOOKS).format(name=name, requires=list(requires)),
        f"{top}/install.py": textwrap.dedent(INSTALL).format(name=name),
        f"{top}/jobs.py": JOBS, f"{top}/modules.txt": f"{module}\n", f"{top}/{name}/__init__.py": "",
        f"{top}/patches.txt": "[pre_model_sync]\n[post_model_sync]\n" + "".join(f"{name}.patches.{it}\n" for it in patches),
        f"{top}/patches/__init__.py": "", f"apps/{name}/pyproject.toml": f'[project]\nname = "{name}"\nversion = "{version}"\n',
        f"env/lib/{site_packages}/site-packages/{name}.pth": f"/home/frappe/frappe-bench/apps/{name}\n",
        **{f"{top}/patches/{it}.py": text for it, text in (python or {}).items()},
    }
    if fields:
        place = f"{top}/{name}/doctype/tiny_thing"
        files |= {
            f"{top}/{name}/doctype/__init__.py": "", f"{place}/__init__.py": "", f"{place}/tiny_thing.json": doctype(module, fields),
            f"{place}/tiny_thing.py": "from frappe.model.document import Document\n\n\nclass TinyThing(Document):\n\tpass\n",
        }
    write(folder, files)
    return pathlib.Path(folder)


def tiny(folder, image, **more):
    """The app of most tests."""
    return app(folder, image, "tiny", fields=more.pop("fields", FIELDS), **more)
