#include "bregman/training_data.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/rng.h"

static const size_t CACHED_BYTES = 256 << 20;

struct bg_training_data {
    bg_training_source from;
    uint64_t *order; /* [n_sequences] of the epoch */
    uint64_t epoch, at, given_of;
    uint32_t longest;
    uint32_t *token; /* of all sequences back to back, or of the one read last */
    bool cached;
    uint64_t *start; /* [n_sequences] of each in all, back to back */
    uint8_t *mark;   /* of all tokens; NULL: no file has any */
};

static void shuffle(bg_training_data *d)
{
    memcpy(d->order, d->from.sequence, d->from.n_sequences * sizeof *d->order);
    for (uint64_t i = d->from.n_sequences; i-- > 1;) {
        uint64_t j = (uint64_t)(bg_uniform(d->from.seed, d->epoch, (uint32_t)i) * (double)(i + 1));
        uint64_t other = d->order[j];
        d->order[j] = d->order[i];
        d->order[i] = other;
    }
}

static void begin(bg_training_data *d, uint64_t epoch)
{
    d->epoch = epoch;
    d->at = 0;
    shuffle(d);
}

/* Sequences [i, end) of the list, which are neighbours in the files. */
static bg_status read_run(bg_training_data *d, uint64_t i, uint64_t end, bg_err *err)
{
    const bg_training_source *s = &d->from;
    uint64_t first = s->sequence[i], last = first + (end - i);
    bg_status st = BG_OK;
    if (d->cached)
        st = bg_tokens_read(s->tokens, first, last, s->vocab_size, d->token + d->start[i], err);
    if (st == BG_OK && d->mark != NULL)
        st = bg_tokens_read_marks(s->tokens, first, last, d->mark + d->start[i], err);
    return st;
}

static bg_status read_all(bg_training_data *d, bg_err *err)
{
    const bg_training_source *s = &d->from;
    uint64_t n = 0;
    bg_status st = BG_NEW(d->start, s->n_sequences, "tokens", err);
    for (uint64_t i = 0; i < s->n_sequences && st == BG_OK; i++) {
        d->start[i] = n;
        n += bg_tokens_count(s->tokens, s->sequence[i]);
    }
    d->cached = n * sizeof *d->token <= CACHED_BYTES;
    if (st == BG_OK)
        st = BG_NEW(d->token, d->cached ? n : d->longest, "tokens", err);
    if (st == BG_OK && bg_tokens_are_marked(s->tokens))
        st = BG_NEW(d->mark, n, "marks of tokens", err);
    for (uint64_t i = 0, end; i < s->n_sequences && st == BG_OK && (d->cached || d->mark != NULL); i = end) {
        for (end = i + 1; end < s->n_sequences && s->sequence[end] - s->sequence[i] == end - i;)
            end++;
        st = read_run(d, i, end, err);
    }
    return st;
}

size_t bg_training_data_bytes(uint64_t n_sequences, uint64_t tokens, size_t longest)
{
    bool all = tokens * sizeof(uint32_t) <= CACHED_BYTES;
    return 2 * n_sequences * sizeof(uint64_t) + (all ? tokens : longest) * sizeof(uint32_t);
}

/* All but the tokens. */
static bg_status new_order(bg_training_data **out, const bg_training_source *from, bg_err *err)
{
    bg_training_data *d = NULL;
    assert(from->n_sequences > 0);
    bg_status st = BG_NEW(*out, 1, "training data", err);
    if (st != BG_OK)
        return st;
    d = *out;
    d->from = *from;
    for (uint64_t i = 0; i < from->n_sequences; i++) {
        uint32_t n = bg_tokens_count(from->tokens, from->sequence[i]);
        d->longest = n > d->longest ? n : d->longest;
    }
    st = BG_NEW(d->order, from->n_sequences, "order of sequences", err);
    if (st == BG_OK)
        begin(d, 0);
    return st;
}

bg_status bg_training_data_new(bg_training_data **out, const bg_training_source *from, bg_err *err)
{
    bg_status st = new_order(out, from, err);
    if (st == BG_OK)
        st = read_all(*out, err);
    if (st != BG_OK) {
        bg_training_data_free(*out);
        *out = NULL;
    }
    return st;
}

void bg_training_data_free(bg_training_data *d)
{
    if (d == NULL)
        return;
    bg_free(d->order);
    bg_free(d->token);
    bg_free(d->start);
    bg_free(d->mark);
    bg_free(d);
}

