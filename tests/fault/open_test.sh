#!/bin/sh
# Inputs that are no regular files or cannot be read: refused at once, by what they are or with the system's reason.
. "$(dirname "$0")/lib.sh"

works fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$in/f"
works compress_queries --model "$in/model" --factors "$in/f" --queries "$in/queries.h5" --output "$in/c.h5"
works score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$in/s"

fit() { refused "$1" "$2" fit_factors --model "$in/model" --tokens "$1" --output "$out"; }
candidates() { refused "$1" "$2" score_shards --model "$in/model" --queries "$in/c.h5" --tokens "$in/tokens.h5" --output "$out" --candidates "$1"; }
# with_model FILE REASON: a model whose FILE is this pipe
with_model() {
    cp -r "$in/model" "$work/model"
    rm -f "$work/model/$1"
    mkfifo "$work/model/$1"
    refused "$work/model/$1" "$2" fit_factors --model "$work/model" --tokens "$in/tokens.h5" --output "$out"
    rm -r "$work/model"
}

mkfifo "$work/pipe"
"$python" -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$work/socket"
fit "$work/pipe" "it is a named pipe"
fit "$work/socket" "it is a socket"
fit /dev/null "it is a device"
fit "$in/model" "it is a folder"
candidates "$work/pipe" "it is a named pipe"
candidates "$in/model" "it is a folder"
with_model model.safetensors "it is a named pipe"
with_model config.json "it is a named pipe"
with_model tokenizer.json "it is a named pipe"
# the system refuses to read where no memory is mapped
fit /proc/self/mem "Input/output error"
for file in "$work/pipe" /dev/null; do
    refused "$file" "it is a" inspect "$file"
done
refused /proc/self/mem "Input/output error" inspect /proc/self/mem

# as a later HDF5 would write it: a format whose number this one does not know
cp "$in/tokens.h5" "$work/later.h5"
printf '\011' | dd of="$work/later.h5" bs=1 seek=8 conv=notrunc 2> "$work/err"
fit "$work/later.h5" "made by an HDF5 newer than this"

# a folder's MANIFEST
cp -r "$in/s" "$work/s"
rm "$work/s/MANIFEST"
mkfifo "$work/s/MANIFEST"
refused "$work/s/MANIFEST" "it is a named pipe" merge_scores --scores "$work/s" --output "$out"
refused "$work/s/MANIFEST" "it is a named pipe" verify "$work/s"
rm "$work/s/MANIFEST"
mkdir "$work/s/MANIFEST"
refused "$work/s/MANIFEST" "it is a folder" merge_scores --scores "$work/s" --output "$out"
finish
