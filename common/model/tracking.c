#include "bregman/tracking.h"

#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "bregman/log.h"

static bool is_attention(const bg_site *site) { return site->role < BG_ROLE_ROUTER; }

/* q, k and v read one input; gate and up another, of an expert its rows.  Others read one of their own. */
static bool same_input(const bg_site *a, const bg_site *b)
{
    bool qkv = a->role <= BG_ROLE_V && b->role <= BG_ROLE_V;
    bool mlp = (a->role == BG_ROLE_GATE || a->role == BG_ROLE_UP) && (b->role == BG_ROLE_GATE || b->role == BG_ROLE_UP);
    return a->kind == BG_SITE_LINEAR && b->kind == BG_SITE_LINEAR && a->section == b->section && a->part == b->part &&
           a->part != BG_PART_LORA_B && a->expert == b->expert && (qkv || mlp);
}

/* What --modules asks for: words, or an expression. */
typedef struct {
    bool words, mlp, attention, router, shared, adapter, embedding, head, norm, position;
    regex_t expression;
} selection;

/* False if one of the words is none of ours: then all is an expression. */
static bool parse_words(const char *text, selection *out)
{
    const struct {
        const char *word;
        bool *set[7];
    } known[] = { { "mlp", { &out->mlp } },
                  { "attention", { &out->attention } },
                  { "all", { &out->mlp, &out->attention } },
                  { "router", { &out->router } },
                  { "shared", { &out->shared } }, /* experts' A, in a block */
                  { "adapter", { &out->adapter } },
                  { "embedding", { &out->embedding } },
                  { "head", { &out->head } },
                  /* of models that are trained: others have no such sites */
                  { "norm", { &out->norm } },
                  { "position", { &out->position } },
                  { "everything",
                    { &out->mlp, &out->attention, &out->router, &out->embedding, &out->head, &out->norm,
                      &out->position } } };
    enum { N_WORDS = sizeof known / sizeof known[0] };
    for (const char *at = text;; at++) {
        size_t n = strcspn(at, ","), i = 0;
        while (i < N_WORDS && (strlen(known[i].word) != n || strncmp(at, known[i].word, n) != 0))
            i++;
        if (i == N_WORDS)
            return false;
        for (int k = 0; k < 7 && known[i].set[k] != NULL; k++)
            *known[i].set[k] = true;
        at += n;
        if (*at == '\0')
            return true;
    }
}

/* An expression that matches a module's name means its weights; the adapter's are meant by one that needs the end of
 * theirs, ".lora_A". */
static bool matches(const selection *s, const bg_site *site)
{
    char module[sizeof site->name];
    if (regexec(&s->expression, site->name, 0, NULL, 0) != 0)
        return false;
    if (site->part == BG_PART_WEIGHT)
        return true;
    snprintf(module, sizeof module, "%.*s", (int)(strlen(site->name) - strlen(".lora_A")), site->name);
    return regexec(&s->expression, module, 0, NULL, 0) != 0;
}

static bool selects(const selection *s, const bg_site *site)
{
    if (!s->words)
        return matches(s, site);
    if (site->part != BG_PART_WEIGHT)
        return s->adapter;
    switch (site->kind) {
    case BG_SITE_EMBEDDING: return s->embedding;
    case BG_SITE_HEAD: return s->head;
    case BG_SITE_POSITION: return s->position;
    case BG_SITE_NORM: return s->norm;
    default: return is_attention(site) ? s->attention : site->role == BG_ROLE_ROUTER ? s->router : s->mlp;
    }
}

/* The site, or of a block's experts that share their A the first, that keeps the A of a site's input. */
static size_t keeper_of(const bg_model *m, const bg_site *site, bool shared)
{
    const bg_section *section = &m->section[m->n_sections - 1];
    bool reads = shared && site->expert > 0 && site->role != BG_ROLE_DOWN;
    for (size_t i = section->first; i < section->end && reads; i++)
        if (m->tracked[i]->expert > 0 && m->tracked[i]->role != BG_ROLE_DOWN)
            return m->tracked[i]->index;
    return site->input;
}

static void add_tracked(bg_model *m, bg_site *site, bool shared)
{
    bg_section *last = m->n_sections > 0 ? &m->section[m->n_sections - 1] : NULL;
    site->tracked = true;
    site->index = site->input = m->n_tracked;
    for (size_t i = m->n_tracked; i-- > 0 && m->tracked[i]->section == site->section && site->input == site->index;)
        if (same_input(m->tracked[i], site))
            site->input = m->tracked[i]->input;
    if (last == NULL || last->number != site->section)
        m->section[m->n_sections++] = (bg_section){ site->section, m->n_tracked, m->n_tracked + 1 };
    else
        last->end++;
    m->tracked[m->n_tracked++] = site;
    site->keeper = keeper_of(m, site, shared);
}

static void number_layers(bg_model *m)
{
    size_t first = bg_model_tracked_embedding(m) != NULL;
    for (size_t i = 0; i < m->n_tracked; i++) {
        bg_site *s = m->tracked[i];
        s->layer = s->section == BG_SECTION_EMBEDDING ? 0 : first + bg_model_section_block(m, s->section);
    }
}

bg_status bg_model_track(bg_model *m, const char *modules, bg_err *err)
{
    selection s = { .words = false };
    if (*modules == '\0')
        return BG_FAIL(err, BG_EARG, "--modules is empty");
    s.words = parse_words(modules, &s);
    if (!s.words && regcomp(&s.expression, modules, REG_EXTENDED | REG_NOSUB) != 0)
        return BG_FAIL(
            err, BG_EARG,
            "--modules: \"%s\" is neither of mlp, attention, all, router, adapter, embedding and head nor a regular expression",
            modules);
    /* one matrix is trained or not, whichever of its uses is named */
    bool ends = m->trained && m->config.tied_head &&
                (selects(&s, bg_model_embedding(m)) || selects(&s, bg_model_head(m)));
    for (size_t i = 0; i < m->n_sites; i++)
        if (selects(&s, &m->site[i]) || (ends && (i == 0 || i == m->n_sites - 1)))
            add_tracked(m, &m->site[i], s.shared);
    if (!s.words)
        regfree(&s.expression);
    if (m->n_tracked == 0)
        return BG_FAIL(err, BG_EARG, "--modules \"%s\" matches no module of %s (try bregman-inspect)", modules, m->dir);
    m->lowest_block = bg_model_section_block(m, m->tracked[0]->section);
    number_layers(m);
    if (m->trained)
        return BG_OK;
    if (m->config.tied_head && bg_model_tracked_head(m) != NULL)
        bg_log("%s: the head is the embedding's matrix, transposed: what it does as a head is traced as if it had one of "
               "its own",
               m->dir);
    return bg_model_set_shapes(m, 1, false, err);
}

bg_status bg_model_set_shapes(bg_model *m, size_t k, bool head_blocks, bg_err *err)
{
    for (size_t i = 0; i < m->n_tracked; i++) {
        bg_site *s = m->tracked[i];
        s->a = (bg_symmetric){ s->n_in1, s->kind == BG_SITE_EMBEDDING ? s->n_in1 : k };
        s->s = (bg_symmetric){ s->n_out, s->kind == BG_SITE_HEAD && !head_blocks ? s->n_out : k };
        if (s->a.k > s->a.n || s->s.k > s->s.n)
            return BG_FAIL(err, BG_EARG, "--blocks %zu is more than %s has rows", k, s->name);
    }
    return BG_OK;
}