const uint64_t *bg_training_data_next(bg_training_data *d, size_t *n)
{
    uint64_t tokens = 0, first = d->at, end = d->at;
    if (first == d->from.n_sequences) {
        begin(d, d->epoch + 1);
        first = end = 0;
    }
    d->given_of = d->epoch;
    for (; end < d->from.n_sequences; end++) {
        tokens += bg_tokens_count(d->from.tokens, d->order[end]);
        if (tokens > d->from.batch_tokens && end > first)
            break;
    }
    *n = (size_t)(end - first);
    d->at = end;
    return d->order + first;
}

uint64_t bg_training_data_epoch(const bg_training_data *d) { return d->given_of; }

bg_status bg_training_source_steps(const bg_training_source *from, uint64_t epochs, uint64_t *steps, bg_err *err)
{
    bg_training_data *d;
    bg_status st = new_order(&d, from, err);
    *steps = 0;
    while (st == BG_OK && (d->epoch + 1 < epochs || (d->epoch + 1 == epochs && d->at < from->n_sequences))) {
        size_t n;
        (void)bg_training_data_next(d, &n);
        ++*steps;
    }
    bg_training_data_free(d);
    return st;
}

void bg_training_data_seek(bg_training_data *d, uint64_t step)
{
    size_t n;
    begin(d, 0);
    while (step-- > 0)
        (void)bg_training_data_next(d, &n);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int by_sequence(const void *a, const void *b)
{
    const bg_loss_term *x = a, *y = b;
    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* The first of the terms of a sequence that are masked; NULL: there are none. */
static const bg_loss_term *masked(const bg_training_data *d, uint64_t sequence)
{
    const bg_loss_term key = { .sequence = sequence }, *all = d->from.mask, *at;
    if (d->from.n_masked == 0)
        return NULL;
    at = bsearch(&key, all, d->from.n_masked, sizeof *all, by_sequence);
    while (at != NULL && at > all && at[-1].sequence == sequence)
        at--;
    return at;
}

static bool is_of(const bg_training_data *d, const bg_loss_term *at, uint64_t sequence)
{
    return at != NULL && at < d->from.mask + d->from.n_masked && at->sequence == sequence;
}

uint32_t bg_training_data_tokens(const bg_training_data *d, uint64_t sequence)
{
    return bg_tokens_count(d->from.tokens, sequence);
}

/* Where a sequence's tokens begin. */
static uint64_t start_of(const bg_training_data *d, uint64_t sequence)
{
    const bg_training_source *s = &d->from;
    const uint64_t *at = bsearch(&sequence, s->sequence, s->n_sequences, sizeof *at, by_number);
    assert(at != NULL);
    return d->start[at - s->sequence];
}

size_t bg_training_data_terms(const bg_training_data *d, uint64_t sequence)
{
    size_t tokens = bg_tokens_count(d->from.tokens, sequence), n = tokens - 1;
    const uint8_t *mark = d->mark == NULL ? NULL : d->mark + start_of(d, sequence);
    for (size_t i = 1; i < tokens && mark != NULL; i++)
        n -= !bg_mark_in_loss(mark[i]);
    for (const bg_loss_term *at = masked(d, sequence); is_of(d, at, sequence); at++)
        n -= mark == NULL || bg_mark_in_loss(mark[at->position]);
    return n;
}

static bg_status tokens_of(bg_training_data *d, uint64_t sequence, const uint32_t **out, bg_err *err)
{
    const bg_training_source *s = &d->from;
    *out = d->token;
    if (!d->cached)
        return bg_tokens_read(s->tokens, sequence, sequence + 1, s->vocab_size, d->token, err);
    *out += start_of(d, sequence);
    return BG_OK;
}

bg_status bg_training_data_add(bg_training_data *d, uint64_t sequence, bg_batch *b, bg_err *err)
{
    const uint32_t *token;
    size_t n = bg_tokens_count(d->from.tokens, sequence), first = b->n_rows;
    bg_status st = tokens_of(d, sequence, &token, err);
    if (st != BG_OK)
        return st;
    bool added = bg_batch_add(b, sequence, token, n, 0);
    assert(added);
    (void)added;
    if (d->mark != NULL)
        (void)bg_batch_mark(b, d->mark + start_of(d, sequence));
    for (const bg_loss_term *at = masked(d, sequence); is_of(d, at, sequence); at++)
        b->target[first + at->position - 1] = BG_NO_TARGET;
    return BG_OK;
}

uint32_t bg_training_data_longest(const bg_training_data *d) { return d->longest; }
