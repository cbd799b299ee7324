/* pass_state.h - the memory of a pass, shared by the files that make it up. */
#ifndef BG_PASS_STATE_H
#define BG_PASS_STATE_H

#include "bregman/direction.h"
#include "bregman/kernels.h"
#include "bregman/share.h"
#include "bregman/tap.h"

/* What the forward pass keeps of a block for its backward.  Norm outputs and activations
 * are recomputed: they are cheap beside the products. */
typedef struct {
    float *x; /* [rows, d]       input of the block                               */
    /* Of an MLP with experts: of each row and expert [rows, E] the part that the expert's output has; without
     * renormalisation the router's probability, also of those that were not chosen, with it 0 of these.  [rows k] the
     * rows that experts read, one expert's after the other's, each in the batch's order; [E + 1] where they begin. */
    float *part;
    uint32_t *expert_row;
    uint32_t *expert_start;
    float *qkv;       /* [rows, w_qkv]   after q/k norm and rotation                      */
    float *qk_raw;    /* [rows, w_qk]    before the q/k norm or clipping; NULL without    */
    float *att;       /* [rows, ld_att]  heads' outputs, with the homogeneous 1            */
    float *att_out;   /* [rows, d]       of attention_out, before its norm; where a norm follows */
    float *mid;       /* [rows, d]       residual between attention and MLP; not parallel  */
    float *gate, *up; /* [rows, d_ff]    before the activation; of experts [rows k, d_expert] as expert_row has them */
    float *mlp_out;   /* [rows, d]       of down, before its norm, where one follows        */
} bg_saved;

typedef struct bg_pass bg_pass;

struct bg_pass {
    const bg_model *model;
    bg_share share;
    size_t depth, slot; /* batches on their way, and the one in hand */
    size_t max_rows;
    void (*poke)(void *self);
    void *poked;
    size_t w_qk, w_qkv;         /* floats of a row of q and k, of q, k and v */
    size_t ld_d, ld_att, ld_ff; /* leading dimensions of the inputs a, room for the 1 */
    size_t chunk_rows;          /* rows of logits at a time */
    size_t weight_floats;       /* capacity of `weight` */
    int threads;
    float *arena;
    size_t n_saved;           /* blocks' states kept of a batch, and the last block's output */
    bg_saved *saved;          /* [depth][n_saved]; see bg_pass_saved */
    float *a_d, *a_ff;        /* [rows, ld_d], [rows, ld_ff]  inputs handed to taps */
    float *dx, *dmid, *da;    /* [rows, d]  gradients of the residual stream and of a norm's output */
    float *dqkv;              /* [rows, w_qkv] */
    float *datt;              /* [rows, H d_head] */
    float *dff, *dgate, *dup; /* [rows, d_ff] */
    float *head_x, *head_n;   /* [chunk, d]  gathered rows, and their norm or its gradient */
    float *a_head;            /* [chunk, ld_d] the head's input, if it or the final norm is tracked */
    size_t *loss_start;       /* [rows + 1] where the sequences' rows begin among those of a chunk */
    float *logits;            /* [chunk, vocab] */
    float *loss;              /* [rows] of bg_pass_backward; NULL: the share has no head */
    float *weight;            /* one matrix, widened to float32 */
    float *lora, *dlora;      /* [rows, most ranks]  h of an adapter's B, and the gradient at A's output */
    size_t score_floats;      /* of a thread */
    float *score;             /* [threads][2 * ATTENTION_ROWS * max_rows]; scores with a cap: 3 */
    float *attention_dot;     /* [threads][ATTENTION_ROWS] */
    float *cap_slope;         /* [threads][vocab] of logits with a cap, else NULL */
    float *rope;              /* [max_rows, rotary_dims] */
    float *sliding_rope;      /* the same, of blocks that slide */
    uint32_t *position;       /* [rows] */
    uint32_t *loss_row;       /* [rows] rows that are in the loss */
    size_t n_loss_rows;

    float *x_expert, *y_expert; /* [rows, d] an expert's rows of the MLP's input, and of its output or gradients */
    float *dpart;               /* [rows, E] */
    float *dot;                 /* [rows] */
    uint32_t *chosen;           /* [rows, k] each row's experts, that of the highest logit first */
    size_t *expert_pair;        /* [rows + 1] where the sequences' rows begin among an expert's */
};

enum { BG_ATTENTION_ROWS = 128 }; /* rows of queries at a time: causality saves the rest */

