/* inputs.h - the inputs of a stage, their identities, and the fingerprint made of them.
 *
 * A stage is a pure function of its options and inputs: the fingerprint, over the stage's name, the versions of format
 * and results, its identity options and its inputs' identities, tells whether a file was made by the same call.
 */
#ifndef BG_INPUTS_H
#define BG_INPUTS_H

#include "bregman/context.h"
#include "bregman/identity.h"
#include "bregman/store.h"
#include "bregman/tokens.h"

typedef struct {
    size_t n, capacity;
    char **name;
    bg_hash *hash;
    bg_hash call;        /* of what was asked for: options and inputs */
    bg_hash fingerprint; /* with what bg_inputs_choose added */
    bg_provenance run;   /* points into this struct and the context */
} bg_inputs;

/* Local: add one input.  BG_ENOMEM. */
bg_status bg_inputs_add(bg_inputs *in, const char *name, const bg_hash *hash, bg_err *err) BG_MUST_CHECK;
bg_status bg_inputs_add_file(bg_inputs *in, const char *path, bg_err *err) BG_MUST_CHECK;
bg_status bg_inputs_add_tokens(bg_inputs *in, bg_tokens *t, bg_err *err) BG_MUST_CHECK;
void bg_inputs_clear(bg_inputs *in);

/* Collective on ctx->grid.world.  Rank 0 has added everything with status st; afterwards all ranks have the same
 * inputs, fingerprint and provenance.  The other ranks' lists are empty before.
 *   also [in]  what else tells this call from others but is no option, "shard 3 of 16"; "" if there is nothing */
bg_status bg_inputs_share(bg_inputs *in, const bg_context *ctx, const char *also, uint64_t seed, bg_status st,
                          bg_err *err) BG_MUST_CHECK;
/* The fingerprint becomes that with another `also`, in which is what the call has chosen by itself that decides the
 * bytes of the result (bg_plan.identity); `call` stays.  Local, the same on all ranks. */
bg_status bg_inputs_choose(bg_inputs *in, const bg_context *ctx, const char *also, bg_err *err) BG_MUST_CHECK;

/* The fingerprint that bg_inputs_share would have given with another `also`: of what several calls have in common.
 * Local. */
bg_status bg_inputs_fingerprint(const bg_inputs *in, const bg_context *ctx, const char *also, bg_hash *out,
                                bg_err *err) BG_MUST_CHECK;

#endif /* BG_INPUTS_H */
