/* share.h - the model cut into contiguous shares for the ranks of a pipeline. */
#ifndef BG_SHARE_H
#define BG_SHARE_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/model.h"
#include "bregman/status.h"

/* Tracked sites [first, end), a rank's own or a part of them. */
typedef struct {
    size_t first, end;
} bg_site_range;

/* Sections [first, end) of bg_model.section. */
typedef struct {
    size_t first, end;
} bg_section_range;
bg_site_range bg_sections_sites(const bg_model *m, bg_section_range r);

/* The part of the model that one rank of a pipeline runs: blocks [first, end). */
typedef struct {
    size_t first, end;
    bg_site_range sites; /* of bg_model.tracked: those of these blocks, of the embedding and the head */
    bool embeds;         /* it starts from token ids rather than from the rank before */
    bool has_head;       /* it ends in the loss */
} bg_share;

/* Those of a share; and how many layers of layer scores it has, which follow one another. */
bg_section_range bg_share_sections(const bg_model *m, const bg_share *s);
size_t bg_share_layers(const bg_model *m, const bg_share *s);

/* The whole model as one share. */
bg_share bg_model_whole(const bg_model *m);

/* Cut the model into n contiguous shares so that the costliest one costs least: 2 FLOPs a row and weight forward, 2
 * backward where there is one, the head's, and the taps'.  The embedding costs nothing; the last share
 * may be the head alone.
 *   tap_flops [in, n_tracked, may be NULL]: FLOPs a row of each tracked module's tap.
 *   share [out, n].
 * Errors: BG_EARG if there are fewer blocks and head than shares. */
bg_status bg_model_divide(const bg_model *m, size_t n, const double *tap_flops, bg_share *share,
                          bg_err *err) BG_MUST_CHECK;

/* Weights that it maps, its embedding included. */
size_t bg_share_weight_bytes(const bg_model *m, const bg_share *share);

/* Does backward reach the share's output at all, and go on below its first block? */
bool bg_share_has_backward(const bg_model *model, const bg_share *share);
bool bg_share_passes_gradient(const bg_model *model, const bg_share *share);

#endif /* BG_SHARE_H */