/* Rows [first, first + n) of a matrix as float32: in place, or widened into p->weight (valid until the next call),
 * where bg_pass_weight_rows of them fit at a time. */
const float *bg_pass_weight(bg_pass *p, const bg_tensor *t, size_t first, size_t n);
size_t bg_pass_weight_rows(const bg_pass *p, const bg_tensor *t);

/* The homogeneous coordinate of all inputs of the batch in hand: a column of ones that nothing overwrites.  Memory of
 * rows that no batch has is never touched. */
void bg_pass_set_ones(const bg_pass *p, size_t rows);

/* A norm of the model's kind with weights w. */
static inline bg_norm bg_norm_of(const bg_pass *p, const bg_norm_weights *w)
{
    return (bg_norm){ p->model->config.norm, p->model->config.norm_epsilon, w->gain, w->bias };
}

/* Let messages under way move on. */
static inline void bg_pass_poke(const bg_pass *p)
{
    if (p->poke != NULL)
        p->poke(p->poked);
}

/* State of a block of the share for the batch in hand; block share.end stands for the share's output.  Blocks without a
 * backward pass share the first. */
bg_saved *bg_pass_saved(const bg_pass *p, size_t block);
/* Which rows the batch in hand has, and which of them are in the loss.  Errors: BG_EARG, for more positions than the
 * model takes. */
bg_status bg_pass_set_rows(bg_pass *p, const bg_batch *b, bg_err *err) BG_MUST_CHECK;

/* Offset of a role's outputs within a row of qkv (separate q, k and v; a fused matrix has them all). */
size_t bg_qkv_offset(const bg_model_config *c, bg_role role);
/* Norms of q (which 0) and k (1), over each head or over all at once. */
typedef struct {
    bg_norm norm;
    bg_site *site;
    size_t n, d, offset, stride; /* so many of d floats, in rows of qkv and of qk_raw */
} bg_head_norm;
bg_head_norm bg_head_norm_of(const bg_model_config *c, const bg_block *blk, int which);
/* The rotary embedding of q and k, or with direction -1 its transpose. */
void bg_pass_rotate(const bg_pass *p, size_t l, size_t rows, float *qkv, int direction);
/* From the gradient (or tangent) at q, k and v after clipping, if there is any, to that before. */
void bg_clip_gradient(const bg_pass *p, size_t rows, const bg_saved *s, float *dqkv);
/* The input of the attention (or MLP) modules, with its homogeneous 1, into p->a_d. */
void bg_module_input(const bg_pass *p, const bg_norm_weights *norm, size_t rows, const float *x);
/* h = act(up), or act(gate) * up, into p->a_ff. */
void bg_mlp_hidden(const bg_pass *p, const bg_block *blk, size_t rows, const bg_saved *s);
/* dx = dy act'(up), without a gate; [rows, d_ff] each. */
void bg_mlp_slope(const bg_pass *p, const bg_block *blk, size_t rows, const float *up, const float *dy, float *dx);

/* The MLP of a block with experts, of the input in p->a_d (experts.c).  Which rows an expert reads is worked out anew.
 *   y [in,out, rows x d]  += the experts' outputs */
void bg_experts_forward(bg_pass *p, const bg_block *blk, size_t rows, const bg_saved *s, float *y);
/* Its tangent, into p->dmid, from that of the input, in p->da, and the input, in p->a_d.
 *   direction [n_tracked]; product [rows, rank] is room */
void bg_experts_tangent(bg_pass *p, const bg_block *blk, size_t rows, const bg_direction *direction, float *product);

/* y = (accumulate ? y : 0) + a Wᵀ without the bias, the same with it, and dx = (accumulate ? dx : 0) + dy W; W with
 * what an adapter adds to it. */
void bg_pass_times(bg_pass *p, const bg_site *site, size_t rows, bg_in a, bg_out y, bool accumulate);
/* Of a module with an adapter (site.h), over rows: h = s A a into p->lora, y += B h from there, and s Bᵀ dy, the
 * gradient at A's output, into p->dlora. */
void bg_pass_lora_hidden(bg_pass *p, const bg_site *site, size_t rows, bg_in a);
void bg_pass_lora_output(bg_pass *p, const bg_site *site, size_t rows, bg_out y);
void bg_pass_lora_back(bg_pass *p, const bg_site *site, size_t rows, bg_in dy);

void bg_pass_linear(bg_pass *p, const bg_site *site, size_t rows, bg_in a, bg_out y, bool accumulate);
void bg_pass_linear_back(bg_pass *p, const bg_site *site, size_t rows, bg_in dy, bg_out dx, bool accumulate);

