"""The batches of a training, by their definition (training_data.h): which sequences train_models takes in which step."""

MASK = 0xFFFFFFFF


def philox(key, counter):
    """Philox4x32-10 (Salmon et al. 2011): four words of 32 bits."""
    k, x = list(key), list(counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(p1 >> 32) ^ x[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ x[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return x


def uniform(seed, a, b):
    """bg_uniform of rng.h: in [0, 1)."""
    r = philox((seed & MASK, seed >> 32), (a & MASK, a >> 32, b, 0))
    return ((r[0] >> 5) * 67108864.0 + (r[1] >> 6)) / 9007199254740992.0


def epoch_order(sequences, seed, epoch):
    """The sequences (ascending numbers) as an epoch has them, from 0."""
    made = list(sequences)
    for i in range(len(made) - 1, 0, -1):
        j = int(uniform(seed, epoch, i) * (i + 1))
        made[i], made[j] = made[j], made[i]
    return made


def batches(lengths, batch_tokens, seed, epochs, sequences=None):
    """The sequences of every step, from their lengths in tokens; sequences: a subset's, ascending."""
    made = []
    for epoch in range(epochs):
        room = -1
        for z in epoch_order(range(len(lengths)) if sequences is None else sequences, seed, epoch):
            if lengths[z] > room:
                made.append([])
                room = batch_tokens
            made[-1].append(z)
            room -= lengths[z]
    return made
