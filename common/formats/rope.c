/* rope.c - rotary positions.  transformers 4 spells them rope_theta and rope_scaling {type or rope_type, ...},
 * transformers 5 rope_parameters {rope_type, rope_theta, ...}; both are read. */
#include "bregman/rope.h"

#include <math.h>
#include <string.h>

#include "json.h"
#include "rope.h"

static const double DEFAULT_THETA = 10000;

/* Where the settings of some blocks are: an object, or NULL if all are at the root or nowhere. */
typedef struct {
    const json_t *root, *settings;
    const bg_family *family;
    const char *file;
} source;

/* A group of blocks has settings of its own. */
static const json_t *of_layers(const json_t *settings, const char *type)
{
    return json_is_object(settings) ? bg_json_value(settings, type) : NULL;
}

static bg_status find_object(const source *s, const char *key, const json_t **out, bg_err *err)
{
    const json_t *v = bg_json_value(s->root, key);
    if (v != NULL && !json_is_object(v))
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is not an object in \"%s\"", key, s->file);
    if (v != NULL && json_object_size(v) > 0)
        *out = v;
    return BG_OK;
}

/* Of families whose blocks all have the same. */
static bg_status find_settings(source *s, bg_err *err)
{
    const char *const key[] = { "rope_scaling", "rope_parameters" };
    bg_status st = BG_OK;
    for (size_t i = 0; i < 2 && s->settings == NULL && st == BG_OK; i++) {
        st = find_object(s, key[i], &s->settings, err);
        if (of_layers(s->settings, "full_attention") != NULL || of_layers(s->settings, "sliding_attention") != NULL)
            return BG_FAIL(err, BG_EFORMAT, "%s that differ by layer are not supported in \"%s\"", key[i], s->file);
    }
    return st;
}

/* Of families whose sliding blocks have others: nested in "rope_parameters"; or "rope_scaling", of the full ones. */
static bg_status find_both(source *full, source *sliding, bg_err *err)
{
    const json_t *scaling = NULL, *nested = NULL;
    bg_status st = find_object(full, "rope_scaling", &scaling, err);
    if (st == BG_OK)
        st = find_object(full, "rope_parameters", &nested, err);
    if (st != BG_OK)
        return st;
    full->settings = scaling != NULL ? scaling : of_layers(nested, "full_attention");
    sliding->settings = of_layers(nested, "sliding_attention");
    if (nested != NULL && (scaling != NULL || (full->settings == NULL && sliding->settings == NULL)))
        return BG_FAIL(err, BG_EFORMAT,
                       "rope_parameters of %s must be those of full_attention and sliding_attention, without "
                       "rope_scaling, in \"%s\"",
                       full->family->model_type, full->file);
    return BG_OK;
}

static bg_status need_positive(const source *s, const char *key, double *out, bg_err *err)
{
    *out = 0;
    bg_status st = bg_json_positive(s->settings, key, s->file, out, err);
    if (st == BG_OK && *out <= 0)
        st = BG_FAIL(err, BG_EFORMAT, "key \"%s\" is missing from the rope settings in \"%s\"", key, s->file);
    return st;
}

/* "dynamic" changes frequencies beyond max_position_embeddings only, where no sequence is: within, it is "default". */
static bg_status read_kind(bg_rope *r, const source *s, bg_err *err)
{
    static const struct {
        const char *name;
        bg_rope_kind kind;
    } known[] = { { "default", BG_ROPE_DEFAULT },
                  { "linear", BG_ROPE_LINEAR },
                  { "dynamic", BG_ROPE_DEFAULT },
                  { "llama3", BG_ROPE_LLAMA3 },
                  { "yarn", BG_ROPE_YARN } };
    const char *type = "default";
    bg_status st = bg_json_text(s->settings, "type", s->file, &type, err);
    if (st == BG_OK)
        st = bg_json_text(s->settings, "rope_type", s->file, &type, err);
    if (st != BG_OK)
        return st;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(type, known[i].name) == 0) {
            r->kind = known[i].kind;
            return strcmp(type, "dynamic") == 0 ? need_positive(s, "factor", &r->factor, err) : BG_OK;
        }
    return BG_FAIL(err, BG_EFORMAT,
                   "rope type \"%.64s\" is not supported in \"%s\"; supported: default, linear, dynamic, llama3, yarn",
                   type, s->file);
}

static bg_status read_llama3(bg_rope *r, const source *s, bg_err *err)
{
    bg_status st = need_positive(s, "low_freq_factor", &r->low_freq, err);
    if (st == BG_OK)
        st = need_positive(s, "high_freq_factor", &r->high_freq, err);
    if (st != BG_OK)
        return st;
    if (r->high_freq <= r->low_freq)
        return BG_FAIL(err, BG_EFORMAT, "high_freq_factor %g is not above low_freq_factor %g in \"%s\"", r->high_freq,
                       r->low_freq, s->file);
    return bg_json_positive(s->settings, "original_max_position_embeddings", s->file, &r->original_positions, err);
}

