/* inspect_model.c - a model's sizes, weights, and tracked modules with the sizes of their factors. */
#include <string.h>

#include "bregman/blockdiag.h"
#include "bregman/config.h"
#include "bregman/model_open.h"
#include "bregman/model.h"
#include "inspect.h"

static double megabytes(size_t n, size_t element_bytes) { return (double)n * (double)element_bytes / 1e6; }

/* What not all blocks do. */
static void print_blocks(FILE *to, const bg_model_config *c)
{
    size_t slide = 0, unrotated = 0;
    for (size_t i = 0; i < c->n_blocks; i++) {
        slide += bg_window_of(c, i) != SIZE_MAX;
        unrotated += (c->layer[i] & BG_LAYER_NO_ROPE) != 0;
    }
    if (slide > 0)
        fprintf(to, "  window        %zu positions, in %zu of %zu blocks", c->window, slide, c->n_blocks);
    if (slide > 0 && c->has_sliding_rope)
        fprintf(to, ", which rotate with theta %g", c->sliding_rope.theta);
    if (slide > 0)
        fputc('\n', to);
    if (unrotated > 0)
        fprintf(to, "  no rotation   in %zu of %zu blocks\n", unrotated, c->n_blocks);
}

static void print_architecture(FILE *to, const bg_model_config *c)
{
    static const char *const activation[] = {
        [BG_ACT_GELU_TANH] = "GELU (tanh)",
        [BG_ACT_GELU_ERF] = "GELU (erf)",
        [BG_ACT_SILU] = "SiLU",
        [BG_ACT_RELU] = "ReLU",
        [BG_ACT_XIELU] = "xIELU",
    };
    static const char *const scaling[] = {
        [BG_ROPE_NONE] = "",
        [BG_ROPE_DEFAULT] = "",
        [BG_ROPE_LINEAR] = ", linear scaling",
        [BG_ROPE_LLAMA3] = ", llama3 scaling",
        [BG_ROPE_YARN] = ", yarn scaling",
    };
    fprintf(to, "  family        %s: %s norm%s%s, %s MLP%s, %s head\n", c->family,
            c->norm == BG_NORM_RMS ? "RMS" : "layer",
            !bg_norms_outputs(c)              ? ""
            : c->names.attention_norm == NULL ? " after each layer"
                                              : " before and after each layer",
            c->parallel_residual ? ", parallel residual" : "", activation[c->activation], c->gated ? " (gated)" : "",
            c->tied_head ? "tied" : "untied");
    fprintf(to, "  sizes         %zu blocks, d_model %zu, d_ff %zu, vocabulary %zu\n", c->n_blocks, c->d_model, c->d_ff,
            c->vocab_size);
    if (c->n_experts > 0)
        fprintf(to, "  experts       %zu of d_ff %zu in a block, %zu for each token%s\n", c->n_experts, c->d_expert,
                c->experts_per_token, c->experts_renormalised ? ", renormalised" : "");
    fprintf(to, "  attention     %zu heads of %zu, %zu of keys and values%s\n", c->n_heads, c->d_head, c->n_kv_heads,
            c->qk_norm != BG_QK_NORM_NONE ? ", q and k normalised" : "");
    fprintf(to, "  positions     at most %zu, ", c->max_positions);
    if (c->rope.kind == BG_ROPE_NONE)
        fprintf(to, "learned\n");
    else
        fprintf(to, "rotary on %zu of %zu dimensions, theta %g%s\n", c->rotary_dims, c->d_head, c->rope.theta,
                scaling[c->rope.kind]);
    print_blocks(to, c);
}

/* Parameters, bytes by dtype, files. */
static void print_weights(FILE *to, const bg_model *m)
{
    enum { N_DTYPES = BG_ST_OTHER + 1 };
    size_t bytes[N_DTYPES] = { 0 }, n_files = 0, n = bg_tensors_count(m->tensors);
    for (size_t i = 0; i < n; i++) {
        const bg_tensor *t = bg_tensors_at(m->tensors, i);
        bytes[t->dtype] += t->n_bytes;
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++)
            seen = bg_tensors_at(m->tensors, j)->file == t->file;
        n_files += !seen;
    }
    fprintf(to, "  parameters    %zu\n  weights       %zu tensors in %zu file%s:", bg_model_parameters(m), n, n_files,
            n_files == 1 ? "" : "s");
    for (size_t d = 0; d < N_DTYPES; d++)
        if (bytes[d] > 0)
            fprintf(to, " %s %.1f MB", bg_st_dtype_name((bg_st_dtype)d), (double)bytes[d] / 1e6);
    fputc('\n', to);
}

