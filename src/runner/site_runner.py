"""Does all work in a bench's image: writes the common configuration; creates, changes, drops, backs up and restores a site; holds sites until they are updated,
and updates them; runs a command for a site.

Usage: env/bin/python site_runner.py folder|seed|configure|init|apply|backup|restore|drop|update|run|hold|nginx REQUEST

REQUEST is a JSON object without secrets. Passwords are read from files in the folder SITE_RUNNER_SECRETS
(/run/frappe-secrets): `password` and `encryption-key` of the site, or `connection/` with the keys of the Secret of an existing
database; `admin-password`; `config/KEY` for secret entries of the site's configuration; for configure `redis-password`, or
the URLs `redis-cache` and `redis-queue`.

Every command may be killed at any point and run again, and may be run again after it succeeded. The identity and state of a
site's directory are in its file `.operator-state`; results are always checked, because Frappe's exit code is not trusted.
No secret is ever in an argument, in the environment or in the output.

Exit codes: 0 success; 2 invalid request; 10 the database cannot be reached; 20 the database has tables of another site;
21 the directory has another site; 22 the directory belongs to another identity, or there are two; 23 the directory is in the folder
of another revision of the bench; 30 Frappe failed; 31 the site is incomplete;
32 the backup does not fit the bench; 33 the backup is broken; 42 an update failed; 43 its dump could not be restored; 75 another pod or a job is working on the site;
124 a command took too long; 143 stopped by SIGTERM.
"""

import json
import os
import stat
import sys
import traceback

import runner_backup
import runner_bench
import runner_hold
import runner_nginx
import runner_revisions
import runner_run
import runner_site
from runner_common import CODES, Failure, Redacting, end_when_told, redact, secret

TERMINATION_LOG = os.environ.get("SITE_RUNNER_TERMINATION_LOG", "/dev/termination-log")
# The kubelet keeps 4096 bytes of a termination message: errors are truncated, so that the message stays valid JSON.
MESSAGE_BYTES_MAX = 4096
ERROR_MAX_CHARACTERS = 600
COMMANDS = {"folder": runner_bench.make_folder, "seed": runner_bench.seed, "configure": runner_bench.configure, "init": runner_site.init,
            "apply": runner_site.apply, "backup": runner_backup.backup, "restore": runner_backup.restore, "drop": runner_site.drop,
            "update": runner_revisions.update, "run": runner_run.run, "hold": runner_hold.hold_sites, "nginx": runner_nginx.serve}


def report(result):
    """Writes the termination message: one line of JSON for the operator."""
    if "error" in result:
        result = {**result, "error": redact(result["error"])[:ERROR_MAX_CHARACTERS]}
    try:
        with open(TERMINATION_LOG, "w", encoding="utf-8", errors="replace") as file:
            file.write(fitting(result))
    except OSError:
        pass
    # The output of a command is in the log already.
    result.pop("run", None)
    print(redact(json.dumps(result, ensure_ascii=False)), flush=True)


def fitting(result):
    """The message, with as much of the end of a command's output as the kubelet keeps."""
    while True:
        text = redact(json.dumps(result, ensure_ascii=False))
        over = len(text.encode(errors="replace")) - MESSAGE_BYTES_MAX
        output = result.get("run", {}).get("output")
        if over <= 0 or not output:
            return text
        result = {**result, "run": {**result["run"], "output": output[max(over // 4, 1) :], "cut": True}}


def cure(error):
    """Advice for a file that this user may not write, with the owner of its folder."""
    if not isinstance(error, PermissionError) or not error.filename:
        return ""
    folder = os.path.dirname(os.fsdecode(error.filename)) or "."
    try:
        owner = os.stat(folder)
    except OSError:
        return ""
    return (f" ({folder} belongs to user {owner.st_uid} and group {owner.st_gid} with mode {stat.S_IMODE(owner.st_mode):o}, this pod is user "
            f"{os.geteuid()} with groups {', '.join(map(str, sorted({os.getegid(), *os.getgroups()})))}: give the folder to one of them, or set "
            "the export so that it is; see docs/troubleshooting.md)")


def main(arguments):
    if len(arguments) != 2 or arguments[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 2
    end_when_told()
    sys.stdout, sys.stderr = Redacting(sys.stdout), Redacting(sys.stderr)
    try:
        request = json.loads(arguments[1])
        secret.origins = request.get("secrets", {})
        result = COMMANDS[arguments[0]](request)
    except Failure as failure:
        where = {} if failure.revision is None else {"revision": failure.revision}
        ran = {} if failure.run is None else {"run": failure.run}
        report({"step": failure.step, "code": failure.code, "error": failure.error, **where, **ran})
        return CODES[failure.code]
    except (KeyError, ValueError, OSError) as error:
        traceback.print_exc()
        code = "RequestInvalid" if isinstance(error, (KeyError, ValueError)) else "FilesFailed"
        report({"step": arguments[0], "code": code, "error": f"{type(error).__name__}: {error}{cure(error)}"})
        return CODES[code]
    ran = isinstance(result, dict) and "run" in result
    report({"result": "ran", **result} if ran else {"result": result})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