/* transformers' get_mscale. */
static double mscale_of(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

/* "truncate" is looked for at the root of the settings only, as transformers does. */
static bg_status read_yarn(bg_rope *r, const source *s, size_t max_positions, bg_err *err)
{
    double mscale = 0, mscale_all = 0, attention = 0;
    bool truncate = true;
    const struct {
        const char *key;
        double *out;
    } number[] = { { "original_max_position_embeddings", &r->original_positions },
                   { "beta_fast", &r->beta_fast },
                   { "beta_slow", &r->beta_slow },
                   { "mscale", &mscale },
                   { "mscale_all_dim", &mscale_all },
                   { "attention_factor", &attention } };
    bg_status st = BG_OK;
    r->beta_fast = 32;
    r->beta_slow = 1;
    for (size_t i = 0; i < sizeof number / sizeof number[0] && st == BG_OK; i++)
        st = bg_json_positive(s->settings, number[i].key, s->file, number[i].out, err);
    if (st == BG_OK && !s->family->has_sliding_rope)
        st = bg_json_flag(s->settings, "truncate", s->file, &truncate, err);
    r->exact_range = !truncate;
    if (json_is_null(json_object_get(s->settings, "factor")))
        r->factor = (double)max_positions / r->original_positions;
    r->attention_factor = attention > 0 ? attention
                          : mscale > 0 && mscale_all > 0
                              ? mscale_of(r->factor, mscale) / mscale_of(r->factor, mscale_all)
                              : mscale_of(r->factor, 1);
    return st;
}

/* How much of a head is rotated. */
static bg_status read_rotary_dims(bg_model_config *c, const source *s, bg_err *err)
{
    const bg_family *f = s->family;
    double fraction = f->default_rotary_fraction;
    const char *key = f->rotary_fraction != NULL ? f->rotary_fraction : "partial_rotary_factor";
    bg_status st = bg_json_positive(s->root, key, s->file, &fraction, err);
    if (st == BG_OK)
        st = bg_json_positive(s->settings, "partial_rotary_factor", s->file, &fraction, err);
    if (st != BG_OK)
        return st;
    if (fraction > 1 || (f->rotary_fraction == NULL && fraction < 1))
        return BG_FAIL(err, BG_EFORMAT, "partial_rotary_factor %g is not supported for %s in \"%s\"", fraction,
                       f->model_type, s->file);
    c->rotary_dims = (size_t)((double)c->d_head * fraction);
    if (c->rotary_dims == 0 || c->rotary_dims % 2 != 0)
        return BG_FAIL(err, BG_EFORMAT,
                       "%zu of each head's %zu dimensions would be rotated in \"%s\", "
                       "which is not a positive even number",
                       c->rotary_dims, c->d_head, s->file);
    if (c->rotary_dims > 2 * BG_ROPE_MAX_PAIRS)
        return BG_FAIL(err, BG_EFORMAT,
                       "%zu of each head's %zu dimensions would be rotated in \"%s\": at most %d are "
                       "supported",
                       c->rotary_dims, c->d_head, s->file, 2 * BG_ROPE_MAX_PAIRS);
    return BG_OK;
}

static bg_status check_frequencies(const bg_rope *r, size_t rotary_dims, const char *file, bg_err *err)
{
    double freq[BG_ROPE_MAX_PAIRS];
    bg_rope_frequencies(r, rotary_dims, freq);
    for (size_t i = 0; i < rotary_dims / 2; i++)
        if (!isfinite(freq[i]))
            return BG_FAIL(err, BG_EFORMAT,
                           "rope_theta %g and the other rope settings in \"%s\" give a frequency of %g", r->theta, file,
                           freq[i]);
    return BG_OK;
}

/* r is the family's own on entry, its theta the default. */
static bg_status read_rope(bg_rope *r, bg_model_config *c, const source *s, const char *theta, bg_err *err)
{
    bg_status st = read_kind(r, s, err);
    r->factor = r->attention_factor = 1;
    r->original_positions = (double)c->max_positions;
    if (st == BG_OK && theta != NULL)
        st = bg_json_positive(s->root, theta, s->file, &r->theta, err);
    if (st == BG_OK)
        st = bg_json_positive(s->settings, "rope_theta", s->file, &r->theta, err);
    bool given = r->kind != BG_ROPE_YARN || !json_is_null(json_object_get(s->settings, "factor"));
    if (st == BG_OK && r->kind != BG_ROPE_DEFAULT && given)
        st = need_positive(s, "factor", &r->factor, err);
    if (st == BG_OK && r->kind == BG_ROPE_LLAMA3)
        st = read_llama3(r, s, err);
    if (st == BG_OK && r->kind == BG_ROPE_YARN)
        st = read_yarn(r, s, c->max_positions, err);
    return st;
}

static bg_status finish(bg_model_config *c, const bg_rope *r, const source *s, bg_err *err)
{
    bg_status st = read_rotary_dims(c, s, err);
    return st == BG_OK ? check_frequencies(r, c->rotary_dims, s->file, err) : st;
}

/* A theta at the root of a family that has no key for the sliding blocks' is theirs in transformers 4, not in 5. */
static bg_status check_shared_theta(const bg_model_config *c, const source *sliding, bg_err *err)
{
    double root = c->sliding_rope.theta;
    if (sliding->family->sliding_theta != NULL || bg_json_value(sliding->settings, "rope_theta") != NULL)
        return BG_OK;
    bg_status st = bg_json_positive(sliding->root, "rope_theta", sliding->file, &root, err);
    if (st == BG_OK && root != c->sliding_rope.theta)
        st =
            BG_FAIL(err, BG_EFORMAT,
                    "rope_theta %g: versions of transformers differ on what the sliding blocks of %s take, in \"%s\": give "
                    "rope_parameters of full_attention and sliding_attention",
                    root, sliding->family->model_type, sliding->file);
    return st;
}

bg_status bg_rope_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    source full = { root, NULL, f, file }, sliding = full;
    if (c->rope.kind == BG_ROPE_NONE)
        return BG_OK;
    c->rope.theta = c->rope.theta > 0 ? c->rope.theta : DEFAULT_THETA;
    c->has_sliding_rope = f->has_sliding_rope;
    bg_status st = f->has_sliding_rope ? find_both(&full, &sliding, err) : find_settings(&full, err);
    if (st == BG_OK && (full.settings != NULL || c->rope.kind == BG_ROPE_DEFAULT)) /* else the family's own */
        st = read_rope(&c->rope, c, &full, f->rope_theta != NULL ? f->rope_theta : "rope_theta", err);
    if (st == BG_OK)
        st = finish(c, &c->rope, &full, err);
    if (!f->has_sliding_rope)
        c->sliding_rope = c->rope;
    if (st != BG_OK || !f->has_sliding_rope)
        return st;
    st = read_rope(&c->sliding_rope, c, &sliding, f->sliding_theta, err);
    if (st == BG_OK)
        st = check_shared_theta(c, &sliding, err);
    return st == BG_OK ? finish(c, &c->sliding_rope, &sliding, err) : st;
}

