"""What a stand-in for Frappe serves: for each site a page that its database had a part in."""

import html
import json
import os

import pymysql


def site_of(environ):
    """The site's name and configuration, or nothing where there is no such site."""
    name = environ.get("HTTP_X_FRAPPE_SITE_NAME") or environ.get("HTTP_HOST", "").partition(":")[0]
    path = os.path.join(name, "site_config.json")
    if "/" in name or name in ("", ".", "..") or not os.path.exists(path):
        return name, None
    config = {}
    for file in ("common_site_config.json", path):
        with open(file, encoding="utf-8") as text:
            config |= json.load(text)
    return name, config


def installed_apps(config):
    """Of the site's database."""
    connection = pymysql.connect(
        host=config["db_host"], port=int(config.get("db_port", 3306)), user=config.get("db_user") or config["db_name"],
        password=config["db_password"], database=config["db_name"], connect_timeout=20)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT defvalue FROM tabDefaultValue WHERE defkey = 'installed_apps'")
        return json.loads(cursor.fetchone()[0])


def answer(environ):
    name, config = site_of(environ)
    if config is None:
        return "404 Not Found", f"{name} does not exist"
    if config.get("maintenance_mode"):
        return "503 Service Unavailable", "in maintenance"
    if environ["PATH_INFO"] == "/api/method/ping":
        return "200 OK", json.dumps({"message": "pong"})
    return "200 OK", f"<title>{html.escape(name)}</title>{html.escape(' '.join(installed_apps(config)))}"


def application(environ, start_response):
    try:
        status, text = answer(environ)
    except pymysql.Error as error:
        status, text = "500 Internal Server Error", f"the database: {error.args[0]}"
    body = text.encode()
    kind = "application/json" if text.startswith("{") else "text/html; charset=utf-8"
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
