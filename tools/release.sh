#!/usr/bin/env bash
# Everything of a release but publishing it: bash tools/release.sh VERSION [OUT]
#
# Checks that the tree is clean, that every place names VERSION, and that CHANGELOG.md has an entry; runs the style
# checks and all tests; builds wheels and sdist with tools/wheels.sh; writes OUT/NOTES.md. OUT, dist/VERSION if it is not
# given, must be a new or an empty folder: nothing is removed. Prints the commands that would publish, and runs none of
# them. Needs an environment with pip install -e ".[test,dev,docs]".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "release: $*" >&2; exit 1; }

[ $# -ge 1 ] || fail "usage: tools/release.sh VERSION [OUT]"
version=$1
out=$(realpath -m "${2:-dist/$version}")
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?$ ]] || fail "$version is no version like 1.2.3 or 1.2.3rc1"
if [ -e "$out" ]; then
  [ -d "$out" ] && [ -z "$(ls -A "$out")" ] || fail "$out is there and is no empty folder: remove it or name another"
fi

echo "== state of the tree"
[ -z "$(git status --porcelain)" ] || fail "the tree has changes that are not committed"
! git rev-parse -q --verify "refs/tags/v$version" >/dev/null || fail "the tag v$version exists"

echo "== version"
named=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
[ "$named" = "$version" ] || fail "pyproject.toml has version $named"
cited=$(sed -n 's/^version: *//p' CITATION.cff)
[ "$cited" = "$version" ] || fail "CITATION.cff has version $cited"
installed=$(python -c 'import quadgate; print(quadgate.__version__)')
[ "$installed" = "$version" ] || fail "the installed package has version $installed: install it again"

echo "== changelog"
first=$(sed -n 's/^## //p' CHANGELOG.md | head -n 1)
[ "${first%% *}" = "$version" ] || fail "the first entry of CHANGELOG.md is \"$first\""
notes=$(awk '/^## /{ if (inside) exit; inside = 1; next } inside' CHANGELOG.md)
[ -n "${notes//[[:space:]]/}" ] || fail "the entry of $version in CHANGELOG.md is empty"

echo "== style, site, tests"
ruff check .
ruff format --check .
mypy --strict
python -m sphinx -q -W -b html docs build/site
python -m pytest -q -n auto

echo "== wheels and sdist"
bash tools/wheels.sh "$out"

{
  echo "# quadgate $version"
  echo "$notes"
  printf '\n## Files\n\n```text\n'
  cat "$out/SHA256SUMS"
  printf '```\n'
} > "$out/NOTES.md"

[ -z "$(git status --porcelain)" ] || fail "building has changed the tree"
cat <<TEXT

$out is ready. Nothing has been published. To publish, a person runs

    git tag -a v$version -m "quadgate $version" && git push origin v$version

which starts .github/workflows/wheels.yml: wheels of all platforms, attestations, upload.
TEXT