static bg_status print_identity(FILE *to, const bg_model *m, bg_err *err)
{
    bg_hash model, tokenizer;
    bg_status st = bg_model_hash(m, &model, err);
    if (st == BG_OK)
        st = bg_model_tokenizer_hash(m, &tokenizer, err);
    if (st != BG_OK)
        return st;
    fprintf(to, "  content       %s\n  tokenizer     %s\n", model.hex,
            tokenizer.hex[0] != '\0' ? tokenizer.hex : "(no tokenizer.json)");
    return BG_OK;
}

static double side_megabytes(bg_symmetric s)
{
    return 2 * megabytes(s.n * bg_block_width(s.n, s.k), 4) + megabytes(s.n, 8);
}

/* Sizes in the factors' files: covariance and eigenvectors float32, eigenvalues float64, lambda, that of half the
 * sequences and the diagonal Fisher float32.  A module that reads another's input has that one's activation side; the
 * embedding's activations and the head's gradients have diagonals. */
static void print_modules(FILE *to, const bg_model *m, const char *modules, bg_factor_kind kind)
{
    int width = (int)strlen("total");
    for (size_t i = 0; i < m->n_tracked; i++)
        if ((int)strlen(m->tracked[i]->name) > width)
            width = (int)strlen(m->tracked[i]->name);
    size_t weights = 0;
    double total[3] = { 0 };
    fprintf(to, "\n  %zu of %zu modules are tracked (%s); factors in MB\n", m->n_tracked, m->n_sites, modules);
    fprintf(to, "  %-*s %15s %12s %12s %10s\n", width, "module", "P x M", bg_factor_side_name(kind, BG_SIDE_INPUT),
            bg_factor_side_name(kind, BG_SIDE_OUTPUT), "squares");
    for (size_t i = 0; i < m->n_tracked; i++) {
        const bg_site *site = m->tracked[i];
        size_t p = site->n_out, mm = site->n_in1;
        double size[3] = { bg_site_owns_input(site) ? side_megabytes(site->a) : 0, side_megabytes(site->s),
                           3 * megabytes(p * mm, 4) };
        fprintf(to, "  %-*s %7zu x %-5zu ", width, site->name, p, mm);
        if (bg_site_owns_input(site))
            fprintf(to, "%12.2f", size[0]);
        else
            fprintf(to, "%12s", "shared");
        fprintf(to, " %12.2f %10.2f\n", size[1], size[2]);
        weights += p * mm;
        for (int k = 0; k < 3; k++)
            total[k] += size[k];
    }
    fprintf(to, "  %-*s %15zu %12.2f %12.2f %10.2f\n", width, "total", weights, total[0], total[1], total[2]);
}

void inspect_families(FILE *to)
{
    bg_model_family f;
    fputs("model_type of config.json, checked on (tests/goldens): logits, losses, inputs and gradients of every module, and\n"
          "forward mode against PyTorch in float64, gradients against finite differences; trained: those of every parameter\n",
          to);
    for (size_t i = 0; bg_model_family_at(i, &f); i++)
        fprintf(to, "  %-12s %-11s %s\n", f.model_type, f.untrained == NULL ? "trained" : "not trained", f.cases);
}

bg_status inspect_model(FILE *to, const char *dir, const char *modules, bg_factor_kind kind, bg_err *err)
{
    bg_model *m;
    bg_status st = bg_model_open(&m, dir, modules, err);
    if (st == BG_OK)
        st = bg_factor_kind_shape(m, kind, 1, false, err);
    if (st != BG_OK) {
        bg_model_close(m);
        return st;
    }
    fprintf(to, "%s\n", dir);
    if (m->adapter != NULL)
        fprintf(to, "  adapter       LoRA on %zu modules of %s\n", bg_adapter_modules(m->adapter), m->base);
    print_architecture(to, &m->config);
    print_weights(to, m);
    st = print_identity(to, m, err);
    if (st == BG_OK)
        print_modules(to, m, modules, kind);
    bg_model_close(m);
    return st;
}
