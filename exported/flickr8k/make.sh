#!/usr/bin/env bash
# The recipe of the captioner that ships: make.sh FLICKR8K IMAGENET_WEIGHTS WORK
#
#   FLICKR8K          the data set's folder, which holds Flicker8k_Dataset and Flickr8k_text
#   IMAGENET_WEIGHTS  of Keras' MobileNetV3Small without top: a file, or imagenet to download them
#   WORK              a folder for all that comes about
#
# The first command needs capexport[convert]; the second PyTorch, safetensors, numpy, Pillow and a GPU (eight minutes on
# one of 2024). They may run on two machines, with WORK/prepared and the photos carried from one to the other. The
# ImageNet encoder teaches and is not part of the result: the shipped encoder begins with random weights.
set -euo pipefail
data=$1 teacher=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd)

[ -f "$work/prepared/prepared.npz" ] || python "$here/training/prepare.py" "$data" "$teacher" "$work/prepared"
[ -f "$work/trained/distilled-best/config.json" ] ||
    python "$here/training/make.py" "$work/prepared" "$data/Flicker8k_Dataset" "$work/trained"
rm -rf "$here/captioner"
cp -r "$work/trained/distilled-best" "$here/captioner"
for format in onnx tflite; do
    capexport convert "$here/captioner" --to $format --recipe dynamic-int8 --out "$here/$format-dynamic-int8" --force
done
