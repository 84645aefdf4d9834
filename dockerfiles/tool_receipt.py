"""Note for uv which tool an environment has, as `uv tool install` does, and link its programs.

`python3 tool_receipt.py TOOLS PROGRAMS LINK-MODE NAME REQUIREMENT`: the environment is TOOLS/NAME, its links go to
PROGRAMS. `uvx` takes a tool only with the options that the job has: LINK-MODE is what UV_LINK_MODE says in the image.
`uv tool install` itself would take other files than the plan names, which nobody has compared with their hashes.
"""

import json
import os
import re
import sys
from importlib.metadata import distributions

tools, programs, link_mode, name, requirement = sys.argv[1:]
home = os.path.join(tools, name)
libraries = [os.path.join(home, "lib", each, "site-packages") for each in os.listdir(os.path.join(home, "lib"))]
names = [
    os.path.basename(path)
    for distribution in distributions(path=libraries)
    if re.sub("[-_.]+", "-", distribution.metadata["Name"]).lower() == name
    for path in distribution.files or ()
    if os.path.basename(os.path.dirname(path)) == "bin" and str(path).startswith("..")
]
if not names:
    sys.exit("builder: failed: %s has no programs, so it is no tool: list it in the project's dependencies" % name)
os.makedirs(programs, exist_ok=True)
for each in names:
    os.symlink(os.path.join(home, "bin", each), os.path.join(programs, each))
# name[extra, extra] and versions (PEP 508), in the words of uv's receipt.
extras, versions = re.fullmatch(r"[\w.-]+\s*(?:\[(.*)\])?\s*(.*)", requirement).groups()
asked = ["name = %s" % json.dumps(name)]
if extras:
    asked.append("extras = %s" % json.dumps([each.strip() for each in extras.split(",")]))
if versions:
    asked.append("specifier = %s" % json.dumps(versions))
links = [
    "{ name = %s, install-path = %s }" % (json.dumps(each), json.dumps(os.path.join(programs, each)))
    for each in sorted(names)
]
with open(os.path.join(home, "uv-receipt.toml"), "w", encoding="utf-8") as file:
    file.write("[tool]\nrequirements = [{ %s }]\nentrypoints = [%s]\n" % (", ".join(asked), ", ".join(links)))
    file.write("[tool.options]\nlink-mode = %s\n" % json.dumps(link_mode))
# As uv makes them; a job of any user locks the folder.
with open(os.path.join(tools, ".gitignore"), "w", encoding="utf-8") as file:
    file.write("*")
open(os.path.join(tools, ".lock"), "w", encoding="utf-8").close()
