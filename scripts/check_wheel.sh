#!/usr/bin/env bash
# Install the distributions in dist/ (scripts/build_dist.sh) into a new environment, and use them from an empty folder.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

size=$(cat dist/cosd-*.whl | wc -c)
echo "the wheel has $size bytes"
test "$size" -le 1500000
"${PYTHON:-python3}" -m venv "$work/venv"
# As a user installs it who has nothing but the folder of distributions.
unset PYTHONPATH
install() {
  "$work/venv/bin/pip" install --quiet --constraint "$root/constraints.txt" --find-links "$root/dist" "$@"
}
install torch
install cosd
"$work/venv/bin/pip" check

cd "$work"
venv/bin/cosd --version
venv/bin/cosd demo --html page.html "Q: atomic number of iron plus 7? A:" > answer.txt
grep --quiet "26+7=33" answer.txt
if venv/bin/cosd serve 2> error.txt; then exit 1; fi
grep --quiet "cosd\[serve\]" error.txt
test -s page.html
venv/bin/python - <<'PY'
from importlib.resources import files

from importlib import import_module

import cosd_core

assert "site-packages" in cosd_core.__file__, cosd_core.__file__
assert all(hasattr(cosd_core, name) for name in cosd_core.__all__)
assert not (files("cosd_core") / "demo" / "weights" / "caller").is_dir()
for module, extra in (("langchain_cosd", "langchain"), ("llama_index_cosd", "llama-index")):
    try:
        import_module(module)
    except ImportError as error:
        assert f"cosd[{extra}]" in str(error), error
    else:
        raise AssertionError(f"the extra {extra} is not installed yet")
PY

# The ecosystems' names bring cosd with the extra.
"$work/venv/bin/pip" uninstall --quiet --yes cosd
install langchain-cosd
"$work/venv/bin/pip" check
venv/bin/python -c "
from importlib.metadata import version
from langchain_cosd import ChatCoSD
assert version('langchain-cosd') == version('cosd')
"
venv/bin/python "$root/examples/langchain_chain.py" | grep "12 of 12"
"$work/venv/bin/pip" uninstall --quiet --yes cosd langchain-cosd
install llama-index-llms-cosd
"$work/venv/bin/pip" check
venv/bin/python "$root/examples/llama_index_agents.py" | grep "5789"
venv/bin/python -c "
from importlib.metadata import version
from llama_index.llms.cosd import CoSDLLM
import llama_index, llama_index.llms, llama_index_cosd
assert CoSDLLM is llama_index_cosd.CoSDLLM
assert version('llama-index-llms-cosd') == version('cosd')
assert all(getattr(each, '__file__', None) is None for each in (llama_index, llama_index.llms)), 'a namespace is owned'
"

# A user's program is checked against the installed packages, with pydantic's plugin and without: a mistyped
# parameter must be an error.
install langchain-cosd mypy
cp "$root/tests/typing/user_program.py" .
printf '[mypy]\nplugins = pydantic.mypy\n' > plugin.ini
for config in "" plugin.ini; do
  venv/bin/mypy --strict --config-file "$config" user_program.py
done
venv/bin/python -c "
from importlib.resources import files
assert all((files(each) / 'py.typed').is_file() for each in ('cosd_core', 'langchain_cosd', 'llama_index_cosd'))
"
echo "the distributions work"
