/* rope.c - rotary positions.  transformers 4 spells them rope_theta and rope_scaling {type or rope_type, ...},
 * transformers 5 rope_parameters {rope_type, rope_theta, ...}; both are read. */
#include "bregman/rope.h"

#include <math.h>
#include <string.h>

#include "json.h"
#include "rope.h"

static const double DEFAULT_THETA = 10000;

/* The object with the rope settings, or NULL if all are at the root. */
static bg_status find_settings(const json_t *root, const char *file, const json_t **out, bg_err *err)
{
    const char *const key[] = { "rope_scaling", "rope_parameters" };
    *out = NULL;
    for (size_t i = 0; i < 2 && *out == NULL; i++) {
        const json_t *v = bg_json_value(root, key[i]);
        if (v != NULL && !json_is_object(v))
            return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is not an object in \"%s\"", key[i], file);
        if (v != NULL && json_object_size(v) > 0)
            *out = v;
        if (bg_json_value(*out, "full_attention") != NULL || bg_json_value(*out, "sliding_attention") != NULL)
            return BG_FAIL(err, BG_EFORMAT, "%s that differ by layer are not supported in \"%s\"", key[i], file);
    }
    return BG_OK;
}

static bg_status read_kind(bg_model_config *c, const json_t *settings, const char *file, bg_err *err)
{
    const char *type = "default";
    bg_status st = bg_json_text(settings, "type", file, &type, err);
    if (st == BG_OK)
        st = bg_json_text(settings, "rope_type", file, &type, err);
    if (st != BG_OK)
        return st;
    if (strcmp(type, "default") == 0)
        c->rope = BG_ROPE_DEFAULT;
    else if (strcmp(type, "linear") == 0)
        c->rope = BG_ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0)
        c->rope = BG_ROPE_LLAMA3;
    else
        st = BG_FAIL(err, BG_EFORMAT,
                     "rope type \"%.64s\" is not supported in \"%s\"; supported: default, linear, llama3", type, file);
    return st;
}

static bg_status need_positive(const json_t *settings, const char *key, const char *file, double *out, bg_err *err)
{
    *out = 0;
    bg_status st = bg_json_positive(settings, key, file, out, err);
    if (st == BG_OK && *out <= 0)
        st = BG_FAIL(err, BG_EFORMAT, "key \"%s\" is missing from the rope settings in \"%s\"", key, file);
    return st;
}

static bg_status read_llama3(bg_model_config *c, const json_t *settings, const char *file, bg_err *err)
{
    bg_status st = need_positive(settings, "low_freq_factor", file, &c->llama3_low_freq, err);
    if (st == BG_OK)
        st = need_positive(settings, "high_freq_factor", file, &c->llama3_high_freq, err);
    if (st != BG_OK)
        return st;
    if (c->llama3_high_freq <= c->llama3_low_freq)
        return BG_FAIL(err, BG_EFORMAT, "high_freq_factor %g is not above low_freq_factor %g in \"%s\"",
                       c->llama3_high_freq, c->llama3_low_freq, file);
    c->llama3_original_positions = (double)c->max_positions;
    return bg_json_positive(settings, "original_max_position_embeddings", file, &c->llama3_original_positions, err);
}

