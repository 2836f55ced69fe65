#!/usr/bin/env bash
# 64-bit Arm: bundles on an emulated processor, and what they say there beside what they say here.
#
#     benchmarks/arm.sh BUNDLE...
#
# Needs Debian's qemu-user-static, apt-get (no root), pip, and this machine's own Python with the thin runtime
# (PYTHON=...). Debian's Python for arm64 and the aarch64 wheels of numpy, Pillow, simplejpeg, onnxruntime and
# ai-edge-litert are unpacked into a folder (ARM_ROOT=..., by default in the user's cache), where they stay; nothing is
# installed. First each bundle proves itself on the emulated processor (capexport verify), then a table compares 6 sample
# photos and 50 (CROPS=...) crops of them. CPU=... names the processor: cortex-a76, which multiplies int8 by dot products,
# is the default; cortex-a72 cannot; max has all that qemu knows, and some of it fails.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
root=${ARM_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/capexport/arm64}
bundles=$(realpath "$@")
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1

if [ ! -e "$root/ready" ]; then
    echo "Unpacking Python and the engines for arm64 into $root, once ..." >&2
    state=$root/apt
    mkdir -p "$root/system/proc" "$root/site" "$root/wheels" "$state/lists/partial" "$state/cache/archives/partial"
    : > "$state/status"
    options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$state" -o APT::Sandbox::User=root
        -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache")
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install --download-only --yes --no-install-recommends python3-minimal python3 libstdc++6
    for package in "$state"/cache/archives/*.deb; do dpkg -x "$package" "$root/system"; done
    version=$(cd "$root/system/usr/bin" && ls python3.* | sed 's/^python//' | sort -V | tail -1)
    sed -n 's/^\([A-Za-z0-9._-]*==[^ ;\\]*\).*/\1/p' "$here/.ci/requirements-test.txt" | awk -F== '!seen[$1]++' > "$root/pins.txt"
    "$python" -m pip download --quiet --only-binary=:all: --implementation cp --python-version "$version" \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --constraint "$root/pins.txt" --dest "$root/wheels" numpy pillow simplejpeg onnxruntime ai-edge-litert
    for wheel in "$root"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$root/site"; done
    # onnxruntime reads the processor's cores from here, and does not survive another architecture's.
    for core in 0 1; do
        printf 'processor\t: %s\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n\n' "$core"
    done > "$root/system/proc/cpuinfo"
    echo "$version" > "$root/ready"
fi
arm() {
    qemu-aarch64-static -cpu "${CPU:-cortex-a76}" -L "$root/system" -E PYTHONPATH="$here:$root/site" \
        "$root/system/usr/bin/python$(cat "$root/ready")" "$@"
}
arm -c 'import platform, onnxruntime; print(f"{platform.machine()}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}")'
arm "$here/benchmarks/machines.py" prove $bundles || echo "Not all of them are within their bounds."
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
arm "$here/benchmarks/machines.py" say "$work/arm.npz" $bundles --crops "${CROPS:-50}"
"$python" "$here/benchmarks/machines.py" say "$work/here.npz" $bundles --crops "${CROPS:-50}"
"$python" "$here/benchmarks/machines.py" compare "$work/here.npz" "$work/arm.npz"
