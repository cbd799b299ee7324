#include "marks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/mark.h"
#include "bregman/memory.h"

struct bg_marks {
    const bg_store *s;
    bool loss, documents, signs;
    uint8_t begins;  /* the mark of a piece's first token */
    uint64_t *piece; /* [n + 1] pieces before each sequence */
};

/* One of two words, or absent: then the first. */
static bg_status read_word(const bg_store *s, const char *name, const char *const word[2], bool *second, bg_err *err)
{
    char *text = NULL;
    bool found = false;
    bg_status st = bg_store_get_text(s, "/", name, &text, &found, err);
    *second = st == BG_OK && found && strcmp(text, word[1]) == 0;
    if (st == BG_OK && found && !*second && strcmp(text, word[0]) != 0)
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\": its attribute %s is \"%.40s\", neither \"%s\" nor \"%s\"",
                     bg_store_path(s), name, text, word[0], word[1]);
    free(text);
    return st;
}

bg_status bg_marks_look(const bg_store *s, bool *any, bool *restarts, bg_err *err)
{
    static const char *const attention[2] = { "sequence", "document" }, *const positions[2] = { "continue", "restart" };
    bg_status st = read_word(s, "attention", attention, any, err);
    if (st == BG_OK)
        st = read_word(s, "positions", positions, restarts, err);
    *restarts = *restarts && *any;
    *any = *any || bg_store_has(s, "loss");
    return st;
}

static bg_status open_pieces(bg_marks *m, uint64_t n, bg_err *err)
{
    uint64_t n_pieces = 0;
    bg_status st = BG_NEW(m->piece, n + 1, "pieces of sequences", err);
    if (st == BG_OK)
        st = bg_store_read(m->s, "piece/count", BG_I64, &n, m->piece + 1, err);
    for (uint64_t i = 0; i < n && st == BG_OK; i++)
        m->piece[i + 1] += m->piece[i];
    if (st == BG_OK)
        st = bg_store_dims(m->s, "piece/length", 1, &n_pieces, err);
    if (st == BG_OK && n_pieces != m->piece[n])
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\": its sequences have %" PRIu64 " pieces, but it has %" PRIu64,
                     bg_store_path(m->s), m->piece[n], n_pieces);
    return st;
}

bg_status bg_marks_open(bg_marks **out, const bg_store *s, uint64_t n, bg_err *err)
{
    bool any, restarts = false;
    bg_status st = BG_NEW(*out, 1, "marks of tokens", err);
    if (st != BG_OK)
        return st;
    bg_marks *m = *out;
    *m = (bg_marks){ .s = s, .loss = bg_store_has(s, "loss"), .signs = bg_store_has(s, "piece/sign") };
    static const char *const attention[2] = { "sequence", "document" };
    st = read_word(s, "attention", attention, &m->documents, err);
    if (st == BG_OK)
        st = bg_marks_look(s, &any, &restarts, err);
    m->begins = restarts ? BG_BEGINS | BG_RESTARTS : BG_BEGINS;
    return st == BG_OK && m->documents ? open_pieces(m, n, err) : st;
}

void bg_marks_free(bg_marks *m)
{
    if (m == NULL)
        return;
    bg_free(m->piece);
    bg_free(m);
}

static bg_status read_loss(const bg_marks *m, bg_slab tokens, uint8_t *out, bg_err *err)
{
    memset(out, BG_IN_LOSS, tokens.n);
    if (!m->loss)
        return BG_OK;
    bg_status st = bg_store_read_rows(m->s, "loss", BG_U8, tokens, out, err);
    for (uint64_t i = 0; i < tokens.n && st == BG_OK; i++)
        out[i] = out[i] != 0 ? BG_IN_LOSS : 0;
    return st;
}

/* A piece of n tokens. */
static bg_status mark_piece(const bg_marks *m, uint64_t n, int64_t sign, uint8_t *out, bg_err *err)
{
    if (sign != 1 && sign != -1)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\": a piece has the sign %" PRId64 ", neither 1 nor -1",
                       bg_store_path(m->s), sign);
    out[0] |= m->begins;
    for (uint64_t i = 0; i < n && sign < 0; i++)
        out[i] |= BG_MINUS;
    return BG_OK;
}

/* The pieces of a sequence of n tokens, a few at a time. */
static bg_status mark_pieces(const bg_marks *m, uint64_t sequence, uint64_t n, uint8_t *out, bg_err *err)
{
    enum { AT_ONCE = 64 };
    int64_t length[AT_ONCE], sign[AT_ONCE];
    uint64_t at = 0, end = m->piece[sequence + 1];
    bool fits = true;
    bg_status st = BG_OK;
    for (uint64_t i = m->piece[sequence]; i < end && st == BG_OK && fits; i += AT_ONCE) {
        const bg_slab some = { i, end - i < AT_ONCE ? end - i : AT_ONCE, 1 };
        st = bg_store_read_rows(m->s, "piece/length", BG_I64, some, length, err);
        if (st == BG_OK && m->signs)
            st = bg_store_read_rows(m->s, "piece/sign", BG_I64, some, sign, err);
        for (uint64_t k = 0; k < some.n && st == BG_OK && fits; k++) {
            fits = length[k] > 0 && (uint64_t)length[k] <= n - at;
            if (fits)
                st = mark_piece(m, (uint64_t)length[k], m->signs ? sign[k] : 1, out + at, err);
            at += fits ? (uint64_t)length[k] : 0;
        }
    }
    if (st == BG_OK && (!fits || at != n))
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\": the pieces of sequence %" PRIu64 " are not its %" PRIu64 " tokens",
                     bg_store_path(m->s), sequence, n);
    return st;
}

bg_status bg_marks_read(const bg_marks *m, uint64_t first, uint64_t end, bg_slab tokens, const uint64_t *sum,
                        uint8_t *out, bg_err *err)
{
    bg_status st = read_loss(m, tokens, out, err);
    for (uint64_t i = first; i < end && st == BG_OK && m->documents; i++)
        st = mark_pieces(m, i, sum[i - first + 1] - sum[i - first], out + (sum[i - first] - sum[0]), err);
    return st;
}