/* How much of a head is rotated. */
static bg_status read_rotary_dims(bg_model_config *c, const json_t *root, const json_t *settings, const bg_family *f,
                                  const char *file, bg_err *err)
{
    double fraction = f->default_rotary_fraction;
    const char *key = f->rotary_fraction != NULL ? f->rotary_fraction : "partial_rotary_factor";
    bg_status st = bg_json_positive(root, key, file, &fraction, err);
    if (st == BG_OK)
        st = bg_json_positive(settings, "partial_rotary_factor", file, &fraction, err);
    if (st != BG_OK)
        return st;
    if (fraction > 1 || (f->rotary_fraction == NULL && fraction < 1))
        return BG_FAIL(err, BG_EFORMAT, "partial_rotary_factor %g is not supported for %s in \"%s\"", fraction,
                       f->model_type, file);
    c->rotary_dims = (size_t)((double)c->d_head * fraction);
    if (c->rotary_dims == 0 || c->rotary_dims % 2 != 0)
        return BG_FAIL(err, BG_EFORMAT,
                       "%zu of each head's %zu dimensions would be rotated in \"%s\", "
                       "which is not a positive even number",
                       c->rotary_dims, c->d_head, file);
    if (c->rotary_dims > 2 * BG_ROPE_MAX_PAIRS)
        return BG_FAIL(err, BG_EFORMAT,
                       "%zu of each head's %zu dimensions would be rotated in \"%s\": at most %d are "
                       "supported",
                       c->rotary_dims, c->d_head, file, 2 * BG_ROPE_MAX_PAIRS);
    return BG_OK;
}

static bg_status check_frequencies(const bg_model_config *c, const char *file, bg_err *err)
{
    double freq[BG_ROPE_MAX_PAIRS];
    bg_rope_frequencies(c, freq);
    for (size_t i = 0; i < c->rotary_dims / 2; i++)
        if (!isfinite(freq[i]))
            return BG_FAIL(err, BG_EFORMAT,
                           "rope_theta %g and the other rope settings in \"%s\" give a frequency of %g", c->rope_theta,
                           file, freq[i]);
    return BG_OK;
}

bg_status bg_rope_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    const json_t *settings;
    if (c->rope == BG_ROPE_NONE)
        return BG_OK;
    c->rope_factor = 1;
    c->rope_theta = DEFAULT_THETA;
    bg_status st = find_settings(root, file, &settings, err);
    if (st == BG_OK)
        st = read_kind(c, settings, file, err);
    if (st == BG_OK)
        st = bg_json_positive(root, f->rope_theta != NULL ? f->rope_theta : "rope_theta", file, &c->rope_theta, err);
    if (st == BG_OK)
        st = bg_json_positive(settings, "rope_theta", file, &c->rope_theta, err);
    if (st == BG_OK && c->rope != BG_ROPE_DEFAULT)
        st = need_positive(settings, "factor", file, &c->rope_factor, err);
    if (st == BG_OK && c->rope == BG_ROPE_LLAMA3)
        st = read_llama3(c, settings, file, err);
    if (st == BG_OK)
        st = read_rotary_dims(c, root, settings, f, file, err);
    if (st == BG_OK)
        st = check_frequencies(c, file, err);
    return st;
}

/* transformers' _compute_llama3_parameters for one frequency: long wavelengths are stretched by the
 * factor, short ones kept, those between interpolated. */
static double llama3_frequency(const bg_model_config *c, double freq)
{
    const double two_pi = 6.283185307179586;
    double wavelength = two_pi / freq;
    double low = c->llama3_original_positions / c->llama3_low_freq;
    double high = c->llama3_original_positions / c->llama3_high_freq;
    if (wavelength > low)
        return freq / c->rope_factor;
    if (wavelength < high)
        return freq;
    double smooth = (c->llama3_original_positions / wavelength - c->llama3_low_freq) /
                    (c->llama3_high_freq - c->llama3_low_freq);
    return (1 - smooth) * freq / c->rope_factor + smooth * freq;
}

/* Rounded to float32 at each step: models are trained and run with float32 frequencies, and
 * over thousands of positions the difference would be seen. */
void bg_rope_frequencies(const bg_model_config *c, double *freq)
{
    for (size_t i = 0; i < c->rotary_dims / 2 && c->rope != BG_ROPE_NONE; i++) {
        double exponent = (double)((float)(2 * i) / (float)c->rotary_dims);
        double x = (double)(1 / (float)pow(c->rope_theta, exponent));
        if (c->rope == BG_ROPE_LINEAR)
            x /= c->rope_factor;
        else if (c->rope == BG_ROPE_LLAMA3)
            x = llama3_frequency(c, x);
        freq[i] = (double)(float)x;
    }
}