/* Causal attention of every document of the batch over qkv, and its gradient: datt -> dqkv. */
void bg_attention_forward(bg_pass *p, size_t block, const bg_batch *b, const float *qkv, float *att);
void bg_attention_backward(bg_pass *p, size_t block, const bg_batch *b, const float *qkv, const float *att,
                           const float *datt, float *dqkv);
/* Its tangent: from that of qkv to that of att, tatt [rows, H d_head]. */
void bg_attention_tangent(bg_pass *p, size_t block, const bg_batch *b, const float *qkv, const float *tqkv,
                          float *tatt);

/* y [rows, P] += ā Vᵀ, if V is not 0.  product [rows, rank] is room.  a is no one-hot input. */
void bg_direction_apply(const bg_direction *v, const bg_site *site, size_t rows, bg_in a, float *product, bg_out y);

/* What the head does with a tangent: from that of the final norm's input to those of the losses, and, where there is a
 * tap, on to the Gauss-Newton product's gradient. */
typedef struct {
    const bg_direction *direction; /* in the head's weights */
    const float *x;                /* [rows, d] tangent at the final norm's input */
    float *norm, *logits;          /* [chunk, d], [chunk, vocab] room */
    float *product;                /* [chunk, rank] room */
    float *loss;                   /* [rows, may be NULL] out; 0 where not in the loss */
} bg_head_tangent;

/* A backward pass under way; tap NULL: only the loss is wanted. */
typedef struct {
    bg_pass *p;
    const bg_batch *batch;
    const bg_tap *tap;
    bg_err *err;
    const bg_head_tangent *tangent; /* NULL: the loss's own gradient is what goes back */
} bg_backward;
/* Head, blocks and embeddings of the share, in this order, of the batch in the slot. */
bg_status bg_share_backward(const bg_backward *w, size_t slot, bg_labels labels, float *dx, float *loss) BG_MUST_CHECK;

/* Hand a site's pair of all rows to the tap, if the site is tracked and wanted; site NULL: there is none.
 *   a   [in]  its input: [rows, M], of a norm [rows, n_out]
 *   dy  [in]  [rows, n_out] */
bg_status bg_tap_site(const bg_backward *w, const bg_site *site, bg_in a, bg_in dy) BG_MUST_CHECK;
/* The same of an expert's rows: a and dy begin with the first of them. */
bg_status bg_tap_expert(const bg_backward *w, const bg_saved *s, const bg_site *site, bg_in a, bg_in dy) BG_MUST_CHECK;
/* Taps of a block's experts and router, and in p->da the gradient at their input, if that is needed.
 *   x, dy [in, rows x d]  the input before its norm, and the gradient at what bg_experts_forward added */
bg_status bg_experts_backward(const bg_backward *w, size_t l, const float *x, const float *dy) BG_MUST_CHECK;
/* The embeddings' of tokens and positions: dx [rows, d] is the gradient at what they have made; on return it is 0 where
 * a token was erased. */
bg_status bg_tap_embeddings(const bg_backward *w, float *dx) BG_MUST_CHECK;
/* Of rows [first, first + n) of p->loss_row only. */
typedef struct {
    size_t first, n;
} bg_rows_of_loss;
bg_status bg_tap_loss_rows(const bg_backward *w, const bg_site *site, bg_rows_of_loss r, bg_in a,
                           bg_in dy) BG_MUST_CHECK;

/* Final norm, head and loss of x over the rows in p->loss_row, in chunks, with their taps; dx [out, rows x d, may be
 * NULL]: gradient of the summed loss. */
bg_status bg_head_run(const bg_backward *w, bg_labels labels, const float *x, float *dx, float *loss) BG_MUST_CHECK;

/* Rows of logits at a time: all, if the head is tracked, whose pair is handed over whole unless the model is trained. */
static inline size_t bg_head_rows(const bg_model *m, size_t logits_bytes, size_t max_rows)
{
    size_t rows = logits_bytes / (m->config.vocab_size * sizeof(float));
    rows = rows > 1 ? rows : 1;
    return rows < max_rows && (m->trained || bg_model_tracked_head(m) == NULL) ? rows : max_rows;
}

/* Logits of all rows of x: [n, vocab]. */
void bg_head_logits(bg_pass *p, size_t n_rows, const float *x, float *logits);

#endif /* BG_PASS_STATE_H */
