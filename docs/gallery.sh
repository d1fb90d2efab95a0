#!/bin/sh
# Makes the pictures of gallery.md and of the README anew, in this folder; under two minutes each on two CPU cores, the first three four.
set -e
cd "$(dirname "$0")"
nst=${NST:-../.venv/bin/nst}

make() {  # make NAME FLAGS...: small and quick, by gatys unless another preset is named
  name=$1
  shift
  "$nst" --quiet --preset=gatys --size=400 --iterations=40 --output="$name.jpg" "$@"
}

show() {  # show CONTENT STYLE: what nst makes of two files, larger
  "$nst" --quiet --size=768 --output="$1-$2-default.jpg" --content="example:$1" --style="example:$2"
}

show coffee night
show rocket glass
show cat waves

make coffee-night --size=512 --content=example:coffee --style=example:night
make coffee-night-improved --size=512 --content=example:coffee --style=example:night --preset=improved
make coffee-night-strotss --content=example:coffee --style=example:night --preset=strotss
make coffee-night-patch --content=example:coffee --style=example:night --preset=patch
make cat-glass-photorealistic --content=example:cat --style=example:glass --photorealistic
make rocket-glass --content=example:rocket --style=example:glass
make rocket-glass-improved --content=example:rocket --style=example:glass --preset=improved
make cat-waves --content=example:cat --style=example:waves
make cat-mixed --content=example:cat --style=example:waves --style=example:glass --style_mix=1,1
make rocket-regions --content=example:rocket --style=example:night --style=example:glass \
  --style_mask=example:rocket-sky --style_mask=example:rocket-pad --mask_preview=rocket-masks.jpg
make rocket-waves --content=example:rocket --style=example:waves
make rocket-waves-labels --content=example:rocket --style=example:waves \
  --content_labels=example:rocket-labels --style_labels=example:waves-labels
make doodle-night --style=example:night --content_weight=0 --content_labels=example:doodle \
  --style_labels=example:night-labels --init=example:doodle --scales=130,400 --iterations=50,20
make coffee-cup --content=example:coffee --style=example:waves --content_mask=example:coffee-cup
make cat-glass --content=example:cat --style=example:glass
make cat-glass-luma_swap --content=example:cat --style=example:glass --preserve_color=luma_swap
make cat-glass-luma --content=example:cat --style=example:glass --preserve_color=luma
make cat-glass-match --content=example:cat --style=example:glass --preserve_color=match
make cat-glass-histogram --content=example:cat --style=example:glass --preserve_color=histogram
make cat-small-strokes --content=example:cat --style=example:glass --stroke_size=0.5
# docs/precision.jpg: coffee and night, cat and waves, cat and glass, each with --size=512 --iterations=150 --bit_depth=16: with --precision=float32 on a
# CPU (left) and bfloat16 on an H100 (right), put side by side and made smaller. docs/lanes-h100.png: lanes.png of nst-bench --suite=accelerator.
make texture-night --style=example:night --init=noise --content_weight=0 --style_layer_weights=64,16,4,1,1 --tv_weight=1e-5

# poster.jpg: three places cut out of two pictures of 1500 pixels, made at once (left) and from coarse to fine (right);
# half an hour on two CPU cores. poster-whole.jpg is the latter, made smaller.
folder=$(mktemp -d)
poster="--quiet --preset=gatys --parametrization=pixels --content=example:coffee --style=example:night --size=1500 --style_weight=8.6e8"
"$nst" $poster --iterations=40 --output="$folder/plain.png"
"$nst" $poster --scales=187,375,750,1500 --iterations=100,60,40,20 --output="$folder/scales.png"
"$(dirname "$nst")/python" poster.py "$folder/plain.png" "$folder/scales.png"
rm -r "$folder"
