#include "bregman/share.h"

#include "bregman/memory.h"

/* Does a share have the section? */
static bool has_section(const bg_share *s, size_t section)
{
    return section == BG_SECTION_EMBEDDING ? s->embeds
           : section == BG_SECTION_HEAD    ? s->has_head
                                           : section >= s->first && section < s->end;
}

static bool is_before(const bg_share *s, size_t section)
{
    return section == BG_SECTION_EMBEDDING ? !s->embeds : section != BG_SECTION_HEAD && section < s->first;
}

bg_section_range bg_share_sections(const bg_model *m, const bg_share *s)
{
    bg_section_range r = { 0, 0 };
    while (r.first < m->n_sections && is_before(s, m->section[r.first].number))
        r.first++;
    for (r.end = r.first; r.end < m->n_sections && has_section(s, m->section[r.end].number);)
        r.end++;
    return r;
}

bg_site_range bg_sections_sites(const bg_model *m, bg_section_range r)
{
    size_t first = r.first < m->n_sections ? m->section[r.first].first : m->n_tracked;
    return (bg_site_range){ first, r.end > r.first ? m->section[r.end - 1].end : first };
}

size_t bg_share_layers(const bg_model *m, const bg_share *s)
{
    return s->end - s->first + (s->embeds && bg_model_tracked_embedding(m) != NULL) +
           (s->has_head && bg_model_tracked_head(m) != NULL);
}

bg_share bg_model_whole(const bg_model *m)
{
    return (bg_share){ .end = m->config.n_blocks, .sites = { 0, m->n_tracked }, .embeds = true, .has_head = true };
}

/* cost [n_blocks + 1]: FLOPs a row of each block, and of the head. */
static void count_flops(const bg_model *m, const double *tap_flops, double *cost)
{
    for (size_t i = 0; i < m->n_sites; i++) {
        const bg_site *site = &m->site[i];
        size_t item = bg_model_section_block(m, site->section);
        double weights = site->kind == BG_SITE_EMBEDDING ? 0 : (double)site->n_out * (double)site->n_in;
        cost[item] += (item >= m->lowest_block ? 4 : 2) * bg_model_site_rows(m, site, weights);
        if (site->tracked && tap_flops != NULL)
            cost[item] += tap_flops[site->index];
    }
}

/* Fill shares from the front, none costlier than `most`, and leave each later share something to do.
 * Returns whether everything found a place; end [n]: one after the last item of each. */
static bool fits(const double *cost, size_t n_items, size_t n, double most, size_t *end)
{
    size_t at = 0;
    for (size_t r = 0; r < n; r++) {
        double sum = 0;
        size_t left = n - 1 - r; /* shares still to come: an item each at least */
        for (size_t taken = 0; at < n_items - left && (taken == 0 || sum + cost[at] <= most); taken++)
            sum += cost[at++];
        if (sum > most)
            return false;
        end[r] = at;
    }
    return at == n_items;
}

/* The least `most` is the sum of some run of items: bisection comes as close as float64 can tell apart. */
static void cut(const double *cost, size_t n_items, size_t n, size_t *end)
{
    double lo = 0, hi = 0;
    for (size_t i = 0; i < n_items; i++)
        hi += cost[i];
    for (int step = 0; step < 60; step++) {
        double mid = (lo + hi) / 2;
        if (fits(cost, n_items, n, mid, end))
            hi = mid;
        else
            lo = mid;
    }
    (void)fits(cost, n_items, n, hi, end);
}

bg_status bg_model_divide(const bg_model *m, size_t n, const double *tap_flops, bg_share *share, bg_err *err)
{
    size_t n_blocks = m->config.n_blocks;
    double *cost = NULL;
    size_t *end = NULL;
    if (n > n_blocks + 1)
        return BG_FAIL(err, BG_EARG, "--pipeline %zu: %s has %zu blocks and a head, so at most %zu ranks can share it",
                       n, m->dir, n_blocks, n_blocks + 1);
    bg_status st = BG_NEW(cost, n_blocks + 1, "shares of the model", err);
    if (st == BG_OK)
        st = BG_NEW(end, n, "shares of the model", err);
    if (st == BG_OK) {
        count_flops(m, tap_flops, cost);
        cut(cost, n_blocks + 1, n, end);
        for (size_t r = 0; r < n; r++) {
            share[r] =
                (bg_share){ .first = r == 0 ? 0 : end[r - 1], .end = end[r], .embeds = r == 0, .has_head = r == n - 1 };
            if (share[r].has_head) /* the head is the item after the blocks */
                share[r].end = n_blocks;
            share[r].sites = bg_sections_sites(m, bg_share_sections(m, &share[r]));
        }
    }
    bg_free(cost);
    bg_free(end);
    return st;
}

size_t bg_share_weight_bytes(const bg_model *m, const bg_share *share)
{
    const bg_tensor *embedding = bg_model_embedding(m)->weight, *head = bg_model_head(m)->weight;
    size_t bytes = share->embeds ? embedding->n_bytes : 0;
    if (share->has_head && (head != embedding || !share->embeds))
        bytes += head->n_bytes;
    for (size_t i = 0; i < m->n_sites; i++)
        if (m->site[i].section >= share->first && m->site[i].section < share->end)
            bytes += m->site[i].weight->n_bytes;
    return bytes;
}

bool bg_share_has_backward(const bg_model *model, const bg_share *share)
{
    return share->has_head || share->end > model->lowest_block;
}

bool bg_share_passes_gradient(const bg_model *model, const bg_share *share)
{
    return !share->embeds && share->first > model->lowest_block;
}