/* transformers' _compute_llama3_parameters for one frequency: long wavelengths are stretched by the
 * factor, short ones kept, those between interpolated. */
static double llama3_frequency(const bg_rope *r, double freq)
{
    const double two_pi = 6.283185307179586;
    double wavelength = two_pi / freq;
    double low = r->original_positions / r->low_freq;
    double high = r->original_positions / r->high_freq;
    if (wavelength > low)
        return freq / r->factor;
    if (wavelength < high)
        return freq;
    double smooth = (r->original_positions / wavelength - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - smooth) * freq / r->factor + smooth * freq;
}

/* The pair that turns `rotations` times over the original positions. */
static double pair_with(const bg_rope *r, size_t dims, double rotations)
{
    const double two_pi = 6.283185307179586;
    return (double)dims * log(r->original_positions / (rotations * two_pi)) / (2 * log(r->theta));
}

/* transformers' _compute_yarn_parameters for pair i of theta^(2i / dims) = power, in float32 as there: frequencies of
 * pairs below the range are kept, above it stretched, between mixed. */
static float yarn_frequency(const bg_rope *r, size_t dims, size_t i, float power)
{
    double low = pair_with(r, dims, r->beta_fast), high = pair_with(r, dims, r->beta_slow), last = (double)dims - 1;
    low = r->exact_range ? low : floor(low);
    high = r->exact_range ? high : ceil(high);
    low = low < 0 ? 0 : low;
    high = high > last ? last : high;
    high += low == high ? 0.001 : 0;
    float ramp = ((float)i - (float)low) / (float)(high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    float kept = 1 - ramp, stretched = 1 / ((float)r->factor * power);
    return stretched * (1 - kept) + 1 / power * kept;
}

/* Rounded to float32 at each step: models are trained and run with float32 frequencies, and
 * over thousands of positions the difference would be seen. */
void bg_rope_frequencies(const bg_rope *r, size_t rotary_dims, double *freq)
{
    for (size_t i = 0; i < rotary_dims / 2 && r->kind != BG_ROPE_NONE; i++) {
        double exponent = (double)((float)(2 * i) / (float)rotary_dims);
        float power = (float)pow(r->theta, exponent);
        double x = (double)(1 / power);
        if (r->kind == BG_ROPE_LINEAR)
            x /= r->factor;
        else if (r->kind == BG_ROPE_LLAMA3)
            x = llama3_frequency(r, x);
        else if (r->kind == BG_ROPE_YARN)
            x = (double)yarn_frequency(r, rotary_dims, i, power);
        freq[i] = (double)(float)x;
    }
}
