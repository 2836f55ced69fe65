#!/usr/bin/env bash
# The recipe of the captioner that ships (how its run differed stands in README.md): make.sh FLICKR8K IMAGENET_WEIGHTS WORK
#
#   FLICKR8K          the data set: its folder, or where its zips are
#   IMAGENET_WEIGHTS  of Keras' MobileNetV3Small without top: a file, or imagenet to download them
#   WORK              a folder for all that comes about; an interrupted run goes on where it was
#
# The ImageNet encoder teaches and is not part of the result: the shipped encoder begins with random weights.
set -euo pipefail
data=$1 teacher=$2 work=$3
here=$(dirname "$0")

[ -f "$work/tutorial/config.json" ] ||
    capexport train --data "$data" --encoder-weights "$teacher" --out "$work/tutorial" \
        --dropout-rate 0.1 --epochs 50
[ -f "$work/encoder/encoder.weights.h5" ] ||
    capexport distill --data "$data" --teacher-weights "$teacher" --out "$work/encoder"
[ -f "$work/captioner/config.json" ] ||
    capexport train --data "$data" --encoder-weights "$work/encoder/encoder.weights.h5" --out "$work/captioner" \
        --init "$work/tutorial" --dropout-rate 0.1 --learning-rate 3e-4
[ -f "$work/best/config.json" ] ||
    capexport train --data "$data" --recipe best --encoder-weights "$work/captioner" --out "$work/best" \
        --init "$work/captioner" --word-epochs 0 --precision bfloat16
python -c "
import sys, capexport
capexport.save_captioner(capexport.load_captioner(sys.argv[1]), sys.argv[2], half=True, force=True)
" "$work/best" "$here/captioner"
