"""Rows of other tools: adapters in scripts/peers compute their scores of the same model, sequences and queries.

An adapter is run by a Python that has the tool, [methods] peer_python or $BREGMAN_PEER_PYTHON: none of these tools is needed by
Bregman."""

import collections
import os
import shutil
import subprocess

import h5py
import numpy as np

from bregman import ROOT
from bregman.errors import UserError
from bregman.validate.modules import words_of

# package, requirement: on PyPI; tracks: the words of modules that it can score
Peer = collections.namedtuple("Peer", "adapter package requirement tracks")
KRONFLUENCE = Peer("kronfluence_scores", "kronfluence", "kronfluence==1.0.1", ("mlp", "attention", "head"))
BERGSON = Peer("bergson_scores", "bergson", "bergson==2.5.1", ("mlp", "attention"))


def adapter_path(peer):
    return os.path.join(ROOT, "scripts", "peers", peer.adapter)


def python_of(settings, name, peer):
    """The Python that adapters are run by."""
    where = f'{settings.path}: [methods] names: "{name}"'
    python = settings["methods"].get("peer_python") or os.environ.get("BREGMAN_PEER_PYTHON")
    if not python:
        raise UserError(
            f"{where} is run by a Python that has it: name that in [methods] peer_python or BREGMAN_PEER_PYTHON; python3 -m venv "
            f"peers && peers/bin/pip install h5py transformers {peer.requirement} makes one"
        )
    found = shutil.which(python)
    if not found:
        raise UserError(f'{where}: peer_python "{python}" is no program; name a Python that has {peer.package}')
    return found


def _import(python, peer):
    """(the adapter's line of versions, None), or (None, why there is none)."""
    command = [python, adapter_path(peer), "--version"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    said = ((done.stdout if done.returncode == 0 else done.stderr).strip().split("\n") or [""])[-1]
    said = said.removeprefix(f"{peer.adapter}: ")
    return (None, said.removeprefix("error: ") or f"exit code {done.returncode}") if done.returncode else (said, None)


def importable(peers):
    """Names of those of {name: Peer} that $BREGMAN_PEER_PYTHON, if it is set, has."""
    python = os.environ.get("BREGMAN_PEER_PYTHON")
    return [name for name, peer in peers.items() if python and shutil.which(python) and _import(python, peer)[0]]


def check(settings, peers):
    """{name: versions} of the peers {name: Peer}, each imported once, before anything is trained."""
    found = {}
    for name, peer in peers.items():
        python = python_of(settings, name, peer)
        found[name], why = _import(python, peer)
        if why:
            raise UserError(
                f'{settings.path}: [methods] names: "{name}" cannot be used with "{python}" ({why}): '
                f'"{python}" -m pip install h5py transformers {peer.requirement}, or leave it out'
            )
    return found


def scores(experiment, method, modules, damping):
    """[sequence, query]: as the curvature is block diagonal and each module has its own damping, the sum of those of the words."""
    return sum(_scores_of_word(experiment, method.peer, word, damping) for word in words_of(modules))


def _scores_of_word(experiment, peer, word, damping):
    folder = experiment.path("peers", peer.package)
    output = os.path.join(folder, f"{word}-damping-{damping:g}.h5")
    os.makedirs(folder, exist_ok=True)
    if output not in experiment.made:
        options = {"model": experiment.model(), "tokens": experiment.tokens, "queries": experiment.queries}
        options.update(modules=word, damping_factor=damping, output=output, factors=os.path.join(folder, "factors"))
        python = python_of(experiment.settings, peer.package, peer)
        command = [python, adapter_path(peer)]
        experiment.stages.other(f"{peer.package} {word} damping-{damping:g}", peer.adapter, command, options)
        experiment.made[output] = True
    return experiment.read_peer(output, peer)


def read_scores(path, peer, shape):
    """What an adapter has left, believed only if it is what was asked for."""
    wrong = f'{peer.adapter}: "{path}"'
    try:
        with h5py.File(path, "r") as file:
            found = file["score"][:].astype(float)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{wrong} has no scores ({error}); remove it, and see the adapter's log") from None
    if found.shape != shape:
        raise UserError(f"{wrong} has scores of shape {found.shape}, not of {shape} sequences and queries; remove it")
    if not np.isfinite(found).all():
        raise UserError(
            f"{wrong} has {np.count_nonzero(~np.isfinite(found))} scores that are no numbers; try a larger damping"
        )
    return found
